"""`%%flow --detach`: cells that run beside the notebook, one after the other, from a queue that can be edited.

One thread of the kernel works the queue off. A cell runs on a copy of the notebook's names, taken when its turn comes, so
that it sees what the cells before it made and is not disturbed by what is run meanwhile; when it has ended, the names it
assigned are put into the notebook. What it prints and shows goes under the cell it was started from.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from html import escape
from typing import Any
from uuid import UUID

from IPython.core.error import UsageError

from prefect_nb.exceptions import InvalidMove
from prefect_nb.execution.clock import now_us
from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import GLYPHS, State, StateType
from prefect_nb.notebook.listing import table_bundle
from prefect_nb.service import control, history
from prefect_nb.service.text import ago, did_you_mean, duration_text, one_line

logger = logging.getLogger("prefect_nb.notebook")

QUEUED, RUNNING, ENDED, REMOVED = "queued", "running", "ended", "removed"
_ENDED_SHOWN = 10
_ATTRIBUTE = "prefect_nb_detached"


class DetachedRun:
    """A cell that was started by `%%flow --detach`; `-o NAME` leaves it in that variable.

    Args:
        number: by which the queue names it.
        name: of the flow.
        text: the whole cell; where it is found running again, it is not started twice.
        body: runs the cell with these names; gives the value of its last expression (or a coroutine that does).
        assigned: the names the cell assigns.
        shell: the IPython shell.
    """

    def __init__(
        self,
        number: int,
        name: str,
        text: str,
        body: Callable[[DetachedRun, dict[str, Any]], Any],
        assigned: Sequence[str],
        shell: Any,
    ) -> None:
        self.number = number
        self.name = name
        self.text = text
        self.status = QUEUED
        self.names: dict[str, Any] = {}
        """What the cell assigned, as far as it came."""
        self.added_us = now_us()
        self.execution: Any = None
        self._body = body
        self._assigned = assigned
        self._shell = shell
        self._value: Any = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        # Front ends put what the thread shows under the cell that this is called in.
        self._context = contextvars.copy_context()
        self._line: Any = None
        self._saying = threading.Lock()

    @property
    def id(self) -> UUID | None:
        """The flow run's id; None while it waits."""
        return self.execution.run.id if self.execution is not None else None

    @property
    def state(self) -> State[Any] | None:
        """The flow run's state; None while it waits."""
        return (self.execution.state or self.execution.run.state) if self.execution is not None else None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, or was taken from the queue.

        Args:
            timeout: seconds; None for as long as it takes.

        Returns:
            Whether it has.
        """
        return self._done.wait(timeout)

    def result(self, timeout: float | None = None) -> Any:
        """The value of the cell's last expression; waits for it.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
            Exception: what the cell raised.
            InvalidMove: it was taken from the queue before it ran.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"Detached run {self.name!r} is still {self.status}.")
        if self._error is not None:
            raise self._error
        if self.status == REMOVED:
            raise InvalidMove(f"Detached run {self.name!r} was taken from the queue; it never ran.")
        return self._value

    def run(self) -> None:
        """Run the cell on this thread."""
        self._context.run(self._run)

    def _run(self) -> None:
        self.status = RUNNING
        self.say()
        before = dict(self._shell.user_ns)
        namespace = dict(before)
        try:
            value = self._body(self, namespace)
            self._value = asyncio.run(value) if inspect.iscoroutine(value) else value
        except BaseException as error:
            self._error = error
        self.status = ENDED
        kept = self._publish(before, namespace)
        self.say(kept)
        self._done.set()
        self._show()

    def _publish(self, before: dict[str, Any], namespace: dict[str, Any]) -> list[str]:
        """Give the notebook the names the cell assigned; returns those it has changed itself meanwhile, and keeps."""
        here, missing = self._shell.user_ns, object()
        kept = []
        for name in self._assigned:
            value = namespace.get(name, missing)
            if value is missing or value is before.get(name, missing):
                continue
            self.names[name] = value
            if here.get(name, missing) is before.get(name, missing):
                here[name] = value
            else:
                kept.append(name)
        return kept

    def _show(self) -> None:
        from IPython.display import display

        if self._error is not None:
            error = self._error
            self._shell.showtraceback((type(error), error, error.__traceback__))
        elif self._value is not None:
            display(self._value)  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        """It will not run."""
        self.status = REMOVED
        self.say()
        self._done.set()

    # The line above its view

    def say(self, kept: Sequence[str] = (), before: int = 0) -> None:
        """Show how it stands, on one line of the cell's output.

        Args:
            kept: names that the notebook has changed meanwhile.
            before: how many are before it in the queue.
        """
        try:
            with self._saying:
                # A copy: no two threads can be in one context at a time.
                self._context.copy().run(self._put, self._words(kept, before))
        except Exception as error:  # a front end that is gone must not end the queue
            logger.debug("Detached run %s cannot be shown: %s", self.number, error, exc_info=error)

    def _put(self, text: str) -> None:
        from IPython.display import display

        bundle = {"text/plain": text, "text/html": f"<div>{escape(text)}</div>"}
        if self._line is None:
            self._line = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._line.update(bundle, raw=True)

    def _words(self, kept: Sequence[str], before: int) -> str:
        name = one_line(self.name)
        if self.status == QUEUED:
            where = f"{before} before it" if before else "next"
            return f"{GLYPHS[StateType.SCHEDULED]} {name} is queued, {where}. The queue: %flow queue"
        if self.status == REMOVED:
            return f"{GLYPHS[StateType.CANCELLED]} {name} was taken from the queue before it ran."
        if self.status == RUNNING:
            return (
                f"{GLYPHS[StateType.RUNNING]} {name} runs beside the notebook. To stop it: %flow cancel {self.number}"
            )
        state = self.state
        type_, word = (state.type, state.name) if state is not None else (StateType.FAILED, "Failed")
        words = f"{GLYPHS[type_]} {name} is {word}."
        if kept:
            listed = ", ".join(f"`{one_line(each)}`" for each in kept)
            words += f" The notebook has changed {listed} meanwhile and keeps its own; the run's: `run.names`."
        return words

    def __repr__(self) -> str:
        return f"{type(self).__name__}(number={self.number}, name={self.name!r}, status={self.status!r})"


