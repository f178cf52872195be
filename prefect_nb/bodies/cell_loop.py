"""The loop over a notebook's cells: one kernel, one thread, and the truth about every cell.

How a cell ended is taken from the kernel's reply and from the life of its process, never from the absence of an
exception. The notebook says the same in its papermill metadata, cell by cell.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from prefect_nb.bodies.attending import Attendant
from prefect_nb.bodies.cell_tags import ATTEMPTS
from prefect_nb.bodies.cells import Cell, End, How, Watcher, tags_of
from prefect_nb.bodies.document import Notebook
from prefect_nb.bodies.kernels import Kernel
from prefect_nb.bodies.outputs import CellOutputs, Displays, Message
from prefect_nb.bodies.saving import Saver
from prefect_nb.exceptions import KernelDied, NotebookError
from prefect_nb.model.redaction import redact

logger = logging.getLogger("prefect_nb.notebook")

TIMEOUT_GRACE = 1.0
"""Seconds a cell has to end after the interrupt that its timeout brings."""
_POLL = 0.1
_LATE_OUTPUT = 4.0
"""Seconds to wait for the rest of a cell's output after the kernel has said that the cell is done."""
_SHUTDOWN = 4.0
_ORDERLY = ("completed", "ended", "failed")
_WELL = ("completed", "ended")
_RETRIED = ("failed", "timed-out")
_MAX_MESSAGE = 1_000
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RAISES = "raises-exception"
_STOPS = "StopFlow"
"""The name of the exception by which `flow.stop` leaves a cell."""


class Stop(msgspec.Struct, frozen=True):
    """The wish that the notebook ends now: `how` it is then said to have ended, and how long the cell may take to."""

    how: How
    message: str
    grace: float


