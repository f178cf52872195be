"""Results as files in one folder, by content: `<root>/<first two digits of the hash>/<hash>`.

A file is an envelope and a payload::

    magic (4 bytes) | version (1) | serializer (1) | payload size (8, big endian) | SHA-256 (32) | payload

The hash covers all that comes before it and the payload, and is also the file's name, so any changed byte shows. The
serializer's number is only compared with what the reference says; a file never chooses the code that reads it.
"""

import errno
import hashlib
import logging
import os
import secrets
import stat
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from prefect_nb.exceptions import MissingResult, ResultCorrupt, StorageFull, StoreUnavailable
from prefect_nb.model.runs import ResultReference
from prefect_nb.results.serializers import Serializer, by_type, decode, encode

logger = logging.getLogger(__name__)


def _go_on(_point: str) -> None:
    """No crash here."""


crash_point: Callable[[str], None] = _go_on
"""Called at before_temp_write, after_temp_write, after_fsync and after_rename; set by tests of crashes."""

_MAGIC = b"PNBR"
_VERSION = 1
_HEAD = struct.Struct(">4sBBQ")
_HEADER_SIZE = _HEAD.size + 32
_NUMBERS = {"pickle": 1, "json": 2, "numpy": 3, "compressed/pickle": 4, "compressed/json": 5}
_OTHER = 0
_NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_OUT_OF_PLACE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})

Signature = tuple[int, int, int]


class LocalResultStore:
    """A `ResultStore` in a folder on a local disk. Safe between threads and processes.

    Args:
        root: the folder; made (mode 0700) by the first `put`.
        default_serializer: what `put` uses where none is named. Under "pickle", plain numpy arrays are kept in numpy's
            own format.
    """

    def __init__(self, root: Path, default_serializer: str | Serializer = "pickle") -> None:
        self.root = root
        self.default_serializer = default_serializer
        self._recent = _RecentPayloads()

    def put(self, value: Any, serializer: Any = None, expires_us: int | None = None) -> ResultReference:
        """Keep a value; it is on disk, synced, under its final name when this returns.

        Args:
            value: what to keep.
            serializer: a serializer's name ("pickle", "json", "compressed/pickle", ...) or instance; None: the default.
            expires_us: when it stops counting as a cache hit (microseconds since the epoch).

        Raises:
            SerializationError: the value cannot be turned into bytes. Nothing is left behind.
            StorageFull: no room. Nothing is left behind.
            StoreUnavailable: the folder cannot be written.
            ConfigurationError: there is no serializer of that name.
        """
        if serializer is None:
            serializer = by_type(value) if self.default_serializer == "pickle" else self.default_serializer
        name, payload = encode(value, serializer)
        head = _HEAD.pack(_MAGIC, _VERSION, _NUMBERS.get(name, _OTHER), len(payload))
        digest = _digest(head, payload)
        reference = ResultReference(sha256=digest.hex(), size=len(payload), serializer=name, expires_us=expires_us)
        path = self._path(reference)
        try:
            if not self._reuse(path, reference):
                signature = self._write(path, (head + digest, payload))
                self._recent.add(reference.sha256, payload, signature)
                self._recent.note_synced(reference.sha256)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise StorageFull(
                    f"No room for a result of {len(payload):,} bytes at {path} ({error.strerror}). "
                    "Free disk space or move PREFECT_NB_HOME, then run again."
                ) from error
            raise StoreUnavailable(
                f"A result cannot be kept at {path}: {error}. Check the folder and the disk."
            ) from error
        return reference

    def get(self, reference: ResultReference) -> Any:
        """The value, made anew at each call.

        Raises:
            MissingResult: there is no such file.
            ResultCorrupt: it is damaged; it was set aside, and a warning says where.
            SerializationError: the file is whole but this process cannot make the value from it.
        """
        return decode(reference.serializer, self._read(reference))

    def check(self, reference: ResultReference) -> bool:
        """Whether the file is there and whole (nothing is deserialized). A damaged one is set aside."""
        try:
            self._read(reference)
        except (MissingResult, ResultCorrupt):
            return False
        return True

    def sweep(self, pids: Collection[int]) -> None:
        """Remove what these processes, which are dead, had begun to write."""
        for temporary in self.root.glob("*/.*.tmp"):
            pid = temporary.name.split(".")[-3]
            if pid.isdecimal() and int(pid) in pids and not _lives(int(pid)):
                temporary.unlink(missing_ok=True)

    def _path(self, reference: ResultReference) -> Path:
        sha = reference.sha256
        if len(sha) != 64 or not set(sha) <= set("0123456789abcdef"):
            raise ResultCorrupt(f"{sha!r} is no result's hash. Run the task again.")
        return self.root / sha[:2] / sha

    def _read(self, reference: ResultReference) -> bytes:
        path = self._path(reference)
        try:
            payload = self._recent.get(reference.sha256, _signature(path.lstat()))
            if payload is not None:
                return payload
            payload, signature = _read_whole(path, reference)
        except FileNotFoundError:
            raise MissingResult(f"The result {path} is gone. Run the task again.") from None
        except ResultCorrupt as damage:
            raise ResultCorrupt(self._set_aside(path, str(damage))) from None
        except OSError as error:
            raise MissingResult(f"The result {path} cannot be read: {error}. Check the file's permissions.") from error
        self._recent.add(reference.sha256, payload, signature)
        return payload

    def _reuse(self, path: Path, reference: ResultReference) -> bool:
        try:
            self._read(reference)
        except (MissingResult, ResultCorrupt):
            return False
        if not self._recent.is_synced(reference.sha256):  # whoever renamed it may not have come to this yet
            _sync_folder(path.parent)
            self._recent.note_synced(reference.sha256)
        return True

    def _write(self, path: Path, parts: tuple[bytes, ...]) -> Signature:
        _make_private(path.parent)
        temporary = path.with_name(f".{path.name[:16]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        crash_point("before_temp_write")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                for part in parts:
                    _write_all(descriptor, part)
                crash_point("after_temp_write")
                os.fsync(descriptor)
                crash_point("after_fsync")
                signature = _signature(os.fstat(descriptor))
            finally:
                os.close(descriptor)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        crash_point("after_rename")
        _sync_folder(path.parent)
        return signature

    def _set_aside(self, path: Path, damage: str) -> str:
        quarantine = self.root / "quarantine"
        target = quarantine / f"{path.name}.{time.time_ns()}"
        message = f"The result {path} is damaged ({damage})"
        try:
            _make_private(quarantine)
            path.rename(target)
            message += f"; it was set aside as {target}. Its task will run again."
        except FileNotFoundError:
            message += "; somebody else has set it aside. Its task will run again."
        except OSError as error:
            message += f" and could not be set aside ({error}). Remove it by hand."
        logger.warning(message)
        return message


class _RecentPayloads:
    """The bytes of results used lately, so that a cache hit reads the disk once.

    An entry counts only while the file looks untouched, so a result that was removed or replaced is noticed.
    """

    largest = 64 * 1024
    room = 32 * 1024 * 1024

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[bytes, Signature]] = OrderedDict()
        self._synced: set[str] = set()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, sha: str, signature: Signature) -> bytes | None:
        with self._lock:
            entry = self._entries.get(sha)
            if entry is None or entry[1] != signature:
                return None
            self._entries.move_to_end(sha)
            return entry[0]

    def add(self, sha: str, payload: bytes, signature: Signature) -> None:
        if len(payload) > self.largest:
            return
        with self._lock:
            self._synced.discard(sha)
            replaced = self._entries.pop(sha, None)
            self._size += len(payload) - (len(replaced[0]) if replaced else 0)
            self._entries[sha] = (payload, signature)
            while self._size > self.room:
                oldest, (oldest_payload, _) = self._entries.popitem(last=False)
                self._synced.discard(oldest)
                self._size -= len(oldest_payload)

    def is_synced(self, sha: str) -> bool:
        """Whether this process knows that the file's name is on disk too."""
        return sha in self._synced

    def note_synced(self, sha: str) -> None:
        with self._lock:
            if sha in self._entries:
                self._synced.add(sha)


