"""One flow run, from Pending to its final state, as a generator of commands.

It differs from a task run in what a return value means (`judge_return`), in waiting for its children before it ends,
and in calling the whole body again on a retry.
"""

from collections.abc import Generator, Sequence
from typing import Any

import msgspec

from prefect_nb.engine import commands as c
from prefect_nb.engine.task_run import conclude, describe, interruption
from prefect_nb.exceptions import Abort, Pause
from prefect_nb.model.states import (
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    State,
    StateType,
    Suspended,
)


class FlowPlan(msgspec.Struct, frozen=True):
    """What the engine needs to know of a flow before it runs."""

    retries: int = 0
    retry_delay: float = 0.0
    persisted: bool = False
    hooks: frozenset[str] = frozenset()
    has_upstream: bool = False
    created: bool = False
    """The run exists already (it is resumed, or was scheduled)."""
    invalid: Exception | None = None
    """Its parameters do not fit."""


Steps = Generator[c.Command, Any, State[Any]]


def flow_run(plan: FlowPlan) -> Steps:
    """Run a flow: answer each yielded command; the generator returns the final state."""
    called = plan.hooks
    try:
        yield c.Record(Pending())
        invalid = plan.invalid
        if plan.has_upstream and invalid is None:
            upstream = yield c.AwaitUpstream()
            if type(upstream) is c.NotReady:
                waiting: State[Any] = yield c.Record(Pending(name="NotReady", message=upstream.message))
                return waiting
            if type(upstream) is c.Invalid:
                invalid = upstream.error
        if invalid is not None:
            message = f"Validation of flow parameters failed with error: {describe(invalid)}"
            final, returned = Failed(message=message, data=invalid), False
        else:
            final, returned = yield from _attempts(plan)
        if returned and final.type is StateType.CANCELLED:  # nobody cancelled it: no hooks for that
            called = frozenset()
    except GeneratorExit:
        raise
    except Abort as error:
        yield c.Translate(error)
        final = Failed(message=str(error) or None)
    except BaseException as error:
        final = interruption((yield c.Translate(error)))
    return (yield from conclude(called, final))


def _attempts(plan: FlowPlan) -> Generator[c.Command, Any, tuple[State[Any], bool]]:
    """Call the body until it is done; the final state, and whether the body returned it."""
    attempt = 1
    while True:
        recorded = yield c.Record(Running())
        if "running" in plan.hooks:
            yield c.Fire("running", recorded)
        try:
            outcome = yield c.CallBody(attempt)
        except Pause as pause:
            stopped = yield c.Leave(pause)
            return (pause.state or Suspended()) if stopped is None else Cancelled(message=stopped.message), False
        returned = outcome.value if type(outcome) is c.Returned else None
        concluded = yield c.Conclude(returned)
        final = _judge(outcome, concluded)
        if final.type is StateType.COMPLETED and plan.persisted and not isinstance(returned, State):
            handle = yield c.Keep(final.data)
            if isinstance(handle, State):
                return handle, False
            if handle is not None:
                final.data = handle
        if final.type is not StateType.FAILED or attempt > plan.retries or type(outcome) is c.Returned:
            return final, type(outcome) is c.Returned
        if plan.retry_delay > 0:
            yield c.Record(AwaitingRetry(message=final.message))
            woken = yield c.Sleep(plan.retry_delay)
            if type(woken) is c.Stopped:
                return Cancelled(message=woken.message), False
        attempt += 1


def _judge(outcome: c.Outcome, concluded: State[Any]) -> State[Any]:
    match outcome:
        case c.Returned():
            return concluded
        case c.Raised(error):
            return Failed(message=f"Flow run encountered an exception: {describe(error)}", data=error)
        case c.TimedOut(error):
            return Failed(name="TimedOut", message=str(error), data=error)
        case c.Interrupted(error, message):
            return Crashed(message=message, data=error)
        case c.Stopped(_, message):
            return Cancelled(message=message)


def judge_return(value: Any, states: Sequence[State[Any]] | None) -> State[Any]:
    """The final state that a flow body's return value means.

    Args:
        value: what the flow's state carries: the return value, with futures replaced by their states.
        states: the states the return value consists of, where it is one state or a collection made solely of
            states; None for plain data. An empty collection is plain data.
    """
    if isinstance(value, State):
        if value.is_final() or value.is_paused():
            return _of_one(value)
        if value.type is StateType.PENDING and value.name == "Pending" and value.id is None:
            raise Abort("A flow run cannot transition to a PENDING state by returning one.")
    if not states:
        return Completed(data=value)
    if all(state.is_completed() for state in states):
        message = None if isinstance(value, State) else "All states completed."
        return Completed(message=message, data=value)
    total = len(states)

    def count(type_: StateType) -> int:
        return sum(state.type is type_ for state in states)

    if cancelled := count(StateType.CANCELLED):
        return Cancelled(message=f"{cancelled}/{total} states cancelled.", data=value)
    if paused := count(StateType.PAUSED):
        return Paused(message=f"{paused}/{total} states paused.", data=value)
    failed = count(StateType.FAILED) + count(StateType.CRASHED)
    unfinished = sum(not state.is_final() for state in states)
    words = f"{failed}/{total} states failed." if failed else f"{unfinished}/{total} states are not final."
    return Failed(message=words, data=value)


def _of_one(state: State[Any]) -> State[Any]:
    """A state made by hand is the final state itself; one that a run left behind is judged like a collection of one."""
    if state.id is None or state.is_paused():
        return state
    if state.is_completed():
        return Completed(data=state)
    if state.is_cancelled():
        return Cancelled(message="1/1 states cancelled.", data=state)
    return Failed(message="1/1 states failed.", data=state)
