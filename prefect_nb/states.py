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

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, TypeGuard

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
Paused = _timed(_states.Paused)
Suspended = _timed(_states.Suspended)


def is_state(obj: object) -> TypeGuard[State[Any]]:
    """Whether `obj` is a state."""
    return isinstance(obj, State)


def is_state_iterable(obj: object) -> bool:
    """Whether `obj` is a list, tuple or set made solely of states, of at least one."""
    return isinstance(obj, list | tuple | set) and bool(obj) and all(isinstance(item, State) for item in obj)


def get_state_exception(state: State[Any]) -> BaseException:
    """The exception that stands for a run that did not complete.

    Raises:
        ValueError: the run completed.
    """
    if state.is_completed():
        raise ValueError(f"A {state.name} state has no exception.")
    return state.exception()


def raise_state_exception(state: State[Any]) -> None:
    """Raise what stands for a run that failed, crashed or was cancelled; do nothing for any other."""
    if state.is_failed() or state.is_crashed() or state.is_cancelled():
        raise state.exception()


def exception_to_failed_state(error: BaseException, **kwargs: Any) -> State[Any]:
    """A Failed state that carries an exception.

    Args:
        error: what was raised.
        kwargs: further fields of the state; `message` is put before the exception's own text.
    """
    message = kwargs.pop("message", None)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Failed(data=error, message=f"{message} {text}" if message else text, **kwargs)


__all__ = [
    "TERMINAL_STATES",
    "AwaitingConcurrencySlot",
    "AwaitingRetry",
    "Cancelled",
    "Cancelling",
    "Completed",
    "Crashed",
    "Failed",
    "Late",
    "Paused",
    "Pending",
    "Retrying",
    "Running",
    "Scheduled",
    "State",
    "StateDetails",
    "StateType",
    "Suspended",
    "exception_to_failed_state",
    "get_state_exception",
    "is_state",
    "is_state_iterable",
    "raise_state_exception",
]
