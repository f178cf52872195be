"""`prefect-nb flow-run`."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from prefect_nb.cli.errors import FAILED, OK
from prefect_nb.cli.group import Group
from prefect_nb.cli.output import as_json, facts, limit_option, output_option, state_of, state_words, table
from prefect_nb.execution.clock import now_us
from prefect_nb.interfaces import LogLine
from prefect_nb.model.runs import FlowRun
from prefect_nb.service import history
from prefect_nb.service.documents import log_document, run_document
from prefect_nb.service.history import Node
from prefect_nb.service.text import ago, did_you_mean, elapsed, one_line, plain

_SHOWN_TASKS = 100


@click.group(cls=Group, name="flow-run")
def flow_run() -> None:
    """Look at flow runs, cancel them, resume them."""


@flow_run.command()
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only these: failed, running, crashed, ...")
@click.option("--flow", metavar="NAME", help="Only runs of this flow.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only runs with this tag.")
@limit_option(20)
@output_option
def ls(states: tuple[str, ...], flow: str | None, tags: tuple[str, ...], limit: int, output: str) -> None:
    r"""List the newest flow runs.

    \b
    Example:
      prefect-nb flow-run ls --state failed --limit 5
    """
    runs = history.flow_runs(states=states, flow=flow, tags=tags, limit=limit)
    if output == "json":
        as_json([run_document(run) for run in runs])
        return
    if not runs:
        click.echo("No flow runs." if not (states or flow or tags) else "No flow run fits.")
        return
    now = now_us()
    table(
        ("State", "Name", "Flow", "Started", "Took", "ID"),
        (
            (
                state_of(run),
                one_line(run.name, 40),
                one_line(run.flow_name, 40),
                ago(run.start_us or run.created_us, now),
                elapsed(run, now),
                str(run.id),
            )
            for run in runs
        ),
        right=("Took",),
    )


@flow_run.command()
@click.argument("run")
@output_option
def inspect(run: str, output: str) -> None:
    r"""Show one flow run: its state, parameters, task runs and child runs.

    RUN is the run's name, its id, or the first characters of the id.

    \b
    Example:
      prefect-nb flow-run inspect quick-fox
    """
    found = history.find_flow_run(run)
    tasks = history.all_task_runs(found.id)
    children = history.child_flow_runs(found.id)
    if output == "json":
        as_json(
            {
                **run_document(found),
                "task_runs": [run_document(task) for task in tasks],
                "child_flow_runs": [run_document(child) for child in children],
            }
        )
        return
    _show(found)
    if tasks:
        click.echo(f"\nTask runs ({len(tasks)})")
        _show_tree(history.tree(tasks))
    if children:
        click.echo("\nChild flow runs")
        for child in children:
            click.echo(f"  {state_words(child)}  {_short(child.flow_name)} / {_short(child.name)}  {child.id}")


@flow_run.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on showing lines until the run has ended.")
@click.option("--level", default="DEBUG", metavar="LEVEL", help="Only lines of this level or a higher one.")
@output_option
def logs(run: str, follow: bool, level: str, output: str) -> None:
    r"""Show a flow run's log, that of its task runs included.

    \b
    Example:
      prefect-nb flow-run logs quick-fox --follow
    """
    found = history.find_flow_run(run)
    least = _level(level)
    show_lines(history.follow(found, least) if follow else history.logs(found, least), output)


@flow_run.command()
@click.argument("run")
@click.option(
    "--wait", type=click.FloatRange(min=0), default=10.0, show_default=True, metavar="SECONDS", help="For its end."
)
@output_option
def cancel(run: str, wait: float, output: str) -> int:
    r"""Cancel a running flow run, wherever its process is.

    \b
    Example:
      prefect-nb flow-run cancel quick-fox
    """
    from prefect_nb.service import control

    now = control.cancel(history.find_flow_run(run), wait)
    if output == "json":
        as_json(run_document(now))
    elif now.is_final:
        click.echo(f"{state_words(now)}  flow run {_short(now.name)}")
    else:
        click.echo(
            f"{state_words(now)}  flow run {_short(now.name)}: asked to cancel; its process has not done so yet."
        )
    return OK if now.state_type.value == "CANCELLED" else FAILED


@flow_run.command()
@click.argument("run")
@click.option("--force", is_flag=True, help="Take the run over although its process lives.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@output_option
def resume(run: str, force: bool, quiet: bool, output: str) -> int:
    r"""Go on with a crashed or failed flow run; what its tasks kept is not computed again.

    Exit codes are those of `prefect-nb run`.

    \b
    Example:
      prefect-nb flow-run resume quick-fox
    """
    from prefect_nb.cli.run import executing, report
    from prefect_nb.service import control

    found = history.find_flow_run(run)
    with executing(quiet, output) as watch:
        finished = control.resume(found, force, watch)
    return report(finished, quiet, output)


def show_lines(lines: Iterator[LogLine], output: str) -> None:
    """Print log lines, each as soon as it is there; for programs, one JSON document a line."""
    for line in lines:
        if output == "json":
            click.echo(json.dumps(log_document(line), ensure_ascii=False))
            continue
        at = datetime.fromtimestamp(line.at_us / 1_000_000, UTC).astimezone()
        click.echo(
            f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} | {_level_name(line.level):<8} | {plain(line.message)}"
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
            ("result", history.result_text(run)),
            ("code", run.entrypoint or run.input_path),
            ("notebook", run.output_path),
            ("part of", run.parent_flow_run_id),
        ]
    )


def _show_tree(nodes: list[Node]) -> None:
    shown = 0
    total = 0
    for depth, node in _walk(nodes, 0):
        total += 1
        if shown < _SHOWN_TASKS:
            shown += 1
            click.echo(_task_line(depth, node))
    if total > shown:
        click.echo(
            f"  ... and {total - shown} more; `prefect-nb task-run ls --flow-run ID --limit {total}` lists them."
        )


def _walk(nodes: list[Node], depth: int) -> Iterator[tuple[int, Node]]:
    for node in nodes:
        yield depth, node
        yield from _walk(node.children, depth + 1)


def _task_line(depth: int, node: "Node") -> str:

    run = node.run
    took = elapsed(run, now_us())
    bad = run.state_message and run.state_type.value in ("FAILED", "CRASHED")
    message = f": {_short(run.state_message or '', 120)}" if bad else ""
    tries = f", {run.run_count} attempts" if run.run_count > 1 else ""
    return f"  {'  ' * depth}{state_words(run)}  {_short(run.name)}{f' ({took}{tries})' if took else ''}{message}"


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
