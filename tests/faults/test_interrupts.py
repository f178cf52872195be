"""Ctrl-C, cancels from elsewhere, and the moment after the end."""

import signal
import threading
import time
from pathlib import Path

import pytest
from audit import audit
from harness import executions, flow_runs, only_flow_run, opened, started, states, succeed, task_runs, wait_until

from prefect_nb import flow, task
from prefect_nb.exceptions import CancelledRun
from prefect_nb.home import Home
from prefect_nb.model.events import StateRecorded
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import TERMINAL_STATES, StateType


@pytest.mark.parametrize("story", ["many", "many_inside", "many_left", "many_awaited"])
def test_ctrl_c_in_a_map_cancels_the_flow_and_every_task(story: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, story) as process:
        wait_until(lambda: _mapped(home) == 100 and (tmp_path / "at-9").exists(), "ten tasks run, ninety wait")
        began = time.monotonic()
        process.signal(signal.SIGINT)
        code = process.wait()
        assert time.monotonic() - began < 5 + 1.5
    assert code == -signal.SIGINT, process.errors
    assert "KeyboardInterrupt" in process.errors
    with opened(home) as here:
        assert {run.state_type for run in flow_runs(here)} == {StateType.CANCELLED}
        assert states(_mapped_runs(here)) == {"Cancelled": 100}
    assert len(executions(home)) == 10
    audit(home)


@pytest.mark.parametrize("lines", [0, 1, 5])
def test_ctrl_c_while_tasks_are_being_submitted(lines: int, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "many") as process:
        wait_until(lambda: len(executions(home)) > lines, "the first tasks run")
        process.signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT, process.errors
    with opened(home) as here:
        assert only_flow_run(here).state_type is StateType.CANCELLED
        assert set(states(task_runs(here))) == {"Cancelled"}
    audit(home)


def _mapped(home: Path) -> int:
    with opened(home) as here:
        return len(_mapped_runs(here))


def _mapped_runs(here: Home) -> list[TaskRun]:
    return [task_run for task_run in task_runs(here) if task_run.kind == "task"]


def test_what_was_reported_done_is_in_the_history_after_a_kill(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for turn in range(3):
        with started("stories.py", home, "two_hundred") as process:
            assert process.wait() == 0, process.errors
        with opened(home) as here:
            assert states(task_runs(here)) == {"Completed": 200 * (turn + 1)}
            assert all(flow_run.state_type is StateType.COMPLETED for flow_run in flow_runs(here))
    audit(home)


def test_a_cancel_that_meets_the_end_leaves_one_final_state() -> None:
    @task
    def work(n: int) -> int:
        return n

    @flow
    def short(pause: float) -> int:
        begun.set()
        done = sum(work(n) for n in range(3))
        time.sleep(pause)
        return done

    here = Home.current()
    begun = threading.Event()
    ended: dict[str, int] = {}
    for turn in range(60):
        begun.clear()
        canceller = threading.Thread(target=_cancel, args=(here, begun, (turn % 10) * 0.0005))
        canceller.start()
        try:
            state = short((turn % 6) * 0.001, return_state=True)
            ended[state.name] = ended.get(state.name, 0) + 1
        except (CancelledRun, KeyboardInterrupt):
            ended["raised"] = ended.get("raised", 0) + 1
        canceller.join()
    here.ledger.commit()
    assert set(ended) <= {"Completed", "Cancelled"}, ended
    for flow_run in flow_runs(here):
        events = here.store.events(flow_run.id)
        finals = [e for e in events if isinstance(e, StateRecorded) and e.type in TERMINAL_STATES]
        assert len(finals) == 1
        assert flow_run.is_final
    assert all(task_run.is_final for task_run in task_runs(here))
    assert here.store.check() == []


def _cancel(here: Home, begun: threading.Event, pause: float) -> None:
    begun.wait(10)
    time.sleep(pause)
    for scope in list(here.live.values()):
        scope.stop("Cancelled by request.")


def test_ctrl_c_at_any_moment_leaves_nothing_open(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert succeed("interrupted.py", home, 40, 1) == "40"
    with opened(home) as here:
        assert states(flow_runs(here)) == {"Cancelled": 40}
        assert set(states(task_runs(here))) <= {"Completed", "Cancelled"}
    audit(home)


def test_a_task_that_cannot_be_stopped_is_left_behind_and_writes_nothing_more(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "outlives_its_flow") as process:
        wait_until((tmp_path / "at-stuck").exists, "it sleeps")
        process.signal(signal.SIGINT)
        wait_until((tmp_path / "at-end").exists, "the flow has given up waiting", 8)
        with opened(home) as here:
            assert states(flow_runs(here)) == {"Cancelled": 1}
            assert states(task_runs(here)) == {"Cancelled": 2}
            events = here.store.last_cursor()
        assert process.wait() == 0, process.errors
    with opened(home) as here:
        assert here.store.last_cursor() == events
    assert executions(home) == []
    audit(home)


def test_a_flow_that_the_end_of_the_interpreter_cuts_off_has_crashed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert succeed("stories.py", home, "unfinished") == "None"
    with opened(home) as here:
        assert states(flow_runs(here)) == {"Crashed": 1}
        assert states(task_runs(here)) == {"Completed": 2, "Crashed": 1}
    audit(home)
