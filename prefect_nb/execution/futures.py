"""What `.submit()` and `.map()` return, and waiting for several."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from prefect_nb.execution import blocking
from prefect_nb.model.states import Pending, State

R = TypeVar("R")

_lock = threading.Lock()


class PrefectFuture(Generic[R]):
    """A task run that was submitted: its id now, its state and value later."""

    __slots__ = ("__weakref__", "_callbacks", "_execution", "_final", "_waiters", "task_run_id")

    def __init__(self, task_run_id: UUID) -> None:
        self.task_run_id = task_run_id
        self._final: State[R] | None = None
        self._execution: Any = None
        self._callbacks: list[Callable[[PrefectFuture[R]], None]] = []
        self._waiters: list[threading.Event] = []

    @property
    def state(self) -> State[R]:
        """The run's newest state; Pending before the first."""
        latest = self._final or (self._execution.state if self._execution is not None else None)
        return latest or Pending()

    def done(self) -> bool:
        """Whether the run has ended (or will not start: NotReady)."""
        return self._final is not None

    def wait(self, timeout: float | None = None) -> None:
        """Return when the run has ended, or after `timeout` seconds."""
        self._wait(timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """The task's value.

        Args:
            timeout: seconds to wait; the task goes on when they are over.
            raise_on_failure: raise the task's exception (default), or return it.

        Raises:
            TimeoutError: the task has not ended in time.
            UnfinishedRun: it did not start, because a run it depends on did not complete.
        """
        if not self._wait(timeout):
            raise TimeoutError(f"Task run {self.task_run_id} did not complete within {timeout} seconds.")
        return self._final.value(raise_on_failure)  # type: ignore[union-attr, no-any-return]

    def add_done_callback(self, fn: Callable[[PrefectFuture[R]], None]) -> None:
        """Call `fn(future)` when the run has ended; at once if it has."""
        with _lock:
            if self._final is None:
                self._callbacks.append(fn)
                return
        fn(self)

    def _wait(self, timeout: float | None) -> bool:
        if self.done():
            return True
        event = threading.Event()
        with _lock:
            if self.done():
                return True
            self._waiters.append(event)
        with blocking.waiting():
            return event.wait(timeout)

    def _set_final(self, state: State[R]) -> None:
        with _lock:
            self._final = state
            callbacks, self._callbacks = self._callbacks, []
            waiters, self._waiters = self._waiters, []
        self._execution = None
        for event in waiters:
            event.set()
        for callback in callbacks:
            callback(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(task_run_id={str(self.task_run_id)!r}, state={self.state.name!r})"


class PrefectConcurrentFuture(PrefectFuture[R]):
    """A task run executed by this process's runner."""

    __slots__ = ()


class PrefectFutureList(list[PrefectFuture[R]]):
    """What `.map()` returns: one future a child, in order."""

    def wait(self, timeout: float | None = None) -> None:
        """Return when every run has ended, or after `timeout` seconds."""
        wait(self, timeout=timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R]:
        """The values, in order. Arguments as for one future; the timeout is for all together."""
        deadline = None if timeout is None else time.monotonic() + timeout
        values = []
        for future in self:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            values.append(future.result(timeout=left, raise_on_failure=raise_on_failure))
        return values


def forget() -> None:
    """After a fork: the lock may have been held by a thread that exists only in the parent."""
    global _lock
    _lock = threading.Lock()


class DoneAndNotDoneFutures(NamedTuple):
    """What `wait` returns."""

    done: set[PrefectFuture[Any]]
    not_done: set[PrefectFuture[Any]]


def wait(futures: Iterable[PrefectFuture[Any]], timeout: float | None = None) -> DoneAndNotDoneFutures:
    """Wait until all have ended, or for `timeout` seconds; says which have."""
    waited = list(futures)
    deadline = None if timeout is None else time.monotonic() + timeout
    for future in waited:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not future._wait(left):
            break
    done = {future for future in waited if future.done()}
    return DoneAndNotDoneFutures(done, {future for future in waited if future not in done})


def as_completed(futures: Iterable[PrefectFuture[Any]], timeout: float | None = None) -> Iterator[PrefectFuture[Any]]:
    """Yield futures in the order in which they end.

    Raises:
        TimeoutError: not all have ended within `timeout` seconds.
    """
    import queue

    pending = list(futures)
    ended: queue.SimpleQueue[PrefectFuture[Any]] = queue.SimpleQueue()
    for future in pending:
        future.add_done_callback(ended.put)
    deadline = None if timeout is None else time.monotonic() + timeout
    for left in range(len(pending), 0, -1):
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            with blocking.waiting():
                future = ended.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"{left} (of {len(pending)}) futures unfinished") from None
        yield future
