"""Pausing, suspending and resuming flow runs, and waiting for them to end."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from typing import Any, NamedTuple
from uuid import UUID

from prefect_nb.exceptions import Fenced, FlowRunWaitTimeout, NotPausedError, ObjectNotFound, Pause
from prefect_nb.execution import pausing
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import current_flow, current_task
from prefect_nb.execution.duality import dual
from prefect_nb.execution.flow_runs import FlowExecution
from prefect_nb.execution.logs import get_logger
from prefect_nb.execution.shapes import Surroundings
from prefect_nb.home import Home
from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import State
from prefect_nb.service.flow_code import flow_of

_LOOK_SECONDS = 0.1


class _Asked(NamedTuple):
    """A pause that the flow has come to."""

    execution: FlowExecution
    key: str
    form: Any
    keyset: dict[str, str] | None
    answered: bool

    def answer(self) -> Any:
        """What was answered; None where nothing was asked."""
        return None if self.form is None else self.form._load(self.keyset, self.execution.run.id)


async def apause_flow_run(
    wait_for_input: Any = None,
    timeout: int = 3600,
    poll_interval: int = 10,  # noqa: ARG001 - Prefect's signature
    key: str | None = None,
) -> Any:
    """`pause_flow_run`, awaited."""
    asked = _ask("paused", wait_for_input, key, _paused_here())
    if not asked.answered:
        state = pausing.paused(timeout, asked.key, asked.keyset)
        await pausing.pause_awaiting(asked.execution, state, timeout)
    return asked.answer()


@dual(apause_flow_run)
def pause_flow_run(
    wait_for_input: Any = None,
    timeout: int = 3600,
    poll_interval: int = 10,  # noqa: ARG001 - Prefect's signature
    key: str | None = None,
) -> Any:
    """Pause the flow run this is called in until somebody resumes it. Its process waits; the time does not count.

    Args:
        wait_for_input: what the answer must be: a `RunInput`, another pydantic model, or a type such as `str`.
        timeout: seconds to wait.
        poll_interval: accepted for compatibility; an answer is seen within 0.2 seconds.
        key: tells pauses of a run apart; default: its number. One that was answered is not asked again when the run
            is retried or resumed.

    Returns:
        The answer, validated; None where none is waited for.

    Raises:
        RuntimeError: outside a flow run.
        FlowPauseTimeout: nobody resumed it in time.
    """
    asked = _ask("paused", wait_for_input, key, _paused_here())
    if not asked.answered:
        pausing.pause_here(asked.execution, pausing.paused(timeout, asked.key, asked.keyset), timeout)
    return asked.answer()


async def asuspend_flow_run(
    wait_for_input: Any = None, flow_run_id: UUID | None = None, timeout: int | None = None, key: str | None = None
) -> Any:
    """`suspend_flow_run`, awaited."""
    return _suspend(wait_for_input, flow_run_id, timeout, key)


@dual(asuspend_flow_run)
def suspend_flow_run(
    wait_for_input: Any = None, flow_run_id: UUID | None = None, timeout: int | None = None, key: str | None = None
) -> Any:
    """End the work on a flow run and leave it Suspended, without a process, until somebody resumes it.

    When it is resumed, the flow is called again: task runs whose results were kept are not run again, and this call
    gives the answer. In the flow itself it raises `Pause`, which is to be left alone.

    Args:
        wait_for_input: what the answer must be, as for `pause_flow_run`.
        flow_run_id: suspend this run before its next task run, wherever its process is; default: the one this is
            called in.
        timeout: seconds within which it can be resumed; None for any time.
        key: tells pauses of a run apart, as for `pause_flow_run`.

    Raises:
        Pause: always, where the run is to wait.
        RuntimeError: outside a flow run, in a task, in a sub-flow, or for a run that is not running.
        ObjectNotFound: there is no such flow run.
    """
    return _suspend(wait_for_input, flow_run_id, timeout, key)


async def aresume_flow_run(flow_run_id: UUID, run_input: dict[str, Any] | None = None) -> None:
    """`resume_flow_run`, awaited; a suspended run goes on in a thread."""
    await asyncio.to_thread(_resume, flow_run_id, run_input)


@dual(aresume_flow_run)
def resume_flow_run(flow_run_id: UUID, run_input: dict[str, Any] | None = None) -> None:
    """Resume a paused flow run, with the answer it waits for.

    A paused run goes on in its process. A suspended one goes on here, and this call comes back when it has ended or
    is suspended again; how it ended is in its state.

    Args:
        flow_run_id: the run.
        run_input: the answer, by field; that of a plain type is `{"value": ...}`.

    Raises:
        ObjectNotFound: there is no such flow run.
        NotPausedError: it is not paused.
        FlowPauseTimeout: it is too late.
        RuntimeError: the answer does not fit; the run stays paused.
        NotResumable: the code of a suspended run cannot be found.
    """
    _resume(flow_run_id, run_input)


async def wait_for_flow_run(
    flow_run_id: UUID,
    timeout: int | None = 10800,
    poll_interval: int | None = None,
    client: Any = None,  # noqa: ARG001 - Prefect's signature
    log_states: bool = False,
) -> FlowRun:
    """Wait until a flow run has ended, wherever its process is.

    Args:
        flow_run_id: the run.
        timeout: seconds to wait; None for however long it takes.
        poll_interval: seconds between two looks; default: 0.1.
        client: accepted for compatibility.
        log_states: log each state it is seen in.

    Raises:
        ObjectNotFound: there is no such flow run.
        FlowRunWaitTimeout: it did not end in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    home = Home.current()
    seen: UUID | None = None
    while True:
        home.ledger.commit()
        home.reap()
        run = _run(home, flow_run_id)
        if log_states and run.state_id != seen:
            seen = run.state_id
            get_logger("flow_runs").info("Flow run is in state %r", run.state_name)
        if run.is_final:
            return run
        if deadline is not None and time.monotonic() >= deadline:
            raise FlowRunWaitTimeout(f"Flow run with ID {flow_run_id} exceeded watch timeout of {timeout} seconds")
        await asyncio.sleep(poll_interval if poll_interval is not None else _LOOK_SECONDS)


