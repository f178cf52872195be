"""The wall clock is set while runs are under way: durations stay right, and nobody is taken for dead."""

import time
from pathlib import Path
from typing import Any

import pytest
from audit import audit
from harness import flow_runs, only_flow_run, task_runs

from prefect_nb import flow, task
from prefect_nb.execution import clock
from prefect_nb.home import Home
from prefect_nb.model.events import StateRecorded
from prefect_nb.model.states import StateType

YEARS = 10 * 365 * 24 * 3600
STEPS = [1, -1, 3600, -3600, 24 * 3600, -24 * 3600, YEARS, -YEARS]


class WallClock:
    """The time of day, that can be set. The monotonic clock goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0
        real, real_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + self.ahead * 1_000_000_000)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield WallClock(monkeypatch)
    monkeypatch.undo()
    clock.synchronize()


@pytest.mark.parametrize("step", STEPS)
def test_durations_and_delays_are_those_of_real_time(step: int, wall: WallClock, prefect_nb_home: Path) -> None:
    attempts: list[float] = []

    @task(retries=1, retry_delay_seconds=0.4)
    def fails_once() -> int:
        attempts.append(time.monotonic())
        if len(attempts) == 1:
            wall.ahead = step  # the delay begins in another time
            raise ValueError("not yet")
        time.sleep(0.1)
        return 1

    @task
    def sleeps() -> None:
        time.sleep(0.1)
        wall.ahead = -step
        time.sleep(0.1)

    @flow
    def inner() -> None:
        sleeps.submit().wait()

    @flow
    def steps() -> int:
        value = fails_once()
        inner()
        return value

    assert steps() == 1
    here = Home.current()
    here.reap()
    assert 0.4 <= attempts[1] - attempts[0] < 2
    for run in (*flow_runs(here), *task_runs(here)):
        assert run.state_type is StateType.COMPLETED
        assert run.start_us is not None
        assert run.end_us is not None
        assert 0 <= run.total_run_time.total_seconds() < 5
        assert 0 <= run.end_us - run.start_us < 5_000_000
        times = [event.at_us for event in here.store.events(run.id) if isinstance(event, StateRecorded)]
        assert times == sorted(times)
    (slept,) = [run for run in task_runs(here) if run.name.startswith("sleeps")]
    assert 0.2 <= slept.total_run_time.total_seconds() < 2
    here.close()
    audit(prefect_nb_home)


@pytest.mark.parametrize("step", [3600, -3600, YEARS, -YEARS])
def test_a_living_owner_is_not_taken_for_dead_and_its_slots_stay(step: int, wall: WallClock) -> None:
    from prefect_nb.concurrency.sync import concurrency
    from prefect_nb.service import limits

    limits.create_limit("narrow", 1)
    here = Home.current()

    @flow
    def holds() -> bool:
        with concurrency("narrow", occupy=1):
            wall.ahead = step
            other = Home(here.path, here.settings)
            try:
                assert other.reap() == []
                assert [slot.owner_id for slot in other.store.limits.slots()] == [here.owner_id]
            finally:
                other.close()
        return True

    assert holds()
    assert only_flow_run(here).state_type is StateType.COMPLETED


def test_a_new_run_takes_the_word_of_the_clock_as_it_is_now(wall: WallClock) -> None:
    @flow
    def short() -> None:
        pass

    short()
    wall.ahead = YEARS
    short()
    first, second = flow_runs(Home.current())
    assert YEARS - 60 < (second.created_us - first.created_us) / 1e6 < YEARS + 60
