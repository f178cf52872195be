"""Exclusive locks on whole files that die with their process (POSIX record locks; `LockFile` on Windows).

They are not inherited by forked children. Closing *any* descriptor of the file drops the process's lock on it.
"""

import os
import struct
import sys

if sys.platform == "win32":
    import msvcrt

    # A byte far behind the contents: Windows locks keep others from reading what they cover.
    _LOCKED_BYTE = 1 << 30

    def try_lock(descriptor: int) -> bool:
        """Take the lock if it is free (or ours already); whether we have it."""
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Give the lock back."""
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def is_locked(descriptor: int) -> bool:
        """Whether another process holds it."""
        if not try_lock(descriptor):
            return True
        unlock(descriptor)
        return False

    def holder(_descriptor: int) -> int | None:
        """The process that holds it, where the system tells."""
        return None

    def still_ours(_descriptor: int) -> bool:
        """Whether this process, which took the lock, has it yet."""
        return True

else:
    import fcntl

    _ASKS_WITHOUT_LOCKING = sys.platform == "linux" and struct.calcsize("P") == 8
    _FLOCK = "@hhqqi4x"  # l_type, l_whence, l_start, l_len, l_pid

    def try_lock(descriptor: int) -> bool:
        """Take the lock if it is free (or ours already); whether we have it."""
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Give the lock back."""
        fcntl.lockf(descriptor, fcntl.LOCK_UN)

    def is_locked(descriptor: int) -> bool:
        """Whether another process holds it."""
        if _ASKS_WITHOUT_LOCKING:
            return _ask(descriptor, fcntl.F_GETLK) is not None
        if not try_lock(descriptor):
            return True
        unlock(descriptor)
        return False

    def holder(descriptor: int) -> int | None:
        """The process that holds it, where the system tells."""
        return _ask(descriptor, fcntl.F_GETLK) if _ASKS_WITHOUT_LOCKING else None

    def still_ours(descriptor: int) -> bool:
        """Whether this process, which took the lock, has it yet.

        Asked as an open-file-description lock, which our own record lock stands in the way of. True where the system
        cannot be asked so.
        """
        if not _ASKS_WITHOUT_LOCKING:
            return True
        return _ask(descriptor, fcntl.F_OFD_GETLK) == os.getpid()

    def _ask(descriptor: int, command: int) -> int | None:
        """The process whose lock would stand in the way; None for none."""
        answer = fcntl.fcntl(descriptor, command, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
        return None if kind == fcntl.F_UNLCK else pid
