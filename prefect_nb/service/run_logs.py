"""The log of a run: its own lines, and of a flow run those of everything below it, child flow runs included."""

import heapq
import time
from collections.abc import Iterator
from uuid import UUID

from prefect_nb.home import Home
from prefect_nb.interfaces import LogLine
from prefect_nb.model.runs import FlowRun, Run
from prefect_nb.service.history import descendants, settled_home
from prefect_nb.service.text import one_line

FOLLOW_SECONDS = 0.25
_PAGE = 500

Cursor = tuple[int, LogLine]


def logs(run: Run, min_level: int = 0) -> Iterator[LogLine]:
    """The lines of a run's log, oldest first; of a flow run, those of its task runs and child flow runs too."""
    for _, line in _lines(run, min_level, {}):
        yield line


def follow(run: Run, min_level: int = 0) -> Iterator[LogLine]:
    """The lines of a run's log as they are written; ends when the run has ended."""
    seen: dict[UUID, int] = {}
    last = False
    while True:
        # Looked at first: a line written before the end is then surely read below.
        ended = _is_over(run)
        for _, line in _lines(run, min_level, seen):
            yield line
        if last:
            return
        last = ended  # once more: the log is written a moment after the history
        time.sleep(FOLLOW_SECONDS)


class Subjects:
    """Whom the lines of a run's log are about.

    Args:
        run: the run whose log it is.
    """

    def __init__(self, run: Run) -> None:
        self._known: dict[UUID, str] = {run.id: ""}

    def of(self, line: LogLine) -> str:
        """`Task run 'clean-3f2'` or `Flow run 'quick-fox'`; nothing where that is the run itself."""
        id = line.task_run_id or line.flow_run_id
        if id is None:
            return ""
        found = self._known.get(id)
        if found is None:
            found = self._known[id] = self._name(line)
        return found

    def _name(self, line: LogLine) -> str:
        store = Home.current().store
        if line.task_run_id is not None:
            task_run = store.task_run(line.task_run_id)
            return f"Task run '{one_line(task_run.name, 60) if task_run else line.task_run_id}'"
        assert line.flow_run_id is not None
        flow_run = store.flow_run(line.flow_run_id)
        return f"Flow run '{one_line(flow_run.name, 60) if flow_run else line.flow_run_id}'"


def _is_over(run: Run) -> bool:
    store = settled_home().store
    now = store.flow_run(run.id) if isinstance(run, FlowRun) else store.task_run(run.id)
    return now is None or now.is_final


def _lines(run: Run, min_level: int, seen: dict[UUID, int]) -> Iterator[Cursor]:
    """The lines after those seen of the run and what is below it, in the order in which they were written."""
    runs = [run, *descendants(run.id)] if isinstance(run, FlowRun) else [run]
    return heapq.merge(*(_lines_of(one, min_level, seen) for one in runs), key=lambda pair: pair[0])


def _lines_of(run: Run, min_level: int, seen: dict[UUID, int]) -> Iterator[Cursor]:
    store = Home.current().store
    while True:
        after = seen.get(run.id, 0)
        if isinstance(run, FlowRun):
            page = store.logs(flow_run_id=run.id, min_level=min_level, after=after, limit=_PAGE)
        else:
            page = store.logs(task_run_id=run.id, min_level=min_level, after=after, limit=_PAGE)
        for pair in page:
            seen[run.id] = pair[0]
            yield pair
        if len(page) < _PAGE:
            return
