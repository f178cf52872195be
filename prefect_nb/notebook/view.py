"""The live view under a cell: it shows a flow run while it runs, and folds into a static picture at the end.

It learns of the run only what has been committed, on the ledger's writer thread, where it does no more than remember
the newest snapshots. A ticker thread of its own counts them and draws, at most ten times a second and never more than
three hundredths of the time; the latest snapshot wins.
"""

import contextvars
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from prefect_nb.execution.own_output import Capture
from prefect_nb.interfaces import Artifact, Entry, LogLine, MetricPoint
from prefect_nb.notebook.front_end import answers_questions
from prefect_nb.notebook.html import placeholder
from prefect_nb.notebook.picture import BROKEN, Picture
from prefect_nb.notebook.screens import Bundle, NotebookScreen, Screen, TerminalScreen, bundle_of
from prefect_nb.notebook.view_board import Board
from prefect_nb.notebook.view_facts import Facts, NoFacts
from prefect_nb.notebook.view_messages import Answer, Message
from prefect_nb.service import artifacts as artifact_service
from prefect_nb.service.run_outputs import Printed

logger = logging.getLogger("prefect_nb.notebook")

QUIET = 0.5
"""Seconds a run may take before anything but one line is shown."""

_CLOCK_TICK = 1.0
"""Seconds after which durations are drawn anew when nothing else has changed."""

_SHARE = 30
"""A drawing that took a second of the processor is followed by none for so many seconds: a view costs 3 % at most."""

_SLOWEST = 2.0
"""Seconds between two drawings at most, if there is anything new."""

_OPEN = 20
"""Groups that can be open at once."""

_CHILDREN = 20
"""Child flow runs whose log lines are kept with the run's own at the end."""

_STRAGGLER = 1.0
"""Seconds to wait at the end for the last commit to be published."""


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
        facts: looks up what the history knows beside the run; None for nothing.
    """

    def __init__(
        self,
        flow_run_id: UUID,
        screen: Screen | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        artifacts: Callable[[Sequence[UUID]], Sequence[Artifact]] = lambda _: (),
        facts: Facts | None = None,
    ) -> None:
        self.board = Board(flow_run_id)
        self._screen: Screen = screen or NotebookScreen(widgets=True)
        self._clock = clock
        self._now_us = now_us
        self._artifacts = artifacts
        self._facts = facts or NoFacts()
        self._known = 0
        self._costs: deque[float] = deque(maxlen=3)
        self._looked = float("-inf")
        self._stop = threading.Event()
        self._drawing = threading.Lock()
        self._over = False
        self._due = 0.0
        self._drawn = float("-inf")
        self._drawn_version = -1
        self.has_failed = False
        """Whether it could not be drawn."""
        self.capture: Capture | None = None
        """What takes the output of the run's tasks, for their rows."""

    @property
    def is_live(self) -> bool:
        """Whether somebody sits in front of it."""
        return isinstance(self._screen, NotebookScreen) and self._screen.has_widgets

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
        self._screen.listen({"rows": self._show_rows})
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
            now, began = self._clock(), time.thread_time()
            if now >= max(self._due, self._looked + _CLOCK_TICK) and not self._stop.is_set():
                self._looked = now
                self._look()
            version = self.board.version + self._known + (self.capture.version if self.capture is not None else 0)
            unchanged = version == self._drawn_version and now < self._drawn + _CLOCK_TICK
            if self._stop.is_set() or now < self._due or unchanged:
                return
            picture = self._picture()
            if picture.flow_run is None:
                return
            try:
                self._screen.draw(picture)
            except Exception as error:
                self._fall_silent(error)
            if self._drawn_version >= 0:  # the first drawing does what no other has to
                self._costs.append(time.thread_time() - began)
            self._drawn = now
            self._drawn_version = version
            self._due = now + max(self._screen.period, min(_SLOWEST, min(self._costs, default=0) * _SHARE))

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
            self._await_tracebacks()
            self._look()
            try:
                self._screen.end(self._bundle(whole=True), self._picture())
            except Exception as error:
                self._fall_silent(error)

    def _await_tracebacks(self) -> None:
        """They are in the log, which is written after the states: of a run that failed it has to be there now."""
        flow_run = self._picture().flow_run
        if flow_run is not None and flow_run.state_type in BROKEN:
            try:
                self._facts.settle()
            except Exception as error:
                logger.debug("The log of flow run %s is not all there: %s", flow_run.id, error)

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

    def _bundle(self, whole: bool = False) -> Bundle:
        picture = self._picture()
        if picture.flow_run is None:
            return {**placeholder(self.board.flow_run_id)}
        if not whole:
            return bundle_of(picture)
        return bundle_of(replace(picture, printed=self._printed()), self._last_lines())

    def _picture(self) -> Picture:
        picture = self.board.picture(self._now_us())
        saying = self.capture.newest_line if self.capture is not None else picture.saying
        return replace(picture, usual_us=self._facts.usual_us, remarks=self._facts.remarks, saying=saying)

    def _look(self) -> None:
        self._look_for_artifacts()
        try:
            self._known += self._facts.look(self._picture())
        except Exception as error:
            logger.debug("The history of flow run %s could not be read: %s", self.board.flow_run_id, error)

    def _last_lines(self) -> Sequence[LogLine]:
        try:
            return self._facts.last_lines(self.board.flow_run_ids[:_CHILDREN])
        except Exception as error:
            logger.debug("The log of flow run %s could not be read: %s", self.board.flow_run_id, error)
            return ()

    def _printed(self) -> Mapping[UUID, Printed]:
        if self.capture is not None and self.capture.gave_back:
            return {}  # it is in the cell
        try:
            return self._facts.printed(self.board.flow_run_ids[:_CHILDREN])
        except Exception as error:
            logger.debug("The output of flow run %s could not be read: %s", self.board.flow_run_id, error)
            return {}

    def _look_for_artifacts(self) -> None:
        try:
            self.board.put_artifacts(self._artifacts(self.board.flow_run_ids))
        except Exception as error:
            logger.debug("The artifacts of flow run %s could not be read: %s", self.board.flow_run_id, error)

    def _show_rows(self, message: Message) -> Answer:
        """The panel's command `rows`: these groups are open, show more of them."""
        self.board.want([int(number) for number in message.get("groups", [])][:_OPEN])
        return {"ok": True}

    def _fall_silent(self, error: Exception) -> None:
        logger.debug("The live view of flow run %s failed: %s", self.board.flow_run_id, error, exc_info=error)
        self.has_failed = True
        self._stop.set()


def make_view(flow_run_id: UUID) -> LiveView | None:
    """The view that fits where this runs: None outside IPython."""
    shell = _shell()
    if shell is None:
        return None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return LiveView(flow_run_id, TerminalScreen(), artifacts=artifact_service.of_runs, facts=Facts())
    # Colab asks its users before it shows widgets of others.
    widgets = "google.colab" not in sys.modules and answers_questions(kernel)
    screen = NotebookScreen(widgets=widgets, viewed="VSCODE_PID" in os.environ)
    return LiveView(flow_run_id, screen, artifacts=artifact_service.of_runs, facts=Facts())


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
