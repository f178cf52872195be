"""`prefect-nb flow-run diff`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from prefect_nb.cli.errors import FAILED, OK
from prefect_nb.cli.group import Command
from prefect_nb.cli.output import as_json, console, output_option
from prefect_nb.exceptions import ConfigurationError
from prefect_nb.service.text import plain

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {"+": "green", "-": "red", "…": "bright_black"}


@click.command(cls=Command, name="diff")
@click.argument("before")
@click.argument("after")
@click.option(
    "--rtol", type=click.FloatRange(min=0), default=1e-9, show_default=True, help="Numbers this near are equal."
)
@click.option(
    "--atol", type=click.FloatRange(min=0), default=0.0, show_default=True, help="And those apart by no more."
)
@click.option(
    "--html", "html", type=click.Path(dir_okay=False), metavar="FILE", help="Write a page with pictures, too."
)
@output_option
def diff(before: str, after: str, rtol: float, atol: float, html: str | None, output: str) -> int:
    """Compare two flow runs: parameters, code, outputs, results, metrics, and how long things took.

    BEFORE and AFTER are runs of one notebook or flow: names, ids, or the first characters of ids. Numbers are compared
    with a tolerance, tables by column and row, pictures by pixel.

    Examples:
      prefect-nb flow-run diff quick-fox lazy-dog
      prefect-nb flow-run diff quick-fox lazy-dog --rtol 0.01 --html diff.html

    Exit codes: 0 the same (timings and cache hits aside), 1 there are differences, 2 bad input.
    """
    from prefect_nb.service.diff import diff_runs
    from prefect_nb.service.diff.page import diff_page
    from prefect_nb.service.diff.words import sections

    found = diff_runs(before, after, rtol=rtol, atol=atol)
    if html is not None:
        try:
            Path(html).write_text(diff_page(found), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{html} cannot be written: {error}") from None
    if output == "json":
        as_json(found.document())
    else:
        out = console()
        for section in sections(found):
            for line in section:
                out.print(_text(line), soft_wrap=True)
        if html is not None:
            click.echo(f"\nThe page is {html}")
    return OK if found.is_same else FAILED


def _text(line: str) -> "Text":
    from rich.text import Text

    shown = plain(line)
    mark = shown.lstrip()[:1]
    indented = shown.startswith("      ")
    heading = bool(shown) and not shown.startswith(" ")
    return Text(shown, style=_STYLES.get(mark, "") if indented else "bold" if heading else "")
