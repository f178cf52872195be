"""Whatever bodies, upstream runs, hooks, disks and signals do, in any order, a run ends as it should."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scripted import Told, drive, has_ended_well

from prefect_nb.engine.flow_run import FlowPlan, flow_run
from prefect_nb.engine.task_run import HOOK_OF, TaskPlan, task_run
from prefect_nb.model.states import StateType

HOOKS = st.frozensets(st.sampled_from(["running", "completion", "failure", "cancellation", "crashed"]))
TASK_PLANS = st.builds(
    TaskPlan,
    retries=st.integers(0, 4),
    ask_retry=st.booleans(),
    has_delay=st.booleans(),
    cached=st.booleans(),
    persisted=st.booleans(),
    hooks=HOOKS,
    has_upstream=st.booleans(),
    limited=st.booleans(),
)
FLOW_PLANS = st.builds(
    FlowPlan,
    retries=st.integers(0, 4),
    retry_delay=st.sampled_from([0.0, 0.5]),
    persisted=st.booleans(),
    hooks=HOOKS,
    has_upstream=st.booleans(),
    invalid=st.sampled_from([None, ValueError("does not fit")]),
)


@given(plan=TASK_PLANS, data=st.data())
def test_a_task_run_ends_in_a_final_state(plan: TaskPlan, data: Any) -> None:
    told = drive(task_run(plan), data.draw)
    assert has_ended_well(told)
    assert told.final is told.states[-1]
    _attempts_are_numbered(told, plan.retries)
    _hooks_are_called_for_their_states(told, plan.hooks)


@given(plan=FLOW_PLANS, data=st.data())
def test_a_flow_run_ends_in_a_final_state(plan: FlowPlan, data: Any) -> None:
    told = drive(flow_run(plan), data.draw)
    assert has_ended_well(told)
    assert told.final is told.states[-1]
    _attempts_are_numbered(told, plan.retries)
    _hooks_are_called_for_their_states(told, plan.hooks)
    assert not (plan.invalid and told.calls)


@given(plan=TASK_PLANS, attempt=st.integers(1, 5), wait=st.sampled_from([0.0, 0.5]), data=st.data())
def test_a_task_run_that_goes_on_after_a_crash_has_the_attempts_that_were_left(
    plan: TaskPlan, attempt: int, wait: float, data: Any
) -> None:
    attempt = min(attempt, plan.retries + 1)
    resumed = TaskPlan(retries=plan.retries, attempt=attempt, wait=wait, has_delay=plan.has_delay)
    told = drive(task_run(resumed), data.draw, faults=False)
    assert has_ended_well(told)
    assert told.calls == list(range(attempt, attempt + len(told.calls)))
    assert all(number <= plan.retries + 1 for number in told.calls)


def _attempts_are_numbered(told: Told, retries: int) -> None:
    assert told.calls == list(range(1, len(told.calls) + 1))
    assert len(told.calls) <= retries + 1


def _hooks_are_called_for_their_states(told: Told, hooks: frozenset[str]) -> None:
    assert {kind for kind, _ in told.fired} <= hooks
    for kind, type_ in told.fired:
        assert type_ is StateType.RUNNING if kind == "running" else HOOK_OF[type_] == kind
    endings = [kind for kind, _ in told.fired if kind != "running"]
    assert len(endings) <= 1
    assert not endings or told.fired[-1][0] == endings[0]
