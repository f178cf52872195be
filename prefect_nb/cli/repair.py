"""`prefect-nb flow-run retry` and `repair`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from prefect_nb.cli.group import Command
from prefect_nb.cli.output import output_option, state_words
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.service import history
from prefect_nb.service.text import one_line

_LISTED = 20


def _going_on(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that both commands have."""
    for option in (
        output_option,
        click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
        click.option("--force", is_flag=True, help="Take the run over although its process lives."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask before completed tasks run again."),
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("run")
@_going_on
def retry(run: str, yes: bool, force: bool, quiet: bool, output: str) -> int:
    """Run again what failed in a flow run, and what depends on it, in the same run.

    Exit codes are those of `prefect-nb run`.

    Example:
      prefect-nb flow-run retry quick-fox
    """
    from prefect_nb.cli.run import executing, report
    from prefect_nb.service import repair as service

    found = history.find_flow_run(run)
    if found.state_type.value != "COMPLETED":
        _tell(found, (), yes, force, quiet or output == "json")
    with executing(quiet, output) as watch:
        finished = service.retry(found, force, watch)
    return report(finished, quiet, output)


@click.command(cls=Command)
@click.argument("run")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME",
    help="Run this task again, too: its name, or one run's name or id.",
)
@_going_on
def repair(run: str, tasks: tuple[str, ...], yes: bool, force: bool, quiet: bool, output: str) -> int:
    """Run chosen tasks of a flow run again, with what failed and what depends on either, in the same run.

    The flow run may have completed. Kept results that are damaged or missing are computed again.
    Exit codes are those of `prefect-nb run`.

    Example:
      prefect-nb flow-run repair quick-fox --task clean
    """
    from prefect_nb.cli.run import executing, report
    from prefect_nb.service import repair as service

    found = history.find_flow_run(run)
    _tell(found, tasks, yes, force, quiet or output == "json")
    with executing(quiet, output) as watch:
        finished = service.repair(found, tasks, force, watch)
    return report(finished, quiet, output)


def _tell(run: FlowRun, tasks: Sequence[str], yes: bool, force: bool, silent: bool) -> None:
    """Say what will run again; ask, on a terminal, where that is more than what failed."""
    from prefect_nb.service import repair as service

    preview = service.preview(run, tasks, force)
    if not silent:
        _list("run again", preview.again)
        _list("run again although completed (results not kept, or damaged)", preview.lost)
        click.echo(f"{len(preview.reused)} taken over", err=True)
    if preview.lost and not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm("Go on?", abort=True, err=True)


def _list(what: str, runs: Sequence[TaskRun]) -> None:
    if not runs:
        return
    click.echo(f"{len(runs)} {what}:", err=True)
    for run in runs[:_LISTED]:
        click.echo(f"  {state_words(run)}  {one_line(run.name, 60)}", err=True)
    if len(runs) > _LISTED:
        click.echo(f"  ... and {len(runs) - _LISTED} more", err=True)
