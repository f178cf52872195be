"""The enclosing flow run: id, name, flow_name, flow_version, parameters, tags, run_count, ancestors, scheduled start."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect_nb.execution import attachment
from prefect_nb.execution.context import FlowRunContext
from prefect_nb.home import Home
from prefect_nb.model.runs import FlowRun
from prefect_nb.runtime.environment import fact


def _run() -> FlowRun | None:
    context = FlowRunContext.get()
    if context is not None:
        return context.flow_run
    attached = attachment.current()
    return Home.current().store.flow_run(attached.flow_run_id) if attached is not None else None


def _text(id: UUID | None) -> str | None:
    return str(id) if id is not None else None


def _parameters(run: FlowRun) -> dict[str, Any]:
    context = FlowRunContext.get()
    return context.parameters if context is not None else run.parameters


def _nothing(_run: FlowRun) -> None:
    """What only a run of a server has."""


_FACTS: dict[str, tuple[Callable[[FlowRun], Any], Callable[[], Any]]] = {
    "id": (lambda run: str(run.id), lambda: None),
    "name": (lambda run: run.name, lambda: None),
    "flow_name": (lambda run: run.flow_name, lambda: None),
    "flow_version": (lambda run: run.flow_version, lambda: None),
    "parameters": (_parameters, dict),
    "tags": (lambda run: list(run.tags), list),
    "run_count": (lambda run: run.run_count, lambda: 0),
    "parent_flow_run_id": (lambda run: _text(run.parent_flow_run_id), lambda: None),
    "parent_deployment_id": (lambda _: None, lambda: None),
    "root_flow_run_id": (lambda run: str(run.root_flow_run_id or run.id), lambda: None),
    "api_url": (_nothing, lambda: None),
    "ui_url": (_nothing, lambda: None),
    "job_variables": (lambda _: {}, lambda: None),
    "scheduled_start_time": (lambda run: run.expected_start_time, lambda: datetime.now(UTC)),
}

__all__ = sorted(_FACTS)  # noqa: PLE0605  # the names are facts, given by __getattr__


def __getattr__(name: str) -> Any:
    return fact("flow_run", name, name in _FACTS, lambda: _read(name))


def _read(name: str) -> Any:
    inside, outside = _FACTS[name]
    run = _run()
    return inside(run) if run is not None else outside()


def __dir__() -> list[str]:
    return sorted(_FACTS)