class CellLoop:
    """Executes the cells of a prepared notebook, in order, until one ends badly.

    Args:
        notebook: prepared; filled in as its cells run.
        cells: those to execute. Those that are not pending, as the notebook says, are kept as they are.
        kernel: not started yet; it is gone when `run` returns, or the attendant has kept it.
        saver: writes the notebook.
        watcher: is told of each cell.
        cell_timeout: seconds each cell may take; None for any.
        closing: code to execute silently when the cells are done, before the kernel ends.
        attendant: is asked between cells and at the end.
    """

    def __init__(
        self,
        notebook: Notebook,
        cells: Sequence[Cell],
        kernel: Kernel,
        saver: Saver,
        watcher: Watcher,
        *,
        cell_timeout: float | None = None,
        closing: str = "",
        attendant: Attendant | None = None,
    ) -> None:
        self.notebook = notebook
        self._cells = cells
        self._kernel = kernel
        self._saver = saver
        self._watcher = watcher
        self._cell_timeout = cell_timeout
        self._closing = closing
        self._attendant = attendant or Attendant()
        self._is_kept = False
        self._displays = Displays()
        self._outputs: dict[str, CellOutputs] = {}
        self._stop: Stop | None = None
        self._reply: Message = {}

    def stop(self, stop: Stop) -> None:
        """End early; called from any thread. A second call can only make it quicker."""
        if self._stop is not None:
            stop = msgspec.structs.replace(self._stop, grace=min(self._stop.grace, stop.grace))
        self._stop = stop

    def run(self) -> End:
        """Execute the cells.

        Raises:
            NotebookError: the executed notebook cannot be written.
        """
        metadata = self.notebook["metadata"]["papermill"]
        started = _now()
        metadata["start_time"] = started.isoformat()
        end = End("crashed")
        try:
            self._saver.save()
            end = self._run()
        finally:
            try:
                if not self._is_kept:
                    self._kernel.close(_SHUTDOWN if end.how in _ORDERLY else TIMEOUT_GRACE)
            finally:
                ended = _now()
                metadata["end_time"] = ended.isoformat()
                metadata["duration"] = (ended - started).total_seconds()
                metadata["exception"] = None if end.how in _WELL else True
                widgets = self._displays.widget_metadata()
                if widgets is not None:
                    self.notebook["metadata"]["widgets"] = widgets
                self._saver.finish()
        return end

    def _run(self) -> End:
        try:
            self._kernel.start(lambda: self._stop is not None)
        except KernelDied as error:
            return End("crashed", str(error))
        if self._kernel.language_info is not None:
            self.notebook["metadata"]["language_info"] = self._kernel.language_info
        end = self._open()
        if end.how != "completed":
            return end
        for cell in self._cells:
            if self._record(cell)["status"] != "pending":
                continue
            end = self._watcher.between(cell) or self._between(cell) or self._passed_over(cell) or self._execute(cell)
            if end.how != "completed":
                break
            self._attend(cell)
            self._saver.tick(within_cell=False)
        if self._kernel.exit_code is None and not self._is_kept_after(end) and end.how in _ORDERLY:
            self._close()
        if end.how == "completed" and self._stop is not None:
            end = End(self._stop.how, self._stop.message)
        return end

    def _between(self, following: Cell) -> End | None:
        """Why the next cell is not executed; None if it is."""
        if self._stop is not None:
            return End(self._stop.how, self._stop.message)
        code = self._kernel.exit_code
        if code is None:
            return None
        before = f"after cell {following.number - 1}" if following.number > 1 else "before the first cell"
        why = self._kernel.explain_exit()
        return End("crashed", f"The kernel died {before}: {why}.{self._last_words()}")

    def _is_kept_after(self, end: End) -> bool:
        """Have the attendant keep the kernel, if it wants to: whether it does."""
        if self._attendant.wants(end) and not self._is_stopped():
            self._close(leaving=False)
            self._is_kept = not self._is_stopped() and self._attendant.keep(self._kernel, end)
        return self._is_kept

    def _is_stopped(self) -> bool:
        return self._stop is not None

    def _open(self) -> End:
        """Before the first cell: execute what the attendant wants to."""
        code = self._attendant.opening()
        error = self._aside(code, time.monotonic() + self._attendant.patience) if code else None
        if error is None:
            return End("completed")
        if self._stop is not None:
            return End(self._stop.how, self._stop.message)
        return End("failed", f"No cell was executed: {error}")

    def _attend(self, cell: Cell) -> None:
        """Between two cells: execute what the attendant wants to."""
        content = self.notebook["cells"][cell.index]
        code = self._attendant.aside(cell, content["source"], self._record(cell)["duration"] or 0.0)
        if not code:
            return
        started = time.monotonic()
        error = self._aside(code, started + self._attendant.patience)
        self._attendant.set_aside(cell, time.monotonic() - started, error)
        if error is None:
            # What was set aside is worth something together with what the cells have shown.
            with contextlib.suppress(NotebookError):
                self._saver.save()

    def _aside(self, code: str, until: float) -> str | None:
        """Execute code silently, no longer than until then; what it raised, if it did not end well."""
        request = self._kernel.execute(code, {}, silent=True)
        interrupted = False
        while self._kernel.exit_code is None:
            for message in self._kernel.messages(_POLL, self._left_out):
                if message["msg_type"] == "execute_reply" and message["parent_header"].get("msg_id") == request:
                    content = message["content"]
                    return None if content.get("status") == "ok" else describe_error(content)
                self._file(message)
            if not interrupted and (self._stop is not None or time.monotonic() > until):
                interrupted = True
                self._kernel.interrupt()
            elif interrupted and time.monotonic() > until + self._attendant.patience + TIMEOUT_GRACE:
                self._kernel.kill()
        return "the kernel died"

    def _record(self, cell: Cell) -> dict[str, Any]:
        record: dict[str, Any] = self.notebook["cells"][cell.index]["metadata"]["papermill"]
        return record

    # One cell

    def _passed_over(self, cell: Cell) -> End | None:
        """How the cell ended without being executed, because of its tags; None: it is to be executed."""
        rules, why = cell.rules, "Skipped by its tag 'skip'."
        if not rules.skip:
            if rules.skip_if is None:
                return None
            tag = f"skip-if:{rules.skip_if}"
            end, is_true = self._evaluate(rules.skip_if, tag, cell)
            if end.how != "completed":
                self._mark(cell, end)
                self._watcher.ended(cell, end)
                return end
            if not is_true:
                return None
            why = f"Skipped by its tag {tag!r}."
        self.notebook["cells"][cell.index]["metadata"]["papermill"]["status"] = "skipped"
        self._watcher.skipped(cell, why)
        return End("completed", why, cell)

    def _evaluate(self, expression: str, tag: str, cell: Cell) -> tuple[End, bool]:
        """Ask the kernel whether an expression is true; how that ended, and the answer."""
        request = self._kernel.execute("", {}, silent=True, expressions={"it": f"True if ({expression}\n) else False"})
        end = self._await(request, cell)
        if end.how != "completed":
            return end, False
        answer = self._reply["content"].get("user_expressions", {}).get("it", {})
        if answer.get("status") != "ok":
            error = describe_error(answer)
            return End(
                "failed", f"{_place(cell, self._cells)}: its tag {tag!r} could not be evaluated: {error}", cell
            ), False
        return end, answer["data"].get("text/plain") == "True"

    def _execute(self, cell: Cell) -> End:
        """Execute a cell, again if its tags ask for it."""
        self.notebook["cells"][cell.index]["metadata"].pop(ATTEMPTS, None)
        end, retry = self._attempt(cell), 1
        while self._may_retry(end, retry):
            delay = cell.rules.delay_before(retry)
            self._put_aside(cell, end)
            self._watcher.retrying(cell, end, delay)
            if not self._wait(delay):
                stop = self._stop
                assert stop is not None
                end = End(stop.how, stop.message, cell)
                break
            end, retry = self._attempt(cell), retry + 1
        self._watcher.ended(cell, end)
        return end

    def _may_retry(self, end: End, retry: int) -> bool:
        if end.how not in _RETRIED or end.is_last or end.cell is None or retry > end.cell.rules.retries:
            return False
        return self._stop is None and self._kernel.exit_code is None

    def _put_aside(self, cell: Cell, end: End) -> None:
        """Note what became of an attempt, and make room for the outputs of the next."""
        content = self.notebook["cells"][cell.index]
        record = content["metadata"]["papermill"]
        times = {name: record[name] for name in ("start_time", "end_time", "duration")}
        content["metadata"].setdefault(ATTEMPTS, []).append({"error": redact(end.message or ""), **times})
        content["outputs"] = []

    def _wait(self, seconds: float) -> bool:
        """Wait, taking in what the kernel says meanwhile; False if the notebook is to end."""
        until = time.monotonic() + seconds
        while self._stop is None and self._kernel.exit_code is None and (left := until - time.monotonic()) > 0:
            for message in self._kernel.messages(min(_POLL, left), self._left_out):
                self._file(message)
            self._saver.tick(within_cell=True)
        return self._stop is None

    def _attempt(self, cell: Cell) -> End:
        content = self.notebook["cells"][cell.index]
        record = content["metadata"]["papermill"]
        record["status"] = "running"
        record["exception"] = False
        metadata = self._watcher.starting(cell)
        started = _now()
        record["start_time"] = started.isoformat()
        request = self._kernel.execute(content["source"], {"cellId": cell.id, **metadata})
        self._outputs[request] = CellOutputs(content, self._displays)
        end = self._await(request, cell)
        self._outputs[request].close()
        ended = _now()
        record["end_time"] = ended.isoformat()
        record["duration"] = (ended - started).total_seconds()
        self._mark(cell, end)
        return end

    def _mark(self, cell: Cell, end: End) -> None:
        content = self.notebook["cells"][cell.index]
        record = content["metadata"]["papermill"]
        record["status"] = "completed" if end.how in _WELL else "failed"
        record["exception"] = end.how not in _WELL
        if end.how == "ended":
            # Leaving was no error: the cell says in words what its last line did.
            words = [f"The notebook ends here{f': {end.message}' if end.message else '.'}\n"]
            outputs = [output for output in content["outputs"] if output.get("ename") != _STOPS]
            content["outputs"][:] = [*outputs, {"output_type": "stream", "name": "stdout", "text": words}]

    def _await(self, request: str, cell: Cell) -> End:
        """Until the cell has ended, or must."""
        timeout = self._timeout_of(cell)
        deadline = None if timeout is None else time.monotonic() + timeout
        reply: Message | None = None
        idle = False
        late: float | None = None
        interrupt: _Interrupt | None = None
        while True:
            heard = False
            for message in self._kernel.messages(_POLL, self._left_out):
                heard = True
                if message["msg_type"] == "execute_reply" and message["parent_header"].get("msg_id") == request:
                    reply = self._reply = message
                    late = time.monotonic() + _LATE_OUTPUT
                elif self._file(message) == request:
                    idle = True
            now = time.monotonic()
            if reply is not None and (idle or (late is not None and now > late)):
                return self._judged(reply, cell, interrupt)
            if not heard and self._kernel.exit_code is not None:
                return self._died(cell, interrupt)
            if interrupt is None:
                interrupt = self._wanted(deadline, now, cell)
                if interrupt is not None:
                    self._kernel.interrupt()
            elif now > interrupt.until or (self._stop is not None and now > interrupt.began + self._stop.grace):
                self._kernel.kill()
            self._saver.tick(within_cell=True)

    def _file(self, message: Message) -> str | None:
        """Give a message to the cell it belongs to; returns the request that is over by it, if any.

        Also what an asyncio task prints while a later cell runs is filed under the cell that started it.
        """
        request: str | None = message["parent_header"].get("msg_id")
        if message["msg_type"] == "status":
            return request if message["content"]["execution_state"] == "idle" else None
        outputs = self._outputs.get(request or "")
        if outputs is not None:
            outputs.take(message)
        return None

    def _left_out(self, request: str, size: int) -> bool:
        outputs = self._outputs.get(request)
        return outputs is not None and outputs.left_out(size)

    def _wanted(self, deadline: float | None, now: float, cell: Cell) -> _Interrupt | None:
        stop = self._stop
        if stop is not None:
            return _Interrupt(stop.how, stop.message, now, now + stop.grace)
        if deadline is not None and now > deadline:
            message = f"{_place(cell, self._cells)} took longer than {self._timeout_of(cell):g} seconds."
            return _Interrupt("timed-out", message, now, now + TIMEOUT_GRACE)
        return None

    def _timeout_of(self, cell: Cell) -> float | None:
        return self._cell_timeout if cell.rules.timeout is None else cell.rules.timeout

    def _judged(self, reply: Message, cell: Cell, interrupt: _Interrupt | None) -> End:
        """How the cell ended by the kernel's reply."""
        content = reply["content"]
        status = content.get("status")
        if interrupt is not None and (status != "ok" or interrupt.how == "timed-out"):
            return End(interrupt.how, interrupt.message, cell)
        if status == "ok":
            if any(payload.get("source") == "ask_exit" for payload in content.get("payload") or ()):
                return self._left(cell, "exit()")
            return End("completed", cell=cell)
        if status != "error":
            return End("failed", f"{_place(cell, self._cells)} was not executed ({status}).", cell)
        if content.get("ename") == _STOPS:
            return End("ended", _said(content.get("evalue") or ""), cell)
        error = describe_error(content)
        if _RAISES in tags_of(self.notebook["cells"][cell.index]):
            return End("completed", f"It raised what its tag {_RAISES} announces: {error}", cell)
        if content.get("ename") == "SystemExit":
            return self._left(cell, f"sys.exit({content.get('evalue') or ''})")
        return End("failed", f"{_place(cell, self._cells)} failed: {error}", cell)

    def _left(self, cell: Cell, how: str) -> End:
        """The cell asked to end the notebook. Exit code 0 or not: what was to follow did not happen."""
        rest = len(self._cells) - cell.number
        after = f"; the {rest} after it did not run" if rest else ""
        return End("failed", f"{_place(cell, self._cells)} ended the notebook with {how}{after}.", cell, is_last=True)

    def _died(self, cell: Cell, interrupt: _Interrupt | None) -> End:
        if interrupt is not None:
            return End(interrupt.how, interrupt.message, cell)
        why = self._kernel.explain_exit(self._attendant.doing())
        return End("crashed", f"The kernel died in {_place(cell, self._cells)}: {why}.{self._last_words()}", cell)

    def _last_words(self) -> str:
        words = self._kernel.last_words()
        return f" Its last words:\n{words}" if words else ""

    # The end

    def _close(self, *, leaving: bool = True) -> None:
        """Have the kernel finish what is under way, and then end; take in the outputs that come late."""
        leave = self._kernel.leave
        request = leave(self._closing) if leaving else self._kernel.execute(self._closing, {}, silent=True)
        replied = idle = False
        while not (replied and idle) and self._stop is None:
            for message in self._kernel.messages(_POLL, self._left_out):
                if message["msg_type"] == "execute_reply" and message["parent_header"].get("msg_id") == request:
                    replied = True
                    if message["content"].get("status") != "ok":
                        logger.warning("The kernel did not end in good order: %s", describe_error(message["content"]))
                elif self._file(message) == request:
                    idle = True
            if self._kernel.exit_code is not None:
                return


class _Interrupt(msgspec.Struct, frozen=True):
    """The cell has been interrupted: why, when, and until when it may live."""

    how: How
    message: str
    began: float
    until: float


def describe_error(content: Mapping[str, Any]) -> str:
    """`ValueError: it was wrong`, from an error reply."""
    return _said(f"{content.get('ename') or 'Error'}: {content.get('evalue') or ''}".removesuffix(": "))


def _said(text: str) -> str:
    text = _ANSI.sub("", text)
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."


def _place(cell: Cell, cells: Sequence[Cell]) -> str:
    return f"Cell {cell.number} of {len(cells)} ({cell.name!r})"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
