"""Reading back what a test's runs left in the history."""

from typing import Any
from uuid import UUID

import pytest

from prefect_nb.home import Home
from prefect_nb.interfaces import LogLine, RunQuery
from prefect_nb.model.events import StateRecorded
from prefect_nb.model.runs import FlowRun, TaskRun


class History:
    """The committed runs of this test's home."""

    @property
    def store(self) -> Any:
        home = Home.current()
        home.ledger.commit()
        return home.store

    def task_runs(self, **query: Any) -> list[TaskRun]:
        return self.store.task_runs(RunQuery(limit=1000, oldest_first=True, **query))

    def flow_runs(self, **query: Any) -> list[FlowRun]:
        return self.store.flow_runs(RunQuery(limit=1000, oldest_first=True, **query))

    def task_run(self, id: UUID) -> TaskRun:
        return self.store.task_run(id)

    def flow_run(self, id: UUID) -> FlowRun:
        return self.store.flow_run(id)

    def states(self, run_id: UUID) -> list[str]:
        """The names of a run's states, in order."""
        return [
            event.name if isinstance(event, StateRecorded) else event.run.state_name
            for event in self.store.events(run_id)
            if isinstance(event, StateRecorded) or hasattr(event, "run")
        ]

    def logs(self, **query: Any) -> list[LogLine]:
        self.store  # noqa: B018  # lines are written after the events: two commits, and what was there first is in
        return [line for _, line in self.store.logs(**query)]


@pytest.fixture
def history() -> History:
    return History()
