"""The part of a run's static picture that tells what its tasks printed, as HTML and as text."""

import shlex
from collections.abc import Mapping
from uuid import UUID

from prefect_nb.notebook.escaping import escape, safe_line, size
from prefect_nb.service.run_outputs import Printed
from prefect_nb.service.text import one_line, plural

_UNFOLDED = 30
"""Up to so many lines in all they are shown unfolded."""

_LINE = 240
"""Characters of a line."""

RUNS, LINES = 12, 200
"""Task runs, and lines of each, that a picture shows at most."""

_TEXT_LINES = 60


def printed_html(printed: Mapping[UUID, Printed], names: Mapping[UUID, str], room: int) -> str:
    """What task runs printed, folded where it is much, in at most `room` bytes."""
    spoken = {id: one for id, one in printed.items() if one.lines}
    is_open = sum(len(one.lines) + one.left_out for one in spoken.values()) <= _UNFOLDED
    shares, parts = len(spoken), []
    for id, one in spoken.items():
        part = _details(one, names.get(id, str(id)), is_open, room // shares)
        room -= size(part)
        shares -= 1
        parts.append(part)
    return "".join(parts)


def printed_lines(printed: Mapping[UUID, Printed], names: Mapping[UUID, str]) -> list[str]:
    """What task runs printed as lines of text."""
    spoken = {id: one for id, one in printed.items() if one.lines}
    found: list[str] = []
    for id, one in spoken.items():
        name = names.get(id, str(id))
        shown = one.lines[: max(3, _TEXT_LINES // len(spoken))]
        found.append(f"{one_line(name)} printed:")
        found += [f"  {_shortened(line)}" for line in shown]
        left_out = one.left_out + len(one.lines) - len(shown)
        if left_out:
            found.append(f"  … {plural(left_out, 'more line')}: {_command(name)}")
    return found


def _details(one: Printed, name: str, is_open: bool, room: int) -> str:
    total = len(one.lines) + one.left_out
    displays = f", {plural(one.displays, 'display')}" if one.displays else ""
    head = (
        f'<details{" open" if is_open else ""}><summary><span dir="auto">{safe_line(name)}</span> printed '
        f"{plural(total, 'line')}{displays}</summary>"
        '<pre style="white-space:pre-wrap;margin:2px 0 0 1.3em">'
    )
    command = f"<code>{escape(_command(name), 200)}</code>"
    room -= size(head) + len("</pre></details>") + size(f"… {total:,} more lines: {command}")
    if room < 0:
        return ""
    lines: list[str] = []
    for line in one.lines:
        text = escape(_shortened(line), 1000)
        room -= size(text) + 1
        if room < 0:
            break
        lines.append(text)
    if len(lines) < total:
        lines.append(f"… {plural(total - len(lines), 'more line')}: {command}")
    return f"{head}{chr(10).join(lines)}</pre></details>"


def _shortened(line: str) -> str:
    return line if len(line) <= _LINE else line[:_LINE] + "…"


def _command(name: str) -> str:
    return f"prefect-nb task-run output {shlex.quote(one_line(name, 60))}"
