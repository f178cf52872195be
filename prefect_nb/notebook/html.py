"""A run's static picture: HTML and plain text that stay in the saved notebook.

GitHub, nbviewer, e-mail and an untrusted notebook strip scripts, style sheets, inline svg and most inline styles, so
the HTML needs none of them: tables, `<details>`, glyph and word. (Charts of metrics are svg; the numbers beside them
are not. The graph of the tasks is an image beside the table that says the same.) It never exceeds `LIMIT` bytes, whatever the run's
size, and every text of a user is cleaned and escaped.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar
from uuid import UUID

from prefect_nb.interfaces import Artifact, LogLine
from prefect_nb.model.runs import FlowRun, Snapshot, TaskRun
from prefect_nb.model.states import GLYPHS, StateType
from prefect_nb.notebook.escaping import LEFT, escape, safe_line, size, table_html
from prefect_nb.notebook.html_outputs import printed_html, printed_lines
from prefect_nb.notebook.html_reports import artifact_lines, artifacts_html, metric_lines, metrics_html
from prefect_nb.notebook.picture import (
    ACTIVE,
    BROKEN,
    COLOURS,
    Count,
    Picture,
    count_states,
    finished,
    group_name,
    moment,
    most_relevant,
    note,
)
from prefect_nb.notebook.view_graph import image_html
from prefect_nb.service.metrics import Line
from prefect_nb.service.run_outputs import Printed
from prefect_nb.service.text import duration_text, elapsed, one_line, plain, plural

R = TypeVar("R", bound=Snapshot)

LIMIT = 16_000
"""Bytes (UTF-8) the HTML never exceeds; with the plain text beside it, what is saved stays below 20 kB."""

_WHOLE, _SHORT = ' style="text-align:left;white-space:nowrap"', 40
"""The cell of a name of so many letters: on one line."""

_FAILURES = 3
_CHILDREN = 6
_GROUPS = 12
_UNFOLDED = 20
"""Up to so many task runs the table is shown open and ungrouped."""
_ROWS = 200
_LOG_LINES = 40
_LOG_BYTES = 2_500
_TEXT_ROWS = 40
_METRIC_BYTES = 6_000
_ARTIFACT_BYTES = 4_000
_PRINTED_BYTES = 5_000
_GRAPH_BYTES = 5_000
_JOIN = "\N{NO-BREAK SPACE}"


def run_html(
    flow_run: FlowRun,
    task_runs: Sequence[TaskRun],
    *,
    now_us: int,
    children: Sequence[FlowRun] = (),
    logs: Sequence[LogLine] = (),
    metrics: Sequence[Line] = (),
    artifacts: Sequence[Artifact] = (),
    remarks: Mapping[UUID, str] = {},
    printed: Mapping[UUID, Printed] = {},
    graph: str = "",
) -> str:
    """The run as HTML of at most 16 kB.

    Args:
        flow_run: the run pictured.
        task_runs: its task runs in order of creation, those of its children too.
        now_us: the time until which unfinished runs have lasted (microseconds since the epoch, UTC).
        children: flow runs it started.
        logs: log lines to fold in; the newest are shown.
        metrics: what they reported.
        artifacts: what they made, oldest first.
        remarks: what else is known of single task runs, by their id: where one failed, why it was computed.
        printed: what task runs printed, by their id.
        graph: the graph of the tasks, as HTML.
    """
    head = _headline(flow_run, now_us) + _counts_line(flow_run, task_runs) + _failures(task_runs, remarks) + graph
    head += _child_table(children, now_us)
    foot = _log_details(logs) + _origin(flow_run)
    names = {run.id: run.name for run in (flow_run, *children, *task_runs)} if metrics or printed else {}
    color = COLOURS[flow_run.state_type]
    opening = (
        '<div style="border:1px solid var(--jp-border-color2,#8888);'
        f'border-left:4px solid {color};padding:8px 12px;margin:4px 0;overflow-x:auto">'
    )
    room = LIMIT - size(opening) - size(head) - size(foot) - len("</div>")
    said = printed_html(printed, names, min(_PRINTED_BYTES, room // 2))
    room -= size(said)
    reports = metrics_html(metrics, names, min(_METRIC_BYTES, room // 2))
    reports += artifacts_html(artifacts, min(_ARTIFACT_BYTES, (room - size(reports)) // 2))
    owners = {child.id: child.name for child in children}
    return (
        f"{opening}{head}{_tasks(task_runs, owners, now_us, room - size(reports), remarks)}{said}{reports}{foot}</div>"
    )


def run_text(
    flow_run: FlowRun,
    task_runs: Sequence[TaskRun],
    *,
    now_us: int,
    children: Sequence[FlowRun] = (),
    metrics: Sequence[Line] = (),
    artifacts: Sequence[Artifact] = (),
    remarks: Mapping[UUID, str] = {},
    printed: Mapping[UUID, Printed] = {},
) -> str:
    """The run as a compact plain-text tree; arguments as for `run_html`."""
    counts = count_states(task_runs)
    lines = [f"{_text_state(flow_run)}  flow {one_line(flow_run.flow_name)!r}, run {one_line(flow_run.name)!r}"]
    if flow_run.start_us is not None:
        lines[0] += f"  {elapsed(flow_run, now_us)}"
    if flow_run.state_message:
        lines.append(f"  {one_line(flow_run.state_message, 300)}")
    if counts:
        lines.append(f"  {plural(len(task_runs), 'task run')}: {_words(counts)}")
    leaves = [
        f"{_text_state(child)}  flow run {one_line(child.name)}  {elapsed(child, now_us)}".rstrip()
        for child in islice(children, _TEXT_ROWS)
    ]
    shown = _select(task_runs, _TEXT_ROWS)
    owners = {child.id: child.name for child in children}
    for run in shown:
        attempts = f"{run.run_count} attempts" if run.run_count > 1 else ""
        cells = (
            _text_state(run),
            _name(run, owners),
            elapsed(run, now_us),
            attempts,
            one_line(note(run, remarks), 200),
        )
        leaves.append("  ".join(filter(None, cells)))
    if len(shown) < len(task_runs):
        leaves.append(f"… {plural(len(task_runs) - len(shown), 'more task run')}")
    lines += [f"  {'└─' if last else '├─'} {leaf}" for leaf, last in _with_last(leaves)]
    names = {run.id: run.name for run in (flow_run, *children, *task_runs)} if metrics or printed else {}
    lines += [f"  {text}" for text in printed_lines(printed, names)]
    lines += [f"  {text}" for text in (*metric_lines(metrics, names), *artifact_lines(artifacts))]
    return "\n".join(lines)


def mimebundle(
    flow_run: FlowRun,
    task_runs: Sequence[TaskRun],
    *,
    now_us: int,
    children: Sequence[FlowRun] = (),
    logs: Sequence[LogLine] = (),
    metrics: Sequence[Line] = (),
    artifacts: Sequence[Artifact] = (),
) -> dict[str, str]:
    """The run for any front end: `text/html` and `text/plain`; arguments as for `run_html`."""
    return {
        "text/html": run_html(
            flow_run, task_runs, now_us=now_us, children=children, logs=logs, metrics=metrics, artifacts=artifacts
        ),
        "text/plain": run_text(
            flow_run, task_runs, now_us=now_us, children=children, metrics=metrics, artifacts=artifacts
        ),
    }


def mimebundle_of(picture: Picture, logs: Sequence[LogLine] = ()) -> dict[str, str]:
    """A picture that knows its flow run, for any front end."""
    assert picture.flow_run is not None
    task_runs = picture.task_runs
    html = run_html(
        picture.flow_run,
        task_runs,
        now_us=picture.now_us,
        children=picture.children,
        logs=logs,
        metrics=picture.metrics,
        artifacts=picture.artifacts,
        remarks=picture.remarks,
        printed=picture.printed,
        graph=image_html(picture, _GRAPH_BYTES),
    )
    text = run_text(
        picture.flow_run,
        task_runs,
        now_us=picture.now_us,
        children=picture.children,
        metrics=picture.metrics,
        artifacts=picture.artifacts,
        remarks=picture.remarks,
        printed=picture.printed,
    )
    return {"text/html": html, "text/plain": text}


def placeholder(flow_run_id: UUID) -> dict[str, str]:
    """What stands there before anything is known of the run."""
    glyph = GLYPHS[StateType.PENDING]
    return {
        "text/html": (
            f"<p>{glyph} Starting flow run <code>{flow_run_id}</code> · <code>%runs {flow_run_id}</code> "
            "shows at any time what became of it</p>"
        ),
        "text/plain": f"{glyph} Starting flow run {flow_run_id} (%runs {flow_run_id} shows what became of it)",
    }


def _with_last(leaves: Sequence[str]) -> Iterable[tuple[str, bool]]:
    return ((leaf, number == len(leaves)) for number, leaf in enumerate(leaves, 1))


def _words(counts: Iterable[Count]) -> str:
    return ", ".join(f"{GLYPHS[type_]} {number:,} {one_line(word, 40)}" for type_, word, number in islice(counts, 12))


def _text_state(run: Snapshot) -> str:
    return f"{GLYPHS[run.state_type]} {one_line(run.state_name, 40)}"


def _name(run: TaskRun, owners: dict[UUID, str]) -> str:
    owner = owners.get(run.flow_run_id) if run.flow_run_id else None
    return one_line(run.name) if owner is None else f"{one_line(owner, 40)} / {one_line(run.name)}"


def _state(run: Snapshot) -> str:
    return _marked(run.state_type, run.state_name)


def _marked(type_: StateType, words: str) -> str:
    return f'<span style="color:{COLOURS[type_]}">{GLYPHS[type_]}</span>{_JOIN}{safe_line(words, 40)}'


def _headline(flow_run: FlowRun, now_us: int) -> str:
    took = elapsed(flow_run, now_us)
    message = _paragraph("", flow_run.state_message) if flow_run.state_message else ""
    return (
        f'<p style="margin:0"><strong>{_state(flow_run)}</strong> · flow <strong dir="auto">'
        f'{safe_line(flow_run.flow_name)}</strong> · run <span dir="auto">{safe_line(flow_run.name)}</span>'
        f"{f' · {took}' if took else ''}</p>{message}"
    )


def _counts_line(flow_run: FlowRun, task_runs: Sequence[TaskRun]) -> str:
    counts = count_states(task_runs)
    total = len(task_runs)
    if not total:
        return ""
    progress = ""
    if not flow_run.is_final:
        done = finished(counts)
        progress = f' <progress value="{done}" max="{total}" aria-label="Task runs done">{done} of {total}</progress>'
    # State names are free text: a run may have any number of them, the line not.
    marked = " · ".join(_marked(type_, f"{number:,} {word}") for type_, word, number in islice(counts, 8))
    return f'<p style="margin:4px 0 0">{plural(total, "task run")}: {marked}{progress}</p>'


def _failures(task_runs: Sequence[TaskRun], remarks: Mapping[UUID, str]) -> str:
    broken = sorted((run for run in task_runs if run.state_type in BROKEN), key=lambda run: run.end_us or run.state_us)
    shown = "".join(
        _paragraph(f'<strong>{_state(run)}: <span dir="auto">{safe_line(run.name)}</span></strong> ', note(run))
        + (f'<pre style="margin:2px 0 0 1.3em">{safe_line(remarks[run.id], 200)}</pre>' if run.id in remarks else "")
        for run in broken[:_FAILURES]
    )
    more = len(broken) - _FAILURES
    return f'{shown}<p style="margin:4px 0 0">… and {more:,} more that failed</p>' if more > 0 else shown


def _paragraph(lead: str, text: str) -> str:
    """A text that may be long: its beginning, and where that is not all, the text folded below."""
    first = f'<p style="margin:4px 0 0">{lead}<span dir="auto">{escape(one_line(text, 200), 400)}</span></p>'
    if len(text) <= 200 and "\n" not in text.strip():
        return first
    whole = escape(plain(text, 900), 1000)
    return f'{first}<details><summary>Whole message</summary><pre style="white-space:pre-wrap">{whole}</pre></details>'


def _child_table(children: Sequence[FlowRun], now_us: int) -> str:
    if not children:
        return ""
    rows = "".join(
        f'<tr><td{LEFT}>{_state(child)}</td><th scope="row"{LEFT} dir="auto">{safe_line(child.flow_name, 40)}</th>'
        f'<td{LEFT} dir="auto">{safe_line(child.name, 40)}</td><td>{elapsed(child, now_us)}</td></tr>'
        for child in _select(children, _CHILDREN)
    )
    more = f" ({_CHILDREN} of {len(children):,})" if len(children) > _CHILDREN else ""
    return table_html(f"Child flow runs{more}", ("State", "Flow", "Run", "Duration"), rows)


def _tasks(
    task_runs: Sequence[TaskRun], owners: dict[UUID, str], now_us: int, room: int, remarks: Mapping[UUID, str]
) -> str:
    """The table of task runs: whole when short; else a table of groups, and below it, folded, as many rows as fit."""
    if not task_runs:
        return ""
    columns = ("State", f"Task{_JOIN}run", "Attempts", "Duration", "Note")
    frame = size(table_html("Task runs (000,000 of 000,000)", columns, ""))
    if len(task_runs) <= _UNFOLDED:
        rows = _fitting((_row(run, owners, now_us, remarks) for run in task_runs), room - frame)
        if len(rows) == len(task_runs):
            return table_html("Task runs", columns, "".join(rows))
    groups = _group_table(task_runs, room)
    folding = "<details><summary>Task runs one by one</summary></details>"
    room -= size(groups) + frame + len(folding)
    rows = _fitting((_row(run, owners, now_us, remarks) for run in _select(task_runs, _ROWS)), room)
    if not rows:
        return groups
    whole = len(rows) == len(task_runs)
    caption = "Task runs" if whole else f"Task runs ({len(rows):,} of {len(task_runs):,})"
    table = table_html(caption, columns, "".join(rows))
    return f"{groups}<details><summary>Task runs one by one</summary>{table}</details>"


def _fitting(rows: Iterable[str], room: int) -> list[str]:
    fitting = []
    for row in rows:
        room -= size(row)
        if room < 0:
            break
        fitting.append(row)
    return fitting


def _row(run: TaskRun, owners: dict[UUID, str], now_us: int, remarks: Mapping[UUID, str]) -> str:
    text, name = safe_line(note(run, remarks), 120), escape(_name(run, owners), 240)
    place = _WHOLE if len(name) <= _SHORT else LEFT
    return (
        f'<tr><td{LEFT}>{_state(run)}</td><th scope="row"{place}>{name}</th>'
        f"<td>{run.run_count or ''}</td><td>{elapsed(run, now_us)}</td>"
        + (f'<td{LEFT} dir="auto">{text}</td></tr>' if text else "<td></td></tr>")
    )


def _select(runs: Sequence[R], limit: int) -> Sequence[R]:
    """At most `limit` runs: all in their order, or else what failed first, then what runs, then the newest."""
    if len(runs) <= limit:
        return runs
    by_id = {run.id: run for run in runs}
    broken = [run.id for run in runs if run.state_type in BROKEN]
    active = [run.id for run in runs if run.state_type in ACTIVE]
    chosen = {*broken, *active}
    others = (run.id for run in reversed(runs) if run.id not in chosen)
    return [by_id[id] for id in most_relevant(broken, active, others, limit)]


def _group_table(task_runs: Sequence[TaskRun], room: int) -> str:
    groups: dict[str, list[TaskRun]] = {}
    for run in task_runs:
        groups.setdefault(group_name(run), []).append(run)
    worst_first = sorted(groups.items(), key=lambda group: -sum(run.state_type in BROKEN for run in group[1]))
    columns = ("Task", "Runs", "States", "Time in all")
    rows = _fitting(
        (
            f'<tr><th scope="row"{LEFT} dir="auto">{safe_line(name, 60)}</th><td>{len(runs):,}</td>'
            f"<td{LEFT}>{_group_states(runs)}</td>"
            f"<td>{duration_text(sum(run.running_us for run in runs))}</td></tr>"
            for name, runs in worst_first[:_GROUPS]
        ),
        room - size(table_html("Tasks (000 of 000,000)", columns, "")),
    )
    more = f" ({len(rows)} of {len(groups):,})" if len(groups) > len(rows) else ""
    return table_html(f"Tasks{more}", columns, "".join(rows))


def _group_states(runs: Sequence[TaskRun]) -> str:
    return " · ".join(_marked(type_, f"{number:,} {word}") for type_, word, number in count_states(runs)[:4])


def _log_details(logs: Sequence[LogLine]) -> str:
    if not logs:
        return ""
    lines: list[str] = []
    for line in reversed(logs[-_LOG_LINES:]):
        text = f"{logging.getLevelName(line.level):<8} {escape(one_line(line.message, 160), 500)}"
        if size("\n".join(lines)) + size(text) > _LOG_BYTES:
            break
        lines.append(text)
    title = f"Log ({len(lines):,} of {plural(len(logs), 'line')})"
    body = "\n".join(reversed(lines))
    return f'<details><summary>{title}</summary><pre style="white-space:pre-wrap">{body}</pre></details>'


def _origin(flow_run: FlowRun) -> str:
    started = f"Started {moment(flow_run.start_us)} · " if flow_run.start_us is not None else ""
    unfinished = "" if flow_run.is_final else "A picture of an unfinished run · "
    return (
        f'<p style="margin:6px 0 0"><small>{unfinished}{started}'
        f"<code>%runs {flow_run.id}</code> shows all there is</small></p>"
    )
