"""prefect_nb: workflows in the notebook, in Prefect 3's vocabulary.

Everything public is imported on first use, so that `import prefect_nb` costs next to nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_nb.execution.context import get_run_context, tags
    from prefect_nb.execution.logs import get_run_logger
    from prefect_nb.execution.stopping import stop
    from prefect_nb.flow_runs import (
        apause_flow_run,
        aresume_flow_run,
        asuspend_flow_run,
        pause_flow_run,
        resume_flow_run,
        suspend_flow_run,
    )
    from prefect_nb.flows import Flow, flow
    from prefect_nb.metrics import log_metric, log_metrics
    from prefect_nb.model.annotations import allow_failure, opaque, quote, unmapped
    from prefect_nb.model.states import State
    from prefect_nb.service.planning import plan
    from prefect_nb.service.returns import return_
    from prefect_nb.service.why import why
    from prefect_nb.tasks import Task, task
    from prefect_nb.transactions import Transaction

_HOMES = {
    "Flow": "prefect_nb.flows",
    "State": "prefect_nb.model.states",
    "Task": "prefect_nb.tasks",
    "Transaction": "prefect_nb.transactions",
    "allow_failure": "prefect_nb.model.annotations",
    "apause_flow_run": "prefect_nb.flow_runs",
    "aresume_flow_run": "prefect_nb.flow_runs",
    "asuspend_flow_run": "prefect_nb.flow_runs",
    "flow": "prefect_nb.flows",
    "get_run_context": "prefect_nb.execution.context",
    "get_run_logger": "prefect_nb.execution.logs",
    "log_metric": "prefect_nb.metrics",
    "log_metrics": "prefect_nb.metrics",
    "opaque": "prefect_nb.model.annotations",
    "pause_flow_run": "prefect_nb.flow_runs",
    "plan": "prefect_nb.service.planning",
    "quote": "prefect_nb.model.annotations",
    "resume_flow_run": "prefect_nb.flow_runs",
    "return_": "prefect_nb.service.returns",
    "stop": "prefect_nb.execution.stopping",
    "suspend_flow_run": "prefect_nb.flow_runs",
    "tags": "prefect_nb.execution.context",
    "task": "prefect_nb.tasks",
    "unmapped": "prefect_nb.model.annotations",
    "why": "prefect_nb.service.why",
}

__all__ = [
    "Flow",
    "State",
    "Task",
    "Transaction",
    "allow_failure",
    "apause_flow_run",
    "aresume_flow_run",
    "asuspend_flow_run",
    "flow",
    "get_run_context",
    "get_run_logger",
    "log_metric",
    "log_metrics",
    "opaque",
    "pause_flow_run",
    "plan",
    "quote",
    "resume_flow_run",
    "return_",
    "stop",
    "suspend_flow_run",
    "tags",
    "task",
    "unmapped",
    "why",
]
_MODULES = frozenset(
    {
        "artifacts",
        "blocks",
        "cache_policies",
        "client",
        "context",
        "exceptions",
        "flow_runs",
        "flows",
        "futures",
        "input",
        "logging",
        "metrics",
        "notebooks",
        "runtime",
        "settings",
        "states",
        "task_runners",
        "task_worker",
        "tasks",
        "testing",
        "types",
        "utilities",
        "variables",
    }
)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        if name in ("flow", "task"):
            _load_in_kernel()
        return value
    if name in _MODULES:
        return import_module(f"prefect_nb.{name}")
    raise AttributeError(f"module 'prefect_nb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _load_in_kernel() -> None:
    """In a notebook, importing `flow` or `task` brings magics and live view along."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython is not None else None
    if hasattr(shell, "kernel"):
        load_ipython_extension(shell)


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext prefect_nb`: register the magics in this shell."""
    from prefect_nb.notebook.magics import register

    register(ipython)
