"""How far a run is, on stderr: one live line on a terminal, plain lines elsewhere."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from prefect_nb.cli.output import state_words
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import GLYPHS, TERMINAL_STATES, StateType
from prefect_nb.service.progress import Progress, Standing
from prefect_nb.service.text import duration_text, elapsed, one_line

if TYPE_CHECKING:
    from rich.text import Text

_LINE_SECONDS = 0.2
_STATUS_EVERY = 25
_MESSAGE = 200


@contextmanager
def quiet(progress: Progress) -> Iterator[None]:  # noqa: ARG001 - as `shown`
    """Show nothing."""
    yield


@contextmanager
def shown(progress: Progress) -> Iterator[None]:
    """Show the progress while the block lasts."""
    with _live(progress) if sys.stderr.isatty() else _lines(progress):
        yield


def status(standing: Standing) -> str:
    """One line that says everything: `cell 3 of 12 · tasks 4 of 9: ✓ 4 Completed ▶ 2 Running · train · 12.3 s`."""
    parts = []
    if standing.cells is not None:
        parts.append(f"cell {min(standing.cells_finished + 1, standing.cells)} of {standing.cells}")
    if standing.total:
        words = " ".join(f"{GLYPHS[type_]} {number} {one_line(name, 30)}" for type_, name, number in standing.tasks)
        parts.append(f"tasks {standing.finished} of {standing.total}: {words}")
    if standing.current is not None:
        parts.append(one_line(standing.current.name, 40))
    parts.append(duration_text(standing.elapsed_us))
    if standing.left_us is not None:
        parts.append(f"about {duration_text(max(standing.left_us, 1_000_000))} left")
    return " · ".join(parts)


class _StatusLine:
    """What rich draws again and again."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __rich__(self) -> "Text":
        from rich.text import Text

        standing = self._progress.standing()
        run = standing.flow_run
        name = "" if run is None else f"{one_line(run.flow_name, 40)} / {one_line(run.name, 40)} · "
        glyph = GLYPHS[StateType.RUNNING if run is None else run.state_type]
        return Text(f"{glyph} {name}{status(standing)}", no_wrap=True, overflow="ellipsis")


@contextmanager
def _live(progress: Progress) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live

    out = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with Live(
        _StatusLine(progress),
        console=out,
        refresh_per_second=8,
        transient=True,
        # Prints go above the line; where stdout is piped away they stay out of it.
        redirect_stdout=sys.stdout.isatty(),
    ):
        yield


@contextmanager
def _lines(progress: Progress) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(progress, over), name="prefect_nb-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)


def _tell(progress: Progress, over: threading.Event) -> None:
    told = 0
    rounds = 0
    last = False
    while not last:
        last = over.wait(_LINE_SECONDS)
        while progress.news:
            click.echo(_news(progress, progress.news.popleft()), err=True)
        rounds += 1
        if rounds % _STATUS_EVERY == 0 and not last:
            standing = progress.standing()
            if standing.finished != told or standing.current is not None:
                told = standing.finished
                click.echo(status(standing), err=True)


def _news(progress: Progress, run: TaskRun) -> str:
    took = elapsed(run, run.end_us or 0)
    message = f": {one_line(run.state_message, _MESSAGE)}" if run.state_message and _went_wrong(run) else ""
    number = progress.cell_number(run)
    cell = f"cell {number} of {progress.standing().cells} · " if number else ""
    return f"{state_words(run)}  {cell}{one_line(run.name, 60)}{f' ({took})' if took else ''}{message}"


def _went_wrong(run: TaskRun) -> bool:
    return run.state_type in TERMINAL_STATES and run.state_type is not StateType.COMPLETED
