"""How long a task run waits before its next attempt, and the wait itself."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from msgspec.structs import replace

from prefect_nb.engine.commands import Ending
from prefect_nb.engine.task_run import TaskPlan, failed_attempts
from prefect_nb.execution import task_controls
from prefect_nb.execution.clock import now_us

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask


def delay(execution: RecordingTask, attempt: int) -> float:
    """Seconds before the next attempt, with jitter.

    Args:
        execution: the task run.
        attempt: the one that has failed, 1 for the first.
    """
    delays = execution.task.retry_delays
    if not delays:
        return 0.0
    seconds: float = delays[min(attempt, len(delays)) - 1]
    jitter = execution.task.retry_jitter_factor
    if jitter:
        seconds *= 1 + random.uniform(-min(jitter, 1.0), jitter)
    return max(0.0, seconds)


def sleep(execution: RecordingTask, seconds: float) -> Ending | None:
    """Wait on this thread; a cancel, or a wish of the task run, ends the wait."""
    if execution.scope is None:
        import time

        time.sleep(seconds)
        return None
    woken = threading.Event()
    execution.scope.stoppers.add(woken.set)
    execution.waker = woken.set
    try:
        if not execution.scope.stopping and execution.wish is None:
            woken.wait(seconds)
    finally:
        execution.scope.stoppers.discard(woken.set)
    return task_controls.woken(execution)


def plan_after_crash(execution: RecordingTask) -> TaskPlan:
    """The attempts that failed before the crash count, and so does the time waited since; what it cut off does not."""
    failed, waiting_since = failed_attempts(execution.home.store.events(execution.id))
    attempt = min(failed, execution.task.retries) + 1
    wait = 0.0
    if waiting_since is not None:
        wait = max(0.0, delay(execution, failed) - (now_us() - waiting_since) / 1e6)
    return replace(execution.plan, attempt=attempt, wait=wait)
