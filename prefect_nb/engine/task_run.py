"""One task run, from Pending to its final state, as a generator of commands.

Laws:
1. Every path ends in a final state, or in Pending/"NotReady" when an upstream run did not complete.
2. The body is called at most `retries + 1` times, not counting attempts that somebody had begun anew.
3. What interrupts the run (cancel, interrupt, exit) is recorded first and raised by the driver afterwards.
"""

from collections.abc import Generator, Iterable
from types import GeneratorType
from typing import Any, cast

import msgspec

from prefect_nb.engine import commands as c
from prefect_nb.engine.judging import judge_states, states_of
from prefect_nb.exceptions import PrefectSignal, RunCancelled
from prefect_nb.model.events import Event, StateRecorded
from prefect_nb.model.states import (
    TERMINAL_STATES,
    AwaitingConcurrencySlot,
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


class TaskPlan(msgspec.Struct, frozen=True):
    """What the engine needs to know of a task before it runs."""

    retries: int = 0
    ask_retry: bool = False
    has_delay: bool = False
    cached: bool = False
    persisted: bool = False
    hooks: frozenset[str] = frozenset()
    has_upstream: bool = True
    attempt: int = 1
    """The number of the first attempt; more than 1 where a crash came after attempts that failed."""
    wait: float = 0.0
    """Seconds that are left of the delay before it."""
    limited: bool = False
    """Whether it may run only under concurrency limits."""


Steps = Generator[c.Command, Any, State[Any]]


def is_over(steps: Steps) -> bool:
    """Whether the generator has returned or raised."""
    return cast("GeneratorType[Any, Any, Any]", steps).gi_frame is None


def is_going_on(steps: Steps) -> bool:
    """Whether it is being advanced right now."""
    return cast("GeneratorType[Any, Any, Any]", steps).gi_running


def task_run(plan: TaskPlan) -> Steps:
    """Run a task: answer each yielded command; the generator returns the final state."""
    hit: Any = None
    try:
        yield c.Record(Pending())
        if plan.has_upstream:
            upstream = yield c.AwaitUpstream()
            if type(upstream) is c.NotReady:
                waiting: State[Any] = yield c.Record(Pending(name="NotReady", message=upstream.message))
                return waiting
            if type(upstream) is not c.Ready:
                hit = judge_task(upstream)
        if plan.cached and hit is None:
            woken = None
            hit = yield c.LookUp()
            while type(hit) is c.Busy:
                woken = yield c.AwaitKey()
                hit = (yield c.LookUp()) if woken is None else judge_task(woken)
            if woken is None and hit is not None and hit.type is StateType.COMPLETED and "running" in plan.hooks:
                yield c.Fire("running", Running())
        final = (yield from _attempts(plan)) if hit is None else hit
    except GeneratorExit:
        raise
    except BaseException as error:
        final = interruption((yield c.Translate(error)))
    return (yield from conclude(plan.hooks, final))


def _attempts(plan: TaskPlan) -> Steps:
    attempt = plan.attempt
    running = Running() if attempt == 1 else Retrying()
    if plan.wait > 0:
        yield c.Record(AwaitingRetry())
        woken = yield c.Sleep(plan.wait)
        if woken is not None:
            return judge_task(woken)
    while True:
        if plan.limited:
            refused = yield from _admission()
            if refused is not None:
                return refused
        recorded = yield c.Record(running)
        if not isinstance(recorded, State):
            return judge_task(recorded)
        if "running" in plan.hooks:
            yield c.Fire("running", recorded)
        outcome = yield c.CallBody(attempt)
        if type(outcome) is c.Again:
            running = Running(message=outcome.message)
            continue
        final = judge_task(outcome)
        if final.type is StateType.COMPLETED:
            return (yield from _kept(plan, outcome, final))
        if final.type is not StateType.FAILED or attempt > plan.retries:
            return final
        if plan.ask_retry and not (yield c.AskRetry(final)):
            return final
        delay = (yield c.Delay(attempt)) if plan.has_delay else 0.0
        if delay > 0:
            yield c.Record(AwaitingRetry(message=final.message))
            woken = yield c.Sleep(delay)
            if woken is not None:
                return judge_task(woken)
        attempt += 1
        running = Retrying()


def _admission() -> Generator[c.Command, Any, State[Any] | None]:
    """Come under the run's concurrency limits, however long that takes; a state where that cannot be."""
    refused = yield c.Admit()
    if type(refused) is c.Full:
        yield c.Record(AwaitingConcurrencySlot())
        refused = yield c.Admit(wait=True)
    return None if refused is None else judge_task(refused)


def _kept(plan: TaskPlan, outcome: c.Outcome, final: State[Any]) -> Steps:
    """The completed state with its value kept, if it is to be; another state if that went wrong."""
    if plan.persisted and type(outcome) is c.Returned:
        handle = yield c.Keep(final.data if outcome.value is final else outcome.value)
        if isinstance(handle, State):
            return handle
        if handle is not None:
            final.data = handle
    return final


def judge_task(outcome: c.Outcome | c.Skipped) -> State[Any]:
    """The state that a task body's outcome means, or that came instead of calling it."""
    match outcome:
        case c.Returned(value):
            if isinstance(value, State) and value.id is None and value.is_final():
                return value
            states = states_of(value)
            if states is None:
                return Completed(data=value)
            # A task cannot rest: what is paused is not final.
            judged = judge_states(states, value)
            return (
                judged
                if judged.is_final()
                else Failed(message=f"{len(states)}/{len(states)} states are not final.", data=value)
            )
        case c.Raised(error):
            return Failed(message=f"Task run encountered an exception {describe(error)}", data=error)
        case c.TimedOut(error):
            return Failed(name="TimedOut", message=str(error), data=error)
        case c.Interrupted(error, message):
            return Crashed(message=message, data=error)
        case c.Stopped():
            return _stopped(outcome)
        case c.Skipped(message):
            return Completed(name="Skipped", message=message)


def failed_attempts(events: Iterable[Event]) -> tuple[int, int | None]:
    """How many attempts have failed since the run last ended by itself, and since when (microseconds) it waits."""
    failed, last, waiting_since = 0, None, None
    for event in events:
        if not isinstance(event, StateRecorded):
            continue
        if event.name == "AwaitingRetry" and last is StateType.RUNNING:
            failed, waiting_since = failed + 1, event.at_us
        elif event.type is StateType.RUNNING:
            # One that was begun anew is Running after Running; only after a failure it is Retrying.
            failed, waiting_since = failed + (last is StateType.RUNNING and event.name == "Retrying"), None
        elif event.type in TERMINAL_STATES and event.type is not StateType.CRASHED:
            failed, waiting_since = 0, None
        last = event.type
    return failed, waiting_since


def interruption(error: BaseException) -> State[Any]:
    """The state of a run whose shell itself was interrupted between two commands."""
    match error:
        case RunCancelled():
            return Cancelled(message=str(error) or None)
        case KeyboardInterrupt() | PrefectSignal():
            return Crashed(message="Execution was aborted by an interrupt signal.", data=error)
        case SystemExit():
            return Crashed(message="Execution was aborted by Python system exit call.", data=error)
        case _:
            return Crashed(
                message=f"Execution was interrupted by an unexpected exception: {describe(error)}", data=error
            )


def describe(error: BaseException) -> str:
    """`ValueError: bad`; an exception whose `str` itself raises is named without its text."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        return f"{name} (its message could not be read)"
    return f"{name}: {text}" if text else name


def _stopped(stopped: c.Stopped) -> State[Any]:
    return Cancelled(message=stopped.message, data=stopped.error if isinstance(stopped.error, Exception) else None)


def conclude(hooks: frozenset[str], final: State[Any]) -> Steps:
    """Record how the run ended, whatever signals come meanwhile, and call the hooks for that."""
    recorded: State[Any] | None = None
    while recorded is None:
        try:
            recorded = yield c.Record(final)
        except (Exception, GeneratorExit):
            raise
        except BaseException as signal:
            yield c.Translate(signal)
    kind = HOOK_OF.get(recorded.type)
    if kind in hooks:
        yield c.Fire(kind, recorded)
    return recorded


HOOK_OF: dict[StateType, str] = {
    StateType.COMPLETED: "completion",
    StateType.FAILED: "failure",
    StateType.CRASHED: "crashed",
    StateType.CANCELLED: "cancellation",
}
