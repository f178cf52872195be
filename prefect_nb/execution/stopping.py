"""`flow.stop(message)`: a flow run that has nothing more to do ends well before its code does."""

from __future__ import annotations

from typing import Any, NoReturn

from prefect_nb.engine.commands import Interrupted, Outcome, Returned, Stopped
from prefect_nb.exceptions import MissingContextError, StopFlow
from prefect_nb.execution import attachment
from prefect_nb.execution.context import current_flow
from prefect_nb.execution.scope import Scope
from prefect_nb.model.states import Cancelled, Completed, State


def stop(message: str = "") -> NoReturn:
    """End the flow run this is called in: Completed, with this message. Also written `flow.stop("no new data")`.

    In a `@flow` function, sync or async, and in a `%%flow` cell: what follows is not executed, and the call gives None.
    In a notebook that is run as a whole: the cell ends Completed, the cells after it are NotRun. What `return_` was
    given before is still what the notebook returns.

    Task runs that were submitted and have not started will not start (Cancelled/"NotRun"); those that run come to their
    end, and the flow run waits for them. In a sub-flow it ends the sub-flow only. In a task it ends the task run
    (Cancelled) and the flow run around it: at once where the flow called the task, otherwise when the flow comes to wait
    for that task or to its own end.

    It leaves by an exception (`StopFlow`) that `except Exception` does not catch.

    Raises:
        MissingContextError: this is called in no flow run.
    """
    if current_flow.get() is None and attachment.current() is None:
        raise MissingContextError(
            "flow.stop() ends the flow run it is called in, and this code runs in none. Call it in a @flow function, in a "
            "%%flow cell, or in a notebook that is run as a whole (prefect-nb run notebook.ipynb)."
        )
    raise StopFlow(message)


def ended_early(scope: Scope, outcome: Outcome) -> Outcome:
    """What came out of a flow's body, seen with whether it, or a task in it, called `stop`."""
    if type(outcome) is Interrupted and isinstance(outcome.error, StopFlow):
        end_early(scope, outcome.error)
    if scope.early is None or type(outcome) is Stopped:
        return outcome
    return Returned(final_state(scope.early))


def end_early(scope: Scope, error: StopFlow) -> None:
    """The flow run is to end: what of it has not started will not."""
    scope.early = scope.early or error
    why = "Its flow run ended before it was to start" + (f": {error}" if str(error) else ".")
    for future in list(scope.futures):
        execution: Any = future._execution
        if execution is None:
            continue
        with execution.lock:
            if execution.run.run_count == 0:
                execution.abandon(Cancelled(name="NotRun", message=why))


def final_state(error: StopFlow, data: Any = None) -> State[Any]:
    """What a flow run that was stopped ends in."""
    return Completed(message=str(error) or None, data=data)


def of_task(scope: Scope | None, outcome: Interrupted) -> Outcome:
    """The outcome of a task run whose body was interrupted: by a cancel, or because it called `stop`."""
    if isinstance(outcome.error, StopFlow):
        if scope is not None:
            end_early(scope, outcome.error)
        return Stopped(None, "It ended its flow run" + (f": {outcome.error}" if str(outcome.error) else "."))
    if scope is not None and scope.stopping:
        return Stopped(outcome.error, scope.reason)
    return outcome
