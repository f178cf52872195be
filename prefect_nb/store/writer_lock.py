"""The lock under which everything is written: one thread of one process at a time, for each database.

SQLite has a lock of its own; this one makes writers queue instead of failing, and lets the holder checkpoint the WAL
while nobody commits. It is a POSIX record lock: the operating system frees it when its process dies, even if a forked
child lives on. Closing *any* descriptor of the file would drop it, so a process has one descriptor per file.
"""

import logging
import os
import threading
import time
from pathlib import Path
from types import TracebackType

from prefect_nb.exceptions import StoreUnavailable
from prefect_nb.store import record_locks
from prefect_nb.store.files import open_private, unavailable

logger = logging.getLogger("prefect_nb.store")

TIMEOUT_SECONDS = 30.0
_REPORT_SECONDS = 5.0
_LONGEST_PAUSE = 0.0005

_shared: dict[str, "WriterLock"] = {}
_shared_guard = threading.Lock()


class WriterLock:
    """A lock between threads and processes, taken with `with`. Get one by `share`, give it back by `close`.

    Raises:
        StoreUnavailable: not free within 30 seconds; the message names the process that holds it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._threads = threading.Lock()
        self._users = 0

    @classmethod
    def share(cls, path: Path) -> "WriterLock":
        """This process's lock on the file.

        Raises:
            StoreUnavailable, StorageFull: the lock file cannot be made or opened.
        """
        key = os.path.realpath(path.parent) + os.sep + path.name
        with _shared_guard:
            lock = _shared.get(key)
            if lock is None:
                try:
                    lock = _shared[key] = cls(path, open_private(path))
                except OSError as error:
                    raise unavailable(path, error) from error
            lock._users += 1
            return lock

    def close(self) -> None:
        """Give back what `share` gave; the last one closes the file."""
        with _shared_guard:
            self._users -= 1
            if self._users:
                return
            for key, lock in list(_shared.items()):
                if lock is self:
                    del _shared[key]
            os.close(self._descriptor)

    def __enter__(self) -> None:
        if not self._threads.acquire(timeout=TIMEOUT_SECONDS):
            raise StoreUnavailable(f"{self.path}: another thread of this process has been writing for too long.")
        try:
            if not record_locks.try_lock(self._descriptor):
                self._wait()
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            record_locks.unlock(self._descriptor)
        finally:
            self._threads.release()

    def pause(self, seconds: float) -> bool:
        """Keep this process's other threads from writing, until `go_on`; False if one writes for longer than that."""
        return self._threads.acquire(timeout=seconds)

    def go_on(self) -> None:
        """Let them write again."""
        self._threads.release()

    def _wait(self) -> None:
        start = time.monotonic()
        reported = False
        pause = 0.00005
        while True:
            time.sleep(pause)
            if record_locks.try_lock(self._descriptor):
                return
            pause = min(pause * 2, _LONGEST_PAUSE)
            waited = time.monotonic() - start
            if waited > TIMEOUT_SECONDS:
                raise StoreUnavailable(
                    f"{self.path} has been held by {self._holder()} for {waited:.0f} seconds. "
                    "If that process is stopped, continue or end it."
                )
            if waited > _REPORT_SECONDS and not reported:
                reported = True
                logger.warning("Waiting to write: %s is held by %s.", self.path, self._holder())

    def _holder(self) -> str:
        pid = record_locks.holder(self._descriptor)
        return f"process {pid}" if pid else "another process"


def _forget_in_child() -> None:
    # The parent's locks are not the child's, and its mutexes may have been held by threads the child does not have.
    global _shared_guard
    _shared.clear()
    _shared_guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
