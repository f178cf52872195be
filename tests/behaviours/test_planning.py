"""`plan(flow)`: what a flow would run and what it would take from the cache, told before anything runs."""

from pathlib import Path

import pytest

from prefect_nb import flow, plan, task
from prefect_nb.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE
from prefect_nb.exceptions import ParameterBindError
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery

CACHED = {"cache_policy": INPUTS + TASK_SOURCE}


def lines(found) -> list[str]:
    return [f"{one.kind} {one.name}" for one in found]


@pytest.fixture
def ran(tmp_path: Path):
    """What tasks have noted of their runs."""
    path = tmp_path / "ran"
    path.touch()
    return path


def make(ran: Path):
    def note(what):
        with ran.open("a") as file:
            file.write(f"{what} ")

    @task(**CACHED)
    def load(n):
        note("load")
        return list(range(n))

    @task(**CACHED)
    def train(rows, rate):
        note("train")
        return sum(rows) * rate

    @task(cache_policy=NO_CACHE)
    def report(score):
        return f"score {score}"

    @flow
    def pipeline(n=3, rate=2):
        rows = load(n)
        return report(train(rows, rate))

    return pipeline


def test_nothing_is_run_or_recorded(ran):
    pipeline = make(ran)
    Home.current().ledger.commit()
    before = len(Home.current().store.task_runs(RunQuery()))

    found = plan(pipeline)

    assert lines(found) == ["runs load", "depends train", "depends report"]
    assert ran.read_text() == ""
    Home.current().ledger.commit()
    assert len(Home.current().store.task_runs(RunQuery())) == before
    assert Home.current().store.flow_runs(RunQuery(flow_name="pipeline")) == []


def test_kept_results_are_followed_and_what_changed_is_named(ran):
    pipeline = make(ran)
    assert pipeline() == "score 6"

    same = plan(pipeline)
    other = plan(pipeline, rate=5)

    assert lines(same) == ["cached load", "cached train", "runs report"]
    assert lines(other) == ["cached load", "runs train", "depends report"]
    assert "input `rate`" in other[1].reason
    assert "not cached" in same[2].reason
    assert ran.read_text() == "load train "


def test_it_agrees_with_what_then_happens(ran):
    pipeline = make(ran)
    pipeline()

    foretold = [one.kind for one in plan(pipeline, rate=7)]
    pipeline(rate=7)

    home = Home.current()
    home.ledger.commit()
    (run,) = home.store.flow_runs(RunQuery(flow_name="pipeline", limit=1))
    states = [one.state_name for one in home.store.task_runs(RunQuery(flow_run_id=run.id, oldest_first=True))]
    assert states == ["Cached", "Completed", "Completed"]
    assert foretold == ["cached", "runs", "depends"]


def test_submitted_and_mapped_tasks():
    @task(**CACHED)
    def double(n):
        return 2 * n

    @flow
    def mapped(numbers):
        first = double.submit(100)
        return sum(double.map(numbers).result()) + first.result()

    mapped([1, 2, 3])

    found = plan(mapped, [1, 2, 3, 4, 5])

    assert lines(found) == ["cached double", "cached double x 3", "runs double x 2"]
    assert "needs the result of double" in found.rest
    assert "line" in found.rest


def test_code_that_needs_a_value_ends_the_plan_and_its_own_except_does_not_hide_that():
    @task
    def measure():
        return 1

    @flow
    def decides():
        try:
            if measure() > 0:
                measure()
        except Exception:
            measure()

    found = plan(decides)

    assert lines(found) == ["runs measure"]
    assert found.rest.startswith("needs the result of measure (line")
    assert "if measure() > 0:" in found.rest


def test_sub_flows_and_coroutines():
    @task(**CACHED)
    async def fetch(n):
        return n

    @flow
    async def inner(n):
        return await fetch(n)

    @flow
    async def outer():
        return await inner(1), await fetch(2)

    assert lines(plan(outer)) == ["runs fetch", "runs fetch"]


def test_an_error_of_the_code_between_ends_the_plan():
    @task
    def never():
        return 1

    @flow
    def broken():
        never()
        raise ValueError("no such file")

    found = plan(broken)

    assert lines(found) == ["runs never"]
    assert "could not be followed: ValueError: no such file" in found.rest


def test_arguments_that_do_not_fit_are_refused(ran):
    with pytest.raises(ParameterBindError):
        plan(make(ran), depth=1)


def test_a_flow_of_no_tasks():
    @flow
    def empty():
        return 1

    assert str(plan(empty)) == "No task would run."
