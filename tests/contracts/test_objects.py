"""What every store does with artifacts and variables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from prefect_nb.interfaces import Artifact, ArtifactQuery, Store, Variable
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

NOW = 1_790_000_000_000_000
FLOW, TASK = uuid4(), uuid4()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore.open(tmp_path / "home")
    yield opened
    problems = opened.check()
    opened.close()
    assert problems == []


def artifact(number: int, **fields: Any) -> Artifact:
    """An artifact; one with a greater number is newer."""
    return Artifact(id=UUID(int=number), created_us=NOW + number, updated_us=NOW + number, **fields)


def numbers(found: list[Artifact]) -> list[int]:
    return [item.id.int for item in found]


@pytest.mark.parametrize(
    "data",
    [
        None,
        "",
        "# title\n",
        12.5,
        True,
        [1, "two", None],
        {"text/html": "<b>x</b>", "nested": {"a": [1]}},
        "日本 \U0001f4a5",
    ],
)
def test_an_artifact_comes_back_as_it_was(store: Store, data: Any) -> None:
    kept = artifact(
        1,
        key="report",
        type="markdown",
        description="what happened",
        data=data,
        metadata={"a": "b"},
        flow_run_id=FLOW,
        task_run_id=TASK,
    )
    bare = artifact(2, data=data)
    store.objects.add_artifact(kept)
    store.objects.add_artifact(bare)
    assert store.objects.artifact(kept.id) == kept
    assert store.objects.artifact(bare.id) == bare
    assert store.objects.artifact(uuid4()) is None


def test_text_that_utf8_cannot_express_is_kept_readable(store: Store) -> None:
    store.objects.add_artifact(artifact(1, data={"name": "caf\udce9"}, description="caf\udce9"))
    found = store.objects.artifact(UUID(int=1))
    assert found is not None
    assert found.data["name"].startswith("caf")


def test_artifacts_by_key_by_run_and_the_newest_of_each_key(store: Store) -> None:
    for item in (
        artifact(1, key="a", flow_run_id=FLOW),
        artifact(2, key="b"),
        artifact(3, key="a", task_run_id=TASK),
        artifact(4, flow_run_id=FLOW, task_run_id=TASK),
    ):
        store.objects.add_artifact(item)

    def listed(**query: Any) -> list[int]:
        return numbers(store.objects.artifacts(ArtifactQuery(**query)))

    assert listed() == [4, 3, 2, 1]
    assert listed(limit=2) == [4, 3]
    assert listed(key="a") == [3, 1]
    assert listed(key="A") == []
    assert listed(latest=True) == [3, 2]
    assert listed(latest=True, key="a") == [3]
    assert listed(flow_run_ids=(FLOW,)) == [4, 1]
    assert listed(task_run_ids=(TASK,)) == [4, 3]
    assert listed(flow_run_ids=(FLOW,), task_run_ids=(TASK, uuid4())) == [4, 3, 1]
    assert listed(flow_run_ids=(uuid4(),)) == []


def test_large_data_may_be_left_out(store: Store) -> None:
    store.objects.add_artifact(artifact(1, data="x" * 98, flow_run_id=FLOW))
    store.objects.add_artifact(artifact(2, data="x" * 99, flow_run_id=FLOW))
    found = store.objects.artifacts(ArtifactQuery(flow_run_ids=(FLOW,), largest=100))
    assert [item.data for item in found] == [None, "x" * 98]


def test_of_two_versions_of_one_moment_one_is_the_newest(store: Store) -> None:
    for number in (1, 2):
        store.objects.add_artifact(Artifact(id=UUID(int=number), key="k", created_us=NOW))
    assert numbers(store.objects.artifacts(ArtifactQuery(latest=True))) == [2]


def test_an_update_changes_what_it_is_given(store: Store) -> None:
    store.objects.add_artifact(artifact(1, data=10.0, description="first", key="p"))
    assert store.objects.update_artifact(UUID(int=1), NOW + 50, data=0.0)
    found = store.objects.artifact(UUID(int=1))
    assert found == artifact(1, data=0.0, description="first", key="p").__class__(
        id=UUID(int=1), key="p", data=0.0, description="first", created_us=NOW + 1, updated_us=NOW + 50
    )
    assert store.objects.update_artifact(UUID(int=1), NOW + 60, description="second")
    found = store.objects.artifact(UUID(int=1))
    assert found is not None
    assert (found.data, found.description, found.updated_us) == (0.0, "second", NOW + 60)
    assert not store.objects.update_artifact(uuid4(), NOW)


def test_artifacts_are_dropped_by_id_or_by_key(store: Store) -> None:
    for number, key in enumerate(["a", "a", "b", None], start=1):
        store.objects.add_artifact(artifact(number, key=key))
    assert store.objects.delete_artifacts(key="a") == 2
    assert store.objects.delete_artifacts(key="a") == 0
    assert store.objects.delete_artifacts(id=UUID(int=4)) == 1
    assert store.objects.delete_artifacts() == 0
    assert numbers(store.objects.artifacts(ArtifactQuery())) == [3]


def variable(name: str, value: Any, at_us: int = NOW, **fields: Any) -> Variable:
    return Variable(id=uuid4(), name=name, value=value, created_us=at_us, updated_us=at_us, **fields)


@pytest.mark.parametrize("value", [None, False, 0, 1.5, "", "text", [1, [2]], {"a": {"b": None}}])
def test_a_variable_comes_back_as_it_was(store: Store, value: Any) -> None:
    kept = variable("name", value, tags=("x", "y"))
    assert store.objects.set_variable(kept)
    assert store.objects.variable("name") == kept
    assert store.objects.variable("other") is None


def test_a_variable_is_replaced_only_when_asked(store: Store) -> None:
    first = variable("v", 1, tags=("old",))
    assert store.objects.set_variable(first)
    assert not store.objects.set_variable(variable("v", 2))
    assert store.objects.variable("v") == first
    assert store.objects.set_variable(variable("v", 3, NOW + 5), overwrite=True)
    assert store.objects.variable("v") == Variable(
        id=first.id, name="v", value=3, tags=(), created_us=NOW, updated_us=NOW + 5
    )
    assert store.objects.set_variable(variable("new", 1), overwrite=True)


def test_variables_are_listed_by_name_and_dropped(store: Store) -> None:
    for name in ("b", "c", "a"):
        store.objects.set_variable(variable(name, 1))
    assert [item.name for item in store.objects.variables()] == ["a", "b", "c"]
    assert [item.name for item in store.objects.variables(limit=2)] == ["a", "b"]
    assert store.objects.unset_variable("b")
    assert not store.objects.unset_variable("b")
    assert [item.name for item in store.objects.variables()] == ["a", "c"]


def test_another_process_would_see_it_at_once(tmp_path: Path) -> None:
    one, other = SqliteStore.open(tmp_path / "home"), SqliteStore.open(tmp_path / "home")
    try:
        one.objects.add_artifact(artifact(1, key="k"))
        one.objects.set_variable(variable("v", 1))
        assert numbers(other.objects.artifacts(ArtifactQuery(key="k"))) == [1]
        assert other.objects.variable("v") is not None
    finally:
        one.close()
        other.close()
