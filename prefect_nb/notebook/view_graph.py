"""The groups of a flow run as a graph: where each box stands, and the picture that stays in a saved notebook.

The layout is layered and deterministic: a group stands to the right of everything its arguments come from, beside what
it is most connected with. Everything here is pure.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from prefect_nb.model.states import GLYPHS, StateType
from prefect_nb.notebook.picture import GroupView, Picture, finished, group_state
from prefect_nb.service.text import one_line

MOST = 60
"""A graph of more groups is left out."""

HEIGHT = 44
"""Of a box."""

_NARROW, _WIDE, _LETTER, _PADDING = 112, 260, 6.6, 24
_BOLD = 1.15
"""How much wider bold letters are."""
_GAP_X, _GAP_Y, _MARGIN = 48, 14, 6

_INK = {
    StateType.COMPLETED: "#1e8a43",
    StateType.FAILED: "#de0529",
    StateType.RUNNING: "#2b78d8",
    StateType.CRASHED: "#c2410c",
    StateType.SCHEDULED: "#b8690a",
}
"""Colours where no style sheet reaches; the rest is grey."""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """Boxes and the edges between them."""

    width: int
    height: int
    boxes: Mapping[int, tuple[int, int, int]]
    """Left, top and width by the number of the group."""
    edges: Sequence[tuple[int, int]]


def graph_of(groups: Sequence[GroupView]) -> Graph | None:
    """The graph of the groups at the top level; None where nothing depends on anything, or there are too many."""
    nodes = {group.number: group for group in groups if group.depth == 0}
    # An edge back to what appeared earlier is a loop of the flow's code; leaving it out keeps the layers.
    sources = {number: [one for one in node.sources if one in nodes and one < number] for number, node in nodes.items()}
    edges = [(source, number) for number, found in sources.items() for source in found]
    if not edges or len(nodes) > MOST:
        return None
    layers: dict[int, int] = {}
    for number in sorted(nodes):
        layers[number] = 1 + max((layers[source] for source in sources[number]), default=-1)
    columns: list[list[int]] = [[] for _ in range(1 + max(layers.values()))]
    for number, layer in layers.items():
        columns[layer].append(number)
    middles = _middles(columns, sources)
    top = min(middles.values()) - HEIGHT / 2 - _MARGIN
    boxes, left = {}, _MARGIN
    for column in columns:
        width = max(_box_width(nodes[number]) for number in column)
        boxes.update({number: (left, round(middles[number] - HEIGHT / 2 - top), width) for number in column})
        left += width + _GAP_X
    height = max(y for _, y, _ in boxes.values()) + HEIGHT + _MARGIN
    return Graph(width=left - _GAP_X + _MARGIN, height=height, boxes=boxes, edges=edges)


def _middles(columns: Sequence[list[int]], sources: Mapping[int, Sequence[int]]) -> dict[int, float]:
    """The height of each box's middle: near that of its sources, and apart from its neighbours."""
    step = HEIGHT + _GAP_Y
    middles: dict[int, float] = {}
    for column in columns:
        wished = {
            number: sum(middles[one] for one in sources[number]) / len(sources[number])
            if sources[number]
            else step * place
            for place, number in enumerate(column)
        }
        column.sort(key=lambda number: (wished[number], number))
        placed: dict[int, float] = {}
        lowest = float("-inf")
        for number in column:
            placed[number] = max(wished[number], lowest + step)
            lowest = placed[number]
        shift = sum(placed[number] - wished[number] for number in column) / len(column)
        middles.update({number: middle - shift for number, middle in placed.items()})
    return middles


def _box_width(group: GroupView) -> int:
    letters = max(_BOLD * len(label(group)), len(subtitle(group)[1]) + 2)
    if group.kind == "map":  # its words grow while it runs, and its box should not
        letters = max(letters, 2 + len(f"{group.total:,} of {group.total:,}, 0 failed"))
    return round(min(_WIDE, max(_NARROW, _PADDING + _LETTER * letters)))


def label(group: GroupView) -> str:
    """What stands in the box."""
    if group.kind == "map":
        return f"{one_line(group.name, 22)} \N{MULTIPLICATION SIGN} {group.total:,}"
    if group.kind == "flow" or not group.rows:
        return one_line(group.name, 28)
    return one_line(group.rows[0].name, 28)


def subtitle(group: GroupView) -> tuple[StateType, str]:
    """The state in the box: glyph's type and words."""
    type_, word = group_state(group)
    if group.kind == "map":
        broken = sum(number for kind, _, number in group.counts if kind in (StateType.FAILED, StateType.CRASHED))
        word = f"{finished(group.counts):,} of {group.total:,}" + (f", {broken:,} failed" if broken else "")
    return type_, one_line(word, 28)


def shares(group: GroupView) -> list[tuple[StateType, int]]:
    """How many of a mapped task's runs are in each type of state, for the little bar."""
    found: dict[StateType, int] = {}
    for type_, _, number in group.counts:
        found[type_] = found.get(type_, 0) + number
    return list(found.items())


def image_html(picture: Picture, room: int) -> str:
    """The graph as an image that holds itself, in at most `room` bytes; nothing where that is too little."""
    graph = None if picture.more_groups else graph_of(picture.groups)
    if graph is None:
        return ""
    source = base64.b64encode(_svg(graph, picture.groups).encode()).decode()
    text = (
        '<p style="margin:6px 0 0"><img alt="Graph of the tasks" style="max-width:100%" '
        f'width="{graph.width}" src="data:image/svg+xml;base64,{source}"></p>'
    )
    return text if len(text) <= room else ""


def _svg(graph: Graph, groups: Sequence[GroupView]) -> str:
    """Cards on their own ground: readable on a light page and on a dark one."""
    width, height = graph.width, graph.height
    frame = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="system-ui,sans-serif" font-size="12">',
        '<g fill="none" stroke="#8a8a8a" stroke-width="1.3">',
    ]
    parts += [f'<path d="{edge_path(graph, *edge)}"/>' for edge in graph.edges]
    parts.append("</g>")
    parts += [_card(graph.boxes[group.number], group) for group in groups if group.number in graph.boxes]
    return "".join([*parts, "</svg>"])


def edge_path(graph: Graph, source: int, target: int) -> str:
    """The line from one box to another."""
    x1, y1, width = graph.boxes[source]
    x2, y2, _ = graph.boxes[target]
    x1, y1, y2 = x1 + width, y1 + HEIGHT // 2, y2 + HEIGHT // 2
    bend = max(20, (x2 - x1) // 2)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"


def _card(box: tuple[int, int, int], group: GroupView) -> str:
    x, y, width = box
    type_, words = subtitle(group)
    ink = _INK.get(type_, "#666")
    radius = 2 if group.kind == "flow" else 6
    return (
        f'<rect x="{x + 0.5}" y="{y + 0.5}" width="{width - 1}" height="{HEIGHT - 1}" rx="{radius}" fill="#fff" '
        f'stroke="{ink}"/><text x="{x + 10}" y="{y + 18}" fill="#222" font-weight="600">{_text(label(group))}</text>'
        f'<text x="{x + 10}" y="{y + 34}" fill="#444"><tspan fill="{ink}">{GLYPHS[type_]}</tspan> {_text(words)}</text>'
    )


def _text(text: str) -> str:
    return html.escape(text)


def run_of(group: GroupView) -> UUID | None:
    """The run that a box stands for, where it is a single one."""
    if group.flow_run is not None:
        return group.flow_run.id
    return group.rows[0].id if group.total == 1 and group.rows else None
