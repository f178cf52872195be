"""Who is alive: a process that executes runs holds a lock that it cannot hold when it is dead.

The lock is a POSIX record lock on a file of its own. The system frees it the moment the process ends, even while forked
children live on; a stopped process keeps it. Closing any descriptor of the file in the owning process would drop it, so
nothing here opens the file of an owner of this process a second time, and `holds` notices when another library did.
"""

import contextlib
import hashlib
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from prefect_nb.exceptions import StoreUnavailable
from prefect_nb.interfaces import Owner
from prefect_nb.store import record_locks
from prefect_nb.store.files import create_private, unavailable

logger = logging.getLogger("prefect_nb.store")

_FORGOTTEN_SECONDS = 60.0

_own: dict[UUID, "OwnerLock"] = {}


class OwnerLock:
    """The lock of an owner of this process, held from `acquire` to `release` or the end of the process."""

    def __init__(self, owner: Owner, descriptor: int) -> None:
        self.owner = owner
        self._descriptor = descriptor
        self._file = os.fstat(descriptor)
        self._guard = threading.Lock()

    @classmethod
    def acquire(cls, home: Path, kind: str) -> tuple[Owner, "OwnerLock"]:
        """Become an owner: make `<home>/owners/<id>.lock` and lock it.

        Args:
            home: the home directory, which is there.
            kind: what executes ("engine", "worker", ...).

        Raises:
            StoreUnavailable, StorageFull: the lock file cannot be made.
        """
        directory = home / "owners"
        id = uuid.uuid4()
        path = directory / f"{id}.lock"
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            if directory.is_symlink():
                raise StoreUnavailable(
                    f"{directory} is a symbolic link. Remove it; prefect_nb makes the directory itself."
                )
            if os.name != "nt":
                os.chmod(directory, 0o700)
            descriptor = create_private(path)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise unavailable(path, error) from error
        if not record_locks.try_lock(descriptor):
            os.close(descriptor)
            raise StoreUnavailable(f"{path} cannot be locked. Set PREFECT_NB_HOME to a directory on a local disk.")
        owner = Owner(
            id=id,
            host_id=host_id(),
            boot_id=boot_id(),
            pid=os.getpid(),
            lock_path=str(path),
            started_us=time.time_ns() // 1000,
            kind=kind,
        )
        lock = _own[id] = cls(owner, descriptor)
        return owner, lock

    def holds(self) -> bool:
        """Whether this process is still the owner. A lock that was dropped by accident is taken again.

        False after `release`, in a forked child, and when the file was removed (others took this process for dead).
        """
        with self._guard:
            if _own.get(self.owner.id) is not self or not self._is_in_place():
                return False
            if not record_locks.still_ours(self._descriptor):
                logger.warning(
                    "Something in this process closed %s, which dropped its lock; taking it again.",
                    self.owner.lock_path,
                )
            return record_locks.try_lock(self._descriptor)

    def release(self) -> None:
        """Stop being an owner and remove the lock file; idempotent. A forked child releases nothing of its parent's."""
        with self._guard:
            if _own.get(self.owner.id) is not self:
                return
            # In this order, so that nobody finds the file without a lock.
            if self._is_in_place() and os.name != "nt":
                os.unlink(self.owner.lock_path)
            del _own[self.owner.id]
            os.close(self._descriptor)
            if os.name == "nt":
                Path(self.owner.lock_path).unlink(missing_ok=True)

    def _is_in_place(self) -> bool:
        try:
            found = os.stat(self.owner.lock_path)
        except OSError:
            return False
        return os.path.samestat(found, self._file)


def is_alive(owner: Owner, own_id: UUID | None = None) -> bool:
    """Whether an owner's process lives (a stopped one does).

    Of an owner on another machine nothing can be known from here: it counts as alive. An owner from before the last
    boot is dead.

    Args:
        owner: whom to look for.
        own_id: the caller's own id, which is alive.

    Raises:
        StoreUnavailable: its lock file is a symbolic link.
    """
    if owner.id == own_id or owner.id in _own:
        return True
    if owner.boot_id != boot_id():
        return owner.host_id != host_id()
    return _is_locked(owner.lock_path)


def sweep(home: Path, dead: Collection[UUID]) -> None:
    """Remove the lock files that dead owners left, and those whose owner died before it was registered."""
    directory = home / "owners"
    try:
        paths = list(directory.glob("*.lock"))
    except OSError:
        return
    known = {str(id) for id in dead}
    for path in paths:
        if path.stem in {str(id) for id in _own}:
            continue
        with contextlib.suppress(OSError, StoreUnavailable):
            if (path.stem in known or _is_orphan(path)) and not _is_locked(str(path)):
                path.unlink()


def _is_orphan(path: Path) -> bool:
    """Whether the process that made the file can no longer be about to lock it."""
    if time.time() - path.stat().st_mtime > _FORGOTTEN_SECONDS:
        return True
    pid = read_pid(path)
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def read_pid(lock_path: str | Path) -> int | None:
    """The process that made a lock file; None where there is none, or it cannot be read."""
    for lock in list(_own.values()):
        if lock.owner.lock_path == str(lock_path):
            return lock.owner.pid
    try:
        return int(Path(lock_path).read_text())
    except (OSError, ValueError):
        return None


def _is_locked(lock_path: str) -> bool:
    try:
        descriptor = os.open(lock_path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    except OSError as error:
        raise unavailable(Path(lock_path), error) from error
    try:
        return record_locks.is_locked(descriptor)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """This boot of this machine; empty where the system does not tell (a lock does not outlive a boot anyway)."""
    return _first_line("/proc/sys/kernel/random/boot_id")


@lru_cache(maxsize=1)
def host_id() -> str:
    """This machine, as a hash: the same for every process on it."""
    text = _first_line("/etc/machine-id") or _first_line("/var/lib/dbus/machine-id")
    if not text:
        text = f"{socket.gethostname()} {uuid.getnode():x} {sys.platform}"
    return hashlib.sha256(f"prefect_nb {text}".encode()).hexdigest()[:32]


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


if hasattr(os, "register_at_fork"):
    # A child is nobody's owner: it holds none of its parent's locks.
    os.register_at_fork(after_in_child=_own.clear)
