"""What a lock manager does."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class LockManager(Protocol):
    """Locks keys for holders; a holder is whoever gives the same name."""

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
        ...

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """The same in a coroutine."""
        ...

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back.

        Raises:
            ValueError: the holder does not have it.
        """
        ...

    def is_locked(self, key: str) -> bool:
        """Whether anybody has the lock."""
        ...

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        ...

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody has the lock; whether that came within `timeout` seconds."""
        ...

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """The same in a coroutine."""
        ...
