"""What a cached task's body shows - prints, log lines, displays - kept beside its result, and shown again on a hit.

While such a body runs, everything is shown as usual, and taps (`execution.taps`) tell the run's `Outputs` of it. Who is
told is in a context variable, so that bodies on several threads do not mix.
Threads that a body starts by itself have a context of their own and are not heard, nor is what is written to file
descriptors directly. What a nested task shows belongs to the outer one as well.

A hit shows a line that says where the output comes from, then the output, in its order. The run's log gets one line
that names the run which logged what is not repeated there.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from prefect_nb.engine.commands import Outcome, Returned
from prefect_nb.exceptions import MissingResult, ResultCorrupt, SerializationError, StorageFull, StoreUnavailable
from prefect_nb.execution import taps
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import TaskRunContext, current_task
from prefect_nb.execution.taps import shell_here
from prefect_nb.interfaces import LogLine, ResultStore
from prefect_nb.model.redaction import redact_texts
from prefect_nb.model.runs import ResultReference

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask

LIMIT_BYTES = 1024 * 1024
"""Most that is kept of one body's output; the rest is left out, and the replay says so."""

_SERIALIZER = "json"
_DIM = "\x1b[90m{}\x1b[0m"

logger = logging.getLogger("prefect_nb.replay")


class Shown(msgspec.Struct):
    """The kept form: who showed it, when (microseconds since the epoch), and what, in order.

    An item is `("stdout" | "stderr", text)` or `("display", data, metadata)`, the latter as IPython's bundles.
    """

    by: str
    at_us: int
    items: list[tuple[Any, ...]]
    truncated: bool = False


class ReturnedShowing(Returned, frozen=True):
    """What a body in another process returned, with what it showed there."""

    shown: Shown | None = None


class Outputs:
    """What one attempt of a body shows, as it comes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._around = _watched.get()
        self._items: list[tuple[Any, ...]] = []
        self._places: dict[str | None, int] = {}
        self._room = LIMIT_BYTES
        self._truncated = False
        self._lock = threading.Lock()
        self._token: Token[Outputs | None] | None = _watched.set(self)
        taps.listen(_replay)

    def close(self) -> None:
        """The body is over."""
        if self._token is not None:
            _watched.reset(self._token)
            self._token = None
            taps.leave(_replay)

    def text(self, kind: str, text: str) -> None:
        """Something was written to a stream."""
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if text:
            with self._lock:
                if self._fits(size):
                    self._items.append((kind, text))
        if self._around is not None:
            self._around.text(kind, text)

    def display(self, data: Any, metadata: Any, place: str | None = None, update: bool = False) -> None:
        """A bundle was displayed; or one displayed before at this place has become another."""
        encoded = msgspec.json.encode((data, metadata or {}), enc_hook=str)
        with self._lock:
            if update:
                number = self._places.get(place)
                if number is not None:
                    self._items[number] = ("display", encoded)
            elif self._fits(len(encoded)):
                if place is not None:
                    self._places[place] = len(self._items)
                self._items.append(("display", encoded))
        if self._around is not None:
            self._around.display(data, metadata, place, update)

    def clear(self) -> None:
        """The output so far was cleared."""
        with self._lock:
            self._items.clear()
            self._places.clear()
            self._room, self._truncated = LIMIT_BYTES, False
        if self._around is not None:
            self._around.clear()

    def _fits(self, size: int) -> bool:
        """Whether there is room. What comes after something that was left out is left out, too: the order stays true."""
        if self._token is None or self._truncated:
            return False
        self._truncated = size > self._room
        self._room -= size
        return not self._truncated

    def added_to(self, outcome: Outcome) -> Outcome:
        """In another process: the outcome to hand back, which takes along what was shown."""
        shown = self.shown()
        return ReturnedShowing(outcome.value, shown) if isinstance(outcome, Returned) and shown is not None else outcome

    def shown(self) -> Shown | None:
        """What there is to keep; None for nothing."""
        with self._lock:
            if not self._items and not self._truncated:
                return None
            return Shown(self._name, now_us(), _merged(self._items), self._truncated)


def _merged(items: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Pieces of text that follow each other as one, bundles decoded."""
    merged: list[tuple[Any, ...]] = []
    pieces: list[str] = []
    stream = ""
    for kind, content in [*items, ("", None)]:
        if kind != stream and pieces:
            merged.append((stream, "".join(pieces)))
            pieces = []
        if kind == "display":
            merged.append((kind, *msgspec.json.decode(content)))
        elif kind:
            pieces.append(content)
        stream = kind
    return merged


