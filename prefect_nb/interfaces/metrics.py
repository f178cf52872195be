"""Port of the metrics: numbers that runs report over time."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import msgspec


class MetricPoint(msgspec.Struct, frozen=True):
    """One value of a metric. `at_us` microseconds since the epoch, UTC; `step` None: the one after the last."""

    at_us: int
    name: str
    value: float
    step: int | None = None
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None

    @property
    def run_id(self) -> UUID | None:
        """The run that reported it."""
        return self.task_run_id or self.flow_run_id


class MetricSummary(msgspec.Struct, frozen=True):
    """What there is to say in a few numbers about the values one run reported under one name.

    `least` and `greatest` leave NaN out (None: there was nothing else).
    """

    id: int
    """What the store finds its points by."""
    name: str
    flow_run_id: UUID | None
    task_run_id: UUID | None
    count: int
    last: float
    least: float | None
    greatest: float | None


class MetricStore(Protocol):
    """Metrics over time. Kept as log lines are: apart from the history, and the last may be lost to a power cut."""

    def write(self, points: Sequence[MetricPoint]) -> None:
        """Append points, in one transaction."""
        ...

    def points(self, id: int, after: int = 0, limit: int = 10_000) -> list[tuple[int, MetricPoint]]:
        """Points of one run and name (`MetricSummary.id`) with their cursors, oldest first, after a cursor."""
        ...

    def summaries(self, flow_run_ids: Sequence[UUID] = (), task_run_ids: Sequence[UUID] = ()) -> list[MetricSummary]:
        """For each name and run (of these flow runs, and these task runs), in the order in which they first came."""
        ...
