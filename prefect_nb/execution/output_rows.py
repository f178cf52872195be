"""What was taken of single task runs, on its way into the store: lines put together, secrets masked, bounds kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import msgspec

from prefect_nb.interfaces.outputs import CLEAR, Output
from prefect_nb.model.redaction import redact, redact_texts
from prefect_nb.model.words import one_line

PER_TASK_RUN = 1024 * 1024
"""Bytes of output that are kept of one task run."""

PER_FLOW_RUN = 64 * 1024 * 1024
"""Bytes that are kept of a flow run with everything below it."""

KEPT = ("text/plain", "text/html", "image/png", "image/jpeg", "image/svg+xml")
"""Types of a displayed bundle that are kept."""

_LINE = 120
_OPEN = 16 * 1024
"""Characters of a line without an end that may still change."""

_FRAMES = 3
"""Of a line that is written over and over (a progress bar), so many of its newest states are kept."""


class Bundle(NamedTuple):
    """A display."""

    encoded: bytes
    place: str | None
    """Its display id."""
    update: bool


class Row:
    """One task run: how much room it has, and the end of what it has shown."""

    __slots__ = (
        "_used",
        "clears",
        "flow_run_id",
        "id",
        "is_full",
        "left_out",
        "line",
        "number",
        "open_kind",
        "open_number",
        "open_text",
        "places",
        "room",
        "spots",
    )

    def __init__(self, id: UUID, flow_run_id: UUID | None) -> None:
        self.id = id
        self.flow_run_id = flow_run_id
        self.room = PER_TASK_RUN
        self.left_out = 0
        self.is_full = False
        self.line = ""
        """The last line that it printed, for people."""
        self.number = -1
        """Of the next output; below zero until the store was asked."""
        self.open_kind = ""
        self.open_text = ""
        self.open_number = 0
        """The line that has no end yet, and the output it is written as until then."""
        self.clears = False
        """Whether the next thing it shows clears what it has shown before."""
        self.places: dict[str, tuple[int, int]] = {}
        """Number and size of the output at each display id."""
        self.spots: list[str] = []
        """Display ids in the cell; after a clear they are used again, from the first on."""
        self._used = 0

    def leave_out(self, characters: int) -> None:
        """So much finds no room any more."""
        self.left_out += characters
        self.is_full = True

    def place(self, options: dict[str, Any]) -> str:
        """Give a display without an id one, so that what is shown after a clear can take its place in the cell."""
        again = self._used < len(self.spots)
        if not again:
            self.spots.append(uuid4().hex)
        spot = self.spots[self._used]
        self._used += 1
        options["transient"] = {**(options.get("transient") or {}), "display_id": spot}
        if again:
            options["update"] = True
        return spot

    def cleared(self) -> None:
        """What it has shown is to go."""
        self._used = 0

    def number_taken(self) -> int:
        """The number for another output."""
        self.number += 1
        return self.number - 1


Item = tuple[Row | None, str, Any]
"""Whose it is (of a log line: nobody's), its kind, and its content: a text, a `Bundle`, of a "clear" whether it waits, and
of a "full" how many characters were left out."""


class Held:
    """The text that was taken, line by line in the order in which the lines ended."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []
        self._begun: dict[tuple[UUID, str], list[str]] = {}

    def take(self, items: Iterable[Item]) -> None:
        """Take in what has come since."""
        for row, kind, text in items:
            if type(text) is not str:
                continue
            if row is None:
                self._lines.append((kind, text))
                continue
            begun = self._begun.setdefault((row.id, kind), [])
            whole, end, rest = text.rpartition("\n")
            if end:
                self._lines.append((kind, "".join([*begun, whole, end])))
                begun.clear()
            begun.append(rest)
            if "\r" in rest:
                begun[:] = [_newest_frames("".join(begun))]

    def everything(self, rows: Iterable[Row]) -> list[tuple[str, str]]:
        """All of it, also the lines that have no end yet, and how much there was no room for."""
        begun = [(kind, "".join(pieces)) for (_, kind), pieces in self._begun.items()]
        rest = [(kind, f"{text}\n") for kind, text in begun if text]
        return [*self._lines, *rest, *(("stderr", _marker(row.left_out)) for row in rows if row.left_out)]


def size_of(text: str) -> int:
    """Its bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def allowed(data: Any, metadata: Any, room: int) -> bytes | None:
    """What is kept of a displayed bundle: no scripts, nothing too large; None for nothing."""
    for types in (KEPT, ("text/plain",)):
        kept = {mime: data[mime] for mime in types if mime in data}
        about = {mime: metadata[mime] for mime in kept if mime in metadata}
        encoded = msgspec.json.encode({"data": kept, "metadata": about}, enc_hook=str)
        if kept and len(encoded) <= room:
            return encoded
    return None


def batch_of(items: Iterable[Item], at_us: int) -> Batch:
    """What is to be written of these."""
    batch = Batch(at_us)
    rows: dict[UUID, list[Item]] = {}
    for item in items:
        if item[0] is not None:
            rows.setdefault(item[0].id, []).append(item)
    for theirs in rows.values():
        row = theirs[0][0]
        assert row is not None
        kind = ""
        pieces: list[str] = []
        for _, next_kind, content in [*theirs, (row, "", None)]:
            if next_kind != kind and pieces:
                batch.text(row, kind, "".join(pieces))
                pieces = []
            kind = next_kind
            if type(content) is str:
                pieces.append(content)
            elif type(content) is Bundle:
                batch.display(row, content)
            elif kind == "clear":
                batch.clear(row, content)
            elif kind == "full" and row.is_full:  # and not cleared since
                batch.marker(row, content)
    return batch


class Batch:
    """Outputs that are written together."""

    def __init__(self, at_us: int) -> None:
        self.outputs: dict[tuple[UUID, int], Output] = {}
        self.freed: Counter[Row] = Counter()
        """Bytes of room that are free again."""
        self._at_us = at_us

    def text(self, row: Row, kind: str, text: str) -> None:
        """Text of one stream."""
        self._clear_first(row)
        number = None
        if row.open_kind == kind:
            text, number = row.open_text + text, row.open_number
        short = _newest_frames(text)
        self._free(row, size_of(text) - size_of(short))
        whole, end, rest = short.rpartition("\n")
        if end:
            self._put(row, row.number_taken() if number is None else number, kind, redact(whole + end))
            number = None
        row.open_kind, row.open_text = (kind, rest) if rest and len(rest) < _OPEN else ("", "")
        if rest:
            row.open_number = row.number_taken() if number is None else number
            self._put(row, row.open_number, kind, redact(rest))
        row.line = _last_line(redact(short)) or row.line

    def display(self, row: Row, bundle: Bundle) -> None:
        """A display, or what has become of one."""
        self._clear_first(row)
        known = row.places.get(bundle.place) if bundle.place is not None else None
        if bundle.update and known is None and bundle.place not in row.spots:
            return  # of a display that is not this run's
        row.open_kind = ""
        number = row.number_taken() if known is None else known[0]
        if known is not None:
            self._free(row, known[1])
        if bundle.place is not None:
            row.places[bundle.place] = (number, len(bundle.encoded))
        content = redact_texts(json.loads(bundle.encoded))
        self._put(row, number, "display", json.dumps(content, ensure_ascii=False))

    def clear(self, row: Row, wait: bool) -> None:
        """What there is so far goes, at once or when something else comes."""
        row.clears = True
        if not wait:
            self._clear_first(row)

    def marker(self, row: Row, left_out: int) -> None:
        """What stands for what was left out."""
        number = row.places.setdefault("", (row.number, 0))[0]
        row.number = max(row.number, number + 1)
        self._put(row, number, "stderr", _marker(left_out))

    def _clear_first(self, row: Row) -> None:
        if not row.clears:
            return
        row.clears = row.is_full = False
        row.left_out = 0
        row.open_kind = ""
        row.places.clear()
        self._free(row, PER_TASK_RUN - row.room - self.freed[row])
        for key in [key for key in self.outputs if key[0] == row.id]:
            del self.outputs[key]
        number = row.number_taken()
        self.outputs[row.id, number] = Output(row.id, number, self._at_us, CLEAR, "", row.flow_run_id)

    def _free(self, row: Row, size: int) -> None:
        self.freed[row] += size

    def _put(self, row: Row, number: int, kind: str, data: str) -> None:
        self.outputs[row.id, number] = Output(row.id, number, self._at_us, kind, data, row.flow_run_id)


def _newest_frames(text: str) -> str:
    """The text with what a line was before it was written over left out."""
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\r".join(line.split("\r")[-_FRAMES:]) if "\r" in line else line for line in lines)


def _last_line(text: str) -> str:
    """The last that can be read of it, for people."""
    for line in reversed(text[-4000:].split("\n")):
        for frame in reversed(line.split("\r")):
            readable = one_line(frame, _LINE)
            if readable:
                return readable
    return ""


def _marker(left_out: int) -> str:
    return (
        f"... {left_out:,} more characters were left out: {PER_TASK_RUN // 1024**2} MiB of a task run's output "
        f"are kept, and {PER_FLOW_RUN // 1024**2} MiB of a flow run's.\n"
    )
