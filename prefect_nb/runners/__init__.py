"""Where bodies are called: on threads of this process, or in worker processes. A runner knows no store and no states."""

from prefect_nb.runners.processes import ProcessRunner
from prefect_nb.runners.threads import ThreadRunner

__all__ = ["ProcessRunner", "ThreadRunner"]
