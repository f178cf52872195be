"""`prefect-nb task-run`."""

from collections.abc import Callable
from typing import Any

import click

from prefect_nb.cli.errors import FAILED, OK
from prefect_nb.cli.group import Group
from prefect_nb.cli.listing import show_runs
from prefect_nb.cli.output import as_json, facts, limit_option, output_option, state_words
from prefect_nb.execution.clock import now_us
from prefect_nb.service import history
from prefect_nb.service.documents import run_document
from prefect_nb.service.text import ago, elapsed, one_line, plain


@click.group(cls=Group, name="task-run")
def task_run() -> None:
    """Look at task runs and notebook cells; cancel, skip or retry a task run while its flow goes on.

    Example:
      prefect-nb task-run ls --state failed
    """


@task_run.command()
@click.option("--flow-run", "parent", metavar="RUN", help="Only those of this flow run (name, id, or start of the id).")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only these: failed, cached, running, ...")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only task runs with this tag.")
@limit_option(50)
@output_option
def ls(parent: str | None, states: tuple[str, ...], tags: tuple[str, ...], limit: int, output: str) -> None:
    """List the newest task runs and cells.

    Example:
      prefect-nb task-run ls --flow-run quick-fox --state failed
    """
    flow_run = history.find_flow_run(parent) if parent is not None else None
    runs = history.task_runs(flow_run=flow_run, states=states, tags=tags, limit=limit)
    nothing = "No task runs." if not (states or parent or tags) else "No task run fits."
    show_runs(runs, output, "Kind", lambda run: run.kind, nothing)


@task_run.command()
@click.argument("run")
@output_option
def inspect(run: str, output: str) -> None:
    """Show one task run or cell.

    RUN is the run's name, its id, or the first characters of the id.

    Example:
      prefect-nb task-run inspect train-3
    """
    found = history.find_task_run(run)
    if output == "json":
        as_json(run_document(found))
        return
    now = now_us()
    source = found.result.source if found.result is not None and found.state_name == "Cached" else None
    click.echo(f"{state_words(found)}  {one_line(found.kind)} {one_line(found.name)}")
    facts(
        [
            ("id", found.id),
            ("flow run", found.flow_run_id),
            ("called in", found.parent_id),
            ("message", plain(found.state_message, 2000) if found.state_message else None),
            (
                "started",
                f"{found.start_time:%Y-%m-%d %H:%M:%S} UTC ({ago(found.start_us, now)})" if found.start_us else None,
            ),
            ("duration", elapsed(found, now)),
            ("attempts", found.run_count if found.run_count > 1 else None),
            ("task", found.task_key),
            ("tags", ", ".join(map(one_line, found.tags))),
            ("result", history.result_text(found)),
            ("result of", f"task run {source}" if source else None),
            ("cache key", found.cache_key),
        ]
    )


@task_run.command(name="output")
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what comes until the task run has ended.")
@output_option
def show_output(run: str, follow: bool, output: str) -> None:
    """Show what a task run printed, where a live view has kept it under the task run.

    Displays are shown as text. RUN is the run's name, its id, or the first characters of the id.

    Example:
      prefect-nb task-run output train-3 --follow
    """
    from prefect_nb.cli.task_outputs import show

    show(history.find_task_run(run), follow, output)


@task_run.command()
@click.argument("run", required=False)
@output_option
def why(run: str | None, output: str) -> None:
    """Say why a task run was computed, or why it was not: a cache hit, or the first difference.

    RUN is a task run's name or id, a task's name (its newest run), or a flow run (all its task runs). Without it: the
    newest run.

    Example:
      prefect-nb task-run why clean
    """
    from prefect_nb.service import why as service

    answer = service.why(run)
    if output == "json":
        if isinstance(answer, service.Answer):
            as_json(service.document(answer))
        else:
            as_json([service.document(one) for one in answer])
        return
    click.echo(str(answer))
    if isinstance(answer, service.Answer):
        for difference in answer.differences[1:]:
            click.echo(f"  also: {difference}")


def _commanding(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the commands to a task run take."""
    for option in (
        output_option,
        click.option(
            "--wait",
            type=click.FloatRange(min=0),
            default=10.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for the process that runs it to answer.",
        ),
        click.argument("run"),
    ):
        command = option(command)
    return command


@task_run.command()
@_commanding
def cancel(run: str, wait: float, output: str) -> int:
    """Cancel a task run. The flow goes on; what depends on the task run does not run.

    RUN is an id, its beginning, or the name of a task run of a flow run that is going on.

    Example:
      prefect-nb task-run cancel train-3
    """
    return _command("cancel", run, wait, output)


@task_run.command()
@_commanding
def skip(run: str, wait: float, output: str) -> int:
    """Skip a task run: it completes without (the rest of) its body, as if it had returned None.

    RUN is an id, its beginning, or the name of a task run of a flow run that is going on.

    Example:
      prefect-nb task-run skip upload-0
    """
    return _command("skip", run, wait, output)


@task_run.command()
@_commanding
def retry(run: str, wait: float, output: str) -> int:
    """Begin a running attempt of a task run anew, or its next attempt without waiting for its delay.

    Neither takes one of its retries. RUN is an id, its beginning, or the name of a task run of a flow run that is going
    on. What has failed for good, `prefect-nb flow-run retry` runs again.

    Example:
      prefect-nb task-run retry fetch-7
    """
    return _command("retry", run, wait, output)


def _command(kind: str, run: str, wait: float, output: str) -> int:
    from prefect_nb.service import task_control

    found = task_control.find_open_task_run(run)
    answer = task_control.command(kind, task_run_id=found.id, reason="from the command line", wait=wait)
    if output == "json":
        as_json({"task_run_id": str(found.id), "ok": answer.ok, "message": answer.message})
    else:
        click.echo(answer.message, err=not answer.ok)
    return OK if answer.ok else FAILED
