"""Results as files in one folder, by content: `<root>/<first two digits of the hash>/<hash>`, or under a key."""

import contextlib
import errno
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from prefect_nb.exceptions import InvalidNameError, MissingResult, ResultCorrupt, StorageFull, StoreUnavailable
from prefect_nb.model.runs import ResultReference
from prefect_nb.results import envelope, folders
from prefect_nb.results.base import QUARANTINE, BaseResultStore
from prefect_nb.results.folders import Signature
from prefect_nb.results.serializer_base import Serializer


def _go_on(_point: str) -> None:
    """No crash here."""


crash_point: Callable[[str], None] = _go_on
"""Called at before_temp_write, after_temp_write, after_fsync and after_rename; set by tests of crashes."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})


class LocalResultStore(BaseResultStore):
    """A `ResultStore` in a folder on a local disk. Safe between threads and processes.

    Args:
        root: the folder; made by the first `put`.
        default_serializer: see `BaseResultStore`, as for the other options.
        private: whether files and folders are for their owner only, or as the umask says.
    """

    def __init__(
        self, root: Path, default_serializer: str | Serializer = "pickle", *, private: bool = True, **options: Any
    ) -> None:
        super().__init__(default_serializer, **options)
        self.root = root
        self._folder_mode, self._file_mode = (0o700, 0o600) if private else (0o777, 0o666)
        self._recent = _RecentPayloads()

    def sweep(self, pids: Collection[int]) -> None:
        """Remove what these processes, which are dead, had begun to write."""
        for temporary in self.root.glob("**/.*.tmp"):
            pid = temporary.name.split(".")[-3]
            if pid.isdecimal() and int(pid) in pids and not folders.lives(int(pid)):
                temporary.unlink(missing_ok=True)

    def _keep(self, reference: ResultReference, header: bytes, payload: bytes) -> None:
        name = self._name(reference)
        try:
            if reference.key is not None:
                self._write(name, (header, payload))
            elif not self._reuse(reference):
                signature = self._write(name, (header, payload))
                self._recent.add(reference.sha256, payload, signature)
                self._recent.note_synced(reference.sha256)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise StorageFull(
                    f"No room for a result of {len(payload):,} bytes at {self.place(name)} ({error.strerror}). "
                    "Free disk space or move PREFECT_NB_HOME, then run again."
                ) from error
            raise StoreUnavailable(
                f"A result cannot be kept at {self.place(name)}: {error}. Check the folder and the disk."
            ) from error

    def _read(self, reference: ResultReference) -> bytes:
        if reference.key is not None:
            return self._read_by_key(reference)
        path = self.root / self._name(reference)
        try:
            payload = self._recent.get(reference.sha256, folders.signature_of(path.lstat()))
            if payload is not None:
                return payload
            payload, signature = _read_whole(path, reference)
        except FileNotFoundError:
            raise MissingResult(f"The result {path} is gone. Run the task again.") from None
        except ResultCorrupt as damage:
            raise ResultCorrupt(self._set_aside(self._name(reference), str(damage))) from None
        except OSError as error:
            raise MissingResult(f"The result {path} cannot be read: {error}. Check the file's permissions.") from error
        self._recent.add(reference.sha256, payload, signature)
        return payload

    def _read_blob(self, name: str) -> bytes:
        *parents, last = name.split("/")
        try:
            with (
                folders.opened(self.root, tuple(parents)) as folder,
                folders.plain_file(last, folder) as (file, status),
            ):
                beginning = os.read(file, envelope.KEYED_HEADER_SIZE)
                envelope.check_keyed_size(beginning, status.st_size)
                return beginning + folders.read_exactly(file, status.st_size - len(beginning))
        except FileNotFoundError:
            raise MissingResult(f"There is no result {self.place(name)}. Run the task again.") from None
        except InvalidNameError as error:
            raise MissingResult(str(error)) from None
        except OSError as error:
            raise MissingResult(f"The result {self.place(name)} cannot be read: {error}. Check the file.") from error

    def _move_aside(self, name: str, target: str) -> str:
        *parents, last = name.split("/")
        with (
            folders.opened(self.root, tuple(parents)) as source,
            folders.opened(self.root, (QUARANTINE,), self._folder_mode) as quarantine,
        ):
            os.rename(last, target, src_dir_fd=source, dst_dir_fd=quarantine)
        return str(self.root / QUARANTINE / target)

    def place(self, name: str) -> str:
        """Where a file of that name is."""
        return str(self.root / name)

    def _reuse(self, reference: ResultReference) -> bool:
        try:
            self._read(reference)
        except (MissingResult, ResultCorrupt):
            return False
        if not self._recent.is_synced(reference.sha256):  # whoever renamed it may not have come to this yet
            folders.sync((self.root / self._name(reference)).parent)
            self._recent.note_synced(reference.sha256)
        return True

    def _write(self, name: str, parts: tuple[bytes, ...]) -> Signature:
        *parents, last = name.split("/")
        temporary = f".{last[:16]}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        with folders.opened(self.root, tuple(parents), self._folder_mode) as folder:
            crash_point("before_temp_write")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            file = os.open(temporary, flags, self._file_mode, dir_fd=folder)
            try:
                try:
                    for part in parts:
                        folders.write_all(file, part)
                    crash_point("after_temp_write")
                    os.fsync(file)
                    crash_point("after_fsync")
                    signature = folders.signature_of(os.fstat(file))
                finally:
                    os.close(file)
                os.rename(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            crash_point("after_rename")
            os.fsync(folder)
        return signature


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


def _read_whole(path: Path, reference: ResultReference) -> tuple[bytes, Signature]:
    """The payload, after every check. Raises `ResultCorrupt`, or OSError where the file is not there or not readable."""
    expected = envelope.HEADER_SIZE + reference.size
    with folders.plain_file(path) as (file, status):
        if status.st_size != expected:
            raise ResultCorrupt(f"it has {status.st_size:,} bytes instead of {expected:,}")
        header = os.read(file, envelope.HEADER_SIZE)
        payload = folders.read_exactly(file, reference.size)
    envelope.check(header, payload, reference)
    return payload, folders.signature_of(status)
