"""Acting on runs: cancel, pause, answer and resume."""

import asyncio
import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple
from uuid import UUID

from prefect_nb.exceptions import InvalidMove, ObjectNotFound, ParameterBindError, ParameterTypeError
from prefect_nb.execution import pausing, resuming
from prefect_nb.execution.clock import now_us
from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.model.parameters import parse_cli_parameters
from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import Cancelled, StateType
from prefect_nb.service import parked
from prefect_nb.service import pausing as waits
from prefect_nb.service.flow_code import flow_of
from prefect_nb.service.history import settled_home
from prefect_nb.service.running import Finished, Watch, execute

_LOOK_SECONDS = 0.05


def cancel(run: FlowRun, wait: float = 10.0, reason: str = "Cancelled by request.") -> FlowRun:
    """Ask the process that executes a flow run to cancel it, and wait until that is done.

    If that process turns out to be dead, the run ends at once, Cancelled. While the process is in code that cannot be
    interrupted, the run is Cancelling.

    Args:
        run: the flow run.
        wait: seconds to wait for the end. What was asked stays asked when they are over.
        reason: the final state's message.

    Returns:
        The run as it is now; not final if it took longer.

    Raises:
        InvalidMove: it has ended already.
        ObjectNotFound: there is no such run.
    """
    home = Home.current()
    now = _reload(home, run)
    if now.is_final:
        raise InvalidMove(f"Flow run {now.name!r} has ended already: it is {now.state_name}.{_next_step(now)}")
    if now.is_suspended:
        resuming.end_suspended(home, now, Cancelled(message=reason))
        return _reload(home, run)
    home.store.add_request(run.id, "cancel", now_us(), {"reason": reason})
    deadline = time.monotonic() + wait
    while True:
        home.reap()
        now = _reload(home, run)
        if now.is_final or time.monotonic() > deadline:
            return now
        time.sleep(_LOOK_SECONDS)


def pause(run: FlowRun, kind: Literal["pause", "suspend"], wait: float = 10.0) -> FlowRun:
    """Ask the process that executes a flow run to pause it before its next task run, and wait until that is done.

    Args:
        run: the flow run.
        kind: "pause": its process waits; "suspend": its process ends the work on it.
        wait: seconds to wait. What was asked stays asked when they are over.

    Returns:
        The run as it is now; not paused if it took longer, or ended first.

    Raises:
        InvalidMove: it is not running, or is a child flow run that was to be suspended.
    """
    home = settled_home()
    try:
        waits.request(_reload(home, run), kind)
    except RuntimeError as error:
        raise InvalidMove(str(error)) from None
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        home.reap()
        now = _reload(home, run)
        if now.is_final or now.state.is_paused():
            break
    return _reload(home, run)


class Form(NamedTuple):
    """What the answer to a paused run must be."""

    description: str | None
    """A text for whoever answers, in Markdown."""
    schema: dict[str, Any]
    """JSON schema of the answer, an object with a property a field."""

    @property
    def fields(self) -> dict[str, Any]:
        """The schema of each field, by its name."""
        return dict(self.schema.get("properties", {}))

    def is_text(self, name: str) -> bool:
        """Whether a field's value is to be taken as it is typed."""
        return bool(self.fields.get(name, {}).get("type") == "string")

    def parse(self, texts: Sequence[str]) -> dict[str, Any]:
        """`name=value` pairs as an answer: JSON, or plain text.

        Raises:
            ParameterBindError: a pair is none.
        """
        try:
            return parse_cli_parameters(texts, {name: str for name in self.fields if self.is_text(name)})
        except ValueError as error:
            raise ParameterBindError(f"{error} An answer is given as --input name=value.") from None


def form_of(run: FlowRun) -> Form | None:
    """The form that a paused run waits for; None where nothing is asked."""
    keyset = run.state_details.run_input_keyset if run.state_details is not None else None
    if not run.state.is_paused() or keyset is None:
        return None
    inputs = settled_home().store.inputs
    schema, description = inputs.read(run.id, keyset["schema"]), inputs.read(run.id, keyset["description"])
    return Form(
        description.decoded_value if description is not None else None,
        schema.decoded_value if schema is not None else {},
    )


def waits_in_its_process(run: FlowRun) -> bool:
    """Whether a run is paused and its process waits for the answer."""
    return run.state.is_paused() and not run.is_suspended


def answer(run: FlowRun, run_input: dict[str, Any] | None = None) -> None:
    """Resume a run that is paused in its process.

    Raises:
        NotPausedError, FlowPauseTimeout: it is not paused any more.
        ParameterTypeError: the answer does not fit; the run stays paused.
    """
    home = settled_home()
    now = _reload(home, run)
    pausing.answer(home, now, _checked(home, now, run_input))


def _checked(home: Home, run: FlowRun, run_input: dict[str, Any] | None) -> Any:
    try:
        return pausing.check_answer(home, run, run_input)
    except RuntimeError as error:
        raise ParameterTypeError(str(error)) from None


def resume(
    run: FlowRun,
    force: bool = False,
    watch: Watch = nullcontext,
    run_input: dict[str, Any] | None = None,
    *,
    from_cell: str | None = None,
    restart: bool = False,
    tell: parked.Tell = lambda _: None,
) -> Finished:
    """Go on with a suspended, crashed or failed flow run here: what its tasks kept is not computed again.

    A notebook run goes on from the cell that failed: in its own kernel if that was kept, else in a new one with the
    variables that were kept; else from the top.

    Args:
        run: the flow run.
        force: take it over although its process lives; that process can write nothing more of it.
        watch: shows the progress.
        run_input: the answer that a suspended run waits for.
        from_cell: of a notebook run, where to go on: a cell's number, counted from 1 among those executed, or its id.
        restart: run the notebook from the top, in a new kernel.
        tell: is told how a notebook run goes on, a sentence at a time, before it does.

    Raises:
        NotResumable: it completed, is still running, its code cannot be found, or it cannot go on from that cell.
        RecoveryLimit: it crashed too often without getting further; it is Failed now.
        ObjectNotFound, ScriptError, MissingFlowError, NotebookError: its code is gone, broken, or another one now.
        Fenced: a third process has taken it over.
        ParameterTypeError: the answer does not fit; the run stays suspended.
    """
    home = settled_home()
    now = _reload(home, run)
    if now.is_suspended:
        _checked(home, now, run_input)

    def start(flow: Flow[..., Any], began: Callable[[UUID], None]) -> Any:
        began(run.id)
        outcome = flow.resume(run.id, run_input=run_input, return_state=True, force=force)
        return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    flow = flow_of(run)
    plan = (
        parked.continue_in(flow, now, from_cell=from_cell, restart=restart, tell=tell)
        if _may_go_on(now, force)
        else None
    )
    try:
        return execute(flow, start, watch)
    finally:
        parked.let_go(flow, plan)


def _may_go_on(run: FlowRun, force: bool) -> bool:
    """Whether resuming the run is not going to be refused for its state."""
    return run.state_type is not StateType.COMPLETED and (run.is_final or force)


def _reload(home: Home, run: FlowRun) -> FlowRun:
    now = home.store.flow_run(run.id)
    if now is None:
        raise ObjectNotFound(f"There is no flow run {run.id}. `prefect-nb flow-run ls` lists them.")
    return now


def _next_step(run: FlowRun) -> str:
    if run.state_type.value in ("CRASHED", "FAILED"):
        return f" `prefect-nb flow-run resume {run.id}` goes on with it."
    return ""
