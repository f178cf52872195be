"""Results on whatever fsspec reaches, or on a storage object that can read and write paths."""

import inspect
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

from prefect_nb.exceptions import ConfigurationError, MissingResult, ResultCorrupt, StorageFull, StoreUnavailable
from prefect_nb.model.runs import ResultReference
from prefect_nb.results import envelope
from prefect_nb.results.base import QUARANTINE, BaseResultStore
from prefect_nb.results.serializer_base import Serializer

T = TypeVar("T")

_PAUSES = (0.1, 0.5)
"""Seconds to wait before each further attempt."""
_FINAL = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""Errors that another attempt would only repeat."""
_WHOLE_OBJECTS = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory", "r2", "tos"}
)
"""Protocols whose writes appear whole or not at all."""
_FULL = ("quota", "no space", "insufficient storage", "507")


class Files(Protocol):
    """Bytes by path on some storage. Errors are OSErrors; FileNotFoundError where there is no such path."""

    def read(self, path: str) -> bytes:
        """The whole file."""
        ...

    def write(self, path: str, content: bytes) -> None:
        """Write it so that nobody sees a part of it."""
        ...

    def move(self, path: str, target: str) -> None:
        """Give it another path."""
        ...


class FsspecFiles:
    """A folder of a filesystem that fsspec knows.

    Args:
        url: the folder, such as "s3://bucket/prefix".
        settings: options of the filesystem: credentials, endpoints.

    Raises:
        ConfigurationError: fsspec or its driver for that protocol is not installed, or refuses the settings.
    """

    def __init__(self, url: str, settings: dict[str, Any] | None = None) -> None:
        protocol = url.partition("://")[0]
        place = without_password(url)
        try:
            import fsspec
        except ImportError as error:
            raise ConfigurationError(
                f"Results at {place} need fsspec. Run: pip install 'prefect-nb[remote]' (and the driver of {protocol!r})."
            ) from error
        try:
            self._fs, root = fsspec.core.url_to_fs(url, **(settings or {}))
        except ImportError as error:
            raise ConfigurationError(f"Results at {place} need a driver that is not installed: {error}") from error
        except Exception as error:  # each driver has its own way to refuse an address or settings
            raise ConfigurationError(f"Results cannot be kept at {place}: {_told(error)}") from error
        self._root = root.rstrip("/")
        self._whole = protocol in _WHOLE_OBJECTS

    def read(self, path: str) -> bytes:
        """The whole file."""
        content: bytes = self._fs.cat_file(f"{self._root}/{path}")
        return content

    def write(self, path: str, content: bytes) -> None:
        """One request where the storage writes whole objects; else under a temporary name, then moved."""
        target = f"{self._root}/{path}"
        if self._whole:
            self._fs.pipe_file(target, content)
            return
        folder, _, name = target.rpartition("/")
        temporary = f"{folder}/.{name[:16]}.{secrets.token_hex(4)}.tmp"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            self._fs.pipe_file(temporary, content)
            self._fs.mv(temporary, target)
        except BaseException:
            if self._fs.exists(temporary):
                self._fs.rm_file(temporary)
            raise

    def move(self, path: str, target: str) -> None:
        """Give it another path."""
        if not self._whole:
            self._fs.makedirs(f"{self._root}/{target}".rpartition("/")[0], exist_ok=True)
        self._fs.mv(f"{self._root}/{path}", f"{self._root}/{target}")


class BlockFiles:
    """A storage object of somebody's own with `read_path` and `write_path`, plain or async."""

    def __init__(self, block: Any) -> None:
        self._block = block

    def read(self, path: str) -> bytes:
        """The whole file."""
        try:
            content: bytes = _settled(self._block.read_path, path)
        except ValueError as error:  # what Prefect's own storages raise for a path that is not there
            raise FileNotFoundError(str(error)) from error
        return content

    def write(self, path: str, content: bytes) -> None:
        """As whole as the object's own `write_path` writes."""
        _settled(self._block.write_path, path, content)

    def move(self, path: str, target: str) -> None:
        """A copy under the other path; such objects cannot remove anything, and the next write replaces the original."""
        self.write(target, self.read(path))


class RemoteResultStore(BaseResultStore):
    """A `ResultStore` on a storage that is not a local folder. Errors that may pass are tried again, twice.

    Args:
        files: the storage.
        place: its address, for messages.
        default_serializer: see `BaseResultStore`, as for the other options.
    """

    def __init__(
        self, files: Files, place: str, default_serializer: str | Serializer = "pickle", **options: Any
    ) -> None:
        super().__init__(default_serializer, **options)
        self._files = files
        self._root = place.rstrip("/")

    def _keep(self, reference: ResultReference, header: bytes, payload: bytes) -> None:
        name = self._name(reference)
        content = header + payload
        try:
            _attempt(lambda: self._files.write(name, content))
        except Exception as error:
            if any(word in str(error).lower() for word in _FULL):
                raise StorageFull(
                    f"No room for a result of {len(payload):,} bytes at {self.place(name)}: {error}"
                ) from error
            raise StoreUnavailable(
                f"A result cannot be kept at {self.place(name)}: {_told(error)}. Check the address and the credentials."
            ) from error

    def _read(self, reference: ResultReference) -> bytes:
        if reference.key is not None:
            return self._read_by_key(reference)
        name = self._name(reference)
        try:
            blob = self._load(name)
            payload = blob[envelope.HEADER_SIZE :]
            envelope.check(blob[: envelope.HEADER_SIZE], payload, reference)
        except ResultCorrupt as damage:
            raise ResultCorrupt(self._set_aside(name, str(damage))) from None
        return payload

    def _read_blob(self, name: str) -> bytes:
        return self._load(name)

    def _load(self, name: str) -> bytes:
        try:
            return _attempt(lambda: self._files.read(name))
        except FileNotFoundError:
            raise MissingResult(f"The result {self.place(name)} is gone. Run the task again.") from None
        except (IsADirectoryError, NotADirectoryError):
            raise ResultCorrupt("something else than a file is in its place") from None
        except Exception as error:
            raise MissingResult(
                f"The result {self.place(name)} cannot be read: {_told(error)}. "
                "Check the address, the connection and the credentials."
            ) from error

    def _move_aside(self, name: str, target: str) -> str:
        target = f"{QUARANTINE}/{target}"
        try:
            self._files.move(name, target)
        except OSError:
            raise
        except Exception as error:
            raise OSError(_told(error)) from error
        return self.place(target)

    def place(self, name: str) -> str:
        """Where a file of that name is."""
        return f"{self._root}/{name}"


def without_password(url: str) -> str:
    """A URL as it may be shown and stored."""
    parts = urlsplit(url)
    if parts.password is None:
        return url.rstrip("/")
    host = f"{parts.username}@{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    return urlunsplit(parts._replace(netloc=host)).rstrip("/")


def _attempt(call: Callable[[], T]) -> T:
    for pause in _PAUSES:
        try:
            return call()
        except _FINAL:
            raise
        except Exception:
            time.sleep(pause)
    return call()


def _settled(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, waited for where it is a coroutine; a loop that runs here is left alone."""
    answer = function(*arguments)
    if not inspect.isawaitable(answer):
        return answer
    import asyncio

    outcome: list[Any] = []

    async def wait() -> Any:
        return await answer

    def run() -> None:
        try:
            outcome.extend((True, asyncio.run(wait())))
        except Exception as error:
            outcome.extend((False, error))

    thread = threading.Thread(target=run, name="prefect_nb-storage")
    thread.start()
    thread.join()
    done, value = outcome
    if not done:
        raise value
    return value


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
