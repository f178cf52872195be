"""The events by which a flow run changes hands: claimed by a new owner, or crashed with its dead one."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import Fenced
from prefect_nb.interfaces import Entry
from prefect_nb.model.events import Claimed, StateRecorded, TaskRunClaimed, apply
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.model.states import StateType

TAKEN_OVER = "Another process took its flow run over."


def is_open(run: Run) -> bool:
    """Whether a run can be left behind by a dead process: it has not ended, and does not rest in "NotReady"."""
    return not run.is_final and not (run.state_type is StateType.PENDING and run.state_name == "NotReady")


def check_epoch(run: FlowRun, expected: int | None) -> None:
    """Whether nobody else has claimed the flow run since.

    Raises:
        Fenced: somebody has.
    """
    if expected is not None and run.epoch != expected:
        raise Fenced(f"Flow run {run.name!r} was taken over by another process just now.")


def claim(
    run: FlowRun, task_runs: Iterable[TaskRun], owner_id: UUID, at_us: int, recoveries: int
) -> tuple[FlowRun, list[Entry]]:
    """The flow run under its new owner, and what to write: it is claimed, its open task runs have crashed."""
    event = Claimed(run_id=run.id, at_us=at_us, owner_id=owner_id, epoch=run.epoch + 1, recoveries=recoveries)
    claimed = apply(run, event)
    entries = [Entry(claimed, event, run.id)]
    entries += [_ended(task, StateType.CRASHED, at_us, TAKEN_OVER) for task in task_runs if is_open(task)]
    assert isinstance(claimed, FlowRun)
    return claimed, entries


def claim_task(run: TaskRun | None, owner_id: UUID, at_us: int) -> Entry | None:
    """What to write where a worker takes up a deferred task run; None where nobody may (any more)."""
    if run is None or run.deferred is None or run.owner_id is not None or run.state_type is not StateType.SCHEDULED:
        return None
    event = TaskRunClaimed(run.id, max(at_us, run.state_us), owner_id)
    return Entry(apply(run, event), event, None)


def crash(
    run: FlowRun, task_runs: Sequence[TaskRun], at_us: int, message: str, cancels: Mapping[UUID, str] | None = None
) -> list[Entry]:
    """What to write for an open flow run whose owner is dead.

    Args:
        cancels: why runs were to be cancelled that nobody has cancelled yet, by their ids.
    """
    reason = (cancels or {}).get(run.id) or (cancels or {}).get(run.root_flow_run_id or run.id)
    message = reason or message
    is_cancelled = run.state_type is StateType.CANCELLING or reason is not None
    end = StateType.CANCELLED if is_cancelled else StateType.CRASHED
    entries = [crash_task(task, at_us, message, end) for task in task_runs if is_open(task)]
    if run.owner_id is not None:
        # The same owner under a new epoch: should it wake up after all, nothing it writes counts any more.
        claimed = Claimed(run.id, at_us, run.owner_id, run.epoch + 1, run.recoveries)
        after = apply(run, claimed)
        entries.append(Entry(after, claimed, run.id))
        entries.append(_ended(after, end, at_us, message))
    return entries


def reason_of(details: Mapping[str, Any]) -> str:
    """The message of the state that a request to cancel leads to."""
    return str(details.get("reason") or "Cancelled by request.")


def crash_task(run: TaskRun, at_us: int, message: str, end: StateType = StateType.CRASHED) -> Entry:
    """What to write for an open task run whose executor is dead."""
    if run.state_type is StateType.CANCELLING:
        end = StateType.CANCELLED
    return _ended(run, end, at_us, message)


def _ended(run: Run, end: StateType, at_us: int, message: str) -> Entry:
    event = StateRecorded(
        run_id=run.id,
        type=end,
        name=end.value.capitalize(),
        at_us=max(at_us, run.state_us + 1),
        state_id=uuid.uuid4(),
        message=message,
    )
    return Entry(apply(run, event), event, run.flow_run_id if isinstance(run, TaskRun) else run.id)