_watched: ContextVar[Outputs | None] = ContextVar("prefect_nb_outputs", default=None)
"""Who is told of what this code shows."""


def watch(execution: RecordingTask) -> Outputs | None:
    """Listen to a body until the outputs are closed; None where the settings do not want it."""
    if not execution.home.settings.tasks_replay_output:
        return None
    execution.outputs = outputs = Outputs(execution.run.name)
    return outputs


def keep(outputs: Outputs | Shown, reference: ResultReference, results: ResultStore) -> ResultReference:
    """The reference of a kept result, with that of what was shown; a result counts without it, too."""
    shown = outputs if isinstance(outputs, Shown) else outputs.shown()
    if shown is None:
        return reference
    try:
        kept = results.put(redact_texts(msgspec.to_builtins(shown)), _SERIALIZER, reference.expires_us)
    except (SerializationError, StorageFull, StoreUnavailable) as error:
        logger.debug("What %s showed was not kept: %s", shown.by, error)
        return reference
    return replace(reference, outputs=kept)


def show_again(execution: RecordingTask, reference: ResultReference) -> None:
    """On a hit: show what the body showed when the result was computed, marked as such."""
    if reference.outputs is None or not execution.home.settings.tasks_replay_output:
        return
    try:
        shown = msgspec.convert(execution.home.results.get(reference.outputs), Shown)
    except (MissingResult, ResultCorrupt, SerializationError, msgspec.ValidationError) as error:
        logger.debug("The output of a cached result cannot be shown: %s", error)
        return
    run, at = execution.run, moment(shown.at_us)
    inside: Any = TaskRunContext(execution)
    token = current_task.set(inside)  # it is the run's own output, as if its body had shown it now
    try:
        _show_all(shown, at)
    finally:
        current_task.reset(token)
    whose = f" ({reference.source})" if reference.source is not None else ""
    text = f"The output of task run {shown.by!r}{whose} of {at} was shown again; what it logged is in its own log."
    execution.ledger.log(LogLine(now_us(), logging.INFO, "prefect.task_runs", text, run.flow_run_id, run.id))


def _show_all(shown: Shown, at: str) -> None:
    sys.stdout.write(_mark(f"cached output of {shown.by} ({at})"))
    for item in shown.items:
        _show(item)
    if shown.truncated:
        sys.stdout.write(_mark(f"cached output of {shown.by} was cut off after {LIMIT_BYTES // 1024**2} MiB"))


def moment(us: int) -> str:
    """A moment in local time: `14:02`, with the date if it is not today's."""
    then, now = time.localtime(us / 1e6), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)


def _mark(words: str) -> str:
    coloured = shell_here() is not None or sys.stdout.isatty()
    return f"{_DIM.format(words) if coloured else words}\n"


def _show(item: tuple[Any, ...]) -> None:
    kind, content, *rest = item
    if kind != "display":
        (sys.stderr if kind == "stderr" else sys.stdout).write(content)
        return
    shell = shell_here()
    if shell is not None:
        shell.display_pub.publish(data=content, metadata=rest[0])
    elif "text/plain" in content:
        sys.stdout.write(f"{content['text/plain']}\n")


class _Replay:
    """Tells the outputs that belong to the code that shows something."""

    def text(self, kind: str, text: str) -> bool:
        outputs = _watched.get()
        if outputs is not None:
            outputs.text(kind, text)
        return False

    def display(self, data: Any, metadata: Any, options: dict[str, Any]) -> None:
        outputs = _watched.get()
        if outputs is not None:
            place = (options.get("transient") or {}).get("display_id")
            outputs.display(data, metadata, place, bool(options.get("update")))

    def clear(self, wait: bool) -> bool:  # noqa: ARG002 - IPython's
        outputs = _watched.get()
        if outputs is not None:
            outputs.clear()
        return False


_replay = _Replay()


def overheard(kind: str, text: str) -> None:
    """What would have been written to a stream here, and goes elsewhere, is part of what is shown again."""
    _replay.text(kind, text)
