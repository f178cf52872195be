"""`prefect-nb run`."""

import contextlib
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prefect_nb.cli import progress
from prefect_nb.cli.durations import duration
from prefect_nb.cli.errors import FAILED, INTERRUPTED, OK, SUSPENDED, TERMINATED, say
from prefect_nb.cli.group import Command
from prefect_nb.cli.output import as_json, counts_text, facts, output_option, state_words
from prefect_nb.cli.sweep import named_values, report_sweep, run_points
from prefect_nb.exceptions import TerminationSignal
from prefect_nb.execution import logs
from prefect_nb.model.code_names import is_library_file
from prefect_nb.model.states import StateType
from prefect_nb.service import history, parked, returns
from prefect_nb.service.documents import run_document
from prefect_nb.service.text import elapsed, one_line

if TYPE_CHECKING:
    from prefect_nb.service.running import Finished, Watch

_TOLD = (StateType.CANCELLED, StateType.COMPLETED)
"""Types of states whose message belongs to the summary; of what went wrong it is said apart."""


@click.command(cls=Command)
@click.argument("target")
@click.argument("more", nargs=-1, metavar="")
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter; JSON or plain text. Given several times, the values make a list.",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="NAME=VALUE,...",
    help="Run once for each of these values; with several names, for every combination.",
)
@click.option(
    "--max-parallel",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many runs of a sweep go on at once; by default one for each processor, at most 4.",
)
@click.option(
    "--to",
    "to",
    type=click.Path(dir_okay=False),
    metavar="OUT.ipynb",
    help="Where the executed notebook goes.",
)
@click.option("--name", metavar="NAME", help="The run's name; two random words otherwise.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag of the run and of its task runs.")
@click.option("--durable", is_flag=True, help="Keep every task's result, so that a crashed run resumes where it was.")
@click.option("--kernel", metavar="NAME", help="The kernel that executes the notebook.")
@click.option(
    "--keep-kernel/--no-keep-kernel",
    default=None,
    help="Whether the kernel is kept for a while when a cell fails, to go on in by `flow-run resume`; by default it is, but "
    "not where CI is set.",
)
@click.option("--timeout", callback=duration, metavar="TIME", help="How long it may take: seconds, or 90s, 10m, 1.5h.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@output_option
def run(
    target: str,
    more: tuple[str, ...],
    params: tuple[str, ...],
    sweeps: tuple[str, ...],
    max_parallel: int | None,
    to: str | None,
    name: str | None,
    tags: tuple[str, ...],
    durable: bool,
    kernel: str | None,
    keep_kernel: bool | None,
    timeout: float | None,
    quiet: bool,
    output: str,
) -> int:
    """Run a notebook, or a flow of a Python file. Comes back when the run has ended.

    TARGET is notebook.ipynb, file.py:flow_name, file.py (if it has a single flow), or package.module:flow_name.

    Examples:
      prefect-nb run report.ipynb -p year=2024 --to report-2024.ipynb
      prefect-nb run report.ipynb -p since=2026-01-01 -p region=north -p region=south --timeout 10m
      prefect-nb run flows.py:nightly -p 'tables=["a", "b"]'
      prefect-nb run train.ipynb --sweep depth=3,5,8 lr=0.1,0.01 --max-parallel 2

    With --sweep there is one run for every combination, and one table of results at the end; a run that fails does not
    stop the others, and the exit code is 1. Values are separated by commas, are a JSON list, or a range such as 1..5.

    Exit codes: 0 completed, 1 failed or crashed, 2 bad input (nothing was run), 3 suspended, 75 taken over by another
    process, 130 interrupted or cancelled.
    """
    from prefect_nb.service import running

    options = running.RunOptions(
        name=name,
        tags=tags,
        durable=durable,
        timeout_seconds=timeout,
        output_path=to,
        kernel_name=kernel,
        keep_kernel=keep_kernel,
    )
    swept = named_values(sweeps, more)
    if swept:
        with executing(quiet, output):
            done = run_points(target, swept, params, options, max_parallel, quiet)
        return report_sweep(done, quiet, output)
    if max_parallel is not None:
        raise click.UsageError("--max-parallel is about a sweep, and there is no --sweep.")
    with executing(quiet, output) as watch:
        prepared = running.prepare(target, texts=params, options=options)
        finished = running.run(prepared, watch)
    return report(finished, quiet, output)


def report(finished: "Finished", quiet: bool = False, output: str = "text") -> int:
    """Tell what became of a run; returns the exit code."""
    code = _code(finished)
    if output == "json":
        as_json(_document(finished, code))
    elif not quiet:
        _summary(finished)
    if code in (FAILED, TERMINATED) and output != "json":
        say(_why(finished))
    return code


@contextlib.contextmanager
def executing(quiet: bool, output: str) -> Iterator["Watch"]:
    """Around a run: gives what shows its progress, and sees to its prints, its log lines and SIGTERM."""
    logs.install()
    shown, logs.show_on_console = logs.show_on_console, logs.show_on_console and not quiet
    # Where a program reads stdout, what the flow prints goes to stderr.
    prints = contextlib.redirect_stdout(sys.stderr) if output == "json" else contextlib.nullcontext()
    try:
        with prints, _terminable():
            yield progress.quiet if quiet else progress.shown
    finally:
        logs.show_on_console = shown


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the run in good order: it is recorded as Crashed."""

    def terminate(_signum: int, _frame: object) -> None:
        raise TerminationSignal("The process was told to end (SIGTERM).")

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _code(finished: "Finished") -> int:

    if isinstance(finished.error, TerminationSignal):
        return TERMINATED
    if isinstance(finished.error, KeyboardInterrupt):
        return INTERRUPTED
    match finished.run.state_type:
        case StateType.COMPLETED:
            return OK
        case StateType.CANCELLED | StateType.CANCELLING:
            return INTERRUPTED
        case StateType.PAUSED:
            return SUSPENDED
    return FAILED


def _summary(finished: "Finished") -> None:

    run = finished.run
    cached = finished.tasks.get("Cached", 0)
    click.echo(f"{state_words(run)}  flow {one_line(run.flow_name)}, run {one_line(run.name)}")
    facts(
        [
            ("id", run.id),
            ("message", one_line(run.state_message or "", 200) if run.state_type in _TOLD else None),
            ("duration", elapsed(run, run.state_us)),
            ("cells", counts_text(finished.cells)),
            ("tasks", counts_text(finished.tasks)),
            ("cached", f"{cached} of {sum(finished.tasks.values())} tasks not computed again" if cached else None),
            ("returned", returns.returned_text(run)),
            ("notebook", run.output_path),
            ("next", f"prefect-nb flow-run resume {shlex.quote(run.name)}" if run.state.is_paused() else None),
            ("kernel", parked.next_step(run)),
            ("look", f"prefect-nb flow-run inspect {shlex.quote(history.handle_of(run))}"),
        ]
    )


def _why(finished: "Finished") -> str:
    """The message of a failed run, and where in the user's code it was raised."""
    run, error = finished.run, finished.error
    words = run.state_message or run.state_name
    where = _origin(error) if error is not None else None
    return f"{words}\n  {where}" if where else words


def _origin(error: BaseException) -> str | None:

    package = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not frame.filename.startswith((package, "<")) and not is_library_file(frame.filename):
            line = f": {frame.line}" if frame.line else ""
            return f"at {frame.filename}:{frame.lineno}, in {frame.name}{line}"
    return None


def _document(finished: "Finished", code: int) -> dict[str, Any]:

    return {
        "flow_run": run_document(finished.run),
        "cells": finished.cells,
        "task_runs": finished.tasks,
        "exit_code": code,
    }
