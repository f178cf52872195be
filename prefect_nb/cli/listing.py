"""The table of `flow-run ls` and `task-run ls`."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from prefect_nb.cli.output import as_json, state_of, table
from prefect_nb.execution.clock import now_us
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.service.documents import run_document
from prefect_nb.service.text import ago, elapsed, one_line

R = TypeVar("R", FlowRun, TaskRun)


def show_runs(runs: Sequence[R], output: str, heading: str, about: Callable[[R], str], nothing: str) -> None:
    """Print runs, newest first as they come: as a table with one column of their own kind, or as JSON."""
    if output == "json":
        as_json([run_document(run) for run in runs])
        return
    if not runs:
        click.echo(nothing)
        return
    now = now_us()
    table(
        ("State", "Name", heading, "Started", "Took", "ID"),
        (
            (
                state_of(run),
                one_line(run.name, 40),
                one_line(about(run), 40),
                ago(run.start_us or run.created_us, now),
                elapsed(run, now),
                str(run.id),
            )
            for run in runs
        ),
        right=("Took",),
    )
