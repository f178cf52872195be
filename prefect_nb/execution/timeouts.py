"""Ending a body that takes too long, or whose run is cancelled.

On the main thread an alarm signal interrupts even a blocking system call; in any other thread an exception is set to
be raised at the next bytecode, so code inside a C call ends only when that call returns.
"""

import ctypes
import heapq
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from prefect_nb.exceptions import PrefectSignal


class BodyTimedOut(PrefectSignal):
    """Raised inside a body that took longer than its `timeout_seconds`; passes through the runs called in it."""


class Limit:
    """The time of one body."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


@contextmanager
def limit(seconds: float) -> Iterator[Limit]:
    """Raise `BodyTimedOut` inside the block when it takes longer than `seconds`; then this limit `is_over`."""
    limited = Limit()
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        with _by_alarm(seconds, limited):
            yield limited
    else:
        with _by_exception(seconds, limited):
            yield limited


@contextmanager
def _by_alarm(seconds: float, limited: Limit) -> Iterator[None]:
    def ring(_signum: int, _frame: FrameType | None) -> None:
        limited.is_over = True
        raise BodyTimedOut

    outer_left, _ = signal.getitimer(signal.ITIMER_REAL)
    if 0 < outer_left < seconds:  # an enclosing limit ends earlier
        yield
        return
    outer_handler = signal.signal(signal.SIGALRM, ring)
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer_handler)
        if outer_left > 0:
            signal.setitimer(signal.ITIMER_REAL, max(outer_left - (time.monotonic() - started), 1e-6))


@contextmanager
def _by_exception(seconds: float, limited: Limit) -> Iterator[None]:
    ident = threading.get_ident()
    lock = threading.Lock()
    over = False

    def ring() -> None:
        with lock:
            if not over:
                limited.is_over = True
                raise_in_thread(ident, BodyTimedOut)

    timer = call_later(seconds, ring)
    try:
        yield
    finally:
        with lock:
            over = True
        timer.cancel()


def raise_in_thread(ident: int, error: type[BaseException]) -> bool:
    """Have `error` raised in a thread at its next bytecode; False if there is no such thread."""
    reached: int = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))
    return reached == 1


class Timer:
    """A call that is due at a time; `cancel()` takes it back."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do not call it."""
        self.action = None


class _Clockwork:
    """One daemon thread that makes calls when they are due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, seconds: float, timer: Timer) -> None:
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._number), timer))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="prefect_nb-timers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    self._changed.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                action = heapq.heappop(self._heap)[2].action
            if action is not None:
                action()


_clockwork = _Clockwork()


def call_later(seconds: float, action: Callable[[], None]) -> Timer:
    """Call `action` after `seconds`, on the timers' thread; it must be quick."""
    timer = Timer(action)
    _clockwork.add(seconds, timer)
    return timer


def forget() -> None:
    """After a fork: the timers' thread exists only in the parent."""
    global _clockwork
    _clockwork = _Clockwork()
