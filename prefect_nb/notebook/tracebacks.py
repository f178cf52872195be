"""Errors as a notebook's user should see them: their own frames, without the machinery in between."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from prefect_nb.exceptions import CancelledRun, RunCancelled
from prefect_nb.model.states import GLYPHS, StateType
from prefect_nb.service.text import one_line

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH100, PTH120
_MARK = "_render_traceback_"


class Rendered:
    """Given to an exception for as long as it takes to show it: IPython calls it for the lines of the traceback."""

    def __init__(self, error: BaseException, lines: Callable[[], list[str]]) -> None:
        self._error = error
        self._lines = lines

    def __call__(self) -> list[str]:
        """The lines; once only."""
        self._error.__dict__.pop(_MARK, None)
        return self._lines()

    def __reduce__(self) -> tuple[Any, ...]:
        # The exception may be kept with its run; what shows it stays here.
        return (_nothing, ())


def _nothing() -> list[str]:
    return []


def shown_from_cell(error: BaseException, shell: Any) -> BaseException:
    """The error, prepared so that IPython shows it beginning with the cell's own line; raise it."""
    for one in _chain(error):
        one.__traceback__ = without_machinery(one.__traceback__)
    inner = error.__traceback__

    def lines() -> list[str]:
        formatter = shell.InteractiveTB
        if inner is None:
            return list(formatter.get_exception_only(type(error), error))
        return list(formatter.structured_traceback(type(error), error, inner))

    return _render(error, lines)


def shown_as(error: BaseException, text: str) -> BaseException:
    """The error, prepared so that IPython shows nothing but this line; raise it."""
    return _render(error, lambda: [text])


def shown_of_flow(error: BaseException, execution: Any, shell: Any) -> BaseException:
    """What ended a flow run in a cell: a cancel on one line, anything else from the cell's own line; raise it.

    Args:
        error: what came out of the run.
        execution: the flow run; None where there was none yet.
        shell: the IPython shell.
    """
    if execution is None or not isinstance(error, KeyboardInterrupt | RunCancelled | CancelledRun):
        return shown_from_cell(error, shell)
    state = execution.state
    word, message = (state.name, state.message) if state is not None else ("Cancelled", None)
    glyph = GLYPHS[state.type if state is not None else StateType.CANCELLED]
    line = f"{glyph} Flow run {one_line(execution.run.name)!r} is {word}: {one_line(message or '', 200)}"
    return shown_as(error, line)


def _render(error: BaseException, lines: Callable[[], list[str]]) -> BaseException:
    try:
        setattr(error, _MARK, Rendered(error, lines))
    except Exception:  # an exception class may refuse attributes; then IPython shows all there is
        return error
    return error


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [other for other in (one.__cause__, one.__context__) if other is not None]


def without_machinery(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of prefect_nb; None if it has no others."""
    entries: list[TracebackType] = []
    step = traceback
    while step is not None:
        entries.append(step)
        step = step.tb_next
    kept: TracebackType | None = None
    for entry in reversed(entries):
        if not is_machinery(entry.tb_frame):
            kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return kept


def is_machinery(frame: FrameType) -> bool:
    """Whether the frame runs code of prefect_nb."""
    return frame.f_code.co_filename.startswith(_PACKAGE)
