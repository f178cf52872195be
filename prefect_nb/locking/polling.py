"""What lock managers share: waiting, by trying again."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

_PAUSE_SECONDS = 0.01


class PollingLockManager(ABC):
    """A `LockManager` made of what can be done at once."""

    @abstractmethod
    def _try(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        """Take the lock if it is free or the holder's already."""

    @abstractmethod
    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock."""

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock, waiting for it; whether it was taken (True also if the holder had it).

        Args:
            key: what to lock.
            holder: for whom.
            acquire_timeout: seconds to wait; None for however long it takes.
            hold_timeout: seconds after which the lock falls free by itself; None for never.
        """
        return _poll(lambda: self._try(key, holder, hold_timeout), acquire_timeout)

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """The same in a coroutine."""
        return await _apoll(lambda: self._try(key, holder, hold_timeout), acquire_timeout)

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody has the lock; whether that came within `timeout` seconds."""
        return _poll(lambda: not self.is_locked(key), timeout)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """The same in a coroutine."""
        return await _apoll(lambda: not self.is_locked(key), timeout)


def _poll(succeeds: Callable[[], bool], timeout: float | None) -> bool:
    deadline = None if timeout is None else time.monotonic() + timeout
    while not succeeds():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


async def _apoll(succeeds: Callable[[], bool], timeout: float | None) -> bool:
    import asyncio

    deadline = None if timeout is None else time.monotonic() + timeout
    while not succeeds():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_PAUSE_SECONDS)
    return True
