"""How far a run is: a fold of what has been committed, small enough to be asked many times a second."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import msgspec

from prefect_nb.exceptions import PrefectException
from prefect_nb.execution.clock import now_us
from prefect_nb.home import Home
from prefect_nb.interfaces import Entry, Store
from prefect_nb.model.events import FlowRunCreated, TaskRunCreated, apply
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, StateType
from prefect_nb.service.history import STAND_IN

logger = logging.getLogger("prefect_nb.service")

_ACTIVE = frozenset({StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED})
_FOLLOW_SECONDS = 0.1
_PAGE = 1000
_NEWS = 1000

Count = tuple[StateType, str, int]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far the run is at one moment."""

    flow_run: FlowRun | None
    tasks: list[Count]
    """Type, word and number of the task runs in each state."""
    finished: int
    """Task runs that have ended."""
    total: int
    """Task runs known so far."""
    cells_finished: int
    cells: int | None
    """How many cells are to be executed; None for a function."""
    current: TaskRun | None
    """The task run (or else the cell) that started last and is running."""
    elapsed_us: int
    left_us: int | None
    """What is left of the time this flow usually takes; None when nobody knows."""


class Progress:
    """An `Observer` that knows how far one flow run is.

    Args:
        usual_us: how long the flow usually takes (microseconds).
    """

    def __init__(self, usual_us: int | None = None) -> None:
        self.news: deque[TaskRun] = deque(maxlen=_NEWS)
        """Cells that have ended, and task runs that have ended badly, for whoever tells them one by one."""
        self._usual_us = usual_us
        self._lock = threading.Lock()
        self._root: UUID | None = None
        self._flow_runs: dict[UUID, FlowRun] = {}
        self._states: dict[UUID, tuple[StateType, str]] = {}
        self._tasks: Counter[tuple[StateType, str]] = Counter()
        self._cell_states: dict[UUID, StateType] = {}
        self._active: dict[UUID, TaskRun] = {}
        self._began_us = now_us()

    def begin(self, flow_run_id: UUID) -> None:
        """From now on, this run is the one to watch."""
        self._root = flow_run_id
        self._began_us = now_us()

    def committed(self, entries: Sequence[Entry]) -> None:
        """Take in what belongs to the run."""
        for entry in entries:
            self.see(entry.run)

    def see(self, run: Run) -> None:
        """Take in a snapshot, if it belongs to the run."""
        with self._lock:
            if isinstance(run, FlowRun):
                if self._root in (run.id, run.root_flow_run_id) or run.parent_flow_run_id in self._flow_runs:
                    self._flow_runs[run.id] = run
            elif run.flow_run_id == self._root or run.flow_run_id in self._flow_runs:
                self._see_task(run)

    def cell_number(self, run: TaskRun) -> int:
        """Which of the run's own cells it is, counted from 1 (0: none)."""
        with self._lock:
            return list(self._cell_states).index(run.id) + 1 if run.id in self._cell_states else 0

    def standing(self) -> Standing:
        """How far it is now."""
        with self._lock:
            flow_run = self._flow_runs.get(self._root) if self._root is not None else None
            elapsed = max(0, now_us() - self._began_us)
            left = self._usual_us - elapsed if self._usual_us is not None else 0
            active = list(self._active.values())
            tasks = [run for run in active if run.kind not in ("cell", STAND_IN)]
            counts = [(type_, name, number) for (type_, name), number in self._tasks.items() if number]
            return Standing(
                flow_run=flow_run,
                tasks=counts,
                finished=sum(number for type_, _, number in counts if type_ in TERMINAL_STATES),
                total=sum(number for _, _, number in counts),
                cells_finished=sum(type_ in TERMINAL_STATES for type_ in self._cell_states.values()),
                cells=len(self._cell_states) or None,
                current=next(reversed(tasks or active), None),
                elapsed_us=elapsed,
                left_us=left if left > 0 else None,
            )

    def _see_task(self, run: TaskRun) -> None:
        before = self._states.get(run.id)
        self._states[run.id] = (run.state_type, run.state_name)
        if run.kind == "cell":
            if run.flow_run_id == self._root:
                self._cell_states[run.id] = run.state_type
        elif run.kind != STAND_IN:
            if before is not None:
                self._tasks[before] -= 1
            self._tasks[run.state_type, run.state_name] += 1
        if run.state_type in _ACTIVE:
            self._active[run.id] = run
        else:
            self._active.pop(run.id, None)
        ended = run.is_final and (before is None or before[0] not in TERMINAL_STATES)
        if ended and run.state_name != "NotRun" and (run.kind == "cell" or run.state_type is not StateType.COMPLETED):
            self.news.append(run)


@contextmanager
def observing(home: Home, progress: Progress) -> Iterator[None]:
    """Tell the progress what this process commits."""
    home.ledger.observers.append(progress)
    try:
        yield
    finally:
        home.ledger.observers.remove(progress)


@contextmanager
def following(home: Home, progress: Progress) -> Iterator[None]:
    """Tell the progress what any process commits (a notebook's tasks run in its kernel)."""
    over = threading.Event()
    thread = threading.Thread(
        target=_follow,
        args=(home.store, progress, home.store.last_cursor(), over),
        name="prefect_nb-follow",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)


def _follow(store: Store, progress: Progress, cursor: int, over: threading.Event) -> None:
    runs: dict[UUID, Run] = {}
    while True:
        last = over.wait(_FOLLOW_SECONDS)
        try:
            while changes := store.changes(cursor, _PAGE):
                for change in changes:
                    before = runs.get(change.run_id)
                    if before is None and not isinstance(change.event, TaskRunCreated | FlowRunCreated):
                        continue  # of a run that was there before
                    runs[change.run_id] = run = apply(before, change.event)
                    progress.see(run)
                cursor = changes[-1].cursor
        except PrefectException as error:  # whoever writes the history says what is wrong with it
            logger.debug("The progress could not be read: %s", error)
        if last:
            return
