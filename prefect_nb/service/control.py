"""Acting on runs: cancel and resume."""

import asyncio
import inspect
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import InvalidMove, NotResumable, ObjectNotFound
from prefect_nb.execution.clock import now_us
from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.model.runs import FlowRun
from prefect_nb.service.history import settled_home
from prefect_nb.execution.loading import load_flow
from prefect_nb.service.running import Finished, Watch, execute

_LOOK_SECONDS = 0.05


def cancel(run: FlowRun, wait: float = 10.0, reason: str = "Cancelled by request.") -> FlowRun:
    """Ask the process that executes a flow run to cancel it, and wait until that is done.

    If that process turns out to be dead, the run ends at once: Crashed, or Cancelled if it was being cancelled.

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
    home = settled_home()
    now = _reload(home, run)
    if now.is_final:
        raise InvalidMove(f"Flow run {now.name!r} has ended already: it is {now.state_name}.{_next_step(now)}")
    home.store.add_request(run.id, "cancel", now_us(), {"reason": reason})
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        home.reap()
        if _reload(home, run).is_final:
            break
    return _reload(home, run)


def resume(run: FlowRun, force: bool = False, watch: Watch = nullcontext) -> Finished:
    """Go on with a crashed or failed flow run in this process: what its tasks kept is not computed again.

    Args:
        run: the flow run.
        force: take it over although its process lives; that process can write nothing more of it.
        watch: shows the progress.

    Raises:
        NotResumable: it completed, is still running, or its code cannot be found.
        RecoveryLimit: it crashed too often without getting further; it is Failed now.
        ObjectNotFound, ScriptError, MissingFlowError, NotebookError: its code is gone, broken, or another one now.
        Fenced: a third process has taken it over.
    """

    def start(flow: Flow[..., Any], began: Callable[[UUID], None]) -> Any:
        began(run.id)
        outcome = flow.resume(run.id, return_state=True, force=force)
        return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    return execute(flow_of(run), start, watch)


def flow_of(run: FlowRun) -> Flow[..., Any]:
    """The flow a run was of, loaded from where its code is.

    Raises:
        NotResumable: its code is in no file.
        ObjectNotFound, ScriptError, MissingFlowError, NotebookError: the file is gone, broken, or another one now.
    """
    if run.kind == "notebook" and run.input_path is not None:
        return Flow.from_notebook(run.input_path, output_path=run.output_path)
    if run.entrypoint is None:
        raise NotResumable(
            f"Flow run {run.name!r}: its code is in no file (it was defined in a notebook or an interactive session). "
            f"Where flow {run.flow_name!r} is defined, call `that_flow.resume({str(run.id)!r})`."
        )
    return load_flow(run.entrypoint)


def _reload(home: Home, run: FlowRun) -> FlowRun:
    now = home.store.flow_run(run.id)
    if now is None:
        raise ObjectNotFound(f"There is no flow run {run.id}. `prefect-nb flow-run ls` lists them.")
    return now


def _next_step(run: FlowRun) -> str:
    if run.state_type.value in ("CRASHED", "FAILED"):
        return f" `prefect-nb flow-run resume {run.id}` goes on with it."
    return ""
