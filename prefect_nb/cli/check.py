"""`prefect-nb check`."""

from typing import TYPE_CHECKING

import click

from prefect_nb.cli.errors import FAILED, OK
from prefect_nb.cli.group import Command
from prefect_nb.cli.output import as_json, console, output_option
from prefect_nb.service.text import plain

if TYPE_CHECKING:
    from rich.text import Text

    from prefect_nb.service.preflight.findings import Finding, Report

_STYLES = {"error": "red", "warning": "yellow", "info": "bright_black"}


@click.command(cls=Command)
@click.argument("notebook")
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter; JSON or plain text.")
@click.option("--kernel", metavar="NAME", help="Check for this kernel instead of the notebook's own.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@output_option
def check(notebook: str, params: tuple[str, ...], kernel: str | None, strict: bool, output: str) -> int:
    """Say whether a notebook would run from top to bottom. Takes a second; nothing of it is executed.

    Looks for names that are used before they are defined or whose cell is gone, modules the kernel does not have,
    parameters that do not fit, files that are not there, calls that wait for input, and more.

    Examples:
      prefect-nb check report.ipynb -p year=2024
      prefect-nb check report.ipynb --strict --output json

    Exit codes: 0 nothing speaks against a run, 1 it would fail (with --strict: or there are warnings), 2 bad input.
    """
    from prefect_nb.service.preflight import preflight

    report = preflight(notebook, texts=params, kernel_name=kernel)
    passes = report.passes(strict=strict)
    if output == "json":
        as_json({**report.document(), "passes": passes})
    else:
        _show(report, passes)
    return OK if passes else FAILED


def _show(report: "Report", passes: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    if report.findings:
        out = console()
        drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        drawn.add_column("Level", no_wrap=True)
        drawn.add_column("Where")
        drawn.add_column("What", ratio=1)
        for finding in report.findings:
            drawn.add_row(_level(finding), Text(plain(finding.place)), Text(_words(finding)))
        with out.capture() as captured:
            out.print(drawn)
        click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
        click.echo()
    click.echo(f"{'✓' if passes else '✗'} {plain(report.verdict)}.")


def _level(finding: "Finding") -> "Text":
    from rich.text import Text

    from prefect_nb.service.preflight.findings import GLYPHS

    return Text.assemble((GLYPHS[finding.level], _STYLES[finding.level]), f" {finding.level}")


def _words(finding: "Finding") -> str:
    return plain(finding.message) + (f"\n→ {plain(finding.fix)}" if finding.fix else "")
