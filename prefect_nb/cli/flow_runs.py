"""`prefect-nb flow-run`."""

import json
import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import click

from prefect_nb.cli.errors import FAILED, OK
from prefect_nb.cli.group import Group
from prefect_nb.cli.listing import show_runs
from prefect_nb.cli.output import as_json, facts, limit_option, output_option, state_words
from prefect_nb.cli.repair import repair, retry
from prefect_nb.cli.run_diff import diff
from prefect_nb.execution.clock import now_us
from prefect_nb.interfaces import LogLine
from prefect_nb.model.runs import FlowRun, Run
from prefect_nb.service import history, parked, reports, returns, run_logs
from prefect_nb.service.documents import log_document, run_document
from prefect_nb.service.history import Node
from prefect_nb.service.text import ago, did_you_mean, elapsed, one_line, plain

_SHOWN_TASKS = 100
_PLURALS = {"cell": "cells"}


@click.group(cls=Group, name="flow-run")
def flow_run() -> None:
    """Look at flow runs, cancel them, resume them.

    Example:
      prefect-nb flow-run ls
    """


@flow_run.command()
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only these: failed, running, crashed, ...")
@click.option("--flow", metavar="NAME", help="Only runs of this flow.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only runs with this tag.")
@limit_option(20)
@output_option
def ls(states: tuple[str, ...], flow: str | None, tags: tuple[str, ...], limit: int, output: str) -> None:
    """List the newest flow runs.

    Example:
      prefect-nb flow-run ls --state failed --limit 5
    """
    runs = history.flow_runs(states=states, flow=flow, tags=tags, limit=limit)
    nothing = "No flow runs." if not (states or flow or tags) else "No flow run fits."
    show_runs(runs, output, "Flow", lambda run: run.flow_name, nothing)


@flow_run.command()
@click.argument("run")
@output_option
def inspect(run: str, output: str) -> None:
    """Show one flow run and everything called in it.

    RUN is the run's name, its id, or the first characters of the id.

    Example:
      prefect-nb flow-run inspect quick-fox
    """
    found = history.find_flow_run(run)
    if output == "json":
        as_json(_document(found))
        return
    _show(found)
    below = list(history.walk(history.tree(found.id)))
    if below:
        click.echo(f"\n{_heading([node.run for _, node in below])}")
        _show_below(found, below)


@flow_run.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on showing lines until the run has ended.")
@click.option("--level", default="DEBUG", metavar="LEVEL", help="Only lines of this level or a higher one.")
@output_option
def logs(run: str, follow: bool, level: str, output: str) -> None:
    """Show a flow run's log. Lines of its task runs and child flow runs are part of it.

    Example:
      prefect-nb flow-run logs quick-fox --follow
    """
    found = history.find_flow_run(run)
    least = _level(level)
    lines = run_logs.follow(found, least) if follow else run_logs.logs(found, least)
    show_lines(lines, run_logs.Subjects(found), output)


@flow_run.command()
@click.argument("run")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for its end.",
)
@output_option
def cancel(run: str, wait: float, output: str) -> int:
    """Cancel a running flow run, wherever its process is.

    Example:
      prefect-nb flow-run cancel quick-fox
    """
    from prefect_nb.service import control

    now = control.cancel(history.find_flow_run(run, settled=False), wait)
    if output == "json":
        as_json(run_document(now))
    elif now.is_final:
        click.echo(f"{state_words(now)}  flow run {_short(now.name)}")
    else:
        click.echo(
            f"{state_words(now)}  flow run {_short(now.name)}: asked to cancel; its process has not done so yet."
        )
    return OK if now.state_type.value == "CANCELLED" else FAILED


def _wait_option(command: Any) -> Any:
    return click.option(
        "--wait",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait until it is.",
    )(command)


@flow_run.command()
@click.argument("run")
@_wait_option
@output_option
def pause(run: str, wait: float, output: str) -> int:
    """Pause a running flow run before its next task run. Its process waits until it is resumed.

    Example:
      prefect-nb flow-run pause quick-fox
    """
    return _hold(run, "pause", wait, output)


@flow_run.command()
@click.argument("run")
@_wait_option
@output_option
def suspend(run: str, wait: float, output: str) -> int:
    """Suspend a running flow run before its next task run. It waits without a process until it is resumed.

    Example:
      prefect-nb flow-run suspend quick-fox
    """
    return _hold(run, "suspend", wait, output)


def _hold(run: str, kind: Literal["pause", "suspend"], wait: float, output: str) -> int:
    from prefect_nb.service import control

    now = control.pause(history.find_flow_run(run), kind, wait)
    if output == "json":
        as_json(run_document(now))
    elif now.state.is_paused() or now.is_final:
        click.echo(f"{state_words(now)}  flow run {_short(now.name)}")
    else:
        click.echo(f"{state_words(now)}  flow run {_short(now.name)}: asked to {kind}; it has started no task since.")
    return OK if now.state.is_paused() else FAILED


