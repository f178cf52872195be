"""The table of a sweep: as text, and as HTML that any front end shows."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import GLYPHS, StateType
from prefect_nb.service.text import one_line

_LEFT = ' style="text-align:left"'
_SHOWN = 200
"""Rows of the HTML; the artifact has all."""
_WIDEST = 60
_WIDEST_ERROR = 160


def columns_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The names of the columns: parameters, state, duration, what was returned, and what went wrong at the end."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [name for name in names if name != "error"] + ["error"] * ("error" in names)


def cell(row: dict[str, Any], name: str) -> str:
    """One cell as text."""
    value = row.get(name, "")
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else one_line(str(value), _WIDEST_ERROR if name == "error" else _WIDEST)


def text_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table in columns of text."""
    columns = columns_of(rows)
    lines = [columns, *([cell(row, name) for name in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def html_table(rows: Sequence[dict[str, Any]], types: Sequence[StateType], run: FlowRun) -> str:
    """The table as HTML, each state with its glyph."""
    columns = columns_of(rows)
    heads = "".join(f'<th scope="col"{_LEFT}>{html.escape(one_line(name))}</th>' for name in columns)
    lines = []
    for row, type_ in zip(rows[:_SHOWN], types, strict=False):
        texts = {name: cell(row, name) for name in columns}
        texts["state"] = f"{GLYPHS[type_]} {texts['state']}"
        lines.append("<tr>" + "".join(f"<td{_LEFT}>{html.escape(text)}</td>" for text in texts.values()) + "</tr>")
    more = f" (the first {_SHOWN} of {len(rows):,} points)" if len(rows) > _SHOWN else ""
    caption = f"{GLYPHS[run.state_type]} {run.state_name} · {one_line(run.flow_name)} / {one_line(run.name)}{more}"
    return (
        f'<table><caption style="text-align:left">{html.escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
