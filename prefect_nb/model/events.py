"""What happens to runs, as a closed union of facts, and `apply`, the one fold that makes a snapshot of them.

`fold(events) == row` holds for every run in the store, always; `prefect-nb doctor` checks it.
"""

from collections.abc import Iterable
from uuid import UUID

import msgspec
from msgspec.structs import replace

from prefect_nb.model.runs import FlowRun, ResultReference, Run, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, StateDetails, StateType


class TaskRunCreated(msgspec.Struct, frozen=True, tag_field="event", tag="task-run-created"):
    """A task run exists, in its first state."""

    run: TaskRun


class FlowRunCreated(msgspec.Struct, frozen=True, tag_field="event", tag="flow-run-created"):
    """A flow run exists, in its first state."""

    run: FlowRun


class StateRecorded(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="state"):
    """The run moved to a state."""

    run_id: UUID
    type: StateType
    name: str
    at_us: int
    state_id: UUID
    message: str | None = None
    details: StateDetails | None = None
    result: ResultReference | None = None
    note: str | None = None


class KeyComputed(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="key"):
    """The run's cache key is known."""

    run_id: UUID
    at_us: int
    cache_key: str
    expiration_us: int | None = None


class ResultKept(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="result-kept"):
    """The result of a completed run was kept when the transaction around it committed; None, and why, if it was not."""

    run_id: UUID
    at_us: int
    result: ResultReference | None = None
    note: str | None = None


class Renamed(msgspec.Struct, frozen=True, tag_field="event", tag="renamed"):
    """The run has another name."""

    run_id: UUID
    at_us: int
    name: str


class Claimed(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", tag="claimed"):
    """Somebody took the flow run over; writes under an older epoch are refused from now on."""

    run_id: UUID
    at_us: int
    owner_id: UUID
    epoch: int
    recoveries: int = 0


class TaskRunClaimed(msgspec.Struct, frozen=True, tag_field="event", tag="task-run-claimed"):
    """A worker took up a deferred task run."""

    run_id: UUID
    at_us: int
    owner_id: UUID


Event = TaskRunCreated | FlowRunCreated | StateRecorded | KeyComputed | Renamed | Claimed | TaskRunClaimed | ResultKept


def run_id_of(event: Event) -> UUID:
    """The run an event is about."""
    if isinstance(event, TaskRunCreated | FlowRunCreated):
        return event.run.id
    return event.run_id


def time_of(event: Event) -> int:
    """When it happened (microseconds since the epoch, UTC)."""
    if isinstance(event, TaskRunCreated | FlowRunCreated):
        return event.run.created_us
    return event.at_us


def apply(run: Run | None, event: Event) -> Run:
    """The snapshot after one more event.

    Raises:
        ValueError: the event does not follow from the snapshot (a first event that creates nothing, a second creation).
    """
    match event:
        case StateRecorded() if run is not None:
            return _move(run, event)
        case TaskRunCreated() | FlowRunCreated() if run is None:
            return replace(event.run, events=1)
        case KeyComputed() if isinstance(run, TaskRun):
            return replace(
                run, cache_key=event.cache_key, cache_expiration_us=event.expiration_us, events=run.events + 1
            )
        case TaskRunClaimed() if isinstance(run, TaskRun):
            return replace(run, owner_id=event.owner_id, events=run.events + 1)
        case ResultKept() if run is not None:
            return replace(run, result=event.result, result_note=event.note, events=run.events + 1)
        case Renamed() if run is not None:
            return replace(run, name=event.name, events=run.events + 1)
        case Claimed() if isinstance(run, FlowRun):
            return replace(
                run,
                owner_id=event.owner_id,
                epoch=event.epoch,
                recoveries=event.recoveries,
                events=run.events + 1,
            )
    raise ValueError(f"{type(event).__name__} cannot follow {'nothing' if run is None else type(run).__name__}")


def fold(events: Iterable[Event]) -> Run | None:
    """The snapshot that a run's events make, in order; None for none."""
    run: Run | None = None
    for event in events:
        run = apply(run, event)
    return run


def _move(run: Run, event: StateRecorded) -> Run:
    running_us = run.running_us
    if run.state_type is StateType.RUNNING:
        running_us += max(0, event.at_us - run.state_us)
    starts = event.type is StateType.RUNNING
    return replace(
        run,
        state_type=event.type,
        state_name=event.name,
        state_message=event.message,
        state_id=event.state_id,
        state_us=event.at_us,
        state_details=event.details,
        result=event.result,
        result_note=event.note,
        run_count=run.run_count + 1 if starts else run.run_count,
        start_us=event.at_us if starts and run.start_us is None else run.start_us,
        end_us=event.at_us if event.type in TERMINAL_STATES else None,
        running_us=running_us,
        events=run.events + 1,
    )
