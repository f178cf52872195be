"""Whenever somebody wishes a task run to be cancelled, skipped or begun anew, it ends as it should."""

from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from scripted import OUTCOMES, Told, _answer, has_ended_well
from test_any_sequence import TASK_PLANS

from prefect_nb.engine import commands as c
from prefect_nb.engine.task_run import TaskPlan, failed_attempts, task_run
from prefect_nb.model.events import StateRecorded
from prefect_nb.model.states import State, StateType

ENDINGS = st.one_of(st.builds(c.Stopped, st.none(), st.just("asked")), st.builds(c.Skipped, st.just("asked")))
AGAIN = st.builds(c.Again, st.just("asked anew"))

_ID = UUID(int=1)


class Asked(Told):
    """What an engine asked, and what was wished of it."""

    def __init__(self) -> None:
        super().__init__()
        self.wish: c.Ending | None = None
        self.begun_anew = 0


def drive_wished(plan: TaskPlan, draw: Any) -> Asked:
    """Drive a task run; at any moment where that can be, somebody wishes something."""
    told, answer, steps = Asked(), None, task_run(plan)
    while True:
        try:
            command = steps.send(answer)
        except StopIteration as stop:
            told.final = stop.value
            return told
        answer = _wished(command, told, draw) or _answer(command, told, draw, OUTCOMES)


def _wished(command: c.Command, told: Asked, draw: Any) -> Any:
    if told.wish is not None or draw(st.integers(0, 3)):
        return None
    match command:
        case c.CallBody(attempt):
            told.calls.append(attempt)
            if draw(st.booleans()):
                told.begun_anew += 1
                return draw(AGAIN)
        case c.Record(state) if state.type is not StateType.RUNNING:
            return None
        case c.Record() | c.AwaitUpstream() | c.AwaitKey() | c.Sleep() | c.Admit():
            pass
        case _:
            return None
    told.wish = draw(ENDINGS)
    return told.wish


@given(plan=TASK_PLANS, data=st.data())
def test_a_task_run_ends_as_somebody_wishes(plan: TaskPlan, data: Any) -> None:
    told = drive_wished(plan, data.draw)
    assert has_ended_well(told)
    assert told.final is told.states[-1]
    if told.wish is not None:
        expected = ("CANCELLED", "Cancelled") if type(told.wish) is c.Stopped else ("COMPLETED", "Skipped")
        assert (told.final.type, told.final.name) == expected
        assert told.final.message == "asked"


@given(plan=TASK_PLANS, data=st.data())
def test_attempts_that_are_begun_anew_are_not_counted(plan: TaskPlan, data: Any) -> None:
    told = drive_wished(plan, data.draw)
    assert len(told.calls) <= plan.retries + 1 + told.begun_anew
    assert told.calls == sorted(told.calls)
    assert len(set(told.calls)) <= plan.retries + 1


@given(plan=TASK_PLANS, data=st.data())
def test_what_is_skipped_calls_no_running_hook_for_it(plan: TaskPlan, data: Any) -> None:
    told = drive_wished(plan, data.draw)
    if not told.calls and type(told.wish) is c.Skipped:
        assert [kind for kind, _ in told.fired if kind == "running"] == []


def test_an_attempt_begun_anew_has_not_failed() -> None:
    def events(*states: tuple[StateType, str]) -> list[StateRecorded]:
        return [StateRecorded(_ID, kind, name, at, _ID) for at, (kind, name) in enumerate(states)]

    running, retrying = (StateType.RUNNING, "Running"), (StateType.RUNNING, "Retrying")
    assert failed_attempts(events(running, running, running)) == (0, None)
    assert failed_attempts(events(running, running, retrying)) == (1, None)
    assert failed_attempts(events(running, retrying)) == (1, None)


def test_what_was_recorded_must_not_begin_where_somebody_would_have_it_end() -> None:
    steps = task_run(TaskPlan(has_upstream=False))
    pending = next(steps)
    running = steps.send(pending.state)
    assert isinstance(running, c.Record)
    final = steps.send(c.Skipped("asked"))
    assert isinstance(final, c.Record)
    assert isinstance(final.state, State)
    assert (final.state.type, final.state.name) == (StateType.COMPLETED, "Skipped")
