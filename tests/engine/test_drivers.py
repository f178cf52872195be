"""One engine, three drivers: the same bodies leave the same history whoever drives; and the history is its events' fold."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import drive

from prefect_nb import flow, task
from prefect_nb.engine.flow_run import FlowPlan, flow_run
from prefect_nb.engine.task_run import TaskPlan, task_run
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.ledger import Ledger
from prefect_nb.execution.recorder import created, moved
from prefect_nb.home import Home
from prefect_nb.interfaces import Entry, RunQuery, Store
from prefect_nb.model.events import StateRecorded, fold
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import Pending, State
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

# What a body does, attempt by attempt.
ACTS = st.lists(st.sampled_from(["return", "raise", "state"]), min_size=1, max_size=4)


class Body:
    """A scripted body: it does what the script says, and the last thing again and again."""

    def __init__(self, script: list[str]) -> None:
        self._acts: Iterator[str] = itertools.chain(script, itertools.repeat(script[-1]))

    def __call__(self) -> Any:
        match next(self._acts):
            case "raise":
                raise ValueError("as the script says")
            case "state":
                from prefect_nb.states import Failed

                return Failed(name="Mine", message="made by hand")
        return 1


@pytest.fixture
def home(prefect_nb_home: Path) -> Home:
    return Home.current()


def _tasks(body: Callable[[], Any], retries: int, persist: bool) -> tuple[Any, Any]:
    options: dict[str, Any] = {"retries": retries, "persist_result": persist, "name": "scripted"}

    @task(**options)
    def plain() -> Any:
        return body()

    @task(**options)
    async def awaited() -> Any:
        return body()

    return plain, awaited


def _history(home: Home, run: Callable[[], Any]) -> list[tuple[str, str, str | None]]:
    """The states that a task run goes through, as recorded."""
    run()
    home.ledger.commit()
    (newest,) = home.store.task_runs(RunQuery(limit=1))
    events = home.store.events(newest.id)
    assert fold(events) == newest
    states = [event for event in events if isinstance(event, StateRecorded)]
    return [("PENDING", "Pending", None), *((event.type.value, event.name, event.message) for event in states)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=ACTS, retries=st.integers(0, 3), persist=st.booleans())
def test_every_driver_leaves_the_same_history(home: Home, script: list[str], retries: int, persist: bool) -> None:
    def drivers() -> Iterator[Callable[[], Any]]:
        plain, awaited = _tasks(Body(script), retries, persist)
        yield lambda: plain(return_state=True)
        plain, awaited = _tasks(Body(script), retries, persist)
        yield lambda: asyncio.run(awaited(return_state=True))
        plain, awaited = _tasks(Body(script), retries, persist)
        yield lambda: plain.submit(return_state=True)
        plain, awaited = _tasks(Body(script), retries, persist)
        yield lambda: awaited.submit(return_state=True)

    histories = [_history(home, run) for run in drivers()]
    assert histories == [histories[0]] * 4
    assert sum(type_ == "RUNNING" for type_, _, _ in histories[0]) <= retries + 1


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=ACTS, retries=st.integers(0, 2))
def test_both_drivers_of_flows_leave_the_same_history(home: Home, script: list[str], retries: int) -> None:
    def history(run: Callable[[], Any]) -> list[tuple[str, str, str | None]]:
        run()
        (newest,) = home.store.flow_runs(RunQuery(limit=1))
        events = home.store.events(newest.id)
        assert fold(events) == newest
        return [(event.type.value, event.name, event.message) for event in events if isinstance(event, StateRecorded)]

    first, second = Body(script), Body(script)

    @flow(retries=retries)
    def plain() -> Any:
        return first()

    @flow(retries=retries)
    async def awaited() -> Any:
        return second()

    assert history(lambda: plain(return_state=True)) == history(lambda: asyncio.run(awaited(return_state=True)))


PLANS = st.builds(TaskPlan, retries=st.integers(0, 3), has_delay=st.booleans(), cached=st.booleans())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(plans=st.lists(PLANS, min_size=1, max_size=4), flow_retries=st.integers(0, 2), data=st.data())
def test_rows_are_the_fold_of_their_events_in_every_store(
    plans: list[TaskPlan], flow_retries: int, data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Random runs, written through the recorder and the ledger into both stores."""
    runs = [drive(flow_run(FlowPlan(retries=flow_retries)), data.draw).states]
    runs += [drive(task_run(plan), data.draw).states for plan in plans]
    stores: list[Store] = [MemoryStore(), SqliteStore.open(tmp_path_factory.mktemp("fold") / "home")]
    for store in stores:
        ledger = Ledger(store, interval=0)
        snapshots = _record(ledger, runs)
        ledger.commit()
        for snapshot in snapshots:
            row = store.flow_run(snapshot.id) or store.task_run(snapshot.id)
            assert row == snapshot == fold(store.events(snapshot.id))
            assert snapshot.events == len(store.events(snapshot.id))
        assert store.check() == []
        ledger.close()
        store.close()


def _record(ledger: Ledger, runs: list[list[State[Any]]]) -> list[FlowRun | TaskRun]:
    """Record each run's states; the first run is the flow run that the others belong to."""
    snapshots: list[FlowRun | TaskRun] = []
    for number, states in enumerate(runs):
        begin: FlowRun | TaskRun = (
            FlowRun(id=new_id(), name="flow", state_id=new_id(), created_us=1, state_us=1, events=1)
            if number == 0
            else TaskRun(
                id=new_id(), name=f"task-{number}", flow_run_id=snapshots[0].id, state_id=new_id(), state_us=1, events=1
            )
        )
        owner = begin.id if number == 0 else snapshots[0].id
        ledger.own(owner, 1)
        ledger.append(Entry(begin, created(begin, Pending()), owner), owner)
        for state in states[1:]:
            begin = moved(ledger, begin, State(type=state.type, name=state.name, message=state.message), owner)
        snapshots.append(begin)
    return snapshots
