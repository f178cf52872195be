"""States: what a run is in at a moment, as flow authors read and make them.

A state has a closed *type* (`StateType`), which decides what may happen next, and a free *name*, which tells people
more: "Retrying" is a RUNNING, "TimedOut" a FAILED, "Cached" a COMPLETED. Ask it with `is_completed()`, `is_final()` and
their kin; `result()` gives the run's value or raises what the run raised.

    state = my_flow(return_state=True)
    if state.is_failed():
        error = state.result(raise_on_failure=False)

A flow or task that returns a state made here decides its own end:

    @flow
    def nightly():
        if not new_rows():
            return Completed(name="Skipped", message="Nothing new")

States that a run went through carry an id and a time; one made here has the time of its making.
"""

import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, TypeGuard

from prefect_nb.engine.task_run import describe, interruption
from prefect_nb.execution.duality import dual
from prefect_nb.model import states as _states
from prefect_nb.model.states import State, StateDetails, StateType

TERMINAL_STATES = _states.TERMINAL_STATES


def _timed(make: Callable[..., State[Any]]) -> Callable[..., State[Any]]:
    @wraps(make)
    def made_now(*args: Any, **kwargs: Any) -> State[Any]:
        state = make(*args, **kwargs)
        state.timestamp = state.timestamp or datetime.now(UTC)
        return state

    return made_now


Scheduled = _timed(_states.Scheduled)
Late = _timed(_states.Late)
AwaitingRetry = _timed(_states.AwaitingRetry)
AwaitingConcurrencySlot = _timed(_states.AwaitingConcurrencySlot)
Pending = _timed(_states.Pending)
Running = _timed(_states.Running)
Retrying = _timed(_states.Retrying)
Completed = _timed(_states.Completed)
Failed = _timed(_states.Failed)
Crashed = _timed(_states.Crashed)
Cancelling = _timed(_states.Cancelling)
Cancelled = _timed(_states.Cancelled)
_paused = _timed(_states.Paused)


def Paused(  # noqa: N802 - Prefect's name
    timeout_seconds: float | None = None, pause_expiration_time: datetime | None = None, **kwargs: Any
) -> State[Any]:
    """Waiting for somebody, for `timeout_seconds` from now or until `pause_expiration_time` (UTC).

    Raises:
        ValueError: both were given.
    """
    if timeout_seconds is not None and pause_expiration_time is None:
        return _paused(None, datetime.now(UTC) + timedelta(seconds=timeout_seconds), **kwargs)
    return _paused(timeout_seconds, pause_expiration_time, **kwargs)


