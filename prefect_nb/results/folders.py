"""Files and folders by system calls: created privately, synced, never reached through a link."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect_nb.exceptions import InvalidNameError, ResultCorrupt

Signature = tuple[int, int, int]
"""What a file looks like from outside: it changes with the file."""

OUT_OF_PLACE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BLOCKED = frozenset({errno.ELOOP, errno.ENOTDIR})


def signature_of(status: os.stat_result) -> Signature:
    """What the file looks like from outside."""
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def opened(root: Path, parts: tuple[str, ...], mode: int | None = None) -> Iterator[int]:
    """The folder of these names below the root, as a descriptor. No name is followed if it is a link.

    Args:
        root: where to begin; may itself be a link.
        parts: names of folders, one below the other.
        mode: permissions of folders that are missing and are made (before the umask); None: none are.

    Raises:
        InvalidNameError: a link, or something that is no folder, is in the way.
        OSError: it is not there, or cannot be made.
    """
    if mode is not None:
        make(root, mode)
    descriptor = os.open(root, _FOLDER)
    try:
        for part in parts:
            inner = _step(root, descriptor, part, mode)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _step(root: Path, descriptor: int, part: str, mode: int | None) -> int:
    try:
        try:
            return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
        except FileNotFoundError:
            if mode is None:
                raise
            make_in(descriptor, part, mode)
            return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
    except OSError as error:
        if error.errno in _BLOCKED:
            raise InvalidNameError(
                f"{part!r} in {root} is a link or no folder, so no result is kept or looked for below it."
            ) from None
        raise


def make(folder: Path, mode: int) -> None:
    """The folder and those above it, on disk with their names."""
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        make(folder.parent, mode)
    descriptor = os.open(folder.parent, _FOLDER)
    try:
        make_in(descriptor, folder.name, mode)
    finally:
        os.close(descriptor)


def make_in(descriptor: int, name: str, mode: int) -> None:
    """A folder in an opened one, on disk with its name; one that is there stays."""
    try:
        os.mkdir(name, mode, dir_fd=descriptor)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=descriptor).st_mode):
            raise
        return
    os.fsync(descriptor)


def sync(folder: Path) -> None:
    """Have the folder's entries on disk."""
    descriptor = os.open(folder, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def plain_file(path: Path | str, folder: int | None = None) -> Iterator[tuple[int, os.stat_result]]:
    """A file opened for reading, and its status.

    Raises:
        ResultCorrupt: something else is in its place: a link, a folder, a pipe.
        OSError: it is not there, or cannot be read.
    """
    try:
        # Not following links and not waiting for a pipe's other end: only a plain file can be a result.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in OUT_OF_PLACE:
            raise ResultCorrupt("something else than a file is in its place") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ResultCorrupt("something else than a file is in its place")
        yield descriptor, status
    finally:
        os.close(descriptor)


def read_exactly(descriptor: int, size: int) -> bytes:
    """As one call reads at most 2 GiB, large payloads take several."""
    parts: list[bytes] = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    """Write it, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def lives(pid: int) -> bool:
    """Whether there is a process of this number, though it may be another one than was meant."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
