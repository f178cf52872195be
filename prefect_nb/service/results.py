"""What a run of another process, or of an earlier one, gave back."""

from __future__ import annotations

from typing import Any

from prefect_nb.execution.kept import KeptResult, NotKept
from prefect_nb.home import Home
from prefect_nb.model.runs import Run
from prefect_nb.model.states import State, StateType


def state_of(run: Run) -> State[Any]:
    """A stored run's state, whose `result()` loads the kept value from wherever it is.

    Its `result()` raises MissingResult, saying how to have results kept, where the run completed and its value was not
    kept; for a run that failed, an exception with its message.
    """
    state = run.state
    if run.result is not None:
        state.data = KeptResult(run.result, Home.current().results)
    elif run.state_type is StateType.COMPLETED:
        state.data = NotKept(_why(run))
    return state


def _why(run: Run) -> str:
    named = f"The result of run {run.name!r} ({run.id}) was not kept"
    if run.result_note:
        return f"{named}: {run.result_note}"
    return (
        f"{named}, so only the process that made it has it. Have it kept with persist_result=True on the task or flow, or "
        "PREFECT_NB_RESULTS_PERSIST_BY_DEFAULT=true for all."
    )
