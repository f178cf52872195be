"""All places where a home's results may be: its own folder, and storages that tasks and flows name."""

import json
import os
import re
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from prefect_nb.exceptions import ConfigurationError, MissingResult
from prefect_nb.model.runs import ResultReference
from prefect_nb.results.base import BaseResultStore
from prefect_nb.results.local import LocalResultStore
from prefect_nb.results.remote import BlockFiles, FsspecFiles, RemoteResultStore, without_password
from prefect_nb.results.serializer_base import Serializer
from prefect_nb.results.signing import Signer

_SLUG = re.compile(r"[a-z0-9][a-z0-9\-]*/[A-Za-z0-9][A-Za-z0-9_.\-]*")
_BLOCK = "block:"
_UNSAVED = "unsaved:"
_MANY = 512


class ResultStores:
    """The result stores of one home, opened as they are needed and kept open.

    It is a `ResultStore` itself: values are put into the home's own folder, and a reference is read wherever it says.

    Args:
        root: the home's own folder.
        default_serializer: see `BaseResultStore`, as for `largest` and `trusting`.
        secret: the file with the home's secret; None: `results_signing.key` beside the root.
        find_block: the storage object saved as "type/name"; None for no such block.
    """

    def __init__(
        self,
        root: Path,
        default_serializer: str | Serializer = "pickle",
        *,
        secret: Path | None = None,
        largest: int | None = None,
        trusting: bool = False,
        find_block: Callable[[str], Any] | None = None,
    ) -> None:
        self._default_serializer = default_serializer
        self._options: dict[str, Any] = {
            "signer": Signer(secret or root.with_name("results_signing.key")),
            "largest": largest,
            "trusting": trusting,
        }
        self.own = LocalResultStore(root, default_serializer, **self._options)
        self._find_block = find_block
        self._by_address: dict[str, BaseResultStore] = {}
        self._by_storage: dict[Any, tuple[Any, BaseResultStore]] = {}
        self._lock = threading.RLock()

    def put(
        self, value: Any, serializer: Any = None, expires_us: int | None = None, key: str | None = None
    ) -> ResultReference:
        """Keep a value in the home's own folder. See `BaseResultStore.put`."""
        return self.own.put(value, serializer, expires_us, key)

    def get(self, reference: ResultReference) -> Any:
        """The value, from wherever it is kept. See `BaseResultStore.get`."""
        return self._of(reference).get(reference)

    def check(self, reference: ResultReference) -> bool:
        """Whether it is there and whole, wherever it is kept. See `BaseResultStore.check`."""
        try:
            return self._of(reference).check(reference)
        except MissingResult:
            return False

    def find(self, key: str) -> ResultReference | None:
        """The result kept under a key in the home's own folder. See `BaseResultStore.find`."""
        return self.own.find(key)

    def sweep(self, pids: Collection[int]) -> None:
        """Remove what these processes, which are dead, had begun to write in the home's own folder."""
        self.own.sweep(pids)

    def configure(self, default_serializer: str | Serializer, largest: int | None, trusting: bool) -> None:
        """Settings have changed: let every store know."""
        with self._lock:
            self._default_serializer = default_serializer
            self._options.update(largest=largest, trusting=trusting)
            for store in (self.own, *self._by_address.values(), *(store for _, store in self._by_storage.values())):
                store.default_serializer, store.largest, store.trusting = default_serializer, largest, trusting

    def at(self, storage: Any = None) -> BaseResultStore:
        """The store of a storage.

        Args:
            storage: a path; a URL that fsspec knows; "type/name" of a saved block; an object with `read_path` and
                `write_path`, such as a block. None: the home's own folder.

        Raises:
            ConfigurationError: it is none of these, or its driver is not installed.
        """
        if storage is None:
            return self.own
        if isinstance(storage, str | os.PathLike):
            text = os.fspath(storage)
            found = self._by_address.get(text)
            return found if found is not None else self._at_text(text, isinstance(storage, str))
        known = self._by_storage.get(id(storage))
        if known is not None:
            return known[1]
        with self._lock:
            store = self._of_object(storage)
            if len(self._by_storage) >= _MANY:
                self._by_storage.pop(next(iter(self._by_storage)))
            self._by_storage[id(storage)] = storage, store  # held, so that its id stays its own
            return store

    def _of(self, reference: ResultReference) -> BaseResultStore:
        address = reference.storage
        if address is None:
            return self.own
        found = self._by_address.get(address)
        if found is not None:
            return found
        if address.startswith(_UNSAVED):
            raise MissingResult(
                f"The result is in a storage object of {address.removeprefix(_UNSAVED)} that was not saved, which only the "
                "process that made it can reach. Save it as a block and name it in `result_storage`."
            )
        try:
            return self._at_text(address, True)
        except ConfigurationError as error:
            raise MissingResult(f"The storage {address} of the result cannot be opened: {error}") from error

    def _at_text(self, text: str, may_be_block: bool) -> BaseResultStore:
        with self._lock:
            if text.startswith(_BLOCK):
                return self._of_block(text.removeprefix(_BLOCK))
            if may_be_block and _SLUG.fullmatch(text):
                block = self._find_block(text) if self._find_block is not None else None
                if block is not None:
                    return self._remember(f"{_BLOCK}{text}", self._of_object(block, f"{_BLOCK}{text}"))
            if "://" in text:
                return self._of_url(text, None)
            path = Path(text).expanduser()
            if not path.is_absolute():  # its meaning changes with the working directory
                path = Path(os.path.abspath(path))
                return self._by_address.get(str(path)) or self._of_folder(path)
            return self._of_folder(path)

    def _of_block(self, slug: str) -> BaseResultStore:
        block = self._find_block(slug) if self._find_block is not None else None
        if block is None:
            raise ConfigurationError(f"There is no block {slug!r}. Save it under that name again.")
        return self._remember(f"{_BLOCK}{slug}", self._of_object(block, f"{_BLOCK}{slug}"))

    def _of_object(self, storage: Any, address: str | None = None) -> BaseResultStore:
        address = address or _saved_as(storage)
        kind = _slug(storage)
        if kind == "remote-file-system":
            return self._of_url(storage.basepath, plain_settings(storage.settings), address)
        if kind == "local-file-system":
            return self._of_folder(Path(storage.basepath).expanduser() if storage.basepath else self.own.root)
        if callable(getattr(storage, "read_path", None)) and callable(getattr(storage, "write_path", None)):
            name = f"{type(storage).__module__}.{type(storage).__qualname__}"
            address = address or f"{_UNSAVED}{name}"
            store = RemoteResultStore(
                BlockFiles(storage), name, self._default_serializer, address=address, **self._options
            )
            return self._remember(address, store)
        raise ConfigurationError(
            f"result_storage={storage!r} is no storage. Give a path, a URL such as 's3://bucket/prefix', 'type/name' of "
            "a saved block, or an object with `read_path` and `write_path`."
        )

    def _of_folder(self, path: Path) -> BaseResultStore:
        path = Path(os.path.abspath(path))
        if path == self.own.root:
            return self.own
        address = str(path)
        store = LocalResultStore(path, self._default_serializer, private=False, address=address, **self._options)
        return self._remember(address, store)

    def _of_url(self, url: str, settings: dict[str, Any] | None, address: str | None = None) -> BaseResultStore:
        scheme = url.partition("://")[0]
        if scheme in {"file", "local"} and not settings:
            return self._of_folder(Path(unquote(urlsplit(url).path)))
        public = without_password(url)
        store = RemoteResultStore(
            FsspecFiles(url, settings), public, self._default_serializer, address=address or public, **self._options
        )
        if settings is None:
            self._remember(url, store)
        return self._remember(address or public, store)

    def _remember(self, address: str, store: BaseResultStore) -> BaseResultStore:
        self._by_address[address] = store
        return store


def _slug(storage: Any) -> str | None:
    """The kind of block that a storage object is."""
    slug = getattr(storage, "get_block_type_slug", None)
    return slug() if callable(slug) else None


def _saved_as(storage: Any) -> str | None:
    """The address of a block that was saved, by which every process finds it."""
    name = getattr(storage, "_block_document_name", None)
    return f"{_BLOCK}{_slug(storage)}/{name}" if name else None


def plain_settings(settings: Any) -> dict[str, Any]:
    """Settings with secrets opened."""
    if hasattr(settings, "get_secret_value"):
        settings = settings.get_secret_value()
    if isinstance(settings, str):
        settings = json.loads(settings)
    return {
        key: plain_settings(value)
        if isinstance(value, dict)
        else value.get_secret_value()
        if hasattr(value, "get_secret_value")
        else value
        for key, value in dict(settings).items()
    }
