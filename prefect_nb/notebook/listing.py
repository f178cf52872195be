"""`%runs` and `%flow`: tables of runs, and the static picture of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from uuid import UUID

from prefect_nb.execution.clock import now_us
from prefect_nb.execution.futures import PrefectFuture
from prefect_nb.flows import Flow
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import GLYPHS, State
from prefect_nb.notebook import view_watch
from prefect_nb.service.text import ago, elapsed, one_line
from prefect_nb.tasks import Task

_COLUMNS = ("State", "Flow", "Run", "Started", "Took", "Id")


def picture_of(run: FlowRun) -> dict[str, str]:
    """A flow run with everything below it, for any front end."""
    return view_watch.bundle_of_run(run)


def show_run(run: FlowRun) -> None:
    """Put a flow run under the cell: live while it goes on, wherever that is, and as a picture when it has ended."""
    if run.is_final or not view_watch.watch(run):
        show(picture_of(run))


def table_of(runs: Sequence[FlowRun]) -> dict[str, str]:
    """Flow runs as a table, for any front end."""
    return table_bundle(_COLUMNS, [_cells(run) for run in runs])


def table_bundle(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """A table of plain texts, for any front end."""
    head = "".join(f'<th style="text-align:left">{column}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    )
    return {"text/html": f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", "text/plain": text}


def _cells(run: FlowRun) -> tuple[str, ...]:
    now = now_us()
    return (
        f"{GLYPHS[run.state_type]} {one_line(run.state_name, 40)}",
        one_line(run.flow_name, 40),
        one_line(run.name, 40),
        ago(run.start_us or run.created_us, now),
        elapsed(run, now),
        str(run.id),
    )


def reasons(what: str | None, namespace: Mapping[str, Any]) -> str:
    """Why task runs were computed or were not, as `%why` shows it.

    Args:
        what: the name of a variable that holds a task, future, state or run; or a run's or task's own name or id.
        namespace: the notebook's variables.

    Raises:
        ObjectNotFound: it means nothing that has run.
    """
    from prefect_nb.service.why import why

    value = namespace.get(what) if what is not None else None
    if isinstance(value, Task | Flow | PrefectFuture | State | FlowRun | TaskRun) or isinstance(
        getattr(value, "id", None), UUID
    ):
        return str(why(value))
    return str(why(what))


def show(bundle: dict[str, Any]) -> None:
    """Put a bundle under the cell."""
    from IPython.display import display

    display(bundle, raw=True)  # type: ignore[no-untyped-call]


def newest_of_each(runs: Sequence[FlowRun]) -> list[FlowRun]:
    """The newest run of each flow, in the order given."""
    found: dict[str, FlowRun] = {}
    for run in runs:
        found.setdefault(run.flow_name, run)
    return list(found.values())
