"""Runs that wait for somebody, and what the end of a process does to them."""

import signal
import time
from pathlib import Path
from typing import Any

from harness import executions, only_flow_run, opened, started, succeed, task_runs, wait_until

from prefect_nb.execution import pausing
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.states import StateType

SCRIPT = "approvals.py"
_ALL = RunQuery()


def paused(home: Home, key: str | None = None) -> Any:
    def look() -> Any:
        runs = [run for run in home.store.flow_runs(_ALL) if run.state_type is StateType.PAUSED]
        return next((run for run in runs if key in (None, run.state_details and run.state_details.pause_key)), None)

    return wait_until(look, "a paused run")


def answer(home: Home, run: Any, value: int) -> None:
    pausing.answer(home, run, pausing.check_answer(home, run, {"value": value}))


def test_a_suspended_run_waits_without_a_process_and_goes_on_in_another(prefect_nb_home: Path) -> None:
    assert succeed(SCRIPT, prefect_nb_home, "start", "suspend") == "Suspended"
    with opened(prefect_nb_home) as home:
        assert home.reap() == []
        run = only_flow_run(home)
        assert run.state_name == "Suspended"
        assert [task.state_name for task in task_runs(home, run.id)] == ["Completed"]
    assert succeed(SCRIPT, prefect_nb_home, "resume", run.id, 2) == "42"
    assert [what for _, what in executions(prefect_nb_home)] == ["prepare", "finish"]
    with opened(prefect_nb_home) as home:
        now = only_flow_run(home)
        assert (now.state_name, now.epoch, now.recoveries) == ("Completed", run.epoch + 1, 0)


def test_a_kill_after_the_suspension_changes_nothing(prefect_nb_home: Path) -> None:
    with started(SCRIPT, prefect_nb_home, "start", "suspend", HOLD="1") as process, opened(prefect_nb_home) as home:
        paused(home)
        process.kill()
        home.reap()
        assert only_flow_run(home).state_name == "Suspended"
        run = only_flow_run(home)
    assert succeed(SCRIPT, prefect_nb_home, "resume", run.id, 1) == "41"


def test_of_two_processes_that_resume_a_run_one_does(prefect_nb_home: Path) -> None:
    succeed(SCRIPT, prefect_nb_home, "start", "suspend")
    with opened(prefect_nb_home) as home:
        run = only_flow_run(home)
    with (
        started(SCRIPT, prefect_nb_home, "resume", run.id, 1) as one,
        started(SCRIPT, prefect_nb_home, "resume", run.id, 2) as other,
    ):
        one.wait()
        other.wait()
    said = sorted([one.output.strip(), other.output.strip()])
    assert said[0] in ("41", "42")
    assert said[1] in ("Fenced", "NotResumable")
    assert [what for _, what in executions(prefect_nb_home)].count("finish") == 1
    with opened(prefect_nb_home) as home:
        assert only_flow_run(home).state_name == "Completed"


def test_a_paused_run_hears_another_process_at_once(prefect_nb_home: Path) -> None:
    with started(SCRIPT, prefect_nb_home, "start", "pause") as process, opened(prefect_nb_home) as home:
        run = paused(home)
        answer(home, run, 2)
        begun = time.monotonic()
        wait_until(lambda: only_flow_run(home).state_name != "Paused", "the run goes on")
        assert time.monotonic() - begun < 2.0  # 0.2 as a rule; the machine may be busy
        assert process.wait() == 0
        assert process.output.strip() == "42"


def test_a_paused_run_ends_with_its_process_and_what_was_answered_is_not_asked_again(prefect_nb_home: Path) -> None:
    with started(SCRIPT, prefect_nb_home, "start", "twice") as process, opened(prefect_nb_home) as home:
        answer(home, paused(home, "first"), 1)
        run = paused(home, "second")
        process.kill()
        home.reap()
        assert only_flow_run(home).state_name == "Crashed"
        with started(SCRIPT, prefect_nb_home, "resume", run.id, 0) as again:
            answer(home, paused(home, "second"), 2)
            assert again.wait() == 0, again.errors
            assert again.output.strip() == "43"
    assert [what for _, what in executions(prefect_nb_home)] == ["prepare", "finish"]


def test_ctrl_c_ends_a_pause(prefect_nb_home: Path) -> None:
    with started(SCRIPT, prefect_nb_home, "start", "pause") as process, opened(prefect_nb_home) as home:
        paused(home)
        process.signal(signal.SIGINT)
        assert process.wait() != 0
        assert only_flow_run(home).state_name == "Cancelled"
