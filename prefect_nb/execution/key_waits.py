"""A task run's waits for its cache key, in each driver's way, and its giving the key back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_nb.engine.commands import Ending
from prefect_nb.exceptions import PrefectException
from prefect_nb.execution import blocking

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask


def block(execution: RecordingTask) -> Ending | None:
    """Wait on this thread until it is worth looking the key up again; a cancel ends the wait."""
    woken = threading.Event()
    with _waiting(execution, woken.set, threading.get_ident()) as waits:
        if waits:
            with blocking.waiting():
                woken.wait()
    return if_stopped(execution)


async def wait(execution: RecordingTask) -> Ending | None:
    """The same on this loop."""
    import asyncio

    loop, woken = asyncio.get_running_loop(), asyncio.Event()
    with _waiting(execution, partial(loop.call_soon_threadsafe, woken.set), None) as waits:
        if waits:
            await woken.wait()
    return if_stopped(execution)


@contextmanager
def _waiting(execution: RecordingTask, wake: Callable[[], Any], thread: int | None) -> Iterator[bool]:
    key, keys = execution.cache_key, execution.home.keys
    stoppers = execution.scope.stoppers if execution.scope is not None else set()
    stoppers.add(wake)
    execution.waker = wake
    assert key is not None
    try:
        waits = keys.wait(key, execution, wake, thread)
        yield waits and execution.stopped() is None
    except BaseException:
        keys.leave(key, execution)
        raise
    finally:
        stoppers.discard(wake)


def if_stopped(execution: RecordingTask) -> Ending | None:
    """An outcome, if the run is to end; then the run wants its key no more."""
    stopped = execution.stopped()
    if stopped is not None:
        release(execution)
    return stopped


def release(execution: RecordingTask, *, kept: bool = False) -> None:
    """Let others have the key that a run has, or waits for.

    Args:
        execution: the run.
        kept: whether its result can be found under the key.
    """
    key, held = execution.cache_key, execution.key_held
    if key is None or (held is None and execution.key_parts is None):
        return
    execution.key_held = execution.key_parts = None
    if held is None:
        execution.home.keys.leave(key, execution)
        return
    if kept and execution.task.cache_policy.isolation_level == "SERIALIZABLE":
        with suppress(PrefectException):  # the ledger says so by itself
            execution.ledger.commit()
    execution.home.keys.release(key, execution, kept=kept)
