"""`prefect-nb task-run`."""

import click

from prefect_nb.cli.group import Group
from prefect_nb.cli.listing import show_runs
from prefect_nb.cli.output import as_json, facts, limit_option, output_option, state_words
from prefect_nb.execution.clock import now_us
from prefect_nb.service import history
from prefect_nb.service.documents import run_document
from prefect_nb.service.text import ago, elapsed, one_line, plain


@click.group(cls=Group, name="task-run")
def task_run() -> None:
    """Look at task runs and notebook cells.

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
