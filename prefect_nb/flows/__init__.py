"""Flows: `@flow`, and flows loaded from where they are written."""

from typing import Any, cast

from prefect_nb.exceptions import ScriptError
from prefect_nb.execution import loading
from prefect_nb.flows.flow import Flow, NotebookFlow, flow

__all__ = ["Flow", "NotebookFlow", "flow", "load_flow_from_entrypoint", "safe_load_flow_from_entrypoint"]


def load_flow_from_entrypoint(entrypoint: str, use_placeholder_flow: bool = True) -> Flow[..., Any]:
    """The flow an entrypoint names: `path/to/file.py:name`, `package.module:name`, `report.ipynb`.

    Args:
        entrypoint: where it is.
        use_placeholder_flow: where the file cannot be imported whole, give the flow all the same, to be looked at;
            called, it may raise what the import raised.

    Raises:
        ObjectNotFound, ScriptError, MissingFlowError, UnspecifiedFlowError, NotebookError: the message says what is
            missing or broken.
    """
    if entrypoint.endswith(".ipynb"):
        return Flow.from_notebook(entrypoint)
    try:
        return cast("Flow[..., Any]", loading.load_flow(entrypoint))
    except ScriptError as error:
        if not use_placeholder_flow:
            raise
        return safe_load_flow_from_entrypoint(entrypoint) or _placeholder(entrypoint, error)


def safe_load_flow_from_entrypoint(entrypoint: str) -> Flow[..., Any] | None:
    """The flow of a file some of whose imports are missing; None where the flow's own definition needs them."""
    return cast("Flow[..., Any] | None", loading.load_what_can_be(entrypoint))


def _placeholder(entrypoint: str, error: Exception) -> Flow[..., Any]:
    name, description = loading.definition_of(entrypoint)

    def not_loaded(*_args: Any, **_kwargs: Any) -> None:
        raise error

    return Flow(not_loaded, name=name, description=description)
