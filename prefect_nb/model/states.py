"""States: a small closed *type*, a free *name*, and the one table of moves between types.

A state is what a run is in at a moment. Its `type` decides what the engine may do next; its `name` tells people
more ("Retrying" is a RUNNING, "Cached" a COMPLETED). States are made without id and timestamp; the ledger stamps them
when it records them. The vocabulary is Prefect's.
"""

import enum
import sys
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec

from prefect_nb.exceptions import CancelledRun, CrashedRun, FailedRun, MissingResult, PausedRun, UnfinishedRun
from prefect_nb.model.colour import is_awaited

R = TypeVar("R")


class StateType(enum.StrEnum):
    """The closed set of what a run can be in."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


TERMINAL_STATES = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})

_S = StateType
MOVES: dict[StateType | None, frozenset[StateType]] = {
    None: frozenset(_S),
    _S.SCHEDULED: frozenset(_S),
    _S.PENDING: frozenset(_S),
    _S.RUNNING: frozenset(_S) - {_S.PENDING},
    _S.PAUSED: frozenset({_S.RUNNING, _S.SCHEDULED, _S.PENDING, _S.CANCELLING}) | TERMINAL_STATES,
    _S.CANCELLING: frozenset({_S.CANCELLED, _S.CRASHED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.CRASHED: frozenset(),
}
"""From a type, the types a run may move to by itself. A finished run moves again only when somebody takes it over
(a new epoch: resume, retry); then it starts from PENDING or SCHEDULED, see `engine.rules`."""


class ResultHandle:
    """A state's `data` when the value lives in storage (or in memory beside it): anything with `get()`."""

    __slots__ = ()

    def get(self) -> Any:
        """The value.

        Raises:
            MissingResult: it was not kept, or is gone.
        """
        raise NotImplementedError


