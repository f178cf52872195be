"""`%diff A B`: two runs compared, under the cell."""

from __future__ import annotations

from IPython.core.error import UsageError

from prefect_nb.exceptions import PrefectException
from prefect_nb.home import Home
from prefect_nb.notebook.options import Parser
from prefect_nb.service.diff import RunDiff, diff_runs
from prefect_nb.service.diff.page import diff_page, diff_part
from prefect_nb.service.diff.words import sections
from prefect_nb.service.text import plain

LIMIT = 20_000
"""Bytes (UTF-8) the HTML never exceeds."""
_TEXT_LINES = 300


def diff_parser(magic: str) -> Parser:
    """The options of `%diff`."""
    parser = Parser(
        magic,
        "before after [options]",
        "Compare two runs of one notebook or flow: parameters, code, outputs, results, metrics, timings.",
        f"example:\n  {magic} quick-fox lazy-dog --rtol 0.01",
    )
    parser.add_argument("before", help="a flow run: its name, its id or the beginning of its id")
    parser.add_argument("after", help="another")
    parser.add_argument("--rtol", type=float, default=1e-9, metavar="SHARE", help="numbers this near are equal (1e-9)")
    parser.add_argument("--atol", type=float, default=0.0, metavar="NUMBER", help="and those apart by no more (0)")
    parser.add_argument("--html", metavar="FILE", help="write a page with pictures, too")
    return parser


def run_diff(magic: str, line: str) -> None:
    """Compare two runs and show what differs.

    Raises:
        UsageError: the options are wrong, or there is no such run.
    """
    from pathlib import Path

    from prefect_nb.notebook.listing import show

    chosen = diff_parser(magic).options(line)
    if chosen is None:
        return
    Home.current().ledger.commit()
    try:
        found = diff_runs(chosen.before, chosen.after, rtol=chosen.rtol, atol=chosen.atol)
        if chosen.html:
            Path(chosen.html).write_text(diff_page(found), encoding="utf-8")
    except (PrefectException, ValueError, OSError) as error:
        raise UsageError(str(error)) from None
    show({"text/html": diff_part(found, LIMIT), "text/plain": diff_text(found)})


def diff_text(found: RunDiff) -> str:
    """The comparison as lines of text."""
    lines = [plain(line, 400) for section in sections(found) for line in section]
    more = [f"… {len(lines) - _TEXT_LINES:,} more lines"] if len(lines) > _TEXT_LINES else []
    return "\n".join([*lines[:_TEXT_LINES], *more])
