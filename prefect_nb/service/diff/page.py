"""The comparison of two runs as HTML: a page of its own with pictures side by side, or a small part of a notebook."""

import html
import re
from collections.abc import Iterator, Sequence

from prefect_nb.model.notebook_diff import IMAGES, CellChange, ImageChange, OutputChange
from prefect_nb.service.diff.comparing import Change, RunDiff
from prefect_nb.service.diff.words import cell_title, sections, verdict
from prefect_nb.service.text import one_line, plain

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --plus: #1a7f37; --minus: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --plus: #6fdd8b; --minus: #ff9d94; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; border-top: 1px solid var(--line); padding-top: .8rem; }
table { border-collapse: collapse; margin: .5rem 0; } th, td { text-align: left; padding: .2rem .8rem .2rem 0; }
td, th { vertical-align: top; overflow-wrap: anywhere; }
pre { border: 1px solid var(--line); border-radius: 4px; padding: .5rem; overflow-x: auto; }
ins { color: var(--plus); text-decoration: none; } del { color: var(--minus); text-decoration: none; }
figure { display: inline-block; margin: 0 1rem 0 0; max-width: 48%; vertical-align: top; } img { max-width: 100%; background: #fff; }
"""
_BASE64 = re.compile(r"[A-Za-z0-9+/=]*")
# In a notebook: headings would be the notebook's own, and the signs say what is gone and what is new.
_IN_NOTEBOOK = {
    "<h2>": '<p style="margin:8px 0 0"><strong>',
    "</h2>": "</strong></p>",
    "<p>": '<p style="margin:2px 0">',
    "<table>": '<table style="margin:2px 0">',
    "<th>": '<th style="text-align:left">',
    "<td>": '<td style="text-align:left">',
    "<pre>": '<pre style="margin:2px 0">',
    "<del>": '<del style="text-decoration:none">',
    "<ins>": '<ins style="text-decoration:none">',
}


def diff_page(diff: RunDiff) -> str:
    """The comparison as a page that needs nothing else, pictures included."""
    title = f"{one_line(diff.before.name, 60)} and {one_line(diff.after.name, 60)} compared"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{''.join(_parts(diff, pictures=True))}</body></html>\n"
    )


def diff_part(diff: RunDiff, limit: int) -> str:
    """The comparison as HTML of at most so many bytes, without scripts, style sheets and pictures."""
    parts: list[str] = []
    room = limit - 200
    for number, part in enumerate(map(_in_notebook, _parts(diff, pictures=False))):
        room -= len(part.encode())
        if room < 0:
            parts.append("<p>… and more: <code>prefect-nb flow-run diff ... --html FILE</code> shows all.</p>")
            if number == 0:
                parts.insert(0, f"<p>{html.escape(verdict(diff))}</p>")
            break
        parts.append(part)
    return "".join(parts)


def _in_notebook(part: str) -> str:
    for tag, styled in _IN_NOTEBOOK.items():
        part = part.replace(tag, styled)
    return part


def _parts(diff: RunDiff, *, pictures: bool) -> Iterator[str]:
    head = next(iter(sections(diff)))
    yield "".join(f"<p>{_text(line)}</p>" for line in head[:2]) + f"<p><strong>{_text(head[2])}</strong></p>"
    tables: tuple[tuple[str, Sequence[Change]], ...] = (
        ("Facts", diff.facts), ("Parameters", diff.parameters), ("Results", diff.results),
    )  # fmt: skip
    for title, changes in tables:
        if changes:
            yield f"<h2>{title}</h2>{_table(changes)}"
    for cell in diff.cells:
        yield f"<h2>{_text(cell_title(cell))}</h2>{_cell(cell, pictures)}"
    tables = ("Metrics, last values", diff.metrics), ("Task runs", diff.tasks), ("Cached", diff.cached)
    for title, changes in tables:
        if changes:
            yield f"<h2>{title}</h2>{_table(changes)}"
    if diff.timings:
        rows = "".join(f"<tr><th>{_text(one.name)}</th><td>{_text(one.words)}</td></tr>" for one in diff.timings)
        yield f"<h2>Took longer or shorter</h2><table>{rows}</table>"
    if diff.notes:
        yield "<h2>Notes</h2>" + "".join(f"<p>{_text(note)}</p>" for note in diff.notes)


def _table(changes: Sequence[Change]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(one.name)}</th><td><del>{_text(one.before or "")}</del></td>'
        f"<td><ins>{_text(one.after or '')}</ins></td></tr>"
        for one in changes
    )
    return f"<table><thead><tr><th></th><th>- before</th><th>+ after</th></tr></thead><tbody>{rows}</tbody></table>"


def _cell(cell: CellChange, pictures: bool) -> str:
    return _code(cell.source) + "".join(_output(output, pictures) for output in cell.outputs)


def _output(output: OutputChange, pictures: bool) -> str:
    summary = re.sub("`([^`]+)`", r"<code>\1</code>", _text(output.summary, 400))
    parts = [f"<p>{output.kind}: {summary}</p>", _code(output.lines)]
    if output.table is not None and output.table.columns:
        rows = "".join(
            f"<tr><td>{_text(column.column)}</td><td>{_text(row)}</td><td><del>{_text(old)}</del></td>"
            f"<td><ins>{_text(new)}</ins></td></tr>"
            for column in output.table.columns
            for row, old, new in column.examples
        )
        heads = "".join(f"<th>{word}</th>" for word in ("Column", "Row", "- before", "+ after"))
        parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>")
    if output.image is not None and pictures:
        parts.append(_picture(output.image, "before") + _picture(output.image, "after"))
    return "".join(parts)


def _picture(image: ImageChange, which: str) -> str:
    data = image.before if which == "before" else image.after
    if image.media_type not in IMAGES or _BASE64.fullmatch(data) is None:
        return ""
    return f'<figure><img src="data:{image.media_type};base64,{data}" alt="{which}"><figcaption>{which}</figcaption></figure>'


def _code(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    tags = {"+": "ins", "-": "del"}
    shown = []
    for line in lines:
        tag = tags.get(line[:1])
        text = html.escape(plain(line, 400))
        shown.append(f"<{tag}>{text}</{tag}>" if tag else text)
    return "<pre>" + "\n".join(shown) + "</pre>"


def _text(text: str, limit: int = 200) -> str:
    return html.escape(one_line(text, limit))
