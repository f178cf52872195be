"""What a notebook run returns: found among the outputs of its cells, kept as the run's result, described for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from prefect_nb.exceptions import NotebookError, PrefectException
from prefect_nb.execution import logs
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.flow_runs import FlowExecution
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.kept import KeptResult
from prefect_nb.interfaces import Artifact
from prefect_nb.model.notebook_outputs import RETURNED
from prefect_nb.model.redaction import redact_texts
from prefect_nb.model.runs import ResultReference

KIND = "returned"
"""What the metadata of the artifact that describes the value says of itself."""


def collect(execution: FlowExecution, notebook: Mapping[str, Any]) -> KeptResult | None:
    """The value that the executed cells gave to `return_`; None if none did.

    Raises:
        NotebookError: the notebook is part of another flow run, and the value cannot be read in its process.
    """
    found = [
        (number, output["data"][RETURNED])
        for number, cell in enumerate(notebook["cells"], 1)
        for output in cell.get("outputs", ())
        if RETURNED in output.get("data", {})
    ]
    if not found:
        return None
    logger = logs.flow_run_logger(execution.run, execution.flow)
    if len(found) > 1:
        cells = ", ".join(str(number) for number, _ in found)
        logger.warning("return_ was called %d times (in cells %s); the last call counts.", len(found), cells)
    said = found[-1][1]
    kept = KeptResult(msgspec.convert(said["reference"], ResultReference), execution.home.results)
    scope = execution.scope
    if scope.result_storage is not None or scope.result_serializer is not None:
        kept = _kept_as_asked(execution, kept)
    if execution.parent is not None:
        try:
            kept.get()
        except Exception as error:  # of the store, or of whatever the value is made of
            raise NotebookError(
                f"What the notebook returned cannot be read here: {type(error).__name__}: {error}. Return what both "
                "environments know: a DataFrame, numbers, text."
            ) from error
    _describe(execution, said["outputs"])
    return kept


def _kept_as_asked(execution: FlowExecution, kept: KeptResult) -> KeptResult:
    """The value kept once more, where and how the flow wants it; the kernel knows neither."""
    scope = execution.scope
    try:
        value = kept.get()
        store = execution.home.result_store(scope.result_storage)
        return KeptResult(store.put(value, scope.result_serializer), execution.home.results, value)
    except PrefectException as error:
        logger = logs.flow_run_logger(execution.run, execution.flow)
        logger.warning("What the notebook returned was kept in the home's own folder, with pickle: %s", error)
        return kept


def _describe(execution: FlowExecution, outputs: Any) -> None:
    now = now_us()
    artifact = Artifact(
        id=new_id(),
        type="table",
        description="What the notebook returned",
        data=redact_texts(outputs),
        metadata={"kind": KIND},
        flow_run_id=execution.run.id,
        created_us=now,
        updated_us=now,
    )
    execution.home.store.objects.add_artifact(artifact)
