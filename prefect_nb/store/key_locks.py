"""Locks on cache keys between processes: one byte of one file for each key, locked by the operating system.

Nothing is written and nothing has to be cleaned up: the system frees what a dead process held.
"""

import errno
import hashlib
import os
import struct
import sys
import threading
import weakref
from pathlib import Path

from prefect_nb.exceptions import StoreUnavailable
from prefect_nb.store.files import unavailable

_OFFSETS = 1 << 30 if sys.platform == "win32" else 1 << 62


class FileKeyLocks:
    """Locks on keys for the processes that share a directory.

    Two keys whose hashes agree in 62 bits would share a lock, which costs a wait and nothing else.

    Args:
        path: the file that is locked; made on first use, empty for good.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._guard = threading.Lock()
        _all.add(self)

    def try_lock(self, key: str) -> bool:
        """Take the lock if it is free; whether we have it.

        Raises:
            StoreUnavailable, StorageFull: the file cannot be made.
        """
        return _try_lock(self._opened(), _offset(key))

    def unlock(self, key: str) -> None:
        """Give back a lock that we have."""
        if self._descriptor is not None:
            _unlock(self._descriptor, _offset(key))

    def close(self) -> None:
        """Give back all of them; idempotent."""
        with self._guard:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            with self._guard:
                if self._descriptor is None:
                    self._descriptor = self._open()
        return self._descriptor

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._path, flags, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StoreUnavailable(
                    f"{self._path} is a symbolic link. Remove it; prefect_nb makes the file itself."
                ) from error
            raise unavailable(self._path, error) from error

    def _forget(self) -> None:
        """After a fork: the descriptor would keep the parent's locks when the parent has died."""
        self._guard = threading.Lock()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_all: "weakref.WeakSet[FileKeyLocks]" = weakref.WeakSet()


def _forget_all() -> None:
    for locks in list(_all):
        locks._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _offset(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % _OFFSETS


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int, offset: int) -> bool:
        os.lseek(descriptor, offset, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int, offset: int) -> None:
        os.lseek(descriptor, offset, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

elif sys.platform == "linux" and struct.calcsize("P") == 8:
    import fcntl

    # Locks of the open file: unlike POSIX record locks they outlive somebody's closing another descriptor of it.
    _FLOCK = struct.Struct("@hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid

    def _try_lock(descriptor: int, offset: int) -> bool:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(descriptor: int, offset: int) -> None:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, offset, 1, 0))

else:
    import fcntl

    def _try_lock(descriptor: int, offset: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(descriptor: int, offset: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, offset)
