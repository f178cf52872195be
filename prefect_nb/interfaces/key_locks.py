"""Port of the locks that keep several processes from computing one cache key at once."""

from typing import Protocol


class KeyLocks(Protocol):
    """Locks on keys, between processes. One that a process holds falls free at once when it dies.

    They are not reentrant, and say nothing of threads: within a process, whoever uses them keeps its own account.
    """

    def try_lock(self, key: str) -> bool:
        """Take the lock if it is free; whether we have it. Never waits. May be called from any thread."""
        ...

    def unlock(self, key: str) -> None:
        """Give back a lock that we have."""
        ...
