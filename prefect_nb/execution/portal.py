"""Event loops of our own, in daemon threads, for async bodies that are submitted and for async hooks of sync runs.

A kernel's own loop cannot be used: it stands still while a cell runs. Work submitted *from* one of our loops goes to the
next one, so that an async task may wait, even blockingly, for tasks it submitted itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from contextvars import Context

T = TypeVar("T")

_loops: list[AbstractEventLoop] = []
_depth = threading.local()
_lock = threading.Lock()


def _loop_at(depth: int) -> AbstractEventLoop:
    if depth < len(_loops):
        return _loops[depth]
    import asyncio

    with _lock:
        while len(_loops) <= depth:
            loop = asyncio.new_event_loop()
            level = len(_loops)

            def run(loop: AbstractEventLoop = loop, level: int = level) -> None:
                _depth.value = level + 1
                asyncio.set_event_loop(loop)
                loop.run_forever()

            threading.Thread(target=run, name=f"prefect_nb-loop-{level}", daemon=True).start()
            _loops.append(loop)
        return _loops[depth]


def spawn(make: Callable[[], Coroutine[Any, Any, Any]], context: Context) -> None:
    """Start a coroutine on one of our loops, in this context. It must report its outcome itself."""
    loop = _loop_at(getattr(_depth, "value", 0))
    loop.call_soon_threadsafe(_start, loop, make, context)


_tasks: set[Any] = set()


def _start(loop: AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, Any]], context: Context) -> None:
    task = loop.create_task(make(), context=context)
    # The loop itself holds only weak references to its tasks.
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from sync code, whatever loop the caller's thread runs; blocks the thread."""
    import asyncio

    loop = _loop_at(getattr(_depth, "value", 0))
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result()


def forget() -> None:
    """After a fork: the loops' threads exist only in the parent."""
    global _lock
    _lock = threading.Lock()
    _loops.clear()
    _tasks.clear()
    _depth.__dict__.clear()
