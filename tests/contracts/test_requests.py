"""What became of a request, in every store; and stopping one work of a runner that has it in a process."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from prefect_nb.engine.commands import Interrupted, Outcome, Returned
from prefect_nb.interfaces import Store
from prefect_nb.runners.processes import ProcessRunner
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

SECONDS = 30.0


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore.open(tmp_path / "home")
    yield opened
    opened.close()


def test_whoever_asks_learns_what_became_of_it(store: Store) -> None:
    id = uuid4()
    first = store.add_request(id, "skip-task", 1, {"task_run_id": uuid4().hex, "message": "Skipped."})
    second = store.add_request(id, "cancel-task", 2, {})
    assert store.request_outcome(first.id) is None
    store.settle_request(first.id, "refused: it has ended")
    assert store.request_outcome(first.id) == "refused: it has ended"
    assert store.request_outcome(second.id) is None
    assert [request.id for request in store.open_requests([id])] == [second.id]
    assert store.request_outcome(second.id + 1) is None


class Sleeping:
    """A work that begins, and then takes its time."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds

    def __call__(self, emit: Any) -> Outcome:
        self.path.touch()
        time.sleep(self.seconds)
        return Returned(self.path.name)


@pytest.fixture
def runner() -> Iterator[ProcessRunner]:
    runner = ProcessRunner(2)
    yield runner
    runner.close()


class Ended:
    """How works ended, by name."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._changed = threading.Condition()

    def of(self, name: str) -> Any:
        def done(outcome: Outcome) -> None:
            with self._changed:
                self.outcomes[name] = outcome
                self._changed.notify_all()

        return done

    def wait(self, *names: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: set(names) <= set(self.outcomes), SECONDS), self.outcomes


def test_only_the_work_that_is_stopped_ends(runner: ProcessRunner, tmp_path: Path) -> None:
    ended, works = (
        Ended(),
        {name: Sleeping(tmp_path / name, 0.5 if name == "other" else 60) for name in ("one", "other")},
    )
    for name, work in works.items():
        runner.start(work, ended.of(name), print)
    deadline = time.monotonic() + SECONDS
    while not all(work.path.exists() for work in works.values()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    runner.stop(works["one"])
    ended.wait("one", "other")
    assert isinstance(ended.outcomes["one"], Interrupted)
    assert ended.outcomes["other"] == Returned("other")


def test_a_work_in_line_is_not_begun(runner: ProcessRunner, tmp_path: Path) -> None:
    ended = Ended()
    for name in ("a", "b"):
        runner.start(Sleeping(tmp_path / name, 0.5), ended.of(name), print)
    unwanted = Sleeping(tmp_path / "c", 0)
    runner.start(unwanted, ended.of("c"), print)
    runner.stop(unwanted)
    ended.wait("a", "b", "c")
    assert isinstance(ended.outcomes["c"], Interrupted)
    assert not (tmp_path / "c").exists()