# Asking


def _paused_here() -> FlowExecution:
    context = current_flow.get()
    if context is None:
        raise RuntimeError("Flow runs can only be paused from within a flow run.")
    execution = context.execution
    if isinstance(execution, FlowExecution):
        return execution
    raise RuntimeError("Flow runs can only be paused from within the process that executes them.")


def _ask(kind: str, wait_for_input: Any, key: str | None, execution: FlowExecution) -> _Asked:
    key = pausing.next_key(execution, key)
    answered = pausing.is_answered(execution, key)
    form, keyset = _form(kind, key, wait_for_input, None if answered else execution.run.id)
    return _Asked(execution, key, form, keyset, answered)


def _form(state_name: str, key: str, wait_for_input: Any, save_for: UUID | None) -> tuple[Any, dict[str, str] | None]:
    """The form that an answer has to fit, kept where whoever answers finds it, and its keys."""
    if wait_for_input is None:
        return None, None
    from prefect_nb.service import run_inputs

    form = run_inputs.run_input_subclass_from_type(wait_for_input)
    keyset = run_inputs.keyset_of_pause(state_name, key)
    if save_for is not None:
        form._save(keyset, save_for)
    return form, {str(part): name for part, name in keyset.items()}


def _suspend(wait_for_input: Any, flow_run_id: UUID | None, timeout: int | None, key: str | None) -> Any:
    context = current_flow.get()
    if flow_run_id is not None and (context is None or context.flow_run.id != flow_run_id):
        return request(_run(Home.current(), flow_run_id), "suspend", timeout, wait_for_input, key)
    if current_task.get() is not None:
        raise RuntimeError("Cannot suspend task runs.")
    if context is None or not isinstance(context.execution, FlowExecution):
        raise RuntimeError("Flow runs can only be suspended from within a flow run.")
    execution = context.execution
    _refuse_sub_flow(execution.home, execution.run)
    asked = _ask("suspended", wait_for_input, key, execution)
    if not asked.answered:
        raise Pause(state=pausing.suspended(timeout, asked.key, asked.keyset))
    return asked.answer()


def _refuse_sub_flow(home: Surroundings, run: FlowRun) -> None:
    """A sub-flow run cannot leave the body of the flow that called it; one in a notebook leaves but its cell."""
    if run.parent_flow_run_id is None:
        return
    parent = home.store.flow_run(run.parent_flow_run_id)
    if parent is None or parent.kind != "notebook":
        raise RuntimeError("Flow run cannot be suspended: Cannot suspend subflows.")


def request(
    run: FlowRun, kind: str, timeout: float | None = None, wait_for_input: Any = None, key: str | None = None
) -> None:
    """Ask the process that executes a flow run to "pause" or "suspend" it before its next task run.

    Raises:
        RuntimeError: the run is not running, or is a sub-flow that was to be suspended.
    """
    verb = {"pause": "paused", "suspend": "suspended"}[kind]
    if run.is_final:
        raise RuntimeError(f"Flow run cannot be {verb}: Run is already in terminal state {run.state_type.value}.")
    if run.state.is_paused():
        raise RuntimeError(f"Flow run cannot be {verb}: it is {run.state_name} already.")
    if kind == "suspend":
        if run.kind == "notebook":
            raise RuntimeError("Flow run cannot be suspended: a notebook's kernel holds its variables; pause the run.")
        _refuse_sub_flow(Home.current(), run)
    key = key or f"asked-{now_us()}"
    keyset = _form(verb, key, wait_for_input, run.id)[1]
    Home.current().store.add_request(run.id, kind, now_us(), {"timeout": timeout, "key": key, "keyset": keyset})


# Resuming


def _resume(flow_run_id: UUID, run_input: dict[str, Any] | None) -> None:
    home = Home.current()
    home.ledger.commit()
    home.reap()
    run = _run(home, flow_run_id)
    response = pausing.check_answer(home, run, run_input) if not run.is_suspended else None
    if not run.is_suspended:
        pausing.answer(home, run, response)
        return
    flow = resumable_flow(run)
    with contextlib.suppress(Pause):
        try:
            outcome = flow.resume(run.id, run_input=run_input, return_state=True)
        except Fenced as error:
            raise NotPausedError("Cannot resume a run that isn't paused!") from error
        _finished(outcome)


def _finished(outcome: Any) -> State[Any]:
    """The outcome of a flow's call, an async flow's awaited."""
    if inspect.iscoroutine(outcome):
        return asyncio.run(outcome)
    return outcome  # type: ignore[no-any-return]


def resumable_flow(run: FlowRun) -> Any:
    """The flow a suspended run is of: the one that was suspended in this process, else as its code is loaded.

    Raises:
        NotResumable, ObjectNotFound, ScriptError, MissingFlowError, NotebookError: it cannot be found.
    """
    return pausing.suspended_here.get(run.id) or flow_of(run)


def _run(home: Home, flow_run_id: UUID) -> FlowRun:
    home.ledger.commit()
    found = home.store.flow_run(UUID(str(flow_run_id)))
    if found is None:
        raise ObjectNotFound(f"There is no flow run {flow_run_id}.")
    return found
