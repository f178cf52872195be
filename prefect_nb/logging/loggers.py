"""The same loggers under their older address."""

from prefect_nb.execution.logs import (
    RunLogger as PrefectLogAdapter,
)
from prefect_nb.execution.logs import (
    disable_logger,
    disable_run_logger,
    flow_run_logger,
    get_logger,
    get_run_logger,
    task_run_logger,
)

__all__ = [
    "PrefectLogAdapter",
    "disable_logger",
    "disable_run_logger",
    "flow_run_logger",
    "get_logger",
    "get_run_logger",
    "task_run_logger",
]
