"""Crash after crash, take-overs from a process that lives, and retries across a crash."""

import signal
import time
from pathlib import Path

import pytest
from audit import audit
from harness import (
    Process,
    committed,
    executions,
    flow_runs,
    only_flow_run,
    opened,
    run,
    started,
    states,
    task_runs,
    wait_until,
)

from prefect_nb.model.states import StateType

KILLED = -signal.SIGKILL


def test_killed_again_and_again_while_recovering_it_completes_in_the_end(tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = run("squares.py", home, "start", 12, PREFECT_NB_CRASH_AT="after_rename:2")
    assert process.wait() == KILLED
    with opened(home) as here:
        here.reap()
        id = only_flow_run(here).id
    # Some of these get further, some die before they do anything.
    for point in ("before_claim_commit", "after_rename:1", "before_commit:2", "after_fsync:3", "before_temp_write:1"):
        done = committed(home)
        process = run("squares.py", home, "resume", id, PREFECT_NB_CRASH_AT=point, PREFECT_NB_RECOVERY_LIMIT="9")
        assert process.wait() == KILLED, process.errors
        assert {what.removeprefix("square ") for pid, what in executions(home) if pid == process.pid} & done == set()
        audit(home)
    done = committed(home)
    process = run("squares.py", home, "resume", id, PREFECT_NB_RECOVERY_LIMIT="9")
    assert (process.wait(), process.output) == (0, f"{sum(n * n for n in range(12))}\n")
    assert {what.removeprefix("square ") for pid, what in executions(home) if pid == process.pid} & done == set()
    audit(home)


def test_a_flow_that_always_kills_its_process_is_given_up(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run("stories.py", home, "kills_itself").wait() == KILLED
    with opened(home) as here:
        id = only_flow_run(here).id
    for _ in range(3):
        assert run("stories.py", home, "kills_itself", "resume", id).wait() == KILLED
    for _ in range(2):  # given up once, given up for good
        process = run("stories.py", home, "kills_itself", "resume", id)
        assert process.wait() == 1
        assert "RecoveryLimit" in process.errors
    assert len(executions(home)) == 1
    with opened(home) as here:
        flow_run = only_flow_run(here)
        assert (flow_run.state_type, flow_run.state_name) == (StateType.FAILED, "RecoveryLimit")
    audit(home)


def test_a_flow_that_gets_further_each_time_is_not_given_up(tmp_path: Path) -> None:
    home = tmp_path / "home"
    # Each time it dies in the second task it comes to.
    limits = {"PREFECT_NB_CRASH_AT": "after_rename:2", "PREFECT_NB_RECOVERY_LIMIT": "1"}
    assert run("stories.py", home, "gets_further", **limits).wait() == KILLED
    with opened(home) as here:
        id = only_flow_run(here).id
    for _ in range(5):
        process = run("stories.py", home, "gets_further", "resume", id, **limits)
        assert process.wait() == KILLED, process.errors
    process = run("stories.py", home, "gets_further", "resume", id, **limits)
    assert (process.wait(), process.output) == (0, "66\n"), process.errors
    audit(home)


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("story", ["gate", "idle"])
def test_a_stopped_owner_that_was_replaced_writes_nothing_more(story: str, turn: int, tmp_path: Path) -> None:
    home = tmp_path / "home"
    at, go = ("at-2", "go-2") if story == "gate" else ("at-body", "go-body")
    with started("stories.py", home, story) as old:
        wait_until((tmp_path / at).exists, "the old owner is in mid-run")
        # Stopped in the middle of a commit it would keep everybody from writing.
        wait_until(lambda: _running(home) == (["Running"] if story == "idle" else ["Running"] * 2), "it is committed")
        old.signal(signal.SIGSTOP)
        with opened(home) as here:
            assert here.reap() == []
            flow_run = only_flow_run(here)
            assert flow_run.state_type is StateType.RUNNING, "a stopped process is not dead"
        with started("stories.py", home, story, "resume", flow_run.id) as polite:
            assert polite.wait() == 1
            assert "NotResumable" in polite.errors
        if turn != 1:
            (tmp_path / go).touch()
        with started("stories.py", home, story, "resume", flow_run.id, "--force") as new:
            if turn == 1:  # the old one wakes up while the new one is at it
                wait_until(lambda: _epoch(home) == 2, "taken over")
                old.signal(signal.SIGCONT)
                _ends_fenced(old)
                (tmp_path / go).touch()
            assert new.wait() == 0, new.errors
        before = _history(home)
        if turn != 1:
            old.signal(signal.SIGCONT)
            _ends_fenced(old)
        assert _history(home) == before
    with opened(home) as here:
        assert only_flow_run(here).state_type is StateType.COMPLETED
        assert set(states(task_runs(here))) <= {"Completed"}
    audit(home)


def _running(home: Path) -> list[str]:
    with opened(home) as here:
        return [run.state_name for run in (*flow_runs(here), *task_runs(here)) if run.state_type is StateType.RUNNING]


def _epoch(home: Path) -> int:
    with opened(home) as here:
        return only_flow_run(here).epoch


def _history(home: Path) -> list[object]:
    with opened(home) as here:
        return [(change.run_id, change.number, change.event) for change in here.store.changes(0, 100_000)]


def _ends_fenced(old: Process) -> None:
    began = time.monotonic()
    assert old.wait(15) == 1
    assert time.monotonic() - began < 6
    assert "prefect_nb.exceptions.Fenced" in old.errors, old.errors


def test_an_owner_whose_task_holds_the_interpreter_is_not_taken_for_dead(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "regex", 5) as owner:
        wait_until((tmp_path / "at-regex").exists, "it hangs in the regular expression")
        looks = 0
        with opened(home) as here:
            while not owner.ended():
                assert here.reap() == []
                looks += 1
                time.sleep(0.05)
            assert looks > 20
        assert owner.wait() == 0, owner.errors
    with opened(home) as here:
        assert only_flow_run(here).state_type is StateType.COMPLETED
    audit(home)


def test_after_a_crash_in_its_delay_a_task_has_the_attempts_and_the_time_that_were_left(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "retrying") as process:
        wait_until(lambda: len(executions(home)) == 3, "the second attempt")
        wait_until(lambda: _delays(home) == 2, "the delay after it")
        process.kill()
    with opened(home) as here:
        here.reap()
        assert states(task_runs(here)) == {"Completed": 1, "Crashed": 1}
        id = only_flow_run(here).id
    audit(home)

    began = time.monotonic()
    process = run("stories.py", home, "retrying", "resume", id)
    assert time.monotonic() - began > 1, "the delay was not left out"
    assert process.wait() == 1
    assert "not yet" in process.errors
    assert [what for _, what in executions(home)] == ["0", "attempt", "attempt", "attempt"]
    with opened(home) as here:
        assert states(task_runs(here)) == {"Completed": 1, "Failed": 1}
    audit(home)


def _delays(home: Path) -> int:
    with opened(home) as here:
        events = here.store.events(task_runs(here)[-1].id)
        return sum(getattr(event, "name", None) == "AwaitingRetry" for event in events)
