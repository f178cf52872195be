"""What a task run of a resumed or retried flow run takes over from before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_nb.engine.task_run import task_run
from prefect_nb.execution import delays
from prefect_nb.execution.kept import KeptResult
from prefect_nb.model.states import State, StateType

if TYPE_CHECKING:
    from prefect_nb.execution.scope import Scope
    from prefect_nb.execution.shapes import RecordingTask


def be_the_run_before(execution: RecordingTask, scope: Scope) -> None:
    """Be the run that made this call before, if there is one."""
    task = execution.task
    found = scope.previous.pop((task.task_key, execution.dynamic_key), None)
    if scope.path is not None and execution.parent is None:
        scope.path.called(execution, found)
    if found is None and scope.again is not None:
        found = scope.again.unfinished_run(scope, task.task_key, execution.dynamic_key)
    if found is not None:
        execution.id, execution.run = found.id, found
        if task.retries and found.state_type is StateType.CRASHED:
            execution.plan = delays.plan_after_crash(execution)
            execution.steps = task_run(execution.plan)


def reusable_state(execution: RecordingTask) -> State[Any] | None:
    """The completed state of this very run, if its result is whole and may be reused; the run is in it then."""
    run, scope = execution.run, execution.scope
    if run.state_type is not StateType.COMPLETED or run.result is None or not execution.home.results.check(run.result):
        return None
    if scope is not None and scope.again is not None and not scope.again.may_reuse(execution):
        return None
    state = run.state
    state.data = KeptResult(run.result, execution.home.results)
    execution.state = state
    return state
