"""What a view asks the history beside the run itself, off the hot path: usual durations, reasons, failing lines."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from prefect_nb.home import Home
from prefect_nb.interfaces import LogLine, RunQuery, Store
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.notebook.html_outputs import LINES, RUNS
from prefect_nb.notebook.picture import BROKEN, Picture
from prefect_nb.notebook.view_details import failing_place, why_of
from prefect_nb.service import run_outputs
from prefect_nb.service.run_outputs import Printed

_PAST = 10
_LOOKED_AT = 30
"""Of so many completed runs the newest ten that really ran count."""

_TASKS, _REASONS, _PLACES = 10, 2, 10
"""Tasks, reasons and failing lines looked up in one go."""

_ATTEMPTS = 3
"""A failed run's traceback is written a moment after its state."""

_LOG_LINES, _LOG_PAGE, _LOG_PAGES = 40, 1000, 3


class Facts:
    """Looks up what a picture lacks, a little at a time, and remembers it. Used by one thread at a time."""

    def __init__(self) -> None:
        self.usual_us: dict[str, int] = {}
        """By task key; of the flow, by the empty one."""
        self.remarks: dict[UUID, str] = {}
        self._asked: set[str] = set()
        self._tried: dict[UUID, int] = {}

    def settle(self) -> None:
        """Have everything in the history that has happened so far, logs included.

        Raises:
            StoreUnavailable, StorageFull: it cannot be written.
        """
        Home.current().ledger.commit()

    def look(self, picture: Picture) -> bool:
        """Look up some of what the picture lacks.

        Returns:
            Whether something was found.

        Raises:
            StoreUnavailable, OSError: the history cannot be read.
        """
        store = Home.current().store
        before = len(self.usual_us) + len(self.remarks)
        self._look_at_flow(store, picture.flow_run)
        new = [group for group in picture.groups if group.task_key and group.task_key not in self._asked]
        for group in new[:_TASKS]:
            self._asked.add(group.task_key)
            self._remember(group.task_key, _task_durations(store, group.task_key))
        shown = [run for group in picture.groups for run in group.rows]
        self._look_for_places(store, (run for run in shown if run.state_type in BROKEN))
        alone = (group.rows[0] for group in picture.groups if group.kind == "task" and group.rows)
        self._look_for_reasons(run for run in alone if run.cache_key is not None and run.state_name != "Cached")
        return len(self.usual_us) + len(self.remarks) > before

    def last_lines(self, flow_run_ids: Iterable[UUID]) -> list[LogLine]:
        """The newest log lines of these flow runs, oldest first; none where the log is too long to be read in passing."""
        store = Home.current().store
        lines: list[LogLine] = []
        for id in flow_run_ids:
            after = 0
            for _ in range(_LOG_PAGES):
                page = store.logs(flow_run_id=id, after=after, limit=_LOG_PAGE)
                lines = [*lines, *(line for _, line in page)][-2 * _LOG_PAGE :]
                if len(page) < _LOG_PAGE:
                    break
                after = page[-1][0]
        return sorted(lines, key=lambda line: line.at_us)[-_LOG_LINES:]

    def printed(self, flow_run_ids: Sequence[UUID]) -> Mapping[UUID, Printed]:
        """What the task runs of these flow runs printed, as far as a picture has room for it."""
        return run_outputs.printed(flow_run_ids, RUNS, LINES)

    def _look_at_flow(self, store: Store, flow_run: FlowRun | None) -> None:
        if flow_run is None or "" in self._asked:
            return
        self._asked.add("")
        query = RunQuery(flow_name=flow_run.flow_name, state_types=(StateType.COMPLETED,), limit=_LOOKED_AT)
        past = store.flow_runs(query)
        if flow_run.kind == "cell-flow":  # cells that have no name of their own share one
            past = [run for run in past if run.flow_version == flow_run.flow_version]
        self._remember("", [run.end_us - run.start_us for run in past if run.start_us and run.end_us])

    def _look_for_places(self, store: Store, runs: Iterable[TaskRun]) -> None:
        for run in self._untried(runs, _PLACES, _ATTEMPTS):
            place = failing_place(store, run)
            if place is not None:
                self.remarks[run.id] = str(place)

    def _look_for_reasons(self, runs: Iterable[TaskRun]) -> None:
        for run in self._untried(runs, _REASONS, 1):
            said = why_of(run)
            if said:
                self.remarks[run.id] = said

    def _untried(self, runs: Iterable[TaskRun], most: int, attempts: int) -> list[TaskRun]:
        found: list[TaskRun] = []
        for run in runs:
            if len(found) == most:
                break
            if run.id not in self.remarks and self._tried.get(run.id, 0) < attempts:
                self._tried[run.id] = self._tried.get(run.id, 0) + 1
                found.append(run)
        return found

    def _remember(self, key: str, durations: list[int]) -> None:
        if durations:
            self.usual_us[key] = int(statistics.median(durations[:_PAST]))


class NoFacts(Facts):
    """Knows nothing and asks nobody."""

    def settle(self) -> None:
        """Nothing."""

    def look(self, picture: Picture) -> bool:  # noqa: ARG002
        """Nothing."""
        return False

    def last_lines(self, flow_run_ids: Iterable[UUID]) -> list[LogLine]:  # noqa: ARG002
        """Nothing."""
        return []

    def printed(self, flow_run_ids: Sequence[UUID]) -> Mapping[UUID, Printed]:  # noqa: ARG002
        """Nothing."""
        return {}


def _task_durations(store: Store, task_key: str) -> list[int]:
    query = RunQuery(task_key=task_key, state_types=(StateType.COMPLETED,), kinds=("task",), limit=_LOOKED_AT)
    past = store.task_runs(query)
    return [run.end_us - run.start_us for run in past if run.start_us is not None and run.end_us is not None]
