"""The disk is full: it is said, nothing is torn, and what waited is written when there is room again."""

import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit import audit
from harness import flow_runs, only_flow_run, opened, run, states, task_runs, wait_until

from prefect_nb import flow, task
from prefect_nb.exceptions import StorageFull
from prefect_nb.home import Home
from prefect_nb.model.states import StateType


class Full:
    """A store whose disk has no room while `full` is set."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.full = threading.Event()
        self.refused = 0

    def write(self, *arguments: Any) -> Any:
        if self.full.is_set():
            self.refused += 1
            raise StorageFull("No room left for the history. Free some space; nothing was written.")
        return self._store.write(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def disk() -> Iterator[Full]:
    here = Home.current()
    disk = Full(here.store)
    here.ledger._store = disk
    yield disk
    disk.full.clear()


@task
def step(n: int) -> int:
    return n


def test_a_flow_that_cannot_be_recorded_says_so_and_is_written_once_there_is_room(
    disk: Full, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def steps() -> int:
        done = sum(step(n) for n in range(100))
        disk.full.set()
        return done + sum(step(n) for n in range(100))

    with caplog.at_level(logging.WARNING), pytest.raises(StorageFull, match="No room left"):
        steps()
    here = Home.current()
    here.reap()
    assert here.ledger.failure is not None
    assert [record.levelname for record in caplog.records if record.name == "prefect_nb.ledger"] == ["ERROR"]
    disk.full.clear()
    wait_until(lambda: here.ledger.failure is None, "written again", 10)
    here.ledger.commit()
    assert only_flow_run(here).state_type is StateType.COMPLETED
    assert states(task_runs(here)) == {"Completed": 200}
    assert here.store.check() == []


def test_a_durable_flow_stops_at_the_task_that_cannot_be_recorded(disk: Full) -> None:
    ran: list[int] = []

    @task
    def noted(n: int) -> int:
        ran.append(n)
        if n == 2:
            disk.full.set()
        return n

    @flow(durable=True)
    def steps() -> int:
        return sum(noted(n) for n in range(10))

    with pytest.raises(StorageFull):
        steps()
    assert ran == [0, 1, 2]
    disk.full.clear()
    here = Home.current()
    wait_until(lambda: here.ledger.failure is None, "written again", 10)
    here.ledger.commit()
    assert only_flow_run(here).state_type is StateType.FAILED
    assert states(task_runs(here)) == {"Completed": 3}
    assert here.store.check() == []


@pytest.mark.parametrize("story", ["big_results", "big_durable_results", "many_rows"])
def test_files_may_not_grow(story: str, tmp_path: Path) -> None:
    """The operating system refuses to let any file grow beyond 400 kB."""
    home = tmp_path / "home"
    process = run("full.py", home, story)
    code = process.wait()
    if story == "big_results":
        assert (code, process.output) == (0, "Completed 3\n"), process.errors
    elif story == "big_durable_results":
        assert code == 1
        assert "StorageFull" in process.errors
    else:
        assert code not in (0, -signal.SIGXFSZ), process.errors
        assert "prefect_nb.exceptions.Stor" in process.errors
    with opened(home) as here:
        here.reap()
        results = [task_run.result for task_run in task_runs(here)]
        notes = [task_run.result_note for task_run in task_runs(here)]
        if story == "big_results":
            assert results == [None] * 3
            assert all(note is not None and note.startswith("not persisted: No room") for note in notes)
        elif story == "big_durable_results":
            assert states(task_runs(here)) == {"StorageFull": 1}
            assert states(flow_runs(here)) == {"Failed": 1}
    assert list((home / "results").glob("*/*")) == []
    audit(home)
