"""Locks between the processes that share a directory.

A lock is a file that its holder's process has locked with the operating system, which frees it at once when the process
dies. The file says who holds it; it is there only while somebody does, or did when dying.
"""

import hashlib
import os
import re
import sys
import threading
import time
from pathlib import Path

import msgspec

from prefect_nb.locking.polling import PollingLockManager

_PLAIN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,199}")


class _Note(msgspec.Struct):
    """What a lock's file says: who holds it, and until when (seconds since the epoch)."""

    holder: str
    until: float | None = None


class _Held(msgspec.Struct):
    descriptor: int
    note: _Note


_held: dict[str, _Held] = {}
"""The locks of this process, by path: other managers of it see the same ones."""
_guard = threading.RLock()


class FileSystemLockManager(PollingLockManager):
    """Locks for the threads and processes of one machine, as files in a directory.

    Args:
        lock_files_directory: where the files are; made on first use.
    """

    def __init__(self, lock_files_directory: Path) -> None:
        self.lock_files_directory = Path(lock_files_directory).expanduser().resolve()

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back.

        Raises:
            ValueError: the holder does not have it, or has it in another process.
        """
        path = self._path(key)
        with _guard:
            note = self._note(path)
            if note is None:
                raise ValueError(f"No lock for transaction with key {key}")
            if note.holder != holder or path not in _held:
                raise ValueError(f"No lock held by {holder} for transaction with key {key}")
            _release(path)

    def is_locked(self, key: str, use_cache: bool = False) -> bool:  # noqa: ARG002 - Prefect's signature
        """Whether anybody has the lock."""
        return self._note(self._path(key)) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether this holder has the lock."""
        note = self._note(self._path(key))
        return note is not None and note.holder == holder

    def _try(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        path = self._path(key)
        with _guard:
            note = self._note(path)
            if note is not None:
                return note.holder == holder
            self.lock_files_directory.mkdir(parents=True, exist_ok=True)
            descriptor = _open_locked(path)
            if descriptor is None:
                return False
            note = _Note(holder, None if hold_timeout is None else time.time() + hold_timeout)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, msgspec.json.encode(note))
            _held[path] = _Held(descriptor, note)
            if hold_timeout is not None:
                timer = threading.Timer(hold_timeout, _expire, (path, _held[path]))
                timer.daemon = True
                timer.start()
            return True

    def _note(self, path: str) -> _Note | None:
        """Who holds the lock; None for nobody."""
        with _guard:
            held = _held.get(path)
            if held is not None:
                if held.note.until is None or held.note.until > time.time():
                    return held.note
                _release(path)
                return None
        try:
            descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            return None
        try:
            if _lock(descriptor):
                return None
            return _decoded(os.read(descriptor, 65536))
        finally:
            os.close(descriptor)

    def _path(self, key: str) -> str:
        name = key if _PLAIN_KEY.fullmatch(key) else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return str(self.lock_files_directory / f"{name}.lock")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileSystemLockManager) and self.lock_files_directory == other.lock_files_directory

    def __hash__(self) -> int:
        return hash(self.lock_files_directory)

    def __repr__(self) -> str:
        return f"FileSystemLockManager(lock_files_directory={str(self.lock_files_directory)!r})"


def _open_locked(path: str) -> int | None:
    """The file, locked; None where somebody else has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        if not _lock(descriptor):
            os.close(descriptor)
            return None
        try:
            if os.path.samestat(os.fstat(descriptor), Path(path).stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # it was removed by its last holder in between


def _release(path: str) -> None:
    held = _held.pop(path)
    try:
        Path(path).unlink()  # before the lock is free, so that nobody locks a file that is about to go
    except OSError:
        os.ftruncate(held.descriptor, 0)
    os.close(held.descriptor)


def _expire(path: str, held: _Held) -> None:
    with _guard:
        if _held.get(path) is held:
            _release(path)


def _decoded(text: bytes) -> _Note:
    try:
        return msgspec.json.decode(text, type=_Note)
    except msgspec.DecodeError:
        return _Note("")  # it is just being written


def _forget() -> None:
    """A forked child has none of its parent's locks; its copies of the files would keep them when the parent dies."""
    global _guard
    _guard = threading.RLock()
    for held in _held.values():
        os.close(held.descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
