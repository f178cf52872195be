"""`prefect-nb run --sweep`: one run for every combination of values, one table at the end."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from prefect_nb.cli.errors import FAILED, OK, say
from prefect_nb.cli.output import as_json, facts, state_words, table
from prefect_nb.model.states import GLYPHS
from prefect_nb.service import history
from prefect_nb.service.documents import run_document
from prefect_nb.service.sweep_tables import cell, columns_of
from prefect_nb.service.text import elapsed, one_line

if TYPE_CHECKING:
    from prefect_nb.service.running import RunOptions
    from prefect_nb.service.sweeps import Point, Sweep


def run_points(
    target: str,
    sweeps: Sequence[str],
    params: Sequence[str],
    options: "RunOptions",
    max_parallel: int | None,
    quiet: bool,
) -> "Sweep":
    """Run the sweep, telling of each point as it ends. Raises as `service.sweeps.prepare` and `run`."""
    from prefect_nb.service import sweeps as service

    plan = service.prepare(target, sweeps, params, options, max_parallel)
    total = len(plan.points)

    def told(number: int, point: "Point") -> None:
        glyph, seconds = GLYPHS[point.state.type], point.seconds
        took = "" if seconds is None else f" ({seconds:.1f} s)"
        error = "" if point.state.is_completed() else f": {one_line(point.problem, 200)}"
        name = one_line(point.state.name, 30)
        click.echo(f"{glyph} {name}  point {number} of {total} · {one_line(point.label, 80)}{took}{error}", err=True)

    return service.run(plan, None if quiet else told)


def report_sweep(done: "Sweep", quiet: bool, output: str) -> int:
    """Show what a sweep came to; returns the exit code."""
    code = FAILED if done.failed else OK
    if output == "json":
        points = [point.document() for point in done]
        as_json({"flow_run": run_document(done.flow_run), "points": points, "exit_code": code})
        return code
    if not quiet:
        _show(done)
    if done.failed:
        say(done.flow_run.state_message or "")
    return code


def named_values(sweeps: Sequence[str], more: Sequence[str]) -> list[str]:
    """What is swept over: `--sweep depth=3,5 lr=0.1,0.2` leaves the second to the arguments.

    Raises:
        click.UsageError: an argument belongs to nothing.
    """
    for word in more:
        if not sweeps or "=" not in word:
            hint = " Parameters are given as -p name=value, values to sweep over as --sweep name=value,value."
            raise click.UsageError(f"Got an unexpected argument {word!r}.{hint if '=' in word else ''}")
    return [*sweeps, *more]


def _show(done: "Sweep") -> None:
    run = done.flow_run
    rows = done.rows()
    columns = columns_of(rows)
    right = [name for name in columns if all(isinstance(row.get(name, 0), int | float) for row in rows)]
    shown: list[list[Any]] = []
    for row, point in zip(rows, done, strict=True):
        texts = {name: cell(row, name) for name in columns}
        texts["state"] = f"{GLYPHS[point.state.type]} {texts['state']}"
        shown.append(list(texts.values()))
    table([one_line(name, 30) for name in columns], shown, right)
    click.echo()
    click.echo(f"{state_words(run)}  flow {one_line(run.flow_name)}, run {one_line(run.name)}")
    facts(
        [
            ("id", run.id),
            ("duration", elapsed(run, run.state_us)),
            ("look", f"prefect-nb flow-run inspect {shlex.quote(history.handle_of(run))}"),
        ]
    )
