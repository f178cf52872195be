"""The parts of a run's static picture that tell what it reported: metrics and artifacts, as HTML and as text."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import PrefectException
from prefect_nb.interfaces import Artifact
from prefect_nb.notebook.charts import HEIGHT, WIDTH, Chart, Stroke, artifact_rows, charts, swatch_points
from prefect_nb.notebook.escaping import LEFT, escape, safe_line, size, table_html
from prefect_nb.service import artifacts as artifact_service
from prefect_nb.service.metrics import Line

_CHARTS = 8
_LINES = 4
_BYTES_A_POINT = 8
_ARTIFACTS = 12
_ROWS, _COLUMNS = 5, 5
_IMAGE_BYTES = 3_000
_TEXT_LINES = 20
_METRIC_COLUMNS = ("Metric", "Over steps", "Run", "Last", "Least", "Greatest", "Values")
_ARTIFACT_COLUMNS = ("Artifact", "Type", "What")


def metrics_html(lines: Sequence[Line], names: dict[UUID, str], room: int) -> str:
    """Metrics as a table of charts and numbers in at most `room` bytes; nothing where that is too little."""
    frame = size(table_html("Metrics (000 of 000,000)", _METRIC_COLUMNS, ""))
    if not lines or room < 2 * frame:
        return ""
    total = len({one.name for one in lines})
    # Half the room for points, the other half for words and numbers.
    drawn = charts(lines, names, _CHARTS, _LINES, (room - frame) // 2 // _BYTES_A_POINT)
    rows = []
    room -= frame
    for chart in drawn:
        row = _metric_rows(chart)
        room -= size(row)
        if room < 0:
            break
        rows.append(row)
    if not rows:
        return ""
    return table_html(
        f"Metrics ({len(rows)} of {total:,})" if len(rows) < total else "Metrics", _METRIC_COLUMNS, "".join(rows)
    )


def metric_lines(lines: Sequence[Line], names: dict[UUID, str]) -> list[str]:
    """Metrics as lines of text."""
    found = []
    for chart in charts(lines, names, _TEXT_LINES, _LINES, 0)[:_TEXT_LINES]:
        for stroke in chart.strokes:
            last, least, greatest, count = stroke.values
            whose = f" ({stroke.label})" if stroke.label else ""
            found.append(f"{chart.name}{whose}: last {last}, least {least}, greatest {greatest}, {count} values")
        if chart.left_out:
            found.append(f"{chart.name}: {chart.left_out:,} more lines")
    return found[:_TEXT_LINES]


def artifacts_html(artifacts: Sequence[Artifact], room: int) -> str:
    """Artifacts as a table in at most `room` bytes; nothing where that is too little."""
    frame = size(table_html("Artifacts (000 of 000,000)", _ARTIFACT_COLUMNS, ""))
    room -= frame
    rows: list[str] = []
    for artifact, texts in zip(artifacts[-_ARTIFACTS:], artifact_rows(artifacts, _ARTIFACTS), strict=True):
        row = _artifact_row(artifact, texts)
        room -= size(row)
        if room < 0:
            break
        rows.append(row)
    if not rows:
        return ""
    caption = f"Artifacts ({len(rows)} of {len(artifacts):,})" if len(rows) < len(artifacts) else "Artifacts"
    return table_html(caption, _ARTIFACT_COLUMNS, "".join(rows))


def artifact_lines(artifacts: Sequence[Artifact]) -> list[str]:
    """Artifacts as lines of text."""
    return [
        f"artifact {row['key'] or '(no key)'} ({row['type']}): {row['about']}".removesuffix(": ")
        for row in artifact_rows(artifacts, _TEXT_LINES)
    ]


def _metric_rows(chart: Chart) -> str:
    several = len(chart.strokes) > 1
    height = len(chart.strokes) + bool(chart.left_out)
    span = f' rowspan="{height}"' if height > 1 else ""
    first = (
        f'<th scope="rowgroup"{span}{LEFT} dir="auto">{safe_line(chart.name, 60)}</th><td{span}>'
        f"{_svg(chart.strokes, WIDTH, HEIGHT, chart.says)}</td>"
    )
    rows = []
    for place, stroke in enumerate(chart.strokes):
        sample = _sample(stroke) if several else ""
        numbers = "".join(f"<td>{text}</td>" for text in stroke.values)
        rows.append(
            f'<tr>{first if place == 0 else ""}<td{LEFT} dir="auto">{sample}{safe_line(stroke.label, 40)}</td>{numbers}</tr>'
        )
    if chart.left_out:
        rows.append(f'<tr><td colspan="5"{LEFT}>… and {chart.left_out:,} more</td></tr>')
    return "".join(rows)


def _svg(strokes: Iterable[Stroke], width: int, height: int, says: str) -> str:
    drawn = "".join(_polyline(stroke, stroke.points) for stroke in strokes)
    # No <title>: where svg is taken out, its text would be left behind.
    return (
        f'<svg role="img" aria-label="{escape(says, 300)}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><path d="M0 {height - 0.5}H{width}" stroke="currentColor" opacity=".3"/>{drawn}</svg>'
    )


def _sample(stroke: Stroke) -> str:
    return f'<svg aria-hidden="true" viewBox="0 0 24 10" width="24" height="10">{_polyline(stroke, swatch_points())}</svg> '


def _polyline(stroke: Stroke, points: str) -> str:
    dashes = f' stroke-dasharray="{stroke.dashes}"' if stroke.dashes else ""
    return (
        f'<polyline fill="none" stroke="{stroke.color}" stroke-width="1.5" stroke-linecap="round"{dashes} '
        f'points="{points}"/>'
    )


def _artifact_row(artifact: Artifact, texts: dict[str, Any]) -> str:
    return (
        f'<tr><th scope="row"{LEFT} dir="auto">{safe_line(texts["key"], 60)}</th><td{LEFT}>{safe_line(texts["type"], 30)}</td>'
        f'<td{LEFT} dir="auto">{_shown(artifact, texts)}</td></tr>'
    )


def _shown(artifact: Artifact, texts: dict[str, Any]) -> str:
    about = safe_line(texts["about"], 200)
    if "progress" in texts:
        return f'<progress max="100" value="{texts["progress"]:g}">{texts["progress"]:g} %</progress> {about}'
    if "image" in texts:
        source = texts["image"]
        if len(source) > _IMAGE_BYTES:
            return f"{about} (too large to be saved here)"
        return (
            f'<img src="{escape(source, 2 * _IMAGE_BYTES)}" alt="{about or "image"}" style="max-width:300px"> {about}'
        )
    if artifact.type == "table":
        return _small_table(artifact, about)
    return about


def _small_table(artifact: Artifact, about: str) -> str:
    try:
        columns, rows = artifact_service.table_of(artifact.data)
    except (PrefectException, ValueError):
        return about
    head = "".join(f'<th scope="col">{safe_line(name, 30)}</th>' for name in columns[:_COLUMNS])
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row[:_COLUMNS]) + "</tr>" for row in rows[:_ROWS]
    )
    return f'{about}<table style="margin:0"><thead>' + f"<tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(cell: Any) -> str:
    return "" if cell is None else safe_line(str(cell), 40)
