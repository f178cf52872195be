"""Cancels from elsewhere: of code that can be interrupted and of code that cannot, of children, of the dead."""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from audit import audit
from harness import flow_runs, only_flow_run, opened, started, states, task_runs, wait_until

from prefect_nb import flow, task
from prefect_nb.exceptions import CancelledRun, InvalidMove
from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.model.events import StateRecorded
from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import StateType
from prefect_nb.service import control

CHILD = [sys.executable, "-c", "import time; time.sleep(60)"]


def spin() -> None:
    while True:
        sum(range(100))


def sleep() -> None:
    time.sleep(60)


def wait_for_a_process() -> None:
    subprocess.run(CHILD, check=True)


@task
def sleeps() -> None:
    time.sleep(60)


@task
def spins() -> None:
    spin()


@flow
def child() -> None:
    sleeps()


def inside_a_sub_flow() -> None:
    child()


def for_a_task_on_a_thread() -> None:
    spins.submit().wait()


def for_many() -> None:
    for future in [spins.submit() for _ in range(3)]:
        future.wait()


def cancelled_once(begun: Callable[[Home], Any], wait: float = 10.0) -> threading.Thread:
    """Cancels the flow run of this process as soon as it has begun."""

    def cancel() -> None:
        here = Home.current()
        wait_until(lambda: begun(here), "it has begun")
        control.cancel(only_flow_run(here), wait)

    thread = threading.Thread(target=cancel)
    thread.start()
    return thread


def is_running(here: Home) -> bool:
    runs = [*flow_runs(here), *task_runs(here)]
    return bool(runs) and all(run.state_type is StateType.RUNNING for run in runs)


@pytest.mark.parametrize("body", [spin, sleep, wait_for_a_process, inside_a_sub_flow, for_a_task_on_a_thread, for_many])
def test_what_can_be_interrupted_is_cancelled_within_five_seconds(
    body: Callable[[], None], prefect_nb_home: Path
) -> None:
    canceller = cancelled_once(is_running)
    began = time.monotonic()
    with pytest.raises(CancelledRun, match="Cancelled by request"):
        Flow(body, name="to-be-cancelled")()
    canceller.join()
    assert time.monotonic() - began < 5 + 2
    here = Home.current()
    assert set(states(flow_runs(here))) == {"Cancelled"}
    assert set(states(task_runs(here))) <= {"Cancelled"}
    here.close()
    audit(prefect_nb_home)


def test_code_that_cannot_be_interrupted_is_cancelling_until_it_returns(prefect_nb_home: Path) -> None:
    returned = threading.Event()

    @flow
    def computes() -> str:
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", rounds())
        returned.set()
        return "a value nobody asked for any more"

    canceller = cancelled_once(is_running)
    seen: list[FlowRun] = []

    def look() -> None:
        here = Home.current()
        seen.append(wait_until(lambda: _cancelling(here), "it says what it waits for"))
        assert not returned.is_set()

    looker = threading.Thread(target=look)
    looker.start()
    with pytest.raises(CancelledRun):
        computes()
    looker.join()
    canceller.join()
    assert seen[0].state_message == "Cancelled by request. The code it is in has not come to an end yet."
    here = Home.current()
    names = [event.name for event in here.store.events(only_flow_run(here).id) if isinstance(event, StateRecorded)]
    assert names == ["Running", "Cancelling", "Cancelled"]
    here.close()
    audit(prefect_nb_home)


def rounds() -> int:
    """As many as take about three seconds."""
    began = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 200_000)
    return int(200_000 * 3 / (time.perf_counter() - began))


def _cancelling(here: Home) -> FlowRun | None:
    runs = [run for run in flow_runs(here) if run.state_type is StateType.CANCELLING]
    return runs[0] if runs else None


def test_a_body_that_returns_while_it_is_cancelling_has_not_completed() -> None:
    """Whoever saw Cancelling sees Cancelled next, however short the moment was."""
    here = Home.current()
    turns = iter([0.0, 0.0005, 0.001, 0.002] * 10)

    @flow
    def races() -> int:
        execution = races_context().execution
        pause = next(turns)
        scope = execution.scope
        scope.stop_reason = "Enough."  # as a stop that reaches nothing

        def linger() -> None:
            time.sleep(pause)
            execution.linger()

        threading.Thread(target=linger).start()
        time.sleep(0.001)
        return 1

    from prefect_nb.context import FlowRunContext

    def races_context() -> Any:
        context = FlowRunContext.get()
        assert context is not None
        return context

    for _ in range(40):
        races(return_state=True)
    here.ledger.commit()
    for run in flow_runs(here):
        names = [event.name for event in here.store.events(run.id) if isinstance(event, StateRecorded)]
        assert names in (["Running", "Completed"], ["Running", "Cancelling", "Cancelled"], ["Running", "Cancelled"])
    assert here.store.check() == []


def test_a_run_whose_process_is_dead_is_cancelled_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "gate") as process:
        wait_until(lambda: _is_under_way(home), "it is in mid-run")
        process.kill()
    monkeypatch.setenv("PREFECT_NB_HOME", str(home))
    (run,) = Home.current().store.flow_runs(_all())
    assert run.state_type is StateType.RUNNING, "nobody has looked after it yet"
    began = time.monotonic()
    now = control.cancel(run, reason="No longer wanted.")
    assert time.monotonic() - began < 1
    assert (now.state_type, now.state_message) == (StateType.CANCELLED, "No longer wanted.")
    assert set(states(task_runs(Home.current()))) == {"Completed", "Cancelled"}
    with pytest.raises(InvalidMove, match="has ended already"):
        control.cancel(now)
    Home.current().close()
    audit(home)


def _is_under_way(home: Path) -> bool:
    if not (home / "prefect_nb.db").exists():
        return False
    with opened(home) as here:
        return states(task_runs(here)) == {"Completed": 2, "Running": 1}


def test_children_of_a_dead_run_that_is_cancelled_are_cancelled_too(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "nested", PREFECT_NB_CRASH_AT="after_rename:3") as process:
        process.wait()
    with opened(home) as here:
        root = only_flow_run(here)
        here.store.add_request(root.id, "cancel", 0, {})
        here.reap()
        assert states(flow_runs(here)) == {"Cancelled": 2}
        assert set(states(task_runs(here))) == {"Completed", "Cancelled"}
        assert here.store.open_requests([root.id]) == []
    audit(home)


def test_a_request_of_another_run_cancels_nobody(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "gate") as process:
        wait_until((tmp_path / "at-2").exists, "it is in mid-run")
        process.kill()
    with opened(home) as here:
        here.store.add_request(uuid4(), "cancel", 0, {})
        here.reap()
        assert states(flow_runs(here)) == {"Crashed": 1}


def _all() -> Any:
    from prefect_nb.interfaces import RunQuery

    return RunQuery()
