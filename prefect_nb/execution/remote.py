"""A body's call as a value that can leave the process: only this crosses a border."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from prefect_nb.engine.commands import Outcome, Stopped
from prefect_nb.exceptions import RunCancelled, StorageFull, StoreUnavailable, TaskRunTimeoutError
from prefect_nb.execution import attachment, block_documents, inputs, logs, own_output, relays, replay
from prefect_nb.execution.attempts import Around
from prefect_nb.execution.calls import call_awaiting, call_blocking
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import FlowRunContext, TaskRunContext, _tags, current_flow, current_task
from prefect_nb.execution.futures import wait
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.kept import KeptElsewhere, KeptResult
from prefect_nb.execution.timeouts import raise_in_thread
from prefect_nb.interfaces import Emit, Work
from prefect_nb.model.events import StateRecorded, apply
from prefect_nb.model.states import State
from prefect_nb.runners import aside

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask


class TakenUp(msgspec.Struct, frozen=True):
    """The first that a remote call emits: a worker has begun it. A second one says that the first worker was lost."""

    where: str


class ConsoleLine(msgspec.Struct, frozen=True):
    """A log line as the console shows it; that of the flow's own process does."""

    text: str
    level: int


class _Emit:
    """Where the log lines and metrics of a carried call go."""

    def __init__(self, emit: Any) -> None:
        self._emit = emit

    def __call__(self, item: Any) -> None:
        self._emit(item)

    def show(self, text: str, level: int) -> None:
        """In place of this process's console."""
        replay.overheard("stderr", text)
        self._emit(ConsoleLine(text, level))


def work_of(execution: RecordingTask, running: State[Any]) -> Work:
    """The call of a task run's body, ready to be pickled.

    Args:
        execution: the task run.
        running: the state that it will be in when a worker has taken the call up.
    """
    # A body there may load a block; what it says comes back, and is masked here.
    block_documents.learn_all(execution.home)
    scope = execution.scope
    assert scope is not None
    flow = execution.flow
    started = StateRecorded(execution.run.id, running.type, running.name, now_us(), new_id())
    run: Any = apply(execution.run, started)
    flow_run_id: UUID | None = scope.flow_run_id  # none of a scope for tasks outside any flow run
    return RemoteCall(
        task=execution.task,
        run=run,
        parameters=execution.parameters,
        flow_run=flow.flow_run if flow is not None else None,
        flow_parameters=scope.parameters,
        tags=frozenset(execution.run.tags) - execution.task.tags,
        log_prints=execution.log_prints,
        replayed=execution.cache_key is not None and execution.home.settings.tasks_replay_output,
        is_watched=own_output.is_taken(execution),
        may_refer=execution.plan.has_upstream,
        around=Around(execution),
        comes_home=execution.persist,
        home=attachment.Origin(execution.home.settings, execution.home.host_id, os.getpid()),
        attachment=attachment.Attachment(
            flow_run_id=flow_run_id,
            epoch=execution.ledger.epoch_of(flow_run_id),
            parent=run,
            durable=scope.durable,
            persist=scope.persist,
        )
        if flow_run_id is not None
        else None,
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
        self.refers = False
        """Whether there are references to kept results among the parameters, to be read here."""
        self._interrupt: Callable[[], Any] | None = None
        self._is_stopped = False

    def __getstate__(self) -> dict[str, Any]:
        fields = self.__dict__
        parameters = fields["parameters"]
        if fields["may_refer"]:
            parameters = inputs.replace(parameters, _is_kept, lambda part: KeptElsewhere(part.reference))
        refers = parameters is not fields["parameters"]
        return {**fields, "parameters": aside.arguments(parameters), "refers": refers}

    def __call__(self, emit: Emit) -> Outcome:
        """Call the body; never raises."""
        fields: Any = self
        say: Any = emit
        say(TakenUp(f"process {os.getpid()} on {socket.gethostname()}"))
        if fields.log_prints:
            logs.install()
        tokens = self._enter(emit)
        seen = replay.Outputs(fields.run.name) if fields.replayed else None
        relay = relays.Relay(say) if fields.is_watched else None
        try:
            with attachment.staying(fields.attachment, fields.home) as stay:
                outcome = self._call()
                _wait_for_children(stay)
                fields.around.end(outcome)
            return outcome if seen is None else seen.added_to(outcome)
        finally:
            if relay is not None:
                relay.close()
            if seen is not None:
                seen.close()
            for variable, token in reversed(tokens):
                variable.reset(token)

    def stop(self) -> None:
        """Interrupt the body, or do not call it; called on another thread of the process that it runs in."""
        self._is_stopped = True
        interrupt = self._interrupt
        if interrupt is not None:
            interrupt()

    def _enter(self, emit: Emit) -> list[tuple[ContextVar[Any], Token[Any]]]:
        fields: Any = self
        inside: Any = RemoteRun(fields.run, fields.parameters, task=fields.task)
        values: list[tuple[ContextVar[Any], Any]] = [
            (logs.emit_to, _Emit(emit)),
            (logs.log_prints, fields.log_prints),
            (_tags, fields.tags),
            (current_task, TaskRunContext(inside)),
            *fields.around.variables(),
        ]
        if fields.flow_run is not None:
            around: Any = RemoteRun(fields.flow_run, fields.flow_parameters)
            values.append((current_flow, FlowRunContext(around)))
        return [(variable, variable.set(value)) for variable, value in values]

    def _call(self) -> Outcome:
        fields: Any = self
        task, timeout = fields.task, fields.task.timeout_seconds
        if fields.refers:
            fields.parameters = inputs.replace(fields.parameters, _is_elsewhere, KeptElsewhere.get)
        args, kwargs = task.signature.call_args(fields.parameters)

        def timed_out() -> Exception:
            return TaskRunTimeoutError(f"Task run exceeded timeout of {timeout} second(s)")

        if task.isasync:
            import asyncio

            return asyncio.run(self._await(lambda: task.whole(*args, **kwargs), timeout, timed_out))
        self._interrupt = partial(raise_in_thread, threading.get_ident(), RunCancelled)
        try:
            if self._is_stopped:
                return Stopped()
            outcome = call_blocking(lambda: task.whole(*args, **kwargs), timeout, timed_out)
            self._interrupt = None
        except RunCancelled as late:
            outcome = Stopped(late)
        return outcome

    async def _await(
        self, body: Callable[[], Any], timeout: float | None, timed_out: Callable[[], Exception]
    ) -> Outcome:
        import asyncio

        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._interrupt = partial(loop.call_soon_threadsafe, task.cancel)
        try:
            if self._is_stopped:
                return Stopped()
            return await call_awaiting(body, timeout, timed_out)
        finally:
            self._interrupt = None


def _is_kept(part: Any) -> bool:
    return type(part) is KeptResult


def _is_elsewhere(part: Any) -> bool:
    return type(part) is KeptElsewhere


def _wait_for_children(stay: attachment.Stay) -> None:
    """Until what the body submitted has ended, and its task runs are in the history before the outcome is known."""
    scope, ledger = stay.scope, stay.ledger
    if scope is None or ledger is None:
        return
    while scope.futures:
        wait(list(scope.futures))
    scope.close()
    with contextlib.suppress(StorageFull, StoreUnavailable):  # the ledger says so by itself
        ledger.commit(flow_run_id=scope.flow_run_id)
