"""The live view under a cell: it shows a flow run while it runs, and folds into a static picture at the end.

It learns of the run only what has been committed, on the ledger's writer thread, where it does no more than remember
the newest snapshots. A ticker thread of its own draws at most ten times a second; the latest snapshot wins.
"""

import contextvars
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from prefect_nb.interfaces import Artifact, Entry, MetricPoint
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.notebook.html import placeholder
from prefect_nb.notebook.picture import ACTIVE, BROKEN, Picture, in_order, most_relevant
from prefect_nb.notebook.screens import Bundle, NotebookScreen, Screen, TerminalScreen, bundle_of
from prefect_nb.service import artifacts as artifact_service
from prefect_nb.service.metrics import Series

logger = logging.getLogger("prefect_nb.notebook")

QUIET = 0.5
"""Seconds a run may take before anything but one line is shown."""

ROWS = 200
"""Task runs the live panel lists at most."""

_CLOCK_TICK = 1.0
"""Seconds after which durations are drawn anew when nothing else has changed."""

_LINES = 100
"""Lines of metrics drawn at most."""

_POINTS = 400
"""Points of a line before it is fitted to a chart."""

_STRAGGLER = 1.0
"""Seconds to wait at the end for the last commit to be published."""


class Board:
    """The newest snapshots of one flow run and of everything under it. Safe to use from several threads."""

    def __init__(self, flow_run_id: UUID) -> None:
        self.flow_run_id = flow_run_id
        self.version = 0
        """Grows with every change."""
        self.settled = threading.Event()
        """Set while the flow run has ended, or is paused: nothing more is to come for now."""
        self._lock = threading.Lock()
        self._flow_runs: dict[UUID, FlowRun] = {}
        self._task_runs: dict[UUID, TaskRun] = {}
        self._counts: Counter[tuple[StateType, str]] = Counter()
        # Ids by what matters, each in the order of the last change; kept up to date so that drawing need not sort.
        self._active: dict[UUID, None] = {}
        self._broken: dict[UUID, None] = {}
        self._others: dict[UUID, None] = {}
        # Of any flow run: that one is ours may become known only after its first metric.
        self._series: dict[tuple[str, UUID | None], Series] = {}
        self._artifacts: Sequence[Artifact] = ()

    def absorb(self, entries: Sequence[Entry]) -> None:
        """Remember the snapshots that belong here."""
        with self._lock:
            for entry in entries:
                run = entry.run
                if isinstance(run, TaskRun):
                    if run.flow_run_id == self.flow_run_id or run.flow_run_id in self._flow_runs:
                        self._put(run)
                elif self._is_ours(run):
                    self._flow_runs[run.id] = run
                    self.version += 1
                    if run.id == self.flow_run_id:
                        self._settle(run)

    def measure(self, points: Sequence[MetricPoint]) -> None:
        """Take in metrics."""
        with self._lock:
            for point in points:
                key = (point.name, point.run_id)
                series = self._series.get(key)
                if series is None:
                    series = self._series[key] = Series()
                series.add(point)
            if any(self._has(point.flow_run_id) for point in points):
                self.version += 1

    def put_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        """Take these for the artifacts that there are."""
        with self._lock:
            if list(artifacts) != list(self._artifacts):
                self._artifacts = artifacts
                self.version += 1

    @property
    def flow_run_ids(self) -> list[UUID]:
        """The flow run and those under it."""
        with self._lock:
            return [self.flow_run_id, *(id for id in self._flow_runs if id != self.flow_run_id)]

    def picture(self, now_us: int) -> Picture:
        """Everything as it is now."""
        with self._lock:
            runs = self._task_runs
            if len(runs) <= ROWS:
                rows = list(runs.values())
            else:
                active, broken = list(self._active), list(reversed(self._broken))
                rows = [runs[id] for id in most_relevant(active, broken, reversed(self._others), ROWS)]
            return Picture(
                flow_run=self._flow_runs.get(self.flow_run_id),
                task_runs=list(runs.values()),
                children=[run for run in self._flow_runs.values() if run.id != self.flow_run_id],
                counts=in_order(self._counts),
                rows=rows,
                metrics=[
                    series.line(_POINTS)
                    for series in self._series.values()
                    if series.newest is not None and self._has(series.newest.flow_run_id)
                ][:_LINES],
                artifacts=self._artifacts,
                now_us=now_us,
            )

    def _has(self, flow_run_id: UUID | None) -> bool:
        return flow_run_id == self.flow_run_id or flow_run_id in self._flow_runs

    def _is_ours(self, run: FlowRun) -> bool:
        root = self.flow_run_id
        return root in (run.id, run.root_flow_run_id) or run.parent_flow_run_id in self._flow_runs

    def _settle(self, run: FlowRun) -> None:
        if run.is_final or run.state_type is StateType.PAUSED:
            self.settled.set()
        else:
            self.settled.clear()

    def _put(self, run: TaskRun) -> None:
        previous = self._task_runs.get(run.id)
        if previous is not None:
            self._counts[previous.state_type, previous.state_name] -= 1
            self._place_of(previous.state_type).pop(run.id, None)
        self._counts[run.state_type, run.state_name] += 1
        self._place_of(run.state_type)[run.id] = None
        self._task_runs[run.id] = run
        self.version += 1

    def _place_of(self, type_: StateType) -> dict[UUID, None]:
        if type_ in ACTIVE:
            return self._active
        return self._broken if type_ in BROKEN else self._others