@flow_run.command()
@click.argument("run")
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE", help="A field of the answer; JSON or text.")
@click.option("--force", is_flag=True, help="Take the run over although its process lives.")
@click.option(
    "--from-cell",
    metavar="CELL",
    help="Of a notebook: go on from this cell, named by its number or id; earlier ones are kept.",
)
@click.option("--restart", is_flag=True, help="Of a notebook: run it from the top, in a new kernel.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@output_option
def resume(
    run: str, inputs: tuple[str, ...], force: bool, from_cell: str | None, restart: bool, quiet: bool, output: str
) -> int:
    """Go on with a paused, suspended, crashed or failed flow run. What its tasks kept is not computed again.

    A paused run goes on in its own process; any other goes on here, and the exit codes are those of `prefect-nb run`.
    In a terminal, fields of the answer that are not given are asked for.

    A notebook goes on from the cell that failed, once you have corrected it: in its own kernel while that is kept, later in
    a new one with the variables that were kept on the way.

    Examples:
      prefect-nb flow-run resume quick-fox
      prefect-nb flow-run resume quick-fox --from-cell 4
      prefect-nb flow-run resume quick-fox --input approved=true --input note='well done'
    """
    from prefect_nb.cli.answers import ask
    from prefect_nb.cli.run import executing, report
    from prefect_nb.service import control

    found = history.find_flow_run(run)
    run_input = ask(control.form_of(found), inputs)
    if control.waits_in_its_process(found):
        control.answer(found, run_input)
        if output == "json":
            as_json(run_document(history.find_flow_run(str(found.id))))
        elif not quiet:
            click.echo(f"▶ Resumed  flow run {_short(found.name)}")
        return OK
    tell = partial(click.echo, err=output == "json") if not quiet else lambda _: None
    with executing(quiet, output) as watch:
        finished = control.resume(found, force, watch, run_input, from_cell=from_cell, restart=restart, tell=tell)
    return report(finished, quiet, output)


flow_run.add_command(retry)
flow_run.add_command(repair)
flow_run.add_command(diff)


def show_lines(lines: Iterator[LogLine], subjects: run_logs.Subjects, output: str) -> None:
    """Print log lines, each as soon as it is there; for programs, one JSON document a line."""
    for line in lines:
        if output == "json":
            click.echo(json.dumps(log_document(line), ensure_ascii=False))
            continue
        at = datetime.fromtimestamp(line.at_us / 1_000_000, UTC).astimezone()
        subject = subjects.of(line)
        click.echo(
            f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} | {_level_name(line.level):<8} | "
            f"{f'{subject} - ' if subject else ''}{plain(line.message)}"
        )


def _show(run: FlowRun) -> None:

    now = now_us()
    click.echo(f"{state_words(run)}  flow {_short(run.flow_name)}, run {_short(run.name)}")
    parameters = "\n".join(f"{_short(name)} = {_short(repr(value), 200)}" for name, value in run.parameters.items())
    facts(
        [
            ("id", run.id),
            ("message", plain(run.state_message, 2000) if run.state_message else None),
            ("started", f"{run.start_time:%Y-%m-%d %H:%M:%S} UTC ({ago(run.start_us, now)})" if run.start_us else None),
            ("duration", elapsed(run, now)),
            ("attempts", run.run_count if run.run_count > 1 else None),
            ("recoveries", run.recoveries or None),
            ("parameters", parameters),
            ("tags", ", ".join(map(_short, run.tags))),
            ("returned", returns.returned_text(run)),
            ("result", history.result_text(run)),
            ("code", run.entrypoint or run.input_path),
            ("notebook", run.output_path),
            ("kernel", parked.next_step(run)),
            ("part of", run.parent_flow_run_id),
            ("metrics", reports.metrics_text(run)),
            ("artifacts", reports.artifacts_text(run)),
        ]
    )


def _document(run: FlowRun) -> dict[str, Any]:
    """The run with its task runs, and with its child flow runs in the same way."""
    return {
        **run_document(run),
        **reports.document(run),
        "returned": returns.rows_of(run),
        "task_runs": [run_document(task) for task in history.all_task_runs(run.id)],
        "child_flow_runs": [_document(child) for child in history.child_flow_runs(run.id)],
    }


def _heading(runs: Sequence[Run]) -> str:
    """`Cells (9), task runs (11), child flow runs (1)`."""
    kinds = Counter(
        "child flow runs" if isinstance(run, FlowRun) else _PLURALS.get(run.kind, "task runs") for run in runs
    )
    words = [f"{kind} ({kinds[kind]})" for kind in ("cells", "task runs", "child flow runs") if kinds[kind]]
    return ", ".join(words).capitalize()


def _show_below(run: FlowRun, below: Sequence[tuple[int, Node]]) -> None:
    for depth, node in below[:_SHOWN_TASKS]:
        click.echo(_line(depth, node.run))
    if len(below) > _SHOWN_TASKS:
        handle = shlex.quote(history.handle_of(run))
        click.echo(
            f"  ... and {len(below) - _SHOWN_TASKS} more; "
            f"`prefect-nb flow-run inspect {handle} --output json` has them all."
        )


def _line(depth: int, run: Run) -> str:
    name = f"flow {_short(run.flow_name)}, run {_short(run.name)}" if isinstance(run, FlowRun) else _short(run.name)
    took = elapsed(run, now_us())
    notes = ", ".join(note for note in (took, f"{run.run_count} attempts" if run.run_count > 1 else "") if note)
    bad = run.state_message and run.state_type.value in ("FAILED", "CRASHED")
    message = f": {_short(run.state_message or '', 120)}" if bad else ""
    return f"  {'  ' * depth}{state_words(run)}  {name}{f' ({notes})' if notes else ''}{message}"


def _short(text: str, limit: int = 60) -> str:

    return one_line(text, limit)


def _level(text: str) -> int:

    if text.isdigit():
        return int(text)
    levels = logging.getLevelNamesMapping()
    if text.upper() not in levels:
        near = did_you_mean(text, [name.lower() for name in levels], 1)
        raise click.BadParameter(f"there is no level {text!r}.{near}", param_hint="--level")
    return levels[text.upper()]


def _level_name(level: int) -> str:
    return logging.getLevelName(level)