def Suspended(timeout_seconds: float | None = None, **kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Paused, and its process has ended; resuming starts a new one."""
    kwargs.setdefault("name", "Suspended")
    return Paused(timeout_seconds, reschedule=True, **kwargs)


def Submitting(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Pending, and about to be given to infrastructure."""
    return Pending(name="Submitting", **kwargs)


def InfrastructurePending(**kwargs: Any) -> State[Any]:  # noqa: N802 - Prefect's name
    """Pending, and waiting for infrastructure."""
    return Pending(name="InfrastructurePending", **kwargs)


def is_state(obj: object) -> TypeGuard[State[Any]]:
    """Whether `obj` is a state."""
    return isinstance(obj, State)


def is_state_iterable(obj: object) -> bool:
    """Whether `obj` is a list, tuple or set made solely of states, of at least one."""
    return isinstance(obj, list | tuple | set) and bool(obj) and all(isinstance(item, State) for item in obj)


@dual()
def get_state_exception(state: State[Any]) -> BaseException:
    """The exception that stands for a run that failed, crashed or was cancelled.

    Raises:
        ValueError: the state is none of these.
        TypeError: what it carries is neither an exception nor states that have one.
    """
    if not (state.is_failed() or state.is_crashed() or state.is_cancelled()):
        raise ValueError(f"Expected failed or crashed state got {state!r}.")
    data = state.data
    if data is not None and not isinstance(data, (BaseException, State, str, _states.ResultHandle, list, tuple, set)):
        raise TypeError(
            f"Unexpected result for failed state: {data!r} - {type(data).__name__} cannot be resolved into an exception"
        )
    return state.exception()


@dual()
def raise_state_exception(state: State[Any]) -> None:
    """Raise what stands for a run that failed, crashed or was cancelled; do nothing for any other."""
    if state.is_failed() or state.is_crashed() or state.is_cancelled():
        raise state.exception()


aget_state_exception = get_state_exception.aio  # type: ignore[attr-defined]
araise_state_exception = raise_state_exception.aio  # type: ignore[attr-defined]


@dual()
def exception_to_failed_state(exc: BaseException | None = None, **kwargs: Any) -> State[Any]:
    """A Failed state that carries an exception.

    Args:
        exc: what was raised; None: what is being handled.
        kwargs: further fields of the state; `message` is put before the exception's own text.

    Raises:
        ValueError: no exception was given, and none is being handled.
    """
    error = exc if exc is not None else sys.exc_info()[1]
    if error is None:
        raise ValueError("Exception was not passed and no active exception could be found.")
    message = kwargs.pop("message", None)
    return Failed(data=error, message=f"{message} {describe(error)}" if message else describe(error), **kwargs)


@dual()
def exception_to_crashed_state(exc: BaseException) -> State[Any]:
    """A Crashed state for what ended a run from outside: an interrupt, an exit, a cancelled event loop."""
    if type(exc).__name__ == "CancelledError":
        return Crashed(message="Execution was cancelled by the runtime environment.", data=exc)
    state = interruption(exc)
    return Crashed(message=state.message, data=exc)


class StateGroup:
    """Several states, counted.

    Args:
        states: in any order.
    """

    def __init__(self, states: list[State[Any]]) -> None:
        self.states = states
        self.type_counts = Counter(state.type for state in states)
        self.total_count = len(states)
        self.cancelled_count = self.type_counts[StateType.CANCELLED]
        self.final_count = sum(state.is_final() for state in states)
        self.not_final_count = self.total_count - self.final_count
        self.paused_count = self.type_counts[StateType.PAUSED]

    @property
    def fail_count(self) -> int:
        """How many failed or crashed."""
        return self.type_counts[StateType.FAILED] + self.type_counts[StateType.CRASHED]

    def all_completed(self) -> bool:
        """Whether every one completed."""
        return self.type_counts[StateType.COMPLETED] == self.total_count

    def any_cancelled(self) -> bool:
        """Whether one was cancelled."""
        return self.cancelled_count > 0

    def any_failed(self) -> bool:
        """Whether one failed or crashed."""
        return self.fail_count > 0

    def any_paused(self) -> bool:
        """Whether one is paused."""
        return self.paused_count > 0

    def all_final(self) -> bool:
        """Whether every one has ended."""
        return self.final_count == self.total_count

    def counts_message(self) -> str:
        """The counts as one line of text."""
        parts = [f"total={self.total_count}"]
        if self.not_final_count:
            parts.append(f"not_final={self.not_final_count}")
        parts += [f"{type_.value!r}={count}" for type_, count in self.type_counts.items() if count]
        return ", ".join(parts)


__all__ = [
    "TERMINAL_STATES",
    "AwaitingConcurrencySlot",
    "AwaitingRetry",
    "Cancelled",
    "Cancelling",
    "Completed",
    "Crashed",
    "Failed",
    "InfrastructurePending",
    "Late",
    "Paused",
    "Pending",
    "Retrying",
    "Running",
    "Scheduled",
    "State",
    "StateDetails",
    "StateGroup",
    "StateType",
    "Submitting",
    "Suspended",
    "aget_state_exception",
    "araise_state_exception",
    "exception_to_crashed_state",
    "exception_to_failed_state",
    "get_state_exception",
    "is_state",
    "is_state_iterable",
    "raise_state_exception",
]