class DetachedQueue:
    """The detached cells of one kernel, in the order in which they will run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: list[DetachedRun] = []
        self._running: DetachedRun | None = None
        self._ended: list[DetachedRun] = []
        self._worker: threading.Thread | None = None

    def add(self, make: Callable[[int], DetachedRun]) -> DetachedRun:
        """Put a cell at the end; it runs at once if nothing else does."""
        with self._lock:
            item = make(next(self._numbers))
            item.say(before=len(self._waiting) + int(self._running is not None))
            self._waiting.append(item)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="prefect_nb-detached", daemon=True)
                self._worker.start()
        return item

    def same(self, text: str) -> DetachedRun | None:
        """The waiting or running item of this very cell."""
        return next((item for item in self.open() if item.text == text), None)

    def items(self) -> list[DetachedRun]:
        """What has ended lately, what runs, what waits: in this order."""
        with self._lock:
            return [*self._ended, *([self._running] if self._running is not None else []), *self._waiting]

    def open(self) -> list[DetachedRun]:
        """What runs and what waits."""
        return [item for item in self.items() if item.status in (QUEUED, RUNNING)]

    def find(self, what: str) -> DetachedRun | None:
        """The item of that number, or the newest of that name that has not ended."""
        fitting = [item for item in self.open() if what in (str(item.number), item.name)]
        return fitting[-1] if fitting else None

    def cancel(self, item: DetachedRun, wait: float = 10.0) -> None:
        """Take it from the queue, or cancel its run.

        Raises:
            InvalidMove: it has ended already.
        """
        with self._lock:
            waits = item in self._waiting
            if waits:
                self._waiting.remove(item)
                self._keep(item)
        if waits:
            item.remove()
            self._tell()
            return
        run = history.find_flow_run(str(item.id)) if item.id is not None else None
        if run is None:
            raise InvalidMove(f"Detached run {item.number} has ended, or is just starting. Look again: %flow queue")
        control.cancel(run, wait, reason="Cancelled from the notebook.")
        item.wait(wait)

    def move(self, item: DetachedRun, place: int) -> None:
        """Let it be the `place`-th to run of those that wait, from 1.

        Raises:
            InvalidMove: it does not wait any more.
        """
        with self._lock:
            if item not in self._waiting:
                raise InvalidMove(f"Detached run {item.number} does not wait any more: it is {item.status}.")
            self._waiting.remove(item)
            self._waiting.insert(max(place, 1) - 1, item)
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            running, waiting = int(self._running is not None), list(self._waiting)
        for number, item in enumerate(waiting):
            if item.status == QUEUED:
                item.say(before=running + number)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._worker = None
                    return
                item = self._running = self._waiting.pop(0)
            try:
                item.run()
            except Exception as error:
                logger.debug("Detached run %s cannot be shown: %s", item.number, error, exc_info=error)
            finally:
                with self._lock:
                    self._running = None
                    self._keep(item)
            self._tell()

    def _keep(self, item: DetachedRun) -> None:
        self._ended = [*self._ended, item][-_ENDED_SHOWN:]

    # For people

    def table(self) -> dict[str, str]:
        """The queue as a table, for any front end."""
        rows = [_cells(item, place) for place, item in self._places()]
        if not rows:
            text = "The queue is empty. `%%flow --detach` puts a cell into it."
            return {"text/plain": text, "text/html": f"<div>{escape(text)}</div>"}
        table = table_bundle(("No.", "Place", "State", "Flow", "Run", "Since"), rows)
        hint = "%flow cancel NO · %flow move NO PLACE · %flow wait"
        return {
            "text/plain": f"{table['text/plain']}\n{hint}",
            "text/html": f"{table['text/html']}<div>{hint}</div>",
        }

    def _places(self) -> list[tuple[int | None, DetachedRun]]:
        waiting = itertools.count(1)
        return [(next(waiting) if item.status == QUEUED else None, item) for item in self.items()]


def _cells(item: DetachedRun, place: int | None) -> tuple[str, ...]:
    now = now_us()
    run: FlowRun | None = item.execution.run if item.execution is not None else None
    state = item.state
    if item.status == REMOVED:
        shown = f"{GLYPHS[StateType.CANCELLED]} Removed"
    elif state is None:
        waits = item.status == QUEUED
        shown = f"{GLYPHS[StateType.SCHEDULED]} Queued" if waits else f"{GLYPHS[StateType.PENDING]} Starting"
    else:
        shown = f"{GLYPHS[state.type]} {one_line(state.name, 40)}"
    started = run.start_us if run is not None else None
    since = (
        f"{duration_text(now - started)}" if started is not None and item.status == RUNNING else ago(item.added_us, now)
    )
    name = one_line(run.name, 40) if run is not None else ""
    return str(item.number), str(place or ""), shown, one_line(item.name, 40), name, since


def queue_of(shell: Any) -> DetachedQueue:
    """The queue of a shell."""
    # Kept with the shell: a reload of this module must not lose what runs.
    found: DetachedQueue | None = getattr(shell, _ATTRIBUTE, None)
    if found is None:
        found = DetachedQueue()
        setattr(shell, _ATTRIBUTE, found)
    return found


def item_named(queue: DetachedQueue, what: str) -> DetachedRun:
    """The item that a user names.

    Raises:
        UsageError: there is none.
    """
    item = queue.find(what)
    if item is None:
        names = [item.name for item in queue.open()]
        raise UsageError(f"No detached cell {what!r} waits or runs.{did_you_mean(what, names)} The queue: %flow queue")
    return item
