"""What every store does with metrics."""

import math
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from prefect_nb.interfaces import MetricPoint, MetricSummary, Store
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

NOW = 1_790_000_000_000_000
FLOW, TASK, LONE = uuid4(), uuid4(), uuid4()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore.open(tmp_path / "home")
    yield opened
    opened.close()


def test_points_come_back_in_order_by_run_and_name(store: Store) -> None:
    of_flow = [MetricPoint(NOW + n, "loss", n / 2, n, FLOW) for n in range(5)]
    of_task = [MetricPoint(NOW + n, "loss", -n, None, FLOW, TASK) for n in range(3)]
    other = [MetricPoint(NOW, "score", 1.0, 7, FLOW, TASK)]
    alone = [MetricPoint(NOW, "loss", math.inf, 0, None, LONE)]
    store.metrics.write([*of_flow[:2], *of_task[:1], *other])
    store.metrics.write([*of_task[1:], *of_flow[2:], *alone])
    store.metrics.write([])

    summaries = store.metrics.summaries(flow_run_ids=(FLOW,), task_run_ids=(LONE,))

    assert [(s.name, s.flow_run_id, s.task_run_id, s.count, s.last, s.least, s.greatest) for s in summaries] == [
        ("loss", FLOW, None, 5, 2.0, 0.0, 2.0),
        ("loss", FLOW, TASK, 3, -2.0, -2.0, 0.0),
        ("score", FLOW, TASK, 1, 1.0, 1.0, 1.0),
        ("loss", None, LONE, 1, math.inf, math.inf, math.inf),
    ]
    assert [[point for _, point in store.metrics.points(s.id)] for s in summaries] == [of_flow, of_task, other, alone]


def test_points_are_read_in_pages(store: Store) -> None:
    points = [MetricPoint(NOW, "loss", float(n), n, FLOW) for n in range(10)]
    store.metrics.write([point for n in range(10) for point in (points[n], MetricPoint(NOW, "other", 0.0, n, FLOW))])
    (summary, _) = store.metrics.summaries(flow_run_ids=(FLOW,))
    read: list[MetricPoint] = []
    cursor = 0
    while page := store.metrics.points(summary.id, cursor, limit=4):
        assert len(page) <= 4
        read += [point for _, point in page]
        cursor = page[-1][0]
    assert read == points


def test_not_a_number_is_kept_and_left_out_of_least_and_greatest(store: Store) -> None:
    store.metrics.write([MetricPoint(NOW, "loss", value, None, FLOW) for value in (1.0, 3.0, math.nan)])
    store.metrics.write([MetricPoint(NOW, "none", math.nan, None, FLOW)])
    loss, none = store.metrics.summaries(flow_run_ids=(FLOW,))
    assert (loss.count, loss.least, loss.greatest) == (3, 1.0, 3.0)
    assert math.isnan(loss.last)
    assert (none.count, none.least, none.greatest) == (1, None, None)
    assert math.isnan(store.metrics.points(loss.id)[-1][1].value)


def test_of_no_run_there_is_nothing(store: Store) -> None:
    store.metrics.write([MetricPoint(NOW, "loss", 1.0, None, FLOW, TASK)])
    none: list[MetricSummary] = []
    assert store.metrics.summaries() == none
    assert store.metrics.summaries(flow_run_ids=(uuid4(),), task_run_ids=(uuid4(),)) == none
    assert len(store.metrics.summaries(task_run_ids=(TASK,))) == 1
