"""`%preflight`: would Restart & Run All of this notebook pass?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError

from prefect_nb.exceptions import PrefectException
from prefect_nb.notebook.escaping import LEFT, escape, safe_line, size, table_html
from prefect_nb.notebook.notebook_cells import notebook_path
from prefect_nb.notebook.options import Parser
from prefect_nb.service.preflight import Finding, Live, Report, preflight
from prefect_nb.service.preflight.findings import GLYPHS
from prefect_nb.service.text import one_line, plain

LIMIT = 20_000
"""Bytes (UTF-8) the HTML never exceeds."""

_COLUMNS = ("Level", "Where", "What")
_ROOM = LIMIT - 1_000


def preflight_parser(magic: str) -> Parser:
    """The options of `%preflight`."""
    parser = Parser(
        magic,
        "[notebook.ipynb] [options]",
        "Say whether Restart & Run All would pass, without executing anything: names whose cell is gone, modules the\n"
        "kernel does not have, files that are not there, and more. Looks at the notebook as it is saved.",
        f"example:\n  {magic} -p year=2024",
    )
    parser.add_argument("notebook", nargs="?", help="another notebook (default: this one)")
    parser.add_argument(
        "-p",
        "--param",
        dest="texts",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter to check with",
    )
    parser.add_argument("--kernel", metavar="NAME", help="check for this kernel instead of the notebook's own")
    return parser


def run_preflight(shell: Any, magic: str, line: str) -> None:
    """Check a notebook and show what was found.

    Raises:
        UsageError: the options are wrong, or there is no such notebook.
    """
    from prefect_nb.notebook.listing import show

    chosen = preflight_parser(magic).options(line)
    if chosen is None:
        return
    own = notebook_path(shell)
    path = Path(chosen.notebook) if chosen.notebook else own
    if path is None:
        raise UsageError(f"{magic}: this kernel does not know its notebook's file; name it: {magic} report.ipynb")
    is_own = own is not None and path.absolute() == own.absolute()
    live = Live(shell.user_ns, _history(shell)[:-1]) if is_own else None
    try:
        report = preflight(path, texts=chosen.texts, kernel_name=chosen.kernel, live=live)
    except PrefectException as error:
        raise UsageError(str(error)) from None
    unsaved = is_own and not _is_saved(path, shell)
    show({"text/html": report_html(report, unsaved), "text/plain": report_text(report, unsaved)})


def _history(shell: Any) -> list[str]:
    """What was executed, as it was typed."""
    return [str(source) for source in shell.history_manager.input_hist_raw]


def _is_saved(path: Path, shell: Any) -> bool:
    """Whether the cell that asks is in the file as it is."""
    from prefect_nb.bodies.document import Document

    source = (_history(shell) or [""])[-1].strip()
    return any(source == cell["source"].strip() for cell in Document.read(path).notebook["cells"])


_UNSAVED = "The notebook was changed since it was saved; what is checked is the file. Save it and ask again."


def report_html(report: Report, unsaved: bool = False) -> str:
    """The report as HTML of at most 20 kB that needs neither scripts nor style sheets."""
    mark = "✓" if report.passes() else "✗"
    head = f'<p style="margin:0"><strong>{mark} {safe_line(report.verdict, 120)}</strong> · {_about(report)}</p>'
    if unsaved:
        head += f'<p style="margin:4px 0 0">⚠ {_UNSAVED}</p>'
    rows: list[str] = []
    room = _ROOM - size(head)
    for finding in report.findings:
        row = _row(finding)
        room -= size(row)
        if room < 0:
            break
        rows.append(row)
    if not rows:
        return head
    left = len(report.findings) - len(rows)
    more = f'<p style="margin:4px 0 0">… and {left:,} more</p>' if left else ""
    return head + table_html("Findings", _COLUMNS, "".join(rows)) + more


def report_text(report: Report, unsaved: bool = False) -> str:
    """The report as lines of text."""
    lines = [f"{'✓' if report.passes() else '✗'} {plain(report.verdict)}"]
    if unsaved:
        lines.append(f"⚠ {_UNSAVED}")
    for finding in report.findings:
        where = f"{one_line(finding.place, 100)}: " if finding.place else ""
        lines.append(f"{GLYPHS[finding.level]} {finding.level}  {where}{one_line(finding.message, 400)}")
        if finding.fix:
            lines.append(f"    → {one_line(finding.fix, 300)}")
    return "\n".join(lines)


def _about(report: Report) -> str:
    kernel = f"kernel {safe_line(report.kernel, 60)}" if report.kernel else "no kernel"
    python = f", Python {safe_line(report.python, 20)}" if report.python else ""
    return f"<code>{safe_line(Path(report.path).name, 80)}</code>, {kernel}{python}"


def _row(finding: Finding) -> str:
    fix = f"<br>→ {_prose(finding.fix, 300)}" if finding.fix else ""
    return (
        f"<tr><td{LEFT}>{GLYPHS[finding.level]}\N{NO-BREAK SPACE}{finding.level}</td>"
        f'<th scope="row"{LEFT}>{safe_line(finding.place, 90)}</th>'
        f'<td{LEFT} dir="auto">{_prose(finding.message, 400)}{fix}</td></tr>'
    )


def _prose(text: str, limit: int) -> str:
    """A sentence in which what stands between backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(one_line(text, limit), 3 * limit))
