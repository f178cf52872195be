"""A body's call as a value that can leave the process: only this crosses a border."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_nb.engine.commands import Outcome
from prefect_nb.exceptions import TaskRunTimeoutError
from prefect_nb.execution import attachment, logs
from prefect_nb.execution.calls import call_awaiting, call_blocking
from prefect_nb.execution.context import FlowRunContext, TaskRunContext, _tags, current_flow, current_task
from prefect_nb.interfaces import Emit, Work

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask


def work_of(execution: RecordingTask) -> Work:
    """The call of a task run's body, ready to be pickled."""
    scope = execution.scope
    assert scope is not None
    flow = execution.flow
    return RemoteCall(
        task=execution.task,
        run=execution.run,
        parameters=execution.parameters,
        flow_run=flow.flow_run if flow is not None else None,
        flow_parameters=scope.parameters,
        tags=frozenset(execution.run.tags) - execution.task.tags,
        log_prints=execution.log_prints,
        attachment=attachment.Attachment(
            flow_run_id=scope.flow_run_id,
            epoch=execution.ledger.epoch_of(scope.flow_run_id),
            parent=execution.run,
            durable=scope.durable,
            persist=scope.persist,
        ),
    )


class RemoteRun:
    """A run as its body sees it in another process: what `get_run_logger` and `runtime` need."""

    def __init__(self, run: Any, parameters: dict[str, Any], task: Any = None, flow: Any = None) -> None:
        self.run = run
        self.parameters = parameters
        self.task = task
        self.flow = flow
        self.task_runner = None


class RemoteCall:
    """Calls a task's body in whatever process this has been carried to."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __call__(self, emit: Emit) -> Outcome:
        """Call the body; never raises."""
        fields: Any = self
        task, timeout = fields.task, fields.task.timeout_seconds
        args, kwargs = task.signature.call_args(fields.parameters)
        attachment.attach(fields.attachment)
        if fields.log_prints:
            logs.install()
        sink = logs.emit_to.set(emit)
        prints = logs.log_prints.set(fields.log_prints)
        tags = _tags.set(fields.tags)
        inside: Any = RemoteRun(fields.run, fields.parameters, task=task)
        task_token = current_task.set(TaskRunContext(inside))
        flow_token = None
        if fields.flow_run is not None:
            around: Any = RemoteRun(fields.flow_run, fields.flow_parameters)
            flow_token = current_flow.set(FlowRunContext(around))

        def timed_out() -> Exception:
            return TaskRunTimeoutError(f"Task run exceeded timeout of {timeout} second(s)")

        try:
            if task.isasync:
                import asyncio

                return asyncio.run(call_awaiting(lambda: task.fn(*args, **kwargs), timeout, timed_out))
            return call_blocking(lambda: task.fn(*args, **kwargs), timeout, timed_out)
        finally:
            if flow_token is not None:
                current_flow.reset(flow_token)
            current_task.reset(task_token)
            _tags.reset(tags)
            logs.log_prints.reset(prints)
            logs.emit_to.reset(sink)
