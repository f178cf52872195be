"""What the live panel gets: a picture as compact JSON, its texts cleaned and ready to be shown."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import GLYPHS, TERMINAL_STATES, StateType
from prefect_nb.notebook.charts import HEIGHT, WIDTH, Chart, artifact_rows, charts
from prefect_nb.notebook.picture import (
    BROKEN,
    COLOURS,
    Count,
    GroupView,
    Picture,
    finished,
    group_state,
    left_text,
    left_us,
    note,
    run_left_us,
)
from prefect_nb.notebook.view_graph import HEIGHT as BOX_HEIGHT
from prefect_nb.notebook.view_graph import Graph, edge_path, graph_of, label, shares, subtitle
from prefect_nb.service.text import ago, elapsed, one_line

PALETTE = {type_.value: (GLYPHS[type_], COLOURS[type_]) for type_ in StateType}

_CHARTS, _LINES, _POINTS = 12, 8, 2_000
"""Charts, lines a chart and points in all that the panel gets."""

_ARTIFACTS = 20
_NOTE = 200
_WAITING = frozenset({StateType.PENDING, StateType.SCHEDULED, StateType.PAUSED})

Row = tuple[str, ...]
"""Id, type, word, name, attempts, duration, what is left, note, and the letters of what can be done with the run."""


class PayloadWriter:
    """Writes one picture after another, and does not do again what is still true."""

    def __init__(self) -> None:
        self._rows: dict[UUID, tuple[TaskRun, str, Row]] = {}
        self._graph: Graph | None = None
        self._structure = -1

    def write(self, picture: Picture) -> bytes:
        """The picture as JSON; it must know its flow run."""
        flow_run = picture.flow_run
        assert flow_run is not None
        rows, self._rows = self._rows, {}
        done, total = finished(picture.counts), picture.total
        return msgspec.json.encode(
            {
                "palette": PALETTE,
                "id": flow_run.id.hex,
                "state": (flow_run.state_type.value, one_line(flow_run.state_name, 40)),
                "flow": one_line(flow_run.flow_name),
                "run": one_line(flow_run.name),
                "took": elapsed(flow_run, picture.now_us),
                "left": _flow_left(picture),
                "can": _flow_actions(flow_run),
                "message": one_line(flow_run.state_message or "", 500),
                "done": done,
                "total": total,
                "counted": counted(picture.counts),
                "counts": _counts(picture.counts),
                "items": [self._item(group, picture, rows) for group in picture.groups],
                "more": picture.more_groups,
                "graph": self._graph_of(picture),
                "metrics": _metrics(picture),
                "chart": (WIDTH, HEIGHT),
                "artifacts": artifact_rows(picture.artifacts, _ARTIFACTS),
            }
        )

    def _item(self, group: GroupView, picture: Picture, before: dict[UUID, tuple[TaskRun, str, Row]]) -> dict[str, Any]:
        usual, now = picture.usual_us.get(group.task_key), picture.now_us
        rows = [self._row(run, picture, usual, before) for run in group.rows]
        child = group.flow_run or group.stand_in
        if child is None and group.total == 1 and rows:
            return {"key": group.number, "kind": group.kind, "depth": group.depth, "row": rows[0]}
        type_, word = group_state(group)
        took = elapsed(child, now) if child is not None else _group_took(group, now)
        item = {
            "key": group.number,
            "kind": group.kind,
            "depth": group.depth,
            "name": one_line(group.name),
            "total": group.total,
            "state": (type_.value, one_line(word, 40)),
            "counts": _counts(group.counts),
            "took": took,
            "left": left_text(left_us(group, usual, now)),
            "rows": rows,
        }
        if isinstance(child, FlowRun):
            item |= {
                "run": child.id.hex,
                "called": one_line(child.name),
                "note": one_line(child.state_message or "", _NOTE),
            }
        return item

    def _row(
        self, run: TaskRun, picture: Picture, usual: int | None, before: dict[UUID, tuple[TaskRun, str, Row]]
    ) -> Row:
        remark = picture.remarks.get(run.id, "") or ("" if run.is_final else picture.saying(run.id))
        known = before.get(run.id)
        if known is None or known[0] is not run or known[1] != remark or not run.is_final:
            known = (run, remark, _row(run, usual, remark, picture.now_us))
        self._rows[run.id] = known
        return known[2]

    def _graph_of(self, picture: Picture) -> dict[str, Any] | None:
        if picture.structure != self._structure:
            self._structure = picture.structure
            self._graph = None if picture.more_groups else graph_of(picture.groups)
        graph = self._graph
        if graph is None:
            return None
        boxes = [_box(group, graph) for group in picture.groups if group.number in graph.boxes]
        lines = [edge_path(graph, *edge) for edge in graph.edges]
        return {"size": (graph.width, graph.height), "box": BOX_HEIGHT, "boxes": boxes, "lines": lines}


def payload(picture: Picture) -> bytes:
    """One picture as the JSON that the panel draws."""
    return PayloadWriter().write(picture)


def counted(counts: Sequence[Count]) -> str:
    """`3 of 5 task runs done, 1 failed`."""
    total = sum(number for _, _, number in counts)
    broken = sum(number for type_, _, number in counts if type_ in BROKEN)
    return f"{finished(counts):,} of {total:,} task runs done" + (f", {broken:,} failed" if broken else "")


def _counts(counts: Sequence[Count]) -> list[tuple[str, int, str]]:
    return [(type_.value, number, one_line(word, 40)) for type_, word, number in counts[:12]]


def _row(run: TaskRun, usual: int | None, remark: str, now_us: int) -> Row:
    return (
        run.id.hex,
        run.state_type.value,
        one_line(run.state_name, 40),
        one_line(run.name),
        str(run.run_count) if run.run_count else "",
        elapsed(run, now_us),
        left_text(run_left_us(run, usual, now_us)),
        one_line(_note(run, remark, now_us), _NOTE),
        _actions(run),
    )


def _note(run: TaskRun, remark: str, now_us: int) -> str:
    if (
        run.state_name == "Cached"
        and not run.state_message
        and run.result is not None
        and run.result.source is not None
    ):
        # The id of a run begins with the milliseconds of its creation.
        return f"cached: the result of a run {ago((run.result.source.int >> 80) * 1000, now_us)}"
    return note(run, {run.id: remark} if remark else {})


def _group_took(group: GroupView, now_us: int) -> str:
    if group.started_us is None:
        return ""
    ends = [run.end_us or now_us for run in group.rows if run.start_us is not None]
    end = now_us if group.ended < group.total else max(ends, default=group.started_us)
    return elapsed(FlowRun(id=UUID(int=0), name="", start_us=group.started_us, end_us=end), now_us)


def _flow_left(picture: Picture) -> str:
    flow_run = picture.flow_run
    if flow_run is None or flow_run.state_type is not StateType.RUNNING or flow_run.start_us is None:
        return ""
    usual = picture.usual_us.get("")
    left = usual - (picture.now_us - flow_run.start_us) if usual is not None else 0
    if left <= 0:
        known = (left_us(group, picture.usual_us.get(group.task_key), picture.now_us) for group in picture.groups)
        left = max((us for us in known if us is not None), default=0)
    return left_text(left)


def _flow_actions(flow_run: FlowRun) -> str:
    """Letters of what can be done with the flow run: C cancel, P pause, U resume."""
    if flow_run.state_type in TERMINAL_STATES or flow_run.state_type is StateType.CANCELLING:
        return ""
    return "UC" if flow_run.state_type is StateType.PAUSED else "PC"


def _actions(run: TaskRun) -> str:
    """Letters of what can be done with a task run: R retry, S skip, C cancel."""
    if run.kind != "task":
        return ""
    if run.state_type is StateType.RUNNING or run.state_name == "AwaitingRetry":
        return "RSC"
    return "SC" if run.state_type in _WAITING else ""


def _box(group: GroupView, graph: Graph) -> dict[str, Any]:
    type_, words = subtitle(group)
    box = {"key": group.number, "at": graph.boxes[group.number], "kind": group.kind, "name": label(group)}
    box |= {"state": (type_.value, words)}
    if group.kind == "map":
        box["shares"] = [(kind.value, number) for kind, number in shares(group)]
    return box


def _metrics(picture: Picture) -> list[Chart]:
    if not picture.metrics:
        return []
    return charts(picture.metrics, dict(picture.names), _CHARTS, _LINES, _POINTS)
