"""Task workers: processes that execute delayed task runs.

`my_task.delay(...)` records a run; `serve(my_task)` in another process, or `prefect-nb task serve file.py:my_task`,
executes it. As many workers as you like may serve one task; each run is executed by one of them.
"""

from __future__ import annotations

from typing import Any

from prefect_nb.execution import deferred
from prefect_nb.home import Home
from prefect_nb.tasks import Task

__all__ = ["TaskWorker", "serve"]


class TaskWorker(deferred.TaskWorker):
    """Takes up delayed runs of some tasks and executes them in this process.

    Args:
        tasks: which tasks.
        limit: how many runs at once; None for any number.
    """

    def __init__(self, *tasks: Task[..., Any], limit: int | None = 10) -> None:
        super().__init__(Home.current(), tasks, limit)


def serve(
    *tasks: Task[..., Any],
    limit: int | None = 10,
    status_server_port: int | None = None,  # noqa: ARG001  # accepted for compatibility: `task-run ls` shows the state
    timeout: float | None = None,
) -> None:
    """Execute delayed runs of these tasks in this process, until interrupted or for `timeout` seconds.

    SIGTERM and Ctrl-C let what runs come to its end; nothing new is taken up.

    Raises:
        ConfigurationError: no task was given, or something else than a task.
    """
    deferred.serve(Home.current(), tasks, limit, timeout)
