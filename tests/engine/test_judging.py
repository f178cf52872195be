"""What an outcome means: for a task, for a flow, and for a run that goes on after a crash."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_nb.engine import commands as c
from prefect_nb.engine.judging import judge_return
from prefect_nb.engine.task_run import describe, failed_attempts, interruption, judge_task
from prefect_nb.exceptions import RunCancelled
from prefect_nb.model.events import StateRecorded
from prefect_nb.model.states import (
    TERMINAL_STATES,
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Retrying,
    Running,
    State,
    StateType,
)


@pytest.mark.parametrize(
    ("outcome", "type_", "name"),
    [
        (c.Returned(1), StateType.COMPLETED, "Completed"),
        (c.Returned(Failed(name="Mine")), StateType.FAILED, "Mine"),
        (c.Returned(Running()), StateType.FAILED, "Failed"),
        (c.Returned(Pending(name="NotReady")), StateType.FAILED, "Failed"),
        (c.Raised(ValueError("x")), StateType.FAILED, "Failed"),
        (c.TimedOut(TimeoutError("x")), StateType.FAILED, "TimedOut"),
        (c.Interrupted(KeyboardInterrupt(), "x"), StateType.CRASHED, "Crashed"),
        (c.Stopped(None, "x"), StateType.CANCELLED, "Cancelled"),
    ],
)
def test_a_task_ends_as_its_body_did(outcome: c.Outcome, type_: StateType, name: str) -> None:
    state = judge_task(outcome)
    assert (state.type, state.name) == (type_, name)


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (RunCancelled("stop"), StateType.CANCELLED),
        (KeyboardInterrupt(), StateType.CRASHED),
        (SystemExit(3), StateType.CRASHED),
        (ValueError("x"), StateType.CRASHED),
    ],
)
def test_an_interrupted_shell_ends_the_run(error: BaseException, type_: StateType) -> None:
    assert interruption(error).type is type_


def test_an_exception_without_words_is_named() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(Unspeakable()) == "Unspeakable (its message could not be read)"
    assert describe(ValueError("x")) == "ValueError: x"
    assert describe(ValueError()) == "ValueError"


@given(st.lists(st.sampled_from([Completed, Failed, Cancelled, Crashed, Pending, Running]), min_size=1, max_size=5))
def test_a_flow_that_returns_states_completed_only_if_all_did(makes: Sequence[Any]) -> None:
    states: list[State[Any]] = [make() for make in makes]
    final = judge_return(states)
    types = {state.type for state in states}
    assert final.type in TERMINAL_STATES
    assert (final.type is StateType.COMPLETED) is (types == {StateType.COMPLETED})
    if StateType.CANCELLED in types:
        assert final.type is StateType.CANCELLED


@given(st.one_of(st.integers(), st.text(), st.lists(st.integers()), st.none()))
def test_a_flow_that_returns_plain_data_completed(value: Any) -> None:
    final = judge_return(value)
    assert (final.type, final.data) == (StateType.COMPLETED, value)


def _recorded(*states: State[Any]) -> list[StateRecorded]:
    run_id = uuid4()
    return [StateRecorded(run_id, state.type, state.name, at, uuid4()) for at, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "failed", "waiting_since"),
    [
        ([], 0, None),
        ([Running()], 0, None),
        ([Running(), Crashed()], 0, None),
        ([Running(), Retrying(), Crashed()], 1, None),
        ([Running(), AwaitingRetry(), Crashed()], 1, 1),
        ([Running(), AwaitingRetry(), Retrying(), AwaitingRetry(), Crashed()], 2, 3),
        ([Running(), AwaitingRetry(), Retrying(), Crashed()], 1, None),
        # It crashed twice in the same delay: one failure, and the time counts from the first.
        ([Running(), AwaitingRetry(), Crashed(), Pending(), AwaitingRetry(), Crashed()], 1, 1),
        # An attempt that a crash cut off has not failed.
        ([Running(), Crashed(), Pending(), Running(), Crashed()], 0, None),
        # What failed for good is tried anew.
        ([Running(), Retrying(), Failed(), Pending(), Running(), Crashed()], 0, None),
    ],
)
def test_failed_attempts_are_counted_across_crashes(
    states: list[State[Any]], failed: int, waiting_since: int | None
) -> None:
    assert failed_attempts(_recorded(*states)) == (failed, waiting_since)
