"""Taking over what another process, or an earlier call, began and did not finish."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

from prefect_nb.exceptions import FlowPauseTimeout, NotResumable, ObjectNotFound, RecoveryLimit
from prefect_nb.execution import clock, pausing
from prefect_nb.execution.kept import KeptResult
from prefect_nb.execution.recorder import moved
from prefect_nb.execution.scope import Scope
from prefect_nb.execution.shapes import Surroundings
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.events import Claimed, StateRecorded
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, Failed, State, StateType

GIVEN_UP = "RecoveryLimit"
_EVERY = 1_000_000

TaskRuns = dict[tuple[str, str], TaskRun]
"""Task runs by task key and dynamic key."""


def take_over(
    home: Surroundings, flow_run_id: UUID, force: bool, run_input: dict[str, Any] | None = None
) -> tuple[FlowRun, TaskRuns]:
    """Claim a run that has ended badly or is suspended, or by force one that has not ended; with its task runs from before.

    Raises:
        ObjectNotFound, NotResumable, RecoveryLimit, Fenced, FlowPauseTimeout, RuntimeError: as `Flow.resume`.
    """
    run = home.store.flow_run(flow_run_id)
    if run is None:
        raise ObjectNotFound(f"There is no flow run {flow_run_id}.")
    if run.state_type is StateType.COMPLETED:
        raise NotResumable(f"Flow run {run.name!r} completed; there is nothing to resume. Start a new run instead.")
    if run.is_suspended:
        return _go_on(home, run, run_input)
    if not run.is_final and not force:
        raise NotResumable(
            f"Flow run {run.name!r} is {run.state_name}, and its process lives. "
            "Cancel it first, or take it over by force."
        )
    if run.state_name == GIVEN_UP and not force:
        raise _given_up(run)
    recoveries = 1 if run.recoveries and _got_further(home, run) else run.recoveries + 1
    if run.state_type is StateType.CRASHED and recoveries > home.settings.recovery_limit:
        message = f"The run crashed {recoveries} times without getting further."
        _end(home, run, Failed(name=GIVEN_UP, message=message))
        raise _given_up(run)
    return _claim(home, run, recoveries)


def _go_on(home: Surroundings, run: FlowRun, run_input: dict[str, Any] | None) -> tuple[FlowRun, TaskRuns]:
    """Claim a suspended run and keep the answer it waited for."""
    try:
        response = pausing.check_answer(home, run, run_input)
    except FlowPauseTimeout:
        end_suspended(home, run, Failed(message="The flow was paused and never resumed."))
        raise
    claimed, previous = _claim(home, run, run.recoveries)
    pausing.note_answer(home, run, response)
    return claimed, previous


def end_suspended(home: Surroundings, run: FlowRun, state: State[Any]) -> None:
    """End a run that waits without a process.

    Raises:
        Fenced: somebody resumed it just now.
    """
    _end(home, home.store.claim(run.id, home.owner_id, clock.now_us(), run.recoveries, run.epoch), state)


def _end(home: Surroundings, run: FlowRun, state: State[Any]) -> None:
    home.ledger.own(run.id, run.epoch)
    moved(home.ledger, run, state, run.id, taken_over=True)
    home.ledger.commit(flow_run_id=run.id)
    home.ledger.disown(run.id)


def _claim(home: Surroundings, run: FlowRun, recoveries: int) -> tuple[FlowRun, TaskRuns]:
    claimed = home.store.claim(run.id, home.owner_id, clock.now_us(), recoveries, run.epoch)
    return claimed, task_runs_before(home, run.id)


def task_runs_before(home: Surroundings, flow_run_id: UUID) -> TaskRuns:
    """The flow run's task runs as the store has them."""
    before = home.store.task_runs(RunQuery(flow_run_id=flow_run_id, limit=_EVERY, oldest_first=True))
    return {(task_run.task_key, task_run.dynamic_key): task_run for task_run in before}


def _got_further(home: Surroundings, run: FlowRun) -> bool:
    """Whether a task run has completed since the flow run was last resumed."""
    resumed_us = 0
    for event, after in pairwise([*home.store.events(run.id), None]):
        ended = isinstance(after, StateRecorded) and after.type in TERMINAL_STATES
        if isinstance(event, Claimed) and not ended:  # a claim that ends the run at once only settles its owner's death
            resumed_us = event.at_us
    completed = RunQuery(flow_run_id=run.id, state_types=(StateType.COMPLETED,), limit=_EVERY)
    return any(task_run.state_us > resumed_us for task_run in home.store.task_runs(completed))


def _given_up(run: FlowRun) -> RecoveryLimit:
    return RecoveryLimit(
        f"Flow run {run.name!r} crashed again and again without getting further. It is Failed; "
        "start a new run once the cause is mended, or resume this one by force."
    )


def place_in_notebook(home: Surroundings, run: FlowRun) -> tuple[Scope | None, TaskRun | None]:
    """For a run called in the notebook run that this kernel belongs to: that run, and the task run that stands for it."""
    around = home.attached_scope()
    if around is None or run.parent_task_run_id is None or around.flow_run_id != run.parent_flow_run_id:
        return None, None
    return around, home.store.task_run(run.parent_task_run_id)


class SubFlow(NamedTuple):
    """A sub-flow run as an earlier call of its parent left it."""

    run: FlowRun
    dummy: TaskRun
    """The task run that stands for it in its parent."""
    previous: TaskRuns
    state: State[Any] | None
    """How it ended, if it completed and its result was kept: then there is nothing left to do."""


def sub_flow(home: Surroundings, parent: Scope, dummy: TaskRun) -> SubFlow | None:
    """On a resume of the parent: this very sub-flow run from before; claimed, if it has to go on. None for none."""
    before = parent.previous.pop((dummy.task_key, dummy.dynamic_key), None)
    if before is None:
        return None
    children = home.store.flow_runs(RunQuery(flow_run_id=before.flow_run_id, parent_id=before.id, limit=1))
    if not children:
        return None
    child = children[0]
    again = parent.again
    if child.state_type is not StateType.COMPLETED or (again is not None and before.id in again.unfit):
        claimed, previous = _claim(home, child, child.recoveries + 1)
        return SubFlow(claimed, before, previous, None)
    if child.result is None or not home.results.check(child.result):
        if again is None:
            return None
        claimed, previous = _claim(home, child, child.recoveries)
        return SubFlow(claimed, before, previous, None)
    state = child.state
    state.data = KeptResult(child.result, home.results)
    return SubFlow(child, before, {}, state)
