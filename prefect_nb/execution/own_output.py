"""What each task run of a flow run prints and displays, kept under the task run and not under the cell.

That is so for the flow runs that a person watches in a view (`Capture`). Which task run it is, the code that shows
something says by its context, as it does for `get_run_logger`: the innermost task run whose body it is in. So a task run
costs nothing more for it, until it shows something.

- What it prints goes to its outputs in the store, and not to the cell. So do lines of its log on the console, which the
  log has already.
- What it displays goes to both: a saved notebook must not lose a picture.
- A flow's own prints, and those of threads that a body started by itself, go to the cell.

Nothing is lost: while the view shows what was taken, the text waits here as well, and it is written to the cell when
the view does not show it after all (`Capture.give_back`).
"""

from __future__ import annotations

import atexit
import contextvars
import functools
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

from prefect_nb.execution import replay, taps
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import current_flow, current_task
from prefect_nb.execution.output_rows import PER_FLOW_RUN, Bundle, Held, Item, Row, allowed, batch_of, size_of
from prefect_nb.interfaces.outputs import OutputStore

logger = logging.getLogger("prefect_nb.own_output")

_PERIOD = 0.1
"""Seconds of output that are written together."""

_LOOK = 1.0
"""Seconds between two looks at whether the view still shows anything."""

_LOG_ROOM = 8 * 1024 * 1024
"""Bytes of log lines that wait here; the log has them."""


class Shell(Protocol):
    """A task run, as far as it matters here."""

    run: Any
    scope: Any


