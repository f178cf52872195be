"""What a flow run reported besides its states: its metrics' last values and its artifacts, in words and for programs."""

import math

from prefect_nb.execution.notebook_returns import KIND
from prefect_nb.interfaces import MetricSummary
from prefect_nb.model.runs import FlowRun
from prefect_nb.service import artifacts, metrics
from prefect_nb.service.documents import Document
from prefect_nb.service.text import one_line

_LINES = 20


def metrics_text(run: FlowRun) -> str | None:
    """A line for each metric of the run and of what is below it; None if there is none."""
    found = metrics.summaries(run)
    lines = [
        f"{one_line(one.name, 60)}: last {_number(one.last)}, least {_number(one.least)}, "
        f"greatest {_number(one.greatest)} ({one.count:,} values)"
        for one in found[:_LINES]
    ]
    return "\n".join([*lines, *_more(len(found))]) or None


def artifacts_text(run: FlowRun) -> str | None:
    """A line for each artifact of the run; None if there is none."""
    found = [one for one in artifacts.of_runs([run.id]) if (one.metadata or {}).get("kind") != KIND]
    lines = [
        f"{one_line(one.key or str(one.id), 60)} ({one_line(one.type or 'data', 20)}): {artifacts.summary(one, 80)}"
        for one in found[:_LINES]
    ]
    return "\n".join([*lines, *_more(len(found))]) or None


def document(run: FlowRun) -> Document:
    """`metrics` (`name`, `flow_run_id`, `task_run_id`, `count`, `last`, `least`, `greatest`) and `artifacts`, if any."""
    found: Document = {}
    if values := metrics.summaries(run):
        found["metrics"] = [_metric(one) for one in values]
    if made := artifacts.of_runs([run.id]):
        found["artifacts"] = [artifacts.document(one) for one in made]
    return found


def _metric(one: MetricSummary) -> Document:
    return {
        "name": one.name,
        "flow_run_id": None if one.flow_run_id is None else str(one.flow_run_id),
        "task_run_id": None if one.task_run_id is None else str(one.task_run_id),
        "count": one.count,
        "last": _finite(one.last),
        "least": _finite(one.least),
        "greatest": _finite(one.greatest),
    }


def _finite(value: float | None) -> float | str | None:
    # JSON has no word for NaN and infinities.
    return value if value is None or math.isfinite(value) else str(value)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _more(number: int) -> list[str]:
    return [f"... and {number - _LINES:,} more"] if number > _LINES else []
