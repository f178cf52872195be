"""Recording states of one run: rules, stamp, event, snapshot, ledger. Shared by task runs and flow runs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec.structs import replace

from prefect_nb.engine.rules import check_move
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.kept import KeptResult
from prefect_nb.execution.ledger import Ledger
from prefect_nb.interfaces import CacheEntry, Entry
from prefect_nb.model.events import Event, FlowRunCreated, StateRecorded, TaskRunCreated, apply
from prefect_nb.model.redaction import redact
from prefect_nb.model.runs import FlowRun, Run, TaskRun, to_datetime
from prefect_nb.model.states import State, StateDetails


def created(run: Run, state: State[Any]) -> Event:
    """The event that brings a run into being in this state. Stamps the state."""
    stamp(state, run)
    return FlowRunCreated(run) if isinstance(run, FlowRun) else TaskRunCreated(run)


def clean(text: str | None) -> str | None:
    """Text without secrets, that UTF-8 can hold: a lone surrogate, as in odd file names, becomes its escape."""
    if text is None:
        return None
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return redact(text)


def stamp(state: State[Any], run: Run) -> None:
    """Give a live state what its record in the snapshot has: id, time, the run's ids."""
    state.id = run.state_id
    state.timestamp = to_datetime(run.state_us)
    details = state.state_details
    if isinstance(run, TaskRun):
        details.task_run_id = run.id
        details.flow_run_id = run.flow_run_id
    else:
        details.flow_run_id = run.id


def moved(
    ledger: Ledger,
    run: Run,
    state: State[Any],
    flow_run_id: UUID | None,
    *,
    note: str | None = None,
    cache_key: str | None = None,
    taken_over: bool = False,
    holder: Any = None,
) -> Run:
    """Record that an existing run moves to `state`; returns the snapshot after it. Stamps the state.

    Args:
        ledger: where to write.
        run: the snapshot before.
        state: the state proposed.
        flow_run_id: the flow run whose owner writes this.
        note: why a result was not kept.
        cache_key: enter the state's kept result into the cache under this key, in the same transaction.
        taken_over: the run was claimed anew, so it may leave a terminal state.
        holder: whose `run` becomes the new snapshot, together with the append.

    Raises:
        InvalidMove: the rules refuse.
        Fenced: another process has taken the flow run over.
    """
    if not taken_over:
        check_move(run, state)
    data = state.data
    event = StateRecorded(
        run_id=run.id,
        type=state.type,
        name=state.name,
        at_us=max(now_us(), run.state_us + 1),
        state_id=new_id(),
        message=clean(state.message),
        details=_own_details(state.state_details),
        result=data.reference if type(data) is KeptResult else None,
        note=note,
    )
    after = apply(run, event)
    entry = Entry(after, event, flow_run_id)
    if cache_key is not None and event.result is not None:
        cached = CacheEntry(cache_key, event.result, run.id, event.at_us)
        ledger.append((entry, cached), flow_run_id, holder)
    else:
        ledger.append(entry, flow_run_id, holder)
    stamp(state, after)
    return after


_NOTHING = StateDetails()


def _own_details(details: StateDetails) -> StateDetails | None:
    """What the details say beyond the run's own ids; None for nothing, which is nearly always."""
    if details == _NOTHING:
        return None
    own = replace(details, flow_run_id=None, task_run_id=None)
    return None if own == _NOTHING else own
