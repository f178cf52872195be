"""Where a task run comes from: its first snapshot, and the runs that its arguments are from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec.structs import replace

from prefect_nb.execution import inputs
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import current_tags
from prefect_nb.execution.futures import PrefectFuture
from prefect_nb.execution.ids import new_id
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import State

if TYPE_CHECKING:
    from prefect_nb.execution.scope import Scope
    from prefect_nb.execution.shapes import RecordingTask


def first_snapshot(execution: RecordingTask, state: State[Any]) -> TaskRun:
    """A new task run in its first state."""
    task, scope, now = execution.task, execution.scope, now_us()
    name = task.name if scope is None else f"{task.name}-{execution.id.hex[-3:]}"
    tags = task.tags | current_tags()
    run = TaskRun(
        id=execution.id,
        name=name,
        flow_run_id=scope.flow_run_id if scope is not None else None,
        parent_id=execution.parent.id if execution.parent is not None else None,
        task_key=task.task_key,
        dynamic_key=execution.dynamic_key,
        task_version=task.version,
        tags=tuple(sorted(tags)) if tags else (),
        task_inputs=inputs_of(
            execution.parameters, execution.wait_for, execution.parent, scope, execution.plan.has_upstream
        ),
        retries=task.retries or 0,
        state_type=state.type,
        state_name=state.name,
        state_message=state.message,
        state_id=new_id(),
        state_us=now,
        created_us=now,
        expected_us=now,
        events=1,
        owner_id=execution.home.owner_id if scope is None or scope.shared else None,
    )
    if task.task_run_name is not None and not execution.plan.has_upstream:
        execution.run = run  # what a callable that makes the name sees of the run
        run = replace(run, name=execution.templated_name())
    return run


def inputs_of(
    parameters: dict[str, Any], wait_for: Any, parent: TaskRun | None, scope: Scope | None, special: bool = True
) -> dict[str, list[dict[str, str]]]:
    """Where a run's arguments came from, in Prefect's form: by parameter, `wait_for` and `__parents__`.

    `special`: whether there may be futures or states among the arguments.
    """
    found: dict[str, list[dict[str, str]]] = {}
    if scope is not None and (special or scope.tracks):
        for name, value in parameters.items():
            sources = _sources(value, scope)
            if sources:
                found[name] = sources
    if wait_for is not None:
        sources = _sources(wait_for, scope)
        if sources:
            found["wait_for"] = sources
    if parent is not None:
        found["__parents__"] = [{"input_type": "task_run", "id": str(parent.id)}]
    return found


def _sources(value: Any, scope: Scope | None) -> list[dict[str, str]]:
    direct = scope.source_of(value) if scope is not None else None
    if direct is not None:
        return _listed([direct], scope)
    if not inputs.has_special(value):
        if type(value) in (list, tuple) and scope is not None and len(value) <= 100:
            return _listed(map(scope.source_of, value), scope)
        return []
    return _listed((_source_of(item) for item, _ in inputs.find(value)), scope)


def _source_of(item: Any) -> UUID | None:
    if isinstance(item, PrefectFuture):
        return item.task_run_id
    details = item.state_details
    return details.task_run_id or details.flow_run_id  # type: ignore[no-any-return]


def _listed(ids: Iterable[UUID | None], scope: Scope | None) -> list[dict[str, str]]:
    flows = scope.flows if scope is not None else ()
    return [
        {"input_type": "flow_run" if id in flows else "task_run", "id": str(id)}
        for id in dict.fromkeys(ids)
        if id is not None
    ]
