"""Task runners: where submitted tasks run.

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=4))

Threads (the default) share this process's memory and suit waiting and numeric libraries; processes suit Python code
that computes, and need arguments and results that can be pickled. Either way retries, caching and every recorded state
stay with the flow's own process; only the call of the body travels.
"""

from prefect_nb.execution.task_runners import (
    ConcurrentTaskRunner,
    ProcessPoolTaskRunner,
    TaskRunner,
    ThreadPoolTaskRunner,
)

__all__ = ["ConcurrentTaskRunner", "ProcessPoolTaskRunner", "TaskRunner", "ThreadPoolTaskRunner"]
