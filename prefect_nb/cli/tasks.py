"""`prefect-nb task`: workers for delayed task runs."""

import click

from prefect_nb.cli.errors import OK
from prefect_nb.cli.group import Group
from prefect_nb.execution import deferred
from prefect_nb.execution.loading import load_tasks
from prefect_nb.home import Home


@click.group(cls=Group)
def task() -> None:
    """Execute task runs that were recorded by `my_task.delay(...)`.

    Example:
      prefect-nb task serve mail.py:send
    """


@task.command()
@click.argument("entrypoints", nargs=-1, required=True, metavar="ENTRYPOINT...")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="How many runs at once.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Serve for so long; for ever without it.",
)
def serve(entrypoints: tuple[str, ...], limit: int, timeout: float | None) -> int:
    """Execute delayed runs of tasks until interrupted. What runs then comes to its end.

    Examples:
      prefect-nb task serve mail.py:send --limit 4
      prefect-nb task serve mail.py reports.py:render
    """
    tasks = [found for entrypoint in entrypoints for found in load_tasks(entrypoint)]
    click.echo(f"Serving {', '.join(repr(one.name) for one in tasks)}. Ctrl-C ends it.")
    deferred.serve(Home.current(), tasks, limit, timeout)
    return OK
