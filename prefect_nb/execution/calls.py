"""Calling a body once: whatever happens in it becomes an outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect_nb.engine.commands import Interrupted, Outcome, Raised, Returned, Stopped, TimedOut
from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import Abort, Fenced, Pause, RunCancelled, StopFlow
from prefect_nb.execution.timeouts import BodyTimedOut, Limit, limit


def call_blocking(body: Callable[[], Any], timeout: float | None, timed_out: Callable[[], Exception]) -> Outcome:
    """Call a sync body on this thread.

    Args:
        body: what to call.
        timeout: seconds it may take; None for any.
        timed_out: makes the exception that stands for a timeout.
    """
    limited: Limit | None = None
    try:
        if timeout is None:
            return Returned(body())
        with limit(timeout) as limited:
            return Returned(body())
    except BaseException as error:
        if isinstance(error, BodyTimedOut) and limited is not None and limited.is_over:
            return TimedOut(timed_out())
        return outcome_of(error)


async def call_awaiting(body: Callable[[], Any], timeout: float | None, timed_out: Callable[[], Exception]) -> Outcome:
    """Await an async body on this loop. Arguments as for `call_blocking`."""
    try:
        if timeout is None:
            return Returned(await body())
        import asyncio

        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                return Returned(await body())
        except TimeoutError:
            if scope.expired():
                return TimedOut(timed_out())
            raise
    except BaseException as error:
        return outcome_of(error)


def outcome_of(error: BaseException) -> Outcome:
    """The outcome that an exception out of a body means.

    Raises:
        Abort, Pause, Fenced, GeneratorExit: they are not outcomes; the run's own machinery handles them.
    """
    if isinstance(error, Abort | Pause | Fenced | GeneratorExit):
        raise error
    if isinstance(error, Exception):
        return Raised(_from_the_body_on(error))
    if isinstance(error, RunCancelled):
        return Stopped(error, str(error) or None)
    if isinstance(error, StopFlow):
        return Interrupted(error, str(error))
    if isinstance(error, BodyTimedOut):
        return Interrupted(error, "Execution was aborted by the timeout of a run around it.")
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(error, "Execution was aborted by an interrupt signal.")
    if isinstance(error, SystemExit):
        return Interrupted(error, "Execution was aborted by Python system exit call.")
    if type(error).__name__ == "CancelledError":
        return Interrupted(error, "Execution was cancelled by the runtime environment.")
    return Interrupted(error, f"Execution was interrupted by an unexpected exception: {describe(error)}")


def _from_the_body_on(error: Exception) -> Exception:
    """The error with a traceback that begins in the body: the shell's frames say nothing to its author."""
    traceback = error.__traceback__
    while traceback is not None and str(traceback.tb_frame.f_globals.get("__name__")).startswith(
        "prefect_nb.execution"
    ):
        traceback = traceback.tb_next
    return error if traceback is None else error.with_traceback(traceback)
