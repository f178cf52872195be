"""Metrics and artifacts as parts of a picture: which lines and rows, and the geometry of charts. Everything is pure.

A chart holds no words: where inline svg is taken out of a saved notebook, the table around it says the numbers.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.interfaces import Artifact
from prefect_nb.service import artifacts as artifact_service
from prefect_nb.service.metrics import Line
from prefect_nb.service.text import one_line

WIDTH, HEIGHT = 240, 56
"""The coordinates of a chart."""

STROKES = (
    ("currentColor", ""),
    ("var(--jp-brand-color1,#2b78d8)", "6 2"),
    ("var(--jp-success-color1,#219d4b)", "2 2"),
    ("var(--jp-warn-color0,#b8690a)", "8 2 2 2"),
)
"""Colour and dashes of a chart's lines; dashes tell them apart where colours do not."""

_MARGIN = 4
_SWATCH = 24


class Stroke(msgspec.Struct, frozen=True, kw_only=True):
    """One run's line in a chart and its row in the table beside it."""

    label: str
    color: str
    dashes: str
    points: str
    """The points of an svg polyline."""
    values: tuple[str, str, str, str]
    """The last, the least and the greatest value, and how many there are."""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of a flow run."""

    name: str
    says: str
    """What the chart shows, in words."""
    strokes: list[Stroke]
    left_out: int
    """Lines that are not shown."""


def charts(
    lines: Iterable[Line], names: dict[UUID, str], most_charts: int, most_lines: int, most_points: int
) -> list[Chart]:
    """The first metrics, each with the lines that moved last.

    Args:
        lines: what runs reported.
        names: how runs are called, by id.
        most_charts: of so many metrics at most.
        most_lines: so many lines a metric at most.
        most_points: so many points in all, as far as lines of 8 points allow.
    """
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        by_name.setdefault(line.name, []).append(line)
    shown = {name: _newest(group, most_lines) for name, group in list(by_name.items())[:most_charts]}
    each = max(8, most_points // max(1, sum(map(len, shown.values()))))
    return [_chart(name, group, names, each, len(by_name[name]) - len(group)) for name, group in shown.items()]


def number_text(value: float | None) -> str:
    """A value to six digits."""
    return "" if value is None else f"{value:.6g}"


def artifact_rows(artifacts: Sequence[Artifact], most: int) -> list[dict[str, Any]]:
    """The newest artifacts as texts ready to be shown: `key`, `type`, `about`, and `progress` or `image`."""
    rows = []
    for artifact in artifacts[-most:]:
        kind = artifact.type or "data"
        row: dict[str, Any] = {
            "key": one_line(artifact.key or "", 60),
            "type": one_line(kind, 30),
            "about": _about(artifact),
        }
        if kind == "progress" and isinstance(artifact.data, int | float):
            row["progress"] = artifact.data
        elif kind == "image" and (source := artifact_service.image_source(artifact.data)):
            row["image"] = source
        rows.append(row)
    return rows


def swatch_points() -> str:
    """The sample of a line that stands before its name."""
    return f"1,5 {_SWATCH - 1},5"


def _newest(lines: Sequence[Line], most: int) -> list[Line]:
    kept = sorted(range(len(lines)), key=lambda place: lines[place].last_us)[-most:]
    return [lines[place] for place in sorted(kept)]


def _chart(name: str, lines: Sequence[Line], names: dict[UUID, str], most_points: int, left_out: int) -> Chart:
    points = [thinned(line.points, most_points) for line in lines]
    every = [point for one in points for point in one]
    steps = (min((step for step, _ in every), default=0), max((step for step, _ in every), default=0))
    values = (min((value for _, value in every), default=0.0), max((value for _, value in every), default=0.0))
    strokes = []
    for place, (line, one) in enumerate(zip(lines, points, strict=True)):
        color, dashes = STROKES[place % len(STROKES)]
        least, greatest = number_text(line.least), number_text(line.greatest)
        strokes.append(
            Stroke(
                label=one_line(names.get(line.run_id, "") if line.run_id else "", 40),
                color=color,
                dashes=dashes,
                points=" ".join(_placed(point, steps, values) for point in (one * 2 if len(one) == 1 else one)),
                values=(number_text(line.last), least, greatest, f"{line.count:,}"),
            )
        )
    label = one_line(name, 60)
    says = f"{label}: steps {steps[0]} to {steps[1]}, values {number_text(values[0])} to {number_text(values[1])}"
    return Chart(name=label, says=says, strokes=strokes, left_out=left_out)


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most so many of the points (4 or more): the ends, and the least and the greatest of every stretch between."""
    if len(points) <= most:
        return list(points)
    inner = points[1:-1]
    stretches = (most - 2) // 2
    kept = [points[0]]
    for number in range(stretches):
        part = inner[number * len(inner) // stretches : (number + 1) * len(inner) // stretches]
        least, greatest = (pick(range(len(part)), key=lambda n: part[n][1]) for pick in (min, max))
        kept += [part[place] for place in sorted({least, greatest})]
    return [*kept, points[-1]]


def _placed(point: tuple[int, float], steps: tuple[int, int], values: tuple[float, float]) -> str:
    across = _share(point[0], *steps)
    up = _share(point[1], *values)
    x = _MARGIN + across * (WIDTH - 2 * _MARGIN)
    y = HEIGHT - _MARGIN - up * (HEIGHT - 2 * _MARGIN)
    return f"{x:.0f},{y:.0f}"


def _share(value: float, least: float, greatest: float) -> float:
    """Where a value lies between two others, from 0 to 1; in the middle if they are the same."""
    # Halves, because the difference of two large numbers may be more than any number.
    room = greatest / 2 - least / 2
    return 0.5 if room == 0 or not math.isfinite(room) else (value / 2 - least / 2) / room


def _about(artifact: Artifact) -> str:
    words = [artifact_service.summary(artifact)] if artifact.type != "image" else []
    if artifact.description:
        words.insert(0, artifact.description)
    if artifact.type == artifact_service.RICH:
        words.append(f"display(Artifact.get({artifact.key!r}))" if artifact.key else f"artifact {artifact.id}")
    return one_line(" · ".join(filter(None, words)), 200)
