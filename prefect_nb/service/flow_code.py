"""The flow a recorded run was of."""

from typing import Any

from prefect_nb.exceptions import NotResumable
from prefect_nb.execution.loading import load_flow
from prefect_nb.flows import Flow
from prefect_nb.model.runs import FlowRun


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
    flow: Flow[..., Any] = load_flow(run.entrypoint)
    return flow
