"""What tasks print and display, in the live view: under each row, beside it while it runs, and in what is left behind."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from prefect_nb.exceptions import PrefectException
from prefect_nb.execution.own_output import Capture, give_all_back
from prefect_nb.execution.taps import shell_here
from prefect_nb.home import Home
from prefect_nb.model.runs import TaskRun
from prefect_nb.notebook.front_end import is_notebook
from prefect_nb.notebook.view import LiveView
from prefect_nb.notebook.view_details import SOURCES, Part
from prefect_nb.service import run_outputs
from prefect_nb.service.run_outputs import Piece

_TEXT = 60_000
"""Characters of a text part; the newest are shown."""

_PARTS = 100
_BYTES = 4 * 1024 * 1024
"""Parts shown of a task run, and what they may weigh: the newest."""

_EXPECTS = "prefect_nb_gives_back"
"""Set on a kernel that gives everything back before it ends."""

_IMAGES = ("image/png", "image/jpeg")


def finisher(home: Home, view: LiveView) -> Callable[[], None]:
    """Have the view show what tasks print and display, if somebody sits in front of it; call it after the view's start.

    Returns:
        What ends the view. What it does not show after all is in the cell then.
    """
    if not view.is_live or view.has_failed or not _is_under_cell():
        return view.finish
    capture = Capture(home.store.outputs, view.board.flow_run_id, lambda: view.is_live and not view.has_failed)
    view.capture = capture
    _expect_shutdown()
    capture.begin()

    def finish() -> None:
        try:
            capture.end()
            if not view.is_live:
                capture.give_back()
            if capture.has_lines:
                # The ledger writes log lines after the events of its turn; in this turn they are all there.
                with suppress(PrefectException):
                    home.ledger.commit()
        finally:
            view.finish()
            if view.has_failed or capture.has_failed:
                capture.give_back()

    return finish


def parts(run: TaskRun) -> list[Part]:
    """What a task run printed and displayed, as parts of the row's details."""
    shown = run_outputs.pieces(run)
    found: list[Part] = []
    room = _BYTES
    for piece in reversed(shown[-_PARTS:]):
        part = _part(piece, run)
        room -= len(json.dumps(part))
        if room < 0:
            break
        found.append(part)
    if len(found) < len(shown):
        count = len(shown) - len(found)
        found.append({"kind": "fact", "name": "Output", "text": f"{count:,} earlier parts: {_command(run)}"})
    return found[::-1]


def _part(piece: Piece, run: TaskRun) -> Part:
    if piece.kind == "display":
        return _display(piece)
    text = piece.text
    if len(text) > _TEXT:
        earlier = text.count("\n", 0, -_TEXT)
        newest = text[-_TEXT:].partition("\n")[2]
        text = f"… {earlier:,} earlier lines: {_command(run)}\n{newest}"
    return {"kind": "text", "text": text, "stream": piece.kind}


def _display(piece: Piece) -> Part:
    for mime in _IMAGES:
        if mime in piece.data:
            encoded = "".join(piece.data[mime].split())
            return {"kind": "image", "src": f"data:{mime};base64,{encoded}", "alt": piece.text[:200]}
    if "text/html" in piece.data:
        return {"kind": "html", "html": piece.data["text/html"]}
    return {"kind": "text", "text": piece.text, "stream": ""}


def _command(run: TaskRun) -> str:
    return f"prefect-nb task-run output {str(run.id)[:18]}"


def _is_under_cell() -> bool:
    """Whether what is printed goes to a notebook's cell, and nobody in between has redirected it to use it himself."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    in_notebook = is_notebook(getattr(shell_here(), "kernel", None))
    return in_notebook and all(hasattr(stream, "pub_thread") for stream in streams)


def _expect_shutdown() -> None:
    """Have everything given back when a front end tells the kernel to end: at its exit nobody listens any more."""
    kernel = getattr(shell_here(), "kernel", None)
    if kernel is None or getattr(kernel, _EXPECTS, False):
        return
    shut_down = kernel.do_shutdown

    def give_back_and_shut_down(restart: bool) -> Any:
        give_all_back()
        return shut_down(restart)

    kernel.do_shutdown = give_back_and_shut_down
    setattr(kernel, _EXPECTS, True)


SOURCES.append(parts)
