"""A durable run that is resumed with other code than it was started with."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import NonDeterminismError
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery

ran: list[str] = []
failing: list[bool] = []


@task
def load(day: int) -> int:
    ran.append(f"load {day}")
    return day


@task
def fetch(day: int) -> int:
    ran.append(f"fetch {day}")
    return day


@task
def sums(values: list[int]) -> int:
    ran.append("sums")
    return sum(values)


def stop_once() -> None:
    if failing:
        failing.clear()
        raise ValueError("stopped")


@pytest.fixture
def begun() -> Callable[..., Any]:
    """Run a durable flow's first version, which fails; gives the run."""

    def begin(body: Callable[[], Any]) -> Any:
        ran.clear()
        failing.append(True)
        with pytest.raises(ValueError, match="stopped"):
            flow(name="report", durable=True)(body)()
        return snapshot()

    yield begin
    failing.clear()


def snapshot() -> Any:
    home = Home.current()
    home.ledger.commit()
    [run] = home.store.flow_runs(RunQuery())
    return run, {task.id: (task.name, task.result) for task in home.store.task_runs(RunQuery())}


def first_version() -> int:
    values = [load(1), load(2)]
    total = sums(values)
    stop_once()
    return total


def resume(run: Any, body: Callable[[], Any]) -> Any:
    return flow(name="report", durable=True)(body).resume(run.id)


def test_the_same_code_goes_on(begun: Any) -> None:
    run, _ = begun(first_version)
    assert resume(run, first_version) == 3
    assert ran == ["load 1", "load 2", "sums"]


def test_another_task_at_a_position_is_refused_and_nothing_is_overwritten(begun: Any) -> None:
    run, before = begun(first_version)

    def renamed() -> int:
        values = [load(1), fetch(2)]
        return sums(values)

    with pytest.raises(NonDeterminismError, match=r"at task call 2 'load-\w+' was recorded, and now 'fetch' is called"):
        resume(run, renamed)
    assert "fetch 2" not in ran
    now, after = snapshot()
    assert now.state_name == "Failed"
    assert after == before
    assert resume(run, first_version) == 3
    assert ran == ["load 1", "load 2", "sums"]


def test_another_input_at_a_position_is_refused(begun: Any) -> None:
    run, before = begun(first_version)

    def other_input() -> int:
        values = [load(1), load(5)]
        return sums(values)

    with pytest.raises(NonDeterminismError, match=r"at task call 2 'load-.*' was recorded, .* with another 'day'"):
        resume(run, other_input)
    assert snapshot()[1] == before


def test_the_same_calls_in_another_order_find_their_own_results(begun: Any) -> None:
    def two() -> int:
        value = load(1) + fetch(2)
        stop_once()
        return value

    def swapped() -> int:
        return fetch(2) + load(1)

    run, _ = begun(two)
    assert resume(run, swapped) == 3
    assert ran == ["load 1", "fetch 2"]


def test_what_comes_after_the_recorded_calls_is_free(begun: Any) -> None:
    run, _ = begun(first_version)

    def longer() -> int:
        return first_version() + fetch(10)

    assert resume(run, longer) == 13


def test_a_flow_that_is_not_durable_is_free_to_change() -> None:
    ran.clear()
    failing.append(True)

    def kept() -> int:
        value = load.with_options(persist_result=True)(1)
        stop_once()
        return value

    with pytest.raises(ValueError, match="stopped"):
        flow(name="report")(kept)()
    run, _ = snapshot()
    assert flow(name="report")(lambda: fetch(2)).resume(run.id) == 2


def test_a_retry_after_the_resume_begins_anew() -> None:
    attempts: list[int] = []

    @flow(name="report", durable=True, retries=1)
    def unsteady() -> int:
        attempts.append(len(attempts))
        first = load(1)
        if len(attempts) == 3:
            raise ValueError("stopped early")
        total = first + load(2)
        if len(attempts) < 3:
            raise ValueError("stopped")
        return total

    with pytest.raises(ValueError, match="stopped"):
        unsteady()
    assert unsteady.resume(snapshot()[0].id) == 3
    assert len(attempts) == 4


def test_the_order_of_coroutines_is_chance_and_not_judged(begun: Any) -> None:
    ran.clear()
    failing.append(True)

    @flow(name="report", durable=True)
    async def gathers() -> int:
        values = await asyncio.gather(asyncio.to_thread(lambda: 1), asyncio.to_thread(lambda: 2))
        total = load(values[0])
        stop_once()
        return total + fetch(values[1])

    with pytest.raises(ValueError, match="stopped"):
        asyncio.run(gathers())
    run, _ = snapshot()

    @flow(name="report", durable=True)
    async def other() -> int:
        return fetch(2) + load(1)

    assert asyncio.run(other.resume(run.id)) == 3
