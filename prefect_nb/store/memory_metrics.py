"""Metrics in memory."""

import math
import threading
from collections.abc import Sequence
from uuid import UUID

from prefect_nb.interfaces.metrics import MetricPoint, MetricSummary


class MemoryMetrics:
    """A `MetricStore` that ends with its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: dict[tuple[UUID | None, str], list[MetricPoint]] = {}

    def write(self, points: Sequence[MetricPoint]) -> None:
        """Append points."""
        with self._lock:
            for point in points:
                self._metrics.setdefault((point.run_id, point.name), []).append(point)

    def points(self, id: int, after: int = 0, limit: int = 10_000) -> list[tuple[int, MetricPoint]]:
        """Points of one run and name with their cursors."""
        with self._lock:
            points = list(self._metrics.values())[id - 1][after : after + limit]
        return list(enumerate(points, start=after + 1))

    def summaries(self, flow_run_ids: Sequence[UUID] = (), task_run_ids: Sequence[UUID] = ()) -> list[MetricSummary]:
        """For each name and run."""
        with self._lock:
            return [
                _summary(id, points)
                for id, points in enumerate(self._metrics.values(), start=1)
                if points[0].flow_run_id in flow_run_ids or points[0].task_run_id in task_run_ids
            ]


def _summary(id: int, points: Sequence[MetricPoint]) -> MetricSummary:
    last = points[-1]
    values = [point.value for point in points if not math.isnan(point.value)]
    return MetricSummary(
        id,
        last.name,
        last.flow_run_id,
        last.task_run_id,
        len(points),
        last.value,
        min(values, default=None),
        max(values, default=None),
    )
