"""The rows of one run are damaged while its process writes: the rest of the history goes on."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
from harness import flow_runs, only_flow_run, states, task_runs, wait_until

from prefect_nb import flow, task
from prefect_nb.exceptions import StoreUnavailable
from prefect_nb.execution import ledger as ledgers
from prefect_nb.home import Home
from prefect_nb.service.doctor import examine


@task
def step(n: int) -> int:
    return n


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_ASIDE_SECONDS", 0.2)


def damage(home: Path, run_id: UUID) -> None:
    """Somebody edits a row by hand."""
    Home.current().ledger.commit()
    with closing(sqlite3.connect(home / "prefect_nb.db")) as connection, connection:
        assert connection.execute("UPDATE task_run SET events = 1 WHERE id = ?", (run_id.bytes,)).rowcount == 1


def test_what_comes_of_a_damaged_run_waits_and_the_rest_is_written(
    prefect_nb_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def damages_itself() -> int:
        from prefect_nb.context import TaskRunContext

        context = TaskRunContext.get()
        assert context is not None
        damage(prefect_nb_home, context.task_run.id)
        return 1

    @flow
    def unlucky() -> int:
        return damages_itself() + sum(step(n) for n in range(5))

    @flow
    def another() -> int:
        return sum(step(n) for n in range(5))

    here = Home.current()
    with caplog.at_level(logging.ERROR), pytest.raises(StoreUnavailable, match="doctor --mend"):
        unlucky()
    assert another() == 10, "it does not have to wait for the damaged one"
    assert set(states(flow_runs(here))) == {"Completed"}
    assert states(task_runs(here)) == {"Completed": 10, "Running": 1}
    assert any("the rest of the history is written" in record.message for record in caplog.records)

    # Somebody mends the row, and what waited is written.
    examine(mend=True)
    wait_until(lambda: states(task_runs(here)) == {"Completed": 11}, "written after all", 10)
    here.ledger.commit(flow_run_id=flow_runs(here)[0].id)
    assert here.store.check() == []


def test_the_end_of_the_process_says_that_something_was_not_written(prefect_nb_home: Path) -> None:
    @task
    def damages_itself() -> int:
        from prefect_nb.context import TaskRunContext

        context = TaskRunContext.get()
        assert context is not None
        damage(prefect_nb_home, context.task_run.id)
        return 1

    @flow
    def unlucky() -> int:
        return damages_itself()

    with pytest.raises(StoreUnavailable):
        unlucky()
    here = Home.current()
    assert only_flow_run(here).state_name == "Completed"
    with pytest.raises(StoreUnavailable, match="doctor --mend"):
        here.close()
