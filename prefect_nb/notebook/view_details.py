"""What a row of the live view opens into: where it failed, why it was computed, what it was given, what it logged.

A part is a dictionary with a `kind` that the panel knows how to draw:

- `error`: `message`, `where`, `line` (the failing line) and `traceback`
- `fact`: `name` and `text`
- `log`: `lines` of (time, level, message), and `left_out`, how many older ones there are at least
- `text`: `text`, and `stream` ("stdout", "stderr" or nothing)
- `html`: `html`; the panel keeps its tables and text, and drops everything that could act
- `image`: `src` (a data URL of png, jpeg, gif or webp) and `alt`
"""

import linecache
import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from prefect_nb.exceptions import PrefectException
from prefect_nb.home import Home
from prefect_nb.interfaces import LogLine, Store
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.notebook.picture import BROKEN
from prefect_nb.service import why as reasons
from prefect_nb.service.text import one_line, plain

Part = dict[str, Any]

_LINES = 100
_PAGE = 500
_PAGES = 4
_MESSAGE = 4_000
_TRACEBACK = 16_000
_INPUTS = 5

_FRAME = re.compile(r'^  File "([^"\n]+)", line (\d+)(?:, in ([^\n]+))?\n(?:    ([^\n]*)\n)?', re.MULTILINE)
_ELSEWHERE = re.compile(r"[/\\](?:site-packages|dist-packages|prefect_nb|lib[/\\]python[\d.]+)[/\\]|^<frozen")
_CELL_FILE = re.compile(r"[/\\]ipykernel_\d+[/\\]|^<ipython-input-|^<.* cell")


class Place(NamedTuple):
    """Where an error was raised."""

    where: str
    """`In [3], line 2, in clean`, or with the name of a file."""
    line: str
    """The source line; empty where it is not known."""

    def __str__(self) -> str:
        return f"{self.where}: {self.line}" if self.line else self.where


SOURCES: list[Callable[[TaskRun], list[Part]]] = []
"""Others who have something to show of a task run; called in order, after what is here."""


def details(task_run_id: UUID) -> list[Part]:
    """Everything a row opens into, in the order in which it is shown.

    Args:
        task_run_id: a task run, a cell, or a child flow run.
    """
    store = Home.current().store
    run: Run | None = store.task_run(task_run_id) or store.flow_run(task_run_id)
    if run is None:
        return [{"kind": "fact", "name": "History", "text": "Nothing of this run has been written yet."}]
    lines, left_out = _log(store, run)
    parts = [*_error(run, lines), *_facts(store, run)]
    if isinstance(run, TaskRun):
        for source in SOURCES:
            try:
                parts += source(run)
            except Exception as error:  # what one has to show must not cost the rest
                parts.append({"kind": "fact", "name": "Output", "text": f"It cannot be shown: {error}"})
    shown = [(_time(line.at_us), logging.getLevelName(line.level), _message(line)) for line in lines[-_LINES:]]
    if shown:
        parts.append({"kind": "log", "lines": shown, "left_out": left_out + max(0, len(lines) - _LINES)})
    return parts or [{"kind": "fact", "name": "Log", "text": "Nothing was logged or printed here."}]


def failing_place(store: Store, run: TaskRun) -> Place | None:
    """Where a task run failed, by the newest traceback in its log."""
    lines = [line for _, line in store.logs(task_run_id=run.id, min_level=logging.ERROR, limit=_PAGE)]
    traceback = _traceback(lines)
    return place_of(traceback) if traceback else None


def place_of(traceback: str) -> Place | None:
    """The last frame of a traceback that is the user's own code; where none is, the last."""
    frames = list(_FRAME.finditer(traceback + "\n"))
    if not frames:
        return None
    frame = next((one for one in reversed(frames) if not _ELSEWHERE.search(one[1])), frames[-1])
    file, number, function, source = frame.groups()
    where = f"{_called(file)}, line {number}"
    if function and not function.startswith("<"):
        where += f", in {function}"
    line = source or (linecache.getline(file, int(number)) if _CELL_FILE.search(file) else "")
    return Place(one_line(where, 120), one_line(line, 200))


