"""Metrics over time: who reports them, from where, and how they are read back."""

import asyncio
import math
from datetime import UTC, datetime

import pytest

from prefect_nb import flow, log_metric, log_metrics, task
from prefect_nb.exceptions import InvalidNameError, MissingContextError
from prefect_nb.interfaces import MetricPoint
from prefect_nb.metrics import read_metrics
from prefect_nb.service import metrics
from prefect_nb.service.metrics import Series
from prefect_nb.task_runners import ProcessPoolTaskRunner


def lines(history, run):
    """Metric name -> list of (run id, points)."""
    history.store  # noqa: B018  # commits
    return {
        name: [(line.run_id, list(line.points)) for line in found]
        for name, found in metrics.series(history.flow_run(run)).items()
    }


def test_a_flow_and_its_tasks_have_lines_of_their_own(history):
    @task
    def train(rate):
        for step in range(3):
            log_metric("loss", rate / (step + 1), step=step * 10)

    @flow
    def f():
        log_metric("loss", 9)
        train(1)
        train.submit(2).wait()
        log_metrics({"loss": 8, "score": 0.5})

    state = f(return_state=True)
    one, two = history.task_runs()
    flow_id = state.state_details.flow_run_id
    assert lines(history, flow_id) == {
        "loss": [
            (flow_id, [(0, 9.0), (1, 8.0)]),
            (one.id, [(0, 1.0), (10, 0.5), (20, 1 / 3)]),
            (two.id, [(0, 2.0), (10, 1.0), (20, 2 / 3)]),
        ],
        "score": [(flow_id, [(0, 0.5)])],
    }


def test_metrics_of_other_processes_arrive(history):
    @task
    def train(rate):
        from prefect_nb import log_metric

        for step in range(3):
            log_metric("loss", rate * step)

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def f():
        train.map([1, 2]).wait()

    state = f(return_state=True)
    found = lines(history, state.state_details.flow_run_id)["loss"]
    runs = {run.id for run in history.task_runs()}
    assert {run for run, _ in found} == runs
    assert sorted(points for _, points in found) == [
        [(0, 0.0), (1, 1.0), (2, 2.0)],
        [(0, 0.0), (1, 2.0), (2, 4.0)],
    ]


def test_from_coroutines(history):
    @task
    async def train():
        await asyncio.sleep(0)
        log_metric("loss", 1)

    @flow
    async def f():
        log_metric("loss", 2)
        await train()

    state = asyncio.run(f(return_state=True))
    found = lines(history, state.state_details.flow_run_id)["loss"]
    assert [points for _, points in found] == [[(0, 2.0)], [(0, 1.0)]]


def test_child_flows_are_part_of_it_and_a_task_alone_has_its_own(history):
    @flow
    def child():
        log_metric("inner", 1)

    @flow
    def parent():
        child()

    @task
    def alone():
        log_metric("alone", 1)

    state = parent(return_state=True)
    alone()
    assert set(lines(history, state.state_details.flow_run_id)) == {"inner"}
    (run,) = [run for run in history.task_runs() if run.flow_run_id is None]
    assert set(metrics.series(run)) == {"alone"}


def test_when_it_was_and_what_kinds_of_numbers(history):
    moment = datetime(2025, 1, 2, tzinfo=UTC)

    class Tensor:
        def __float__(self):
            return 2.5

    @flow
    def f():
        log_metric("m", Tensor(), at=moment)
        log_metric("m", True, step=5)
        log_metric("m", math.nan)
        log_metric("m", -math.inf)
        log_metric("m", 7)

    state = f(return_state=True)
    history.store  # noqa: B018
    (line,) = metrics.series(history.flow_run(state.state_details.flow_run_id))["m"]
    assert line.points == ((0, 2.5), (5, 1.0), (8, 7.0))
    assert (line.count, line.last, line.least, line.greatest) == (5, 7.0, 1.0, 7.0)
    (summary,) = metrics.summaries(history.flow_run(state.state_details.flow_run_id))
    assert history.store.metrics.points(summary.id)[0][1].at_us == int(moment.timestamp() * 1_000_000)


@pytest.mark.parametrize(
    ("name", "value", "options", "error"),
    [
        ("", 1, {}, InvalidNameError),
        (5, 1, {}, InvalidNameError),
        ("x" * 256, 1, {}, InvalidNameError),
        ("m", "1.5", {}, TypeError),
        ("m", None, {}, TypeError),
        ("m", 1, {"step": 0.5}, TypeError),
    ],
)
def test_what_is_no_metric_is_refused(name, value, options, error):
    @flow
    def f():
        with pytest.raises(error):
            log_metric(name, value, **options)

    f()


def test_outside_a_run():
    with pytest.raises(MissingContextError):
        log_metric("loss", 1)


def test_every_one_of_many_values_is_kept_and_their_extremes_are_drawn(history):
    @flow
    def f():
        for n in range(100_000):
            log_metric("wave", 1000.0 if n == 31_007 else math.sin(n / 1000))

    state = f(return_state=True)
    history.store  # noqa: B018
    (line,) = metrics.series(history.flow_run(state.state_details.flow_run_id), most=200)["wave"]
    assert line.count == 100_000
    assert len(line.points) <= 200
    assert (31_007, 1000.0) in line.points
    assert line.points[-1] == (99_999, math.sin(99.999))
    assert [step for step, _ in line.points] == sorted(step for step, _ in line.points)


def test_a_series_remembers_a_thousand_points_at_most():
    series = Series()
    for n in range(5000):
        series.add(MetricPoint(0, "m", float(n % 100), n))
        assert len(series.line().points) <= 1000
    line = series.line()
    assert (line.least, line.greatest, line.first_step, line.last_step) == (0.0, 99.0, 0, 4999)
    assert len(series.line(most=4).points) <= 4


def test_a_series_of_nothing_that_can_be_drawn():
    series = Series()
    for value in (math.nan, math.inf):
        series.add(MetricPoint(0, "m", value))
    line = series.line()
    assert (line.points, line.least, line.greatest, line.last) == ((), None, None, math.inf)


def test_reading_by_the_runs_name(history):
    @flow(flow_run_name="the-otter")
    def f():
        log_metric("loss", 3)

    f()
    history.store  # noqa: B018
    assert read_metrics("the-otter")["loss"][0].points == ((0, 3.0),)
