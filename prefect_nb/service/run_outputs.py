"""What task runs printed and displayed, as it was kept: for the live view, the command line and the static picture."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from prefect_nb.execution.own_output import captures
from prefect_nb.home import Home
from prefect_nb.interfaces import Output
from prefect_nb.model.runs import TaskRun
from prefect_nb.service.history import settled_home
from prefect_nb.service.text import plain

FOLLOW_SECONDS = 0.25
_MOST = 2 * 1024 * 1024
_MOVES = re.compile(r"\n|\r|\x08|\x1b\[(\d*)A|\x1b\[K")


class Piece(msgspec.Struct, frozen=True):
    """A part of what a task run showed: text of one stream, or a display."""

    kind: str
    """"stdout", "stderr" or "display"."""
    text: str
    """As a terminal would show it; of a display, what stands for it as text."""
    data: dict[str, str] = {}
    """A display by type."""


class Printed(NamedTuple):
    """What a task run printed, for a place where there is little room."""

    lines: Sequence[str]
    """The first of its lines."""
    left_out: int
    """How many more lines there are."""
    displays: int


def pieces(run: TaskRun) -> list[Piece]:
    """Everything that was kept of what a task run showed, in order."""
    _flush()
    return _pieces(Home.current().store.outputs.read(run.id, limit=1_000_000))


def follow(run: TaskRun) -> Iterator[Piece]:
    """What a task run shows as it is written, in whole lines; ends when the run has ended."""
    store = settled_home().store
    after = -1
    while True:
        # Looked at first: what was shown before the end is then surely read below.
        now = settled_home().store.task_run(run.id)
        ended = now is None or now.is_final
        _flush()
        found = store.outputs.read(run.id, after)
        if not ended and found and found[-1].kind != "display" and not found[-1].data.endswith("\n"):
            found.pop()  # a line that may still change
        yield from _pieces(found)
        if found:
            after = found[-1].number
        elif ended:
            return
        if not ended:
            time.sleep(FOLLOW_SECONDS)


def printed(flow_run_ids: Sequence[UUID], most: int, lines: int) -> dict[UUID, Printed]:
    """What the task runs of these flow runs printed, by task run, in the order in which they began to.

    Args:
        flow_run_ids: the flow runs.
        most: of so many task runs at most.
        lines: so many lines of each at most.
    """
    _flush()
    store = Home.current().store
    found: dict[UUID, Printed] = {}
    for summary in store.outputs.summaries(flow_run_ids)[:most]:
        text = "".join(
            _with_end(piece.text)
            for piece in _pieces(store.outputs.read(summary.task_run_id))
            if piece.kind != "display"
        )
        every = text.splitlines()
        found[summary.task_run_id] = Printed(every[:lines], max(0, len(every) - lines), summary.displays)
    return found


def as_seen(text: str) -> str:
    """The text as a terminal would leave it, without colours: what a line was before it was written over is gone."""
    if "\r" in text or "\x08" in text or "\x1b" in text:
        text = _settled(text.replace("\r\n", "\n"))
    return plain(text, _MOST)


def _settled(text: str) -> str:
    lines, row, column, last = [""], 0, 0, 0

    def put(written: str) -> None:
        nonlocal column
        if not written:
            return
        line = lines[row].ljust(column)
        lines[row] = line[:column] + written + line[column + len(written) :]
        column += len(written)

    for move in _MOVES.finditer(text):
        put(_uncoloured(text[last : move.start()]))
        last = move.end()
        match move[0][-1]:
            case "\n":
                row, column = row + 1, 0
                if row == len(lines):
                    lines.append("")
            case "\r":
                column = 0
            case "\x08":
                column = max(0, column - 1)
            case "A":
                row = max(0, row - int(move[1] or 1))
            case _:
                lines[row] = lines[row][:column]
    put(_uncoloured(text[last:]))
    return "\n".join(lines)


def _uncoloured(text: str) -> str:
    return plain(text, _MOST) if "\x1b" in text else text


def _pieces(outputs: Sequence[Output]) -> list[Piece]:
    """Outputs as pieces, those of one stream that follow each other as one."""
    found: list[Piece] = []
    kind = ""
    texts: list[str] = []
    for output in outputs:
        if output.kind != kind and texts:
            found.append(Piece(kind, as_seen("".join(texts))))
            texts = []
        kind = output.kind
        if kind == "display":
            found.append(_display(output.data))
        else:
            texts.append(output.data)
    if texts:
        found.append(Piece(kind, as_seen("".join(texts))))
    return found


def _display(content: str) -> Piece:
    data: dict[str, Any] = json.loads(content)["data"]
    texts = {mime: "".join(value) if isinstance(value, list) else str(value) for mime, value in data.items()}
    return Piece("display", plain(texts.get("text/plain", ""), _MOST), texts)


def _with_end(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


def _flush() -> None:
    """What this process has taken and not written yet."""
    for capture in captures():
        capture.flush()
