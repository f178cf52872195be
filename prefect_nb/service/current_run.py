"""Which run the code that asks is part of."""

from uuid import UUID

from prefect_nb.execution import attachment
from prefect_nb.execution.context import current_flow, current_task
from prefect_nb.home import Home

RunIds = tuple[UUID | None, UUID | None]


def ids() -> RunIds:
    """The ids of the flow run and of the task run (or notebook cell) this is called in; None where there is none."""
    task = current_task.get()
    if task is not None:
        run = task.execution.run
        return run.flow_run_id, run.id
    flow = current_flow.get()
    if flow is not None:
        return flow.execution.run.id, None
    attached = attachment.current()
    if attached is None:
        return None, None
    cell = Home.current().current_cell()
    return attached.flow_run_id, None if cell is None else cell.id