class StateDetails(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a state says beyond type, name and message. The keys are Prefect's."""

    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None
    child_flow_run_id: UUID | None = None
    scheduled_time: datetime | None = None
    cache_key: str | None = None
    cache_expiration: datetime | None = None
    deferred: bool | None = False
    untrackable_result: bool = False
    pause_timeout: datetime | None = None
    pause_reschedule: bool = False
    pause_key: str | None = None
    run_input_keyset: dict[str, str] | None = None
    refresh_cache: bool | None = None
    retriable: bool | None = None
    transition_id: UUID | None = None
    task_parameters_id: UUID | None = None
    traceparent: str | None = None
    deployment_concurrency_lease_id: UUID | None = None


class State(msgspec.Struct, Generic[R], kw_only=True, eq=False):
    """What a run is in. `data` is the value, an exception, or a handle to a stored value."""

    type: StateType
    name: str = ""
    message: str | None = None
    data: Any = None
    state_details: StateDetails = msgspec.field(default_factory=StateDetails)
    timestamp: datetime | None = None
    id: UUID | None = None

    def __post_init__(self) -> None:
        if type(self.type) is not StateType:
            self.type = StateType(self.type)
        if not self.name:
            self.name = self.type.value.capitalize()

    def is_scheduled(self) -> bool:
        """Whether the run waits for a time."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Whether the run is about to start."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Whether the body is executing."""
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        """Whether the run ended well."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Whether the run ended with an error of its own."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Whether the run's process or infrastructure ended first."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return self.type is StateType.CANCELLED

    def is_cancelling(self) -> bool:
        """Whether a cancel has been asked for and not yet carried out."""
        return self.type is StateType.CANCELLING

    def is_paused(self) -> bool:
        """Whether the run waits for somebody."""
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.type in TERMINAL_STATES

    def result(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> Any:
        """The run's value; for a run that did not complete, its exception. In an `async def`, to be awaited.

        Args:
            raise_on_failure: raise that exception (default), or return it.
            retry_result_failure: accepted for compatibility; a damaged result is never worth a second look.

        Raises: as `value`.
        """
        if is_awaited(sys._getframe(1)):
            return self._awaited(raise_on_failure, retry_result_failure)
        return self.value(raise_on_failure)

    async def _awaited(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> Any:  # noqa: ARG002
        return self.value(raise_on_failure)

    aresult = _awaited
    """`result`, always to be awaited."""

    def value(self, raise_on_failure: bool = True) -> Any:
        """What `result` gives to plain code.

        Raises:
            UnfinishedRun, PausedRun: there is no result yet.
            FailedRun, CrashedRun, CancelledRun: the state carries no exception of its own.
            MissingResult: the value was not kept.
        """
        if self.type is StateType.COMPLETED:
            return self.data.get() if isinstance(self.data, ResultHandle) else self.data
        error = self.exception()
        if raise_on_failure or not self.is_final():
            raise error
        return error

    def fresh_copy(self, **kwargs: Any) -> "State[R]":
        """The same state without id and time, as one that no run has been in."""
        return self.model_copy(update={"id": None, "timestamp": None, **kwargs})

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> "State[R]":  # noqa: ARG002
        """A copy with some fields changed."""
        details = msgspec.structs.replace(self.state_details)
        return msgspec.structs.replace(self, **{"state_details": details, **(update or {})})

    def exception(self) -> BaseException:
        """The exception that stands for this state; one is made where the state carries none."""
        data = self.data
        if isinstance(data, ResultHandle):
            try:
                data = data.get()
            except MissingResult:
                data = None
        if isinstance(data, BaseException) and self.type in (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED):
            return data
        if isinstance(data, State):
            return data.exception()
        if self.type is StateType.FAILED and isinstance(data, list | tuple | set):
            for inner in data:
                if isinstance(inner, State) and not inner.is_completed():
                    return inner.exception()
        if self.type is StateType.PAUSED:
            return PausedRun("Run is paused, its result is not available.")
        if not self.is_final():
            return UnfinishedRun(f"Run is in {self.type.value} state, its result is not available.")
        message = self.message
        if isinstance(data, str):
            message = data
        match self.type:
            case StateType.CRASHED:
                return CrashedRun(message or "Run crashed.")
            case StateType.CANCELLED:
                return CancelledRun(message or "Run cancelled.")
            case _:
                return FailedRun(message or "Run failed.")

    def __str__(self) -> str:
        return f"{self.name}({self.message!r})" if self.message else f"{self.name}()"

    def __repr__(self) -> str:
        return f"{self.name}(message={self.message!r}, type={self.type.value}, result={self.data!r})"


def _named(type_: StateType, name: str, kwargs: dict[str, Any]) -> State[Any]:
    kwargs.setdefault("name", name)
    return State(type=type_, **kwargs)


def _at(time: datetime | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    details = kwargs.pop("state_details", None) or StateDetails()
    kwargs["state_details"] = msgspec.structs.replace(details, scheduled_time=time)
    return kwargs


def Scheduled(scheduled_time: datetime | None = None, **kwargs: Any) -> State[Any]:
    """Waiting for `scheduled_time` (UTC; None: as soon as somebody can)."""
    return _named(StateType.SCHEDULED, "Scheduled", _at(scheduled_time, kwargs))


def Late(scheduled_time: datetime | None = None, **kwargs: Any) -> State[Any]:
    """Scheduled, and its time has passed."""
    return _named(StateType.SCHEDULED, "Late", _at(scheduled_time, kwargs))


def AwaitingRetry(scheduled_time: datetime | None = None, **kwargs: Any) -> State[Any]:
    """Waiting for the delay before the next attempt."""
    return _named(StateType.SCHEDULED, "AwaitingRetry", _at(scheduled_time, kwargs))


def AwaitingConcurrencySlot(scheduled_time: datetime | None = None, **kwargs: Any) -> State[Any]:
    """Waiting for a place under a concurrency limit."""
    return _named(StateType.SCHEDULED, "AwaitingConcurrencySlot", _at(scheduled_time, kwargs))


def Pending(**kwargs: Any) -> State[Any]:
    """About to start."""
    return _named(StateType.PENDING, "Pending", kwargs)


def Running(**kwargs: Any) -> State[Any]:
    """The body executes."""
    return _named(StateType.RUNNING, "Running", kwargs)


def Retrying(**kwargs: Any) -> State[Any]:
    """The body executes again after a failure."""
    return _named(StateType.RUNNING, "Retrying", kwargs)


def Completed(**kwargs: Any) -> State[Any]:
    """Ended well; `data` is the value."""
    return _named(StateType.COMPLETED, "Completed", kwargs)


def RolledBack(**kwargs: Any) -> State[Any]:
    """Ended well, and undone since, as the transaction around it was rolled back."""
    return _named(StateType.COMPLETED, "RolledBack", kwargs)


def Failed(**kwargs: Any) -> State[Any]:
    """Ended with an error; `data` is the exception."""
    return _named(StateType.FAILED, "Failed", kwargs)


def Crashed(**kwargs: Any) -> State[Any]:
    """The process or infrastructure ended first."""
    return _named(StateType.CRASHED, "Crashed", kwargs)


def Cancelling(**kwargs: Any) -> State[Any]:
    """A cancel was asked for."""
    return _named(StateType.CANCELLING, "Cancelling", kwargs)


def Cancelled(**kwargs: Any) -> State[Any]:
    """Cancelled."""
    return _named(StateType.CANCELLED, "Cancelled", kwargs)


def Paused(
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    reschedule: bool = False,
    pause_key: str | None = None,
    **kwargs: Any,
) -> State[Any]:
    """Waiting for somebody, until `pause_expiration_time` (UTC)."""
    if timeout_seconds is not None and pause_expiration_time is not None:
        raise ValueError("Give either `timeout_seconds` or `pause_expiration_time`, not both.")
    details = kwargs.pop("state_details", None) or StateDetails()
    kwargs["state_details"] = msgspec.structs.replace(
        details, pause_timeout=pause_expiration_time, pause_reschedule=reschedule, pause_key=pause_key
    )
    return _named(StateType.PAUSED, "Paused", kwargs)


def Suspended(**kwargs: Any) -> State[Any]:
    """Paused, and its process has ended; resuming starts a new one."""
    kwargs.setdefault("name", "Suspended")
    return Paused(reschedule=True, **kwargs)


GLYPHS: dict[StateType, str] = {
    StateType.COMPLETED: "✓",
    StateType.FAILED: "✗",
    StateType.RUNNING: "▶",
    StateType.PENDING: "○",
    StateType.SCHEDULED: "◷",
    StateType.PAUSED: "‖",
    StateType.CANCELLING: "⊘",
    StateType.CANCELLED: "⊘",
    StateType.CRASHED: "⚡",
}
"""One glyph a type; a face shows it beside the word, never colour alone."""