class Capture:
    """Takes what the task runs of one flow run, and of all below it, show.

    Args:
        store: where it is kept.
        flow_run_id: the flow run that no other encloses.
        is_shown: whether a view shows what is taken.
    """

    def __init__(self, store: OutputStore, flow_run_id: UUID, is_shown: Callable[[], bool]) -> None:
        self.version = 0
        """Grows when something was taken."""
        self.has_failed = False
        """Whether something could not be kept."""
        self.has_lines = False
        """Whether it took lines of logs."""
        self.gave_back = False
        """Whether what was taken is in the cell."""
        self._store = store
        self._flow_run_id = flow_run_id
        self._is_shown = is_shown
        self._takes = True
        # A signal's handler or a finalizer may print while this thread has it.
        self._lock = threading.RLock()
        self._flushing = threading.RLock()
        self._rows: dict[UUID, Row] = {}
        self._room = PER_FLOW_RUN
        self._log_room = _LOG_ROOM
        self._items: list[Item] = []
        self._full: set[Row] = set()
        """Those that have left out something since they were written."""
        self._held = Held()
        self._news = threading.Event()
        self._over = threading.Event()
        self._writer: threading.Thread | None = None
        # What the writer gives back belongs under the cell that this is called in.
        self._context = contextvars.copy_context()

    def begin(self) -> None:
        """Take what comes from now on."""
        _expect_exit()
        _captures[self._flow_run_id] = self
        taps.listen(_taker)

    def end(self) -> None:
        """Take nothing more, and have everything in the store."""
        if self._stop():
            self.flush()

    def _stop(self) -> bool:
        """Take nothing more; returns whether something was taken until now."""
        with self._lock:
            took, self._takes = self._takes, False
        if took:
            _captures.pop(self._flow_run_id, None)
            taps.leave(_taker)
            self._over.set()
            self._news.set()
        return took

    def give_back(self) -> None:
        """Write everything that was taken to the cell, in order, and take nothing more."""
        self._stop()
        self.flush()
        with self._flushing:
            self.gave_back = True
            held, self._held = self._held, Held()
            # A copy: whoever calls this may be in that context already.
            self._context.copy().run(_write_all, held.everything(self._rows.values()))

    # What comes, on the threads of those who show it

    def text(self, execution: Shell, kind: str, text: str) -> bool:
        """Take a text that was printed; returns whether it is taken."""
        with self._lock:
            if not self._takes:
                return False
            row = self._row(execution)
            size = size_of(text)
            room = min(row.room, self._room)
            if size <= room and not row.is_full:
                row.room -= size
                self._room -= size
                self._items.append((row, kind, text))
            else:
                # Whatever comes after something that was left out is left out, too: the order stays true.
                kept = "" if row.is_full else text[: room if text.isascii() else room // 4]
                row.leave_out(len(text) - len(kept))
                self._full.add(row)
                if kept:
                    self._items.append((row, kind, kept))
        self._tell()
        return True

    def display(self, execution: Shell, data: Any, metadata: Any, options: dict[str, Any]) -> None:
        """Take a bundle that goes to the cell as well."""
        with self._lock:
            if not self._takes:
                return
            row = self._row(execution)
            update = bool(options.get("update"))
            place = (options.get("transient") or {}).get("display_id")
            bundle = allowed(data, metadata or {}, min(row.room, self._room))
            if bundle is None or row.is_full:
                return
            if place is None and not update:
                place = row.place(options)
            row.room -= len(bundle)
            self._room -= len(bundle)
            self._items.append((row, "display", Bundle(bundle, place, update)))
        self._tell()

    def clear(self, execution: Shell, wait: bool) -> bool:
        """Clear what the task run has shown so far; returns whether that is done. The cell keeps the rest: the view."""
        with self._lock:
            if not self._takes:
                return False
            row = self._row(execution)
            self._items.append((row, "clear", wait))
            row.cleared()
        self._tell()
        return True

    def line(self, kind: str, text: str) -> bool:
        """Take a line of a task run's log off the console; returns whether it is taken."""
        with self._lock:
            if not self._takes:
                return False
            self.has_lines = True
            self._log_room -= len(text)
            if self._log_room >= 0:
                self._items.append((None, kind, text))
        return True

    def _row(self, execution: Shell) -> Row:
        run = execution.run
        row = self._rows.get(run.id)
        if row is None:
            row = self._rows[run.id] = Row(run.id, run.flow_run_id)
        return row

    def _tell(self) -> None:
        if not self._news.is_set():
            self._news.set()
        if self._writer is None:
            with self._lock:
                if self._writer is None:
                    self._writer = threading.Thread(
                        target=self._context.run, args=(self._write_on,), name="prefect_nb-outputs", daemon=True
                    )
                    self._writer.start()

    # What becomes of it

    def newest_line(self, task_run_id: UUID) -> str:
        """The last line that a task run has printed; empty for none."""
        row = self._rows.get(task_run_id)
        return row.line if row is not None else ""

    def flush(self) -> None:
        """Have everything that was taken so far in the store."""
        with self._flushing:
            self._news.clear()
            with self._lock:
                items, self._items = self._items, []
                full, self._full = self._full, set()
                items += [(row, "full", row.left_out) for row in full]
            if not items:
                return
            self._held.take(items)
            new = {row.id: row for row, _, _ in items if row is not None and row.number < 0}
            try:
                numbers = self._store.next_numbers(list(new)) if new else {}
                for id, row in new.items():
                    row.number = numbers.get(id, 0)
                batch = batch_of(items, now_us())
                self._store.write(list(batch.outputs.values()))
            except Exception as error:
                logger.warning("What task runs show is written to the cell, as it could not be kept: %s", error)
                self.has_failed = True
            else:
                with self._lock:
                    for row, size in batch.freed.items():
                        row.room += size
                        self._room += size
            self.version += 1

    def _write_on(self) -> None:
        while not self._over.is_set():
            if self._news.wait(_LOOK):
                self._over.wait(_PERIOD)
                self.flush()
            if not self._over.is_set() and (self.has_failed or not self._is_shown()):
                self.give_back()


class _Taker:
    """Finds the task run whose body shows something, and the capture that it belongs to."""

    def text(self, kind: str, text: str) -> bool:
        execution = _shown_by()
        capture = None if execution is None else _capture_of(execution)
        return capture is not None and capture.text(execution, kind, text)

    def display(self, data: Any, metadata: Any, options: dict[str, Any]) -> None:
        execution = _shown_by()
        capture = None if execution is None else _capture_of(execution)
        if capture is not None:
            capture.display(execution, data, metadata, options)

    def clear(self, wait: bool) -> bool:
        execution = _shown_by()
        capture = None if execution is None else _capture_of(execution)
        return capture is not None and capture.clear(execution, wait)


_taker = _Taker()
_captures: dict[UUID, Capture] = {}
"""By the flow run that no other encloses."""


def capture_of(flow_run_id: UUID) -> Capture | None:
    """What takes the output of this flow run's tasks at the moment, if anything does."""
    return _captures.get(flow_run_id)


def captures() -> list[Capture]:
    """Everything that takes output at the moment."""
    return list(_captures.values())


def is_taken(execution: Any) -> bool:
    """Whether what this task run shows is taken."""
    return bool(_captures) and _capture_of(execution) is not None


def take(execution: Any, kind: str, text: str) -> None:
    """What a task run printed in another process: taken, or else printed here."""
    capture = _capture_of(execution)
    if capture is None or not capture.text(execution, kind, text):
        (sys.stderr if kind == "stderr" else sys.stdout).write(text)


def takes_line(text: str, level: int) -> bool:
    """Whether a line of a task run's log on the console is taken; called where its flow run is the current one."""
    if not _captures:
        return False
    flow = current_flow.get()
    capture = None if flow is None else _capture_of(flow.execution)
    kind = "stdout" if level < logging.WARNING else "stderr"
    if capture is None or not capture.line(kind, text):
        return False
    replay.overheard(kind, text)
    return True


def _shown_by() -> Any:
    task = current_task.get()
    return None if task is None or _is_debugged() else task.execution


def _capture_of(execution: Any) -> Capture | None:
    scope = getattr(execution, "scope", None)
    if scope is None:
        return None
    while scope.parent is not None:
        scope = scope.parent
    return _captures.get(scope.flow_run_id)


def _is_debugged() -> bool:
    """Whether somebody steps through this code: what the debugger says belongs to where its prompt is."""
    trace = sys.gettrace()
    bdb = sys.modules.get("bdb")
    return trace is not None and bdb is not None and isinstance(getattr(trace, "__self__", None), bdb.Bdb)


def _write_all(lines: Sequence[tuple[str, str]]) -> None:
    for kind, text in lines:
        (sys.stderr if kind == "stderr" else sys.stdout).write(text)
    if lines:
        sys.stdout.flush()


def give_all_back() -> None:
    """The process ends: have everything in the store, and in the cells."""
    for capture in captures():
        capture.give_back()


@functools.cache
def _expect_exit() -> None:
    # Not on import: what is registered last comes first, and the home is still open then.
    atexit.register(give_all_back)
