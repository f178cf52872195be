"""What every store keeps to explain cache hits and misses: notes, earlier runs of a task, source texts."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from prefect_nb.interfaces import Entry, KeyParts, Store
from prefect_nb.model.events import TaskRunCreated, apply
from prefect_nb.model.fingerprints import Part
from prefect_nb.model.runs import TaskRun
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

PART = Part("input", "x", "00")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore.open(tmp_path / "home")
    yield opened
    opened.close()


def ran(store: Store, created_us: int, task_key: str, *parts: Part, **fields: object) -> KeyParts:
    run = TaskRun(id=uuid4(), name="run", state_id=uuid4(), task_key=task_key, dynamic_key="0", created_us=created_us)
    event = TaskRunCreated(run)
    told = KeyParts(run.id, task_key, list(parts), **fields)  # type: ignore[arg-type]
    store.write([Entry(apply(None, event), event, None)], {}, parts=[told])
    return told


def test_a_note_is_read_back(store: Store) -> None:
    told = ran(store, 1, "clean-00000001", note="unhashable input conn\ud800")

    found = store.key_parts(told.task_run_id)

    assert found is not None
    assert found.note is not None
    assert found.note.startswith("unhashable input conn")
    assert found.parts == []


def test_earlier_runs_are_those_of_the_name_same_code_first_newest_first(store: Store) -> None:
    other = [ran(store, at, "clean-00000002", PART) for at in (1, 2)]
    same = [ran(store, at, "clean-00000001", PART) for at in (3, 4, 5)]
    ran(store, 3, "clean-00000001")  # it has no key
    for key in ("clean-up-00000001", "cleaner-00000001", "clea-00000001", "clean.x-00000001"):
        ran(store, 3, key, PART)
    now = ran(store, 6, "clean-00000001", PART)
    ran(store, 7, "clean-00000001", PART)

    def found(limit: int) -> list[KeyParts]:
        return store.earlier_key_parts("clean-00000001", now.task_run_id, limit)

    assert found(50) == [*reversed(same), *reversed(other)]
    assert found(1) == [same[-1], other[-1]]
    assert store.earlier_key_parts("unknown-00000001", now.task_run_id, 5) == []


def test_a_run_without_a_key_is_no_run_before(store: Store) -> None:
    first = ran(store, 1, "clean-00000001", PART)
    ran(store, 2, "clean-00000001", note="no key")

    assert store.previous_key_parts("clean-00000001", uuid4()) == first


def test_source_texts_are_kept_once_and_apart_from_the_parts(store: Store) -> None:
    told = ran(store, 1, "clean-00000001", PART, sources={"aa": "def f(): ..."})
    ran(store, 2, "clean-00000001", PART, sources={"aa": "another text", "bb": "def g(): ..."})

    assert store.source_text("aa") in ("def f(): ...", "another text")
    assert store.source_text("bb") == "def g(): ..."
    assert store.source_text("cc") is None
    found = store.key_parts(told.task_run_id)
    assert found is not None
    assert found.sources == {}