class LiveView:
    """The view of one root flow run; an `Observer` of the ledger from before its first event until `finish`.

    A view never makes a run fail: what goes wrong in it is logged (level debug), and it draws no more until
    the end.

    Args:
        flow_run_id: the flow run to show, with its task runs and child flow runs.
        screen: where to draw.
        clock: seconds, monotonic.
        now_us: microseconds since the epoch, UTC.
        artifacts: finds the artifacts of flow runs.
    """

    def __init__(
        self,
        flow_run_id: UUID,
        screen: Screen | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        artifacts: Callable[[Sequence[UUID]], Sequence[Artifact]] = lambda _: (),
    ) -> None:
        self.board = Board(flow_run_id)
        self._screen: Screen = screen or NotebookScreen(widgets=True)
        self._clock = clock
        self._now_us = now_us
        self._artifacts = artifacts
        self._looked = float("-inf")
        self._stop = threading.Event()
        self._drawing = threading.Lock()
        self._over = False
        self._due = 0.0
        self._drawn = float("-inf")
        self._drawn_version = -1

    def committed(self, entries: Sequence[Entry]) -> None:
        """Remember what was committed; returns at once."""
        self.board.absorb(entries)

    def measured(self, points: Sequence[MetricPoint]) -> None:
        """Remember what was reported; returns at once."""
        self.board.measure(points)

    def start(self, ticking: bool = True) -> None:
        """Take the place under the cell, and draw from half a second on. Call it on the thread that runs the cell.

        Args:
            ticking: draw from a thread; otherwise the caller calls `tick`.
        """
        self._due = self._clock() + QUIET
        try:
            self._screen.begin(self._bundle())
        except Exception as error:
            self._fall_silent(error)
        if ticking and not self._stop.is_set():
            # Under the cell's context, so that front ends put what the thread displays under this cell.
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._tick_on,), name="prefect_nb-view", daemon=True).start()

    def tick(self) -> None:
        """Draw if it is time and there is something new."""
        with self._drawing:
            now = self._clock()
            if now >= max(self._due, self._looked + _CLOCK_TICK) and not self._stop.is_set():
                self._looked = now
                self._look_for_artifacts()
            version = self.board.version
            unchanged = version == self._drawn_version and now < self._drawn + _CLOCK_TICK
            if self._stop.is_set() or now < self._due or unchanged:
                return
            picture = self.board.picture(self._now_us())
            if picture.flow_run is None:
                return
            try:
                self._screen.draw(picture)
            except Exception as error:
                self._fall_silent(error)
            self._drawn = now
            self._drawn_version = version
            self._due = now + self._screen.period

    def finish(self) -> None:
        """Replace the view by the static picture of the run as committed, for good. Call it however the run ended.

        Waits, for at most a second, until the ledger has published the flow run's last state.
        """
        self._stop.set()
        self.board.settled.wait(_STRAGGLER)
        with self._drawing:
            if self._over:
                return
            self._over = True
            self._look_for_artifacts()
            try:
                self._screen.end(self._bundle())
            except Exception as error:
                self._fall_silent(error)

    def _tick_on(self) -> None:
        wait = QUIET
        prepared = False
        while not self._stop.wait(wait):
            if not prepared:
                # Not under the lock: the end of the run must not wait for imports.
                self._screen.prepare()
                prepared = True
            self.tick()
            wait = max(self._due - self._clock(), 0.1)

    def _bundle(self) -> Bundle:
        picture = self.board.picture(self._now_us())
        return bundle_of(picture) if picture.flow_run is not None else {**placeholder(self.board.flow_run_id)}

    def _look_for_artifacts(self) -> None:
        try:
            self.board.put_artifacts(self._artifacts(self.board.flow_run_ids))
        except Exception as error:
            logger.debug("The artifacts of flow run %s could not be read: %s", self.board.flow_run_id, error)

    def _fall_silent(self, error: Exception) -> None:
        logger.debug("The live view of flow run %s failed: %s", self.board.flow_run_id, error, exc_info=error)
        self._stop.set()


def make_view(flow_run_id: UUID) -> LiveView | None:
    """The view that fits where this runs: None outside IPython."""
    shell = _shell()
    if shell is None:
        return None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return LiveView(flow_run_id, TerminalScreen(), artifacts=artifact_service.of_runs)
    screen = NotebookScreen(widgets=_somebody_is_there(kernel))
    return LiveView(flow_run_id, screen, artifacts=artifact_service.of_runs)


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _somebody_is_there(kernel: Any) -> bool:
    """Whether a person sits at the front end and it may understand widgets.

    Front ends do not say so; but one that answers no questions (`allow_stdin`) is a program that executes notebooks,
    and would keep a widget's state in the notebook's metadata. Colab asks its users before it shows such widgets.
    """
    if "google.colab" in sys.modules:
        return False
    try:
        return bool(kernel.get_parent("shell")["content"]["allow_stdin"])
    except Exception:
        return False
