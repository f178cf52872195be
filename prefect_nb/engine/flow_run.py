"""One flow run, from Pending to its final state, as a generator of commands.

It differs from a task run in what a return value means (`engine.judging`), in waiting for its children before it ends,
and in calling the whole body again on a retry.
"""

from collections.abc import Generator
from typing import Any

import msgspec

from prefect_nb.engine import commands as c
from prefect_nb.engine.task_run import conclude, describe, interruption
from prefect_nb.exceptions import Abort, Pause
from prefect_nb.model.states import (
    AwaitingRetry,
    Cancelled,
    Crashed,
    Failed,
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
