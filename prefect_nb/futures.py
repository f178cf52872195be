"""Futures: what `task.submit()` and `task.map()` return, and waiting for several.

A future is the run's id now, and its value later. Give it to another task as it is: that task waits for it and gets
the value. `future.result()` waits here, in sync and async flows alike.

    futures = train.map(models)
    for future in as_completed(futures):
        report(future.result(raise_on_failure=False))

    done, not_done = wait(futures, timeout=60)
"""

from prefect_nb.execution.deferred import PrefectDistributedFuture
from prefect_nb.execution.futures import (
    DoneAndNotDoneFutures,
    PrefectConcurrentFuture,
    PrefectFuture,
    PrefectFutureList,
    as_completed,
    wait,
)
from prefect_nb.execution.inputs import resolve_futures_to_results, resolve_futures_to_states

__all__ = [
    "DoneAndNotDoneFutures",
    "PrefectConcurrentFuture",
    "PrefectDistributedFuture",
    "PrefectFuture",
    "PrefectFutureList",
    "as_completed",
    "resolve_futures_to_results",
    "resolve_futures_to_states",
    "wait",
]
