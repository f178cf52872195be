"""Locks between the threads of one process."""

import threading
import time
from typing import Any, ClassVar, Self

from prefect_nb.locking.polling import PollingLockManager


class MemoryLockManager(PollingLockManager):
    """Locks for the threads and event loops of this process. There is one: every call gives the same."""

    _instance: ClassVar[Any] = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004, D102
        if cls._instance is None:
            made = super().__new__(cls)
            made._locks = {}
            made._guard = threading.Lock()
            cls._instance = made
        return cls._instance  # type: ignore[no-any-return]

    _locks: dict[str, tuple[str, float | None]]
    _guard: threading.Lock

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back.

        Raises:
            ValueError: the holder does not have it.
        """
        with self._guard:
            if self._holder(key) != holder:
                raise ValueError(f"No lock held by {holder} for transaction with key {key}")
            del self._locks[key]

    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock."""
        with self._guard:
            return self._holder(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        with self._guard:
            return self._holder(key) == holder

    def _try(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        with self._guard:
            found = self._holder(key)
            if found is None:
                self._locks[key] = holder, None if hold_timeout is None else time.monotonic() + hold_timeout
            return found is None or found == holder

    def _holder(self, key: str) -> str | None:
        held = self._locks.get(key)
        if held is None:
            return None
        holder, until = held
        if until is not None and time.monotonic() >= until:
            del self._locks[key]
            return None
        return holder