def _called(file: str) -> str:
    if not _CELL_FILE.search(file):
        return re.split(r"[/\\]", file)[-1]
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    numbers: dict[str, int] = getattr(getattr(shell, "compile", None), "_filename_map", {})
    return f"In [{numbers[file]}]" if file in numbers else "a cell"


def _log(store: Store, run: Run) -> tuple[list[LogLine], int]:
    """The newest lines of the run's own log, and how many older ones were passed over."""
    lines: list[LogLine] = []
    after = dropped = 0
    for _ in range(_PAGES):
        if isinstance(run, FlowRun):
            page = store.logs(flow_run_id=run.id, after=after, limit=_PAGE)
        else:
            page = store.logs(task_run_id=run.id, after=after, limit=_PAGE)
        lines += [line for _, line in page]
        dropped += max(0, len(lines) - _PAGE)
        del lines[:-_PAGE]
        if len(page) < _PAGE:
            break
        after = page[-1][0]
    return lines, dropped


def _error(run: Run, lines: list[LogLine]) -> list[Part]:
    if run.state_type not in BROKEN and run.state_name != "AwaitingRetry":
        return []
    traceback = _traceback(lines)
    place = place_of(traceback) if traceback else None
    message = run.state_message or run.state_name
    return [
        {
            "kind": "error",
            "message": plain(message.removeprefix("Task run encountered an exception "), _MESSAGE),
            "where": place.where if place else "",
            "line": place.line if place else "",
            "traceback": plain(traceback, _TRACEBACK),
        }
    ]


def _traceback(lines: list[LogLine]) -> str:
    for line in reversed(lines):
        _, found, rest = line.message.partition("Traceback (most recent call last):")
        if found:
            return found + rest
    return ""


def _message(line: LogLine) -> str:
    """A line's message; the traceback has a place of its own."""
    head, found, _ = line.message.partition("\nTraceback (most recent call last):")
    return plain(head if found else line.message, _MESSAGE)


def _facts(store: Store, run: Run) -> list[Part]:
    if isinstance(run, FlowRun):
        return []
    parts = []
    if run.cache_key is not None or run.state_name == "Cached":
        said = why_of(run)
        if said:
            parts.append({"kind": "fact", "name": "Why", "text": said})
    for name, sources in run.task_inputs.items():
        ids = [UUID(source["id"]) for source in sources if source.get("id")]
        found = [store.task_run(id) or store.flow_run(id) for id in ids[:_INPUTS]]
        names = [one_line(one.name, 60) for one in found if one is not None]
        if names:
            more = f" and {len(ids) - len(names):,} more" if len(ids) > len(names) else ""
            heading = {"__parents__": "Called in", "wait_for": "Waits for"}.get(name, f"Input {one_line(name, 40)}")
            parts.append({"kind": "fact", "name": heading, "text": f"{', '.join(names)}{more}"})
    if run.tags:
        parts.append({"kind": "fact", "name": "Tags", "text": one_line(", ".join(run.tags), 200)})
    return parts


def why_of(run: TaskRun) -> str:
    """Why a task run was computed, or was not, in one short phrase; nothing where there is nothing to say."""
    try:
        answer = reasons.why(run)
    except (PrefectException, OSError):
        return ""
    if isinstance(answer, reasons.Answers) or answer.kind in (reasons.UNCACHED, reasons.NOT_RUN):
        return ""
    if answer.kind == reasons.MISS:
        first = answer.differences[0] if answer.differences else answer.reason.removeprefix("miss: ")
        return one_line(f"ran because {first}", 160)
    return one_line(answer.reason.replace("hit: ", "cached: ", 1), 160)


def _time(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1e6, UTC).astimezone():%H:%M:%S}"
