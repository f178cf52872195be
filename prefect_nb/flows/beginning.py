"""A new flow run: what it belongs to, and what stands for it there."""

from __future__ import annotations

from typing import Any

from prefect_nb.execution.context import current_flow, current_tags, current_task
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.scope import Scope
from prefect_nb.home import Home
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.tasks import current_scope


def new_run(flow: Any, home: Home, fields: dict[str, Any]) -> tuple[FlowRun, Scope | None, TaskRun | None]:
    """A run of a flow that is about to begin here, with what it belongs to.

    Args:
        flow: the flow.
        home: where it will be recorded.
        fields: what the run has beside what follows from the flow.

    Returns:
        The run; the scope it is called in; and the task run that will stand for it there.
    """
    parent = current_scope(home)
    outer_flow, outer_task = current_flow.get(), current_task.get()
    cell = home.current_cell() if outer_task is None and parent is not None and parent.shared else None
    outer = outer_task.execution.run if outer_task is not None else cell
    id = new_id()
    dummy: TaskRun | None = None
    lineage: dict[str, Any] = {}
    if parent is not None and parent.flow_run_id is not None:
        dummy = TaskRun(
            id=new_id(),
            kind="subflow",
            name=flow.name,
            flow_run_id=parent.flow_run_id,
            parent_id=outer.id if outer is not None else None,
            task_key=f"subflow-{flow.name}",
            dynamic_key=parent.position(outer, f"subflow-{flow.name}"),
            owner_id=home.owner_id if parent.shared else None,
        )
        around = outer_flow.flow_run if outer_flow is not None else None
        root = (around.root_flow_run_id or around.id) if around is not None else parent.flow_run_id
        lineage = {
            "parent_task_run_id": dummy.id,
            "parent_flow_run_id": parent.flow_run_id,
            "root_flow_run_id": root,
        }
    tags = current_tags()
    return (
        FlowRun(
            **{
                "id": id,
                "name": "",
                "kind": flow.kind,
                "flow_id": home.flow_id(flow.name),
                "flow_name": flow.name,
                "flow_version": flow.version,
                "tags": tuple(sorted(tags)),
                "retries": flow.retries,
                "retry_delays": (flow.retry_delay_seconds,) if flow.retry_delay_seconds else (),
                "entrypoint": flow.entrypoint,
                "durable": flow.durable,
                "owner_id": home.owner_id,
                **lineage,
                **fields,
            }
        ),
        parent,
        dummy,
    )
