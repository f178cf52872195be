"""Pausing a flow run until somebody answers, suspending it without a process, and waiting for what others hand it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from prefect_nb.exceptions import FlowPauseTimeout, NotPausedError, Pause, RunCancelled
from prefect_nb.execution import blocking, logs
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.scope import Scope
from prefect_nb.interfaces import Request, RunQuery
from prefect_nb.interfaces.inputs import FlowRunInput, PauseEnd
from prefect_nb.model.runs import FlowRun, to_datetime, to_us
from prefect_nb.model.states import Paused, Running, State, StateType, Suspended

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingFlow, Surroundings

T = TypeVar("T")

RESUMED, TIMED_OUT = "resumed", "timed out"
_LOOK_SECONDS = 0.2
_CANCEL_SECONDS = 1.0
_NAMED = 5
_ALL = 1_000_000

_bells: dict[UUID, set[Callable[[], None]]] = {}
_bells_lock = threading.Lock()


# Waiting


def ring(flow_run_id: UUID) -> None:
    """Whoever waits in this process for something of this flow run looks at once."""
    with _bells_lock:
        bells = list(_bells.get(flow_run_id, ()))
    for bell in bells:
        bell()


def wait_here(look: Callable[[], T | None], flow_run_id: UUID, scope: Scope | None, timeout: float | None) -> T | None:
    """Wait on this thread until `look()` says something; None after `timeout` seconds (None: however long it takes).

    What this process does is seen at once, what another does within 0.2 seconds.

    Raises:
        RunCancelled: the run of `scope`, in which somebody waits, was cancelled.
    """
    woken = threading.Event()
    deadline = None if timeout is None else time.monotonic() + timeout
    with _listening(flow_run_id, scope, woken.set), blocking.waiting():
        while True:
            woken.clear()
            found = look()
            if found is not None:
                return found
            if scope is not None and scope.stopping:
                raise RunCancelled(scope.reason)
            left = _left(deadline)
            if left <= 0:
                return None
            woken.wait(left)


async def wait_awaiting(
    look: Callable[[], T | None], flow_run_id: UUID, scope: Scope | None, timeout: float | None
) -> T | None:
    """The same on this loop."""
    import asyncio

    loop, woken = asyncio.get_running_loop(), asyncio.Event()
    deadline = None if timeout is None else time.monotonic() + timeout

    def bell() -> None:
        loop.call_soon_threadsafe(woken.set)

    with _listening(flow_run_id, scope, bell):
        while True:
            woken.clear()
            found = look()
            if found is not None:
                return found
            if scope is not None and scope.stopping:
                await asyncio.sleep(_CANCEL_SECONDS)  # as a rule the body's own cancellation comes here
                raise RunCancelled(scope.reason)
            left = _left(deadline)
            if left <= 0:
                return None
            try:
                async with asyncio.timeout(left):
                    await woken.wait()
            except TimeoutError:
                pass


def _left(deadline: float | None) -> float:
    return _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - time.monotonic())


@contextmanager
def _listening(flow_run_id: UUID, scope: Scope | None, bell: Callable[[], None]) -> Iterator[None]:
    with ExitStack() as stack:
        with _bells_lock:
            _bells.setdefault(flow_run_id, set()).add(bell)
        stack.callback(_forget, flow_run_id, bell)
        if scope is not None:
            scope.stoppers.add(bell)
            stack.callback(scope.stoppers.discard, bell)
        yield


def _forget(flow_run_id: UUID, bell: Callable[[], None]) -> None:
    with _bells_lock:
        bells = _bells.get(flow_run_id, set())
        bells.discard(bell)
        if not bells:
            _bells.pop(flow_run_id, None)


# From inside the run

suspended_here: WeakValueDictionary[UUID, Any] = WeakValueDictionary()
"""The flows of runs that were suspended in this process: they need not be loaded from a file to go on."""


def next_key(execution: RecordingFlow, key: str | None) -> str:
    """The key of the pause that the flow comes to now: the one given, else its number."""
    execution.scope.pauses += 1
    return key or str(execution.scope.pauses)


def is_answered(execution: RecordingFlow, key: str) -> bool:
    """Whether the flow run has been resumed from a pause of that key, in this attempt or an earlier one."""
    return key in execution.home.store.inputs.answered(execution.run.id)


def paused(timeout: float | None, key: str | None, keyset: dict[str, str] | None = None) -> State[Any]:
    """A Paused state that is over in `timeout` seconds; `keyset` says where its form is."""
    return _with_keyset(Paused(pause_expiration_time=_expiry(timeout), pause_key=key), keyset)


def suspended(timeout: float | None, key: str | None, keyset: dict[str, str] | None = None) -> State[Any]:
    """A Suspended state, likewise."""
    return _with_keyset(Suspended(pause_expiration_time=_expiry(timeout), pause_key=key), keyset)


def _expiry(timeout: float | None) -> Any:
    moment = to_datetime(now_us())
    assert moment is not None
    return None if timeout is None else moment + timedelta(seconds=timeout)


def _with_keyset(state: State[Any], keyset: dict[str, str] | None) -> State[Any]:
    state.state_details.run_input_keyset = keyset
    return state


def pause_here(execution: RecordingFlow, state: State[Any], timeout: float | None) -> None:
    """Record the pause and wait on this thread until somebody resumes the run.

    Raises:
        FlowPauseTimeout: nobody did in time.
        RunCancelled: it was cancelled.
    """
    look = _begin(execution, state)
    _go_on(execution, state, wait_here(look, execution.run.id, execution.scope, timeout))


async def pause_awaiting(execution: RecordingFlow, state: State[Any], timeout: float | None) -> None:
    """The same on this loop."""
    look = _begin(execution, state)
    _go_on(execution, state, await wait_awaiting(look, execution.run.id, execution.scope, timeout))


def _begin(execution: RecordingFlow, state: State[Any]) -> Callable[[], PauseEnd | None]:
    if execution.run.state_type is StateType.PAUSED:  # the body went on after a pause that timed out
        execution.record(Running())
    logger = logs.flow_run_logger(execution.run, execution.flow)
    logger.info("Pausing flow, execution will continue when this flow run is resumed.")
    execution.record(state)
    state_id = state.id
    assert state_id is not None
    return lambda: execution.home.store.inputs.pause_end(state_id)


def _go_on(execution: RecordingFlow, state: State[Any], end: PauseEnd | None) -> None:
    inputs = execution.home.store.inputs
    assert state.id is not None
    if end is None and inputs.end_pause(_end_of(execution.run, TIMED_OUT)):
        raise FlowPauseTimeout("Flow run was paused and never resumed.")
    # Else somebody resumed it in the very last moment.
    execution.record(Running())
    logs.flow_run_logger(execution.run, execution.flow).info("Resuming flow run execution!")


def carry_out(execution: RecordingFlow, wish: Request) -> None:
    """Pause, or leave the body suspended, as asked from outside.

    Raises:
        Pause: it is to be suspended.
        FlowPauseTimeout, RunCancelled: as `pause_here`.
    """
    details = wish.details
    timeout, key, keyset = details.get("timeout"), details.get("key"), details.get("keyset")
    if wish.kind == "suspend":
        raise Pause(state=suspended(timeout, key, keyset))
    pause_here(execution, paused(timeout, key, keyset), timeout)


def warn_of_lost_results(execution: RecordingFlow) -> None:
    """Name the completed task runs and sub-flow runs that will run again because their results were not kept."""
    home, id = execution.home, execution.run.id
    home.ledger.commit(flow_run_id=id)
    completed = RunQuery(flow_run_id=id, state_types=(StateType.COMPLETED,), limit=_ALL, oldest_first=True)
    children = {child.parent_task_run_id: child for child in home.store.flow_runs(completed)}
    lost = [
        run.name
        for run in home.store.task_runs(completed)
        if run.parent_id is None and run.result is None and children.get(run.id, run).result is None
    ]
    if lost:
        names = ", ".join(map(repr, lost[:_NAMED])) + (f" and {len(lost) - _NAMED} more" if lost[_NAMED:] else "")
        logs.flow_run_logger(execution.run, execution.flow).warning(
            "The results of %d completed task runs were not kept, so they will run again when the flow run is resumed: "
            "%s. Use @flow(persist_result=True) or durable=True to keep them.",
            len(lost),
            names,
        )


# From outside


def check_answer(home: Surroundings, run: FlowRun, run_input: dict[str, Any] | None) -> FlowRunInput | None:
    """The answer to the run's pause, ready to be kept; None where it asks nothing.

    Raises:
        NotPausedError: the run is not paused.
        FlowPauseTimeout: it is too late.
        RuntimeError: the answer does not fit the form; the message says where.
    """
    details = run.state_details
    if run.state_type is not StateType.PAUSED or details is None:
        raise NotPausedError("Cannot resume a run that isn't paused!")
    if details.pause_timeout is not None and to_us(details.pause_timeout) <= now_us():
        raise FlowPauseTimeout("Flow run can no longer be resumed.")
    keyset = details.run_input_keyset
    if keyset is None:
        return None
    answer = run_input or {}
    form = home.store.inputs.read(run.id, keyset["schema"])
    if form is not None and (problem := misfit(form.decoded_value, answer)) is not None:
        raise RuntimeError(f"Cannot resume this run: Reason: Validation failed. Failure reason: {problem}")
    if run_input is None:
        return None
    return FlowRunInput(
        id=new_id(),
        flow_run_id=run.id,
        key=keyset["response"],
        value=msgspec.json.encode(answer).decode(),
        created_us=now_us(),
    )


def misfit(schema: dict[str, Any], answer: dict[str, Any]) -> str | None:
    """Why an answer does not fit its form's JSON schema; None if it does."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    builtins = msgspec.to_builtins(answer, str_keys=True)
    error = best_match(Draft202012Validator(schema).iter_errors(builtins))
    return None if error is None else str(error.message)


def answer(home: Surroundings, run: FlowRun, response: FlowRunInput | None) -> None:
    """Resume a run that is paused in a living process; its answer has been checked.

    Raises:
        NotPausedError: somebody else was quicker.
    """
    if not home.store.inputs.end_pause(_end_of(run, RESUMED), response):
        raise NotPausedError("Cannot resume a run that isn't paused!")
    ring(run.id)


def note_answer(home: Surroundings, run: FlowRun, response: FlowRunInput | None) -> None:
    """Keep the answer to a suspended run that this process has claimed: it is nobody else's to answer any more."""
    home.store.inputs.end_pause(_end_of(run, RESUMED), response)


def _end_of(run: FlowRun, outcome: str) -> PauseEnd:
    assert run.state_id is not None
    key = run.state_details.pause_key if run.state_details is not None else None
    return PauseEnd(state_id=run.state_id, flow_run_id=run.id, key=key, outcome=outcome, at_us=now_us())
