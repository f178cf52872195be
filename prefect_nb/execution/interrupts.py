"""Ctrl-C and cancels, for the body of a flow.

The body runs on its caller's thread, as a rule the main one. While it does, an interrupt signal first notes that the run
is being stopped and then raises; a cancel from elsewhere sends that same signal, so that a body waiting in a system call
wakes up.
"""

from __future__ import annotations

import _weakrefset
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from prefect_nb.exceptions import RunCancelled
from prefect_nb.execution import drive, task_controls
from prefect_nb.execution.scope import Scope
from prefect_nb.execution.timeouts import call_later, raise_in_thread

_AGAIN_SECONDS = 0.001
_LINGER_SECONDS = 1.0
_WEAK_REFERENCES = frozenset({weakref.__file__, _weakrefset.__file__})


@contextmanager
def stoppable(scope: Scope) -> Iterator[None]:
    """Around a sync body: Ctrl-C and `scope.stop` end it."""
    if threading.current_thread() is not threading.main_thread():
        ident = threading.get_ident()

        def stop_thread() -> None:
            raise_in_thread(ident, RunCancelled)

        with _stopper(scope, stop_thread):
            yield
        return

    task_controls.prepare_main_thread()
    root = scope.root

    def interrupted(_signum: int, frame: FrameType | None) -> None:
        if _is_in_callback(frame):
            call_later(_AGAIN_SECONDS, _signal_main)
            return
        if scope.stopping:
            if root.stopped_by_keyboard:
                raise KeyboardInterrupt
            raise RunCancelled(scope.reason)
        _stop(root)
        raise KeyboardInterrupt

    def stop_main() -> None:
        # Nested flows all ask for it; the main thread is interrupted once for all that are stopped together.
        outermost = scope
        while outermost.parent is not None and outermost.parent.stopping:
            outermost = outermost.parent
        if not outermost.signalled and threading.current_thread() is not threading.main_thread():
            outermost.signalled = True
            _signal_main()

    with _handling(interrupted), _stopper(scope, stop_main):
        yield


@contextmanager
def stoppable_task(scope: Scope) -> Iterator[None]:
    """Around an async body: Ctrl-C and `scope.stop` cancel its asyncio task at the next await.

    A task that the body calls without awaiting it is interrupted at once. A second Ctrl-C interrupts whatever code does
    not come to an await, and cancels once more where the task waits.
    """
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        # Called from a signal handler or another thread; this call also wakes the loop.
        loop.call_soon_threadsafe(task.cancel)

    def interrupted(_signum: int, frame: FrameType | None) -> None:
        again = scope.root.stopped_by_keyboard
        if not again:
            _stop(scope.root)
            again = _is_in_called_task(frame)
        if again and asyncio.current_task() is task:
            raise KeyboardInterrupt
        if again:  # in the loop itself; raised there it would end the kernel's loop and not the task
            cancel()

    with _stopper(scope, cancel):
        if threading.current_thread() is threading.main_thread():
            task_controls.prepare_main_thread()
            with _handling(interrupted):
                yield
        else:
            yield


def _stop(root: Scope) -> None:
    root.stop("Interrupted from the keyboard.", keyboard=True)
    if root.on_linger is not None:
        call_later(_LINGER_SECONDS, root.on_linger)


def _signal_main() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _is_in_callback(frame: FrameType | None) -> bool:
    """Whether what is raised here would be lost: Python only prints what comes out of finalizers and weak references."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename in _WEAK_REFERENCES:
            return True
        frame = frame.f_back
    return False


def _is_in_called_task(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is drive.blocking.__code__:
            return True
        frame = frame.f_back
    return False


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    outer = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, outer if outer is not None else signal.default_int_handler)


@contextmanager
def _stopper(scope: Scope, stop: Any) -> Iterator[None]:
    scope.stoppers.add(stop)
    try:
        yield
    finally:
        scope.stoppers.discard(stop)