def _digest(head: bytes, payload: bytes) -> bytes:
    digest = hashlib.sha256(head)
    digest.update(payload)
    return digest.digest()


def _signature(status: os.stat_result) -> Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read_whole(path: Path, reference: ResultReference) -> tuple[bytes, Signature]:
    """The payload, after every check. Raises `ResultCorrupt`, or OSError where the file is not there or not readable."""
    try:
        # Not following links and not waiting for a pipe's other end: only a plain file can be a result.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _OUT_OF_PLACE:
            raise ResultCorrupt("something else than a file is in its place") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ResultCorrupt("something else than a file is in its place")
        if status.st_size != _HEADER_SIZE + reference.size:
            raise ResultCorrupt(f"it has {status.st_size:,} bytes instead of {_HEADER_SIZE + reference.size:,}")
        header = os.read(descriptor, _HEADER_SIZE)
        payload = _read_exactly(descriptor, reference.size)
    finally:
        os.close(descriptor)
    head, digest = header[: _HEAD.size], header[_HEAD.size :]
    if head != _HEAD.pack(_MAGIC, _VERSION, _NUMBERS.get(reference.serializer, _OTHER), reference.size):
        raise ResultCorrupt("its envelope does not fit")
    if digest.hex() != reference.sha256 or _digest(head, payload) != digest:
        raise ResultCorrupt("its checksum does not fit")
    return payload, _signature(status)


def _read_exactly(descriptor: int, size: int) -> bytes:
    """As one call reads at most 2 GiB, large payloads take several."""
    parts: list[bytes] = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _lives(pid: int) -> bool:
    """Whether there is a process of this number, though it may be another one than was meant."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _make_private(folder: Path) -> None:
    """The folder, readable by its owner only, and on disk with its name."""
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        _make_private(folder.parent)
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
