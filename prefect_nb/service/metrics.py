"""Metrics over time: reporting them, and reading them as lines that are short enough to be drawn."""

import math
import operator
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.exceptions import InvalidNameError, MissingContextError
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.logs import emit_to
from prefect_nb.home import Home
from prefect_nb.interfaces import MetricPoint, MetricSummary
from prefect_nb.model.runs import FlowRun, Run
from prefect_nb.service import current_run
from prefect_nb.service.history import descendants

LONGEST_NAME = 255
_PAGE = 20_000
_KEPT = 500


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The values one run reported under one name, thinned out for drawing. NaN and infinities are not among them."""

    name: str
    flow_run_id: UUID | None
    run_id: UUID | None
    """The task run, or else the flow run."""
    count: int
    last: float
    last_us: int
    least: float | None
    greatest: float | None
    first_step: int
    last_step: int
    points: tuple[tuple[int, float], ...]
    """Steps and values. Where points were left out, the least and the greatest of their neighbourhood are there."""


class Series:
    """A line in the making: takes points one by one and remembers at most a thousand, however many there are."""

    __slots__ = ("_buckets", "_fill", "_line", "_lines", "_width", "count", "first_step", "newest", "step")

    def __init__(self) -> None:
        self.count = 0
        self.first_step = 0
        self.step = -1
        self.newest: MetricPoint | None = None
        # Each the least and the greatest point of `_width` neighbours: (step, value, step, value).
        self._buckets: list[tuple[int, float, int, float]] = []
        self._width = 1
        self._fill = 0
        self._lines: tuple[int, int] = (-1, 0)
        self._line: Line | None = None

    def add(self, point: MetricPoint) -> None:
        """Take the next point; one without a step is one step after the last."""
        self.step = step = self.step + 1 if point.step is None else point.step
        if self.newest is None:
            self.first_step = step
        self.newest = point
        self.count += 1
        value = point.value
        if not math.isfinite(value):
            return
        if self._fill == 0:
            self._buckets.append((step, value, step, value))
        else:
            newest_bucket = self._buckets[-1]
            if value < newest_bucket[1] or value > newest_bucket[3]:
                self._buckets[-1] = _merged(newest_bucket, (step, value, step, value))
        self._fill += 1
        if self._fill == self._width:
            self._fill = 0
            if len(self._buckets) >= 2 * _KEPT:
                self._buckets = _halved(self._buckets)
                self._width *= 2

    def line(self, most: int = 2 * _KEPT) -> Line:
        """The line so far, of at most so many points (at least 4)."""
        if self._line is None or self._lines != (self.count, most):
            self._line = self._draw(most)
            self._lines = (self.count, most)
        return self._line

    def _draw(self, most: int) -> Line:
        newest = self.newest
        assert newest is not None
        buckets = self._buckets
        points = _points(buckets)
        while len(points) > most:
            buckets = _halved(buckets)
            points = _points(buckets)
        if math.isfinite(newest.value) and points[-1] != (self.step, newest.value):
            points[-1:] = [points[-1], (self.step, newest.value)] if len(points) < most else [(self.step, newest.value)]
        return Line(
            name=newest.name,
            flow_run_id=newest.flow_run_id,
            run_id=newest.run_id,
            count=self.count,
            last=newest.value,
            last_us=newest.at_us,
            least=min((bucket[1] for bucket in self._buckets), default=None),
            greatest=max((bucket[3] for bucket in self._buckets), default=None),
            first_step=self.first_step,
            last_step=self.step,
            points=tuple(points),
        )


def log_metric(name: str, value: float, step: int | None = None, at: datetime | None = None) -> None:
    """Report one value of a metric of the current run; see `prefect_nb.log_metric`."""
    if type(name) is not str or not name or len(name) > LONGEST_NAME:
        raise InvalidNameError(f"The name of a metric is a text of 1 to {LONGEST_NAME} characters, not {name!r:.80}.")
    if type(value) is not float:
        value = _number(name, value)
    if step is not None and type(step) is not int:
        step = operator.index(step)
    at_us = now_us() if at is None else int(at.timestamp() * 1_000_000)
    flow_run_id, task_run_id = current_run.ids()
    if flow_run_id is None and task_run_id is None:
        raise MissingContextError("There is no active flow or task run that this metric could belong to.")
    emit = emit_to.get()
    if emit is None:
        emit = Home.current().ledger.log
    emit(MetricPoint(at_us, name, value, step, flow_run_id, task_run_id))


def summaries(run: Run) -> list[MetricSummary]:
    """Last, least and greatest values of what a run reported; of a flow run, also what everything below it did."""
    store = Home.current().store.metrics
    if isinstance(run, FlowRun):
        return store.summaries(flow_run_ids=[run.id, *(child.id for child in descendants(run.id))])
    return store.summaries(task_run_ids=[run.id])


def series(run: Run, most: int = 2 * _KEPT) -> dict[str, list[Line]]:
    """What a run reported: for each metric one line per run, in the order in which they first came.

    Args:
        run: a task run, or a flow run with everything below it.
        most: how many points a line has at most (not below 4).
    """
    found: dict[str, list[Line]] = {}
    for summary in summaries(run):
        line = read(summary.id).line(most)
        found.setdefault(summary.name, []).append(line)
    return found


def read(id: int) -> Series:
    """One series (`MetricSummary.id`), page by page."""
    store = Home.current().store.metrics
    made = Series()
    cursor = 0
    while page := store.points(id, cursor, _PAGE):
        for _, point in page:
            made.add(point)
        cursor = page[-1][0]
    return made


def _number(name: str, value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError(f"The value of metric {name!r} has to be a number, not {type(value).__name__}.")
    return float(value)


Bucket = tuple[int, float, int, float]


def _merged(one: Bucket, other: Bucket) -> Bucket:
    least = one if one[1] <= other[1] else other
    greatest = one if one[3] >= other[3] else other
    return (*least[:2], *greatest[2:])


def _halved(buckets: Sequence[Bucket]) -> list[Bucket]:
    pairs = [_merged(buckets[n], buckets[n + 1]) for n in range(0, len(buckets) - 1, 2)]
    return [*pairs, buckets[-1]] if len(buckets) % 2 else pairs


def _points(buckets: Iterable[Bucket]) -> list[tuple[int, float]]:
    points: list[tuple[int, float]] = []
    for bucket in buckets:
        ends = {bucket[:2], bucket[2:]}
        points += sorted(ends)
    return points
