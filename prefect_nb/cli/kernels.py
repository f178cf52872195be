"""`prefect-nb kernel`: kernels that are kept of failed notebook runs."""

import time
from typing import Any

import click

from prefect_nb.bodies.parking import Parked
from prefect_nb.bodies.verdict import size_text
from prefect_nb.cli.errors import OK
from prefect_nb.cli.group import Group
from prefect_nb.cli.output import as_json, output_option, table
from prefect_nb.service import parked
from prefect_nb.service.text import one_line


@click.group(cls=Group)
def kernel() -> None:
    """Look at the kernels that are kept of failed notebook runs, and end them.

    Example:
      prefect-nb kernel ls
    """


@kernel.command()
@output_option
def ls(output: str) -> None:
    """List the kernels that are kept, the oldest first. `flow-run resume` goes on in one.

    Example:
      prefect-nb kernel ls
    """
    found = parked.kept_kernels()
    if output == "json":
        as_json([_document(one) for one in found])
    elif not found:
        click.echo("No kernel is kept.")
    else:
        rows = [
            (
                one_line(one.run_name, 40),
                f"{one.cell_number} {one_line(one.cell_name, 40)}",
                size_text(one.resident),
                f"{parked.kept_until(one):%H:%M}",
                f"{max(0, one.until_us / 1e6 - time.time()) / 60:.0f} min",
                one.kernel_pid,
            )
            for one in found
        ]
        table(("Flow run", "Failed in cell", "Memory", "Until", "Left", "PID"), rows, right=("Memory", "Left"))


@kernel.command()
@click.argument("run", required=False)
@click.option("--all", "everything", is_flag=True, help="All that are kept.")
@output_option
def drop(run: str | None, everything: bool, output: str) -> int:
    """End the kernel that is kept for a flow run.

    Examples:
      prefect-nb kernel drop quick-fox
      prefect-nb kernel drop --all
    """
    if (run is None) is not everything:
        raise click.UsageError("Name a flow run whose kernel is kept, or give --all.")
    dropped = parked.drop_all() if run is None else [parked.drop_kernel(run)]
    if output == "json":
        as_json([_document(one) for one in dropped])
    else:
        names = ", ".join(one_line(one.run_name, 40) for one in dropped)
        click.echo(
            f"Ended the kernel{'s' if len(dropped) > 1 else ''} of {names}." if dropped else "No kernel is kept."
        )
    return OK


def _document(one: Parked) -> dict[str, Any]:
    return {
        "flow_run_id": one.flow_run_id,
        "flow_run_name": one.run_name,
        "notebook": one.notebook,
        "cell": {"id": one.cell_id, "number": one.cell_number, "name": one.cell_name},
        "kernel": one.kernel_name,
        "pid": one.kernel_pid,
        "memory_bytes": one.resident,
        "until": parked.kept_until(one).isoformat(timespec="seconds"),
    }
