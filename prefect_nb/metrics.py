"""Metrics: numbers that a run reports over time, drawn as lines under its cell while it runs.

    @task
    def train(epochs):
        for epoch in range(epochs):
            log_metric("loss", one_epoch(), step=epoch)

They may come from the flow's body and from tasks on threads and in other processes; each run's values are a line of
their own. A call takes microseconds: the values are written together, some milliseconds later.
"""

from collections.abc import Mapping
from datetime import datetime

from prefect_nb.service.metrics import Line
from prefect_nb.service.metrics import log_metric as _log_metric
from prefect_nb.service.metrics import series as _series


def log_metric(name: str, value: float, step: int | None = None, at: datetime | None = None) -> None:
    """Report one value of a metric of the current run.

    Args:
        name: at most 255 characters.
        value: a number, or anything that `float` takes except text. NaN and infinities are kept, and not drawn.
        step: where it belongs on the line, such as the epoch; None: one after the last of this run and name.
        at: when it was measured, with a time zone; None: now.

    Raises:
        MissingContextError: outside any run.
        InvalidNameError: not such a name.
        TypeError: no number, or a step that is no whole number.
    """
    _log_metric(name, value, step, at)


def log_metrics(metrics: Mapping[str, float], step: int | None = None, at: datetime | None = None) -> None:
    """Report values of several metrics at one step; see `log_metric`."""
    for name, value in metrics.items():
        _log_metric(name, value, step, at)


def read_metrics(run: str) -> dict[str, list[Line]]:
    """What a flow run and everything below it reported, so far as it is written: lines of at most 1,000 points by name.

    Args:
        run: the flow run's name, its id, or the beginning of its id.

    Raises:
        ObjectNotFound: there is none.
    """
    from prefect_nb.service.history import find_flow_run

    return _series(find_flow_run(run))


__all__ = ["Line", "log_metric", "log_metrics", "read_metrics"]
