"""Results by key, for programs: `ResultStore` writes and reads records.

store = ResultStore(result_storage=Path("results"))
store.write({"loss": 0.1}, key="run-1")
store.read("run-1").result
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar
from uuid import uuid4

from prefect_nb.exceptions import ConfigurationError
from prefect_nb.results.base import BaseResultStore
from prefect_nb.results.serializer_base import Serializer
from prefect_nb.results.serializers import resolve_serializer
from prefect_nb.results.stores import ResultStores
from prefect_nb.settings import Settings, get_settings

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REMEMBERED = 1000


class Surroundings(NamedTuple):
    """What a program's run, if it is in one, says of results."""

    stores: ResultStores | None = None
    storage: Any = None
    serializer: Any = None
    persist: bool | None = None


surroundings: Callable[[], Surroundings] = Surroundings
"""Of the run that this is asked in; set by `home`, which knows."""


@dataclass
class ResultRecordMetadata:
    """What is known of a kept result without its value."""

    storage_key: str
    expiration: datetime | None = None
    serializer: Serializer = field(default_factory=lambda: resolve_serializer("pickle"))


@dataclass
class ResultRecord:
    """A kept result."""

    metadata: ResultRecordMetadata
    result: Any

    @property
    def expiration(self) -> datetime | None:
        """When it stops counting (UTC)."""
        return self.metadata.expiration

    @property
    def serializer(self) -> Serializer:
        """What reads and writes it."""
        return self.metadata.serializer

    def serialize_result(self) -> bytes:
        """The value as bytes. Raises `SerializationError`."""
        return self.serializer.dumps(self.result)


def _new_key() -> str:
    return uuid4().hex


class ResultStore:
    """Writes results to a storage and reads them again, each under a key.

    Args:
        result_storage: see `result_storage` of `@task`; None: the default one.
        metadata_storage: accepted for compatibility; what is known of a result is kept beside it.
        lock_manager: locks keys between runs or processes.
        cache_result_in_memory: whether values last used are remembered.
        serializer: a name or an instance; None: the default one.
        storage_key_fn: makes the key of a result that is given none.
    """

    def __init__(
        self,
        *,
        result_storage: Any = None,
        metadata_storage: Any = None,
        lock_manager: Any = None,
        cache_result_in_memory: bool = True,
        serializer: str | Serializer | None = None,
        storage_key_fn: Callable[[], str] = _new_key,
    ) -> None:
        self.result_storage = result_storage
        self.metadata_storage = metadata_storage
        self.lock_manager = lock_manager
        self.cache_result_in_memory = cache_result_in_memory
        self.serializer = get_default_result_serializer() if serializer is None else resolve_serializer(serializer)
        self.storage_key_fn = storage_key_fn
        self._remembered: OrderedDict[str, ResultRecord] = OrderedDict()
        self._lock = threading.Lock()

    def update_for_flow(self, flow: Any) -> Self:
        """A copy with what the flow says of its results."""
        return self._copy(flow.result_storage, flow.result_serializer, flow.cache_result_in_memory)

    def update_for_task(self, task: Any) -> Self:
        """A copy with what the task says of its results."""
        copy = self._copy(task.result_storage, task.result_serializer, task.cache_result_in_memory)
        if task.result_storage_key is not None:
            copy.storage_key_fn = lambda: str(task.result_storage_key)
        return copy

    async def aupdate_for_flow(self, flow: Any) -> Self:
        """As `update_for_flow`."""
        return self.update_for_flow(flow)

    async def aupdate_for_task(self, task: Any) -> Self:
        """As `update_for_task`."""
        return self.update_for_task(task)

    # Records

    def exists(self, key: str) -> bool:
        """Whether there is a result under the key that has not expired."""
        if self._recall(key) is not None:
            return True
        reference = self._store().find(key)
        return reference is not None and not _over(_time(reference.expires_us))

    def read(self, key: str, holder: str | None = None) -> ResultRecord:
        """The result under the key.

        Args:
            key: where it is.
            holder: who reads; waits for the key's lock if somebody else holds it.

        Raises:
            ValueError: there is none.
            ResultCorrupt, SerializationError: it cannot be read.
        """
        if self.lock_manager is not None and not self.is_lock_holder(key, holder):
            self.wait_for_lock(key)
        known = self._recall(key)
        if known is not None:
            return known
        store = self._store()
        reference = store.find(key)
        if reference is None:
            raise ValueError(f"Path {store.place_of(key)} does not exist.")
        metadata = ResultRecordMetadata(
            store.place_of(key), _time(reference.expires_us), resolve_serializer(reference.serializer)
        )
        return self._remember(key, ResultRecord(metadata, store.get(reference)))

    def create_result_record(
        self, obj: Any, key: str | None = None, expiration: datetime | None = None
    ) -> ResultRecord:
        """A record that is not written yet."""
        place = self._store().place_of(key or self.storage_key_fn())
        return ResultRecord(ResultRecordMetadata(place, expiration, self.serializer), obj)

    def write(
        self, obj: Any, key: str | None = None, expiration: datetime | None = None, holder: str | None = None
    ) -> None:
        """Keep a value under a key (default: a new one).

        Raises:
            RuntimeError: somebody else holds the key's lock.
            SerializationError, StorageFull, StoreUnavailable, InvalidNameError: it cannot be kept.
        """
        self._write(key or self.storage_key_fn(), obj, expiration, self.serializer, holder)

    def persist_result_record(self, result_record: ResultRecord, holder: str | None = None) -> None:
        """Write a record to where it says. Raises as `write`."""
        key = os.path.relpath(result_record.metadata.storage_key, self._store().place_of(""))
        self._write(key, result_record.result, result_record.expiration, result_record.serializer, holder)

    async def aexists(self, key: str) -> bool:
        """As `exists`."""
        return await _in_thread(self.exists, key)

    async def aread(self, key: str, holder: str | None = None) -> ResultRecord:
        """As `read`."""
        return await _in_thread(self.read, key, holder or self.generate_default_holder())

    async def awrite(
        self, obj: Any, key: str | None = None, expiration: datetime | None = None, holder: str | None = None
    ) -> None:
        """As `write`."""
        await _in_thread(self.write, obj, key, expiration, holder or self.generate_default_holder())

    async def apersist_result_record(self, result_record: ResultRecord, holder: str | None = None) -> None:
        """As `persist_result_record`."""
        await _in_thread(self.persist_result_record, result_record, holder or self.generate_default_holder())

    # Locks

    @staticmethod
    def generate_default_holder() -> str:
        """Who this thread is, as a holder of locks."""
        return f"{os.uname().nodename}:{os.getpid()}:{threading.get_ident()}"

    def supports_isolation_level(self, level: Any) -> bool:
        """Whether transactions of that isolation are possible: SERIALIZABLE needs a lock manager."""
        name = getattr(level, "name", str(level))
        return name == "READ_COMMITTED" or (name == "SERIALIZABLE" and self.lock_manager is not None)

    def acquire_lock(self, key: str, holder: str | None = None, timeout: float | None = None) -> bool:
        """Take the key's lock, waiting at most `timeout` seconds; whether that went well. Raises ConfigurationError."""
        return bool(self._locks().acquire_lock(key, holder or self.generate_default_holder(), timeout))

    async def aacquire_lock(self, key: str, holder: str | None = None, timeout: float | None = None) -> bool:
        """As `acquire_lock`."""
        return bool(await self._locks().aacquire_lock(key, holder or self.generate_default_holder(), timeout))

    def release_lock(self, key: str, holder: str | None = None) -> None:
        """Let the key's lock go. Raises ConfigurationError."""
        self._locks().release_lock(key, holder or self.generate_default_holder())

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the key's lock. Raises ConfigurationError."""
        return bool(self._locks().is_locked(key))

    def is_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether this holder (default: this thread) holds the key's lock. Raises ConfigurationError."""
        return bool(self._locks().is_lock_holder(key, holder or self.generate_default_holder()))

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the key's lock, at most `timeout` seconds; whether that is so."""
        return bool(self._locks().wait_for_lock(key, timeout))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """As `wait_for_lock`."""
        return bool(await self._locks().await_for_lock(key, timeout))

    def _locks(self) -> Any:
        if self.lock_manager is None:
            raise ConfigurationError("Result store is not configured with a lock manager. Give it a `lock_manager`.")
        return self.lock_manager

    # The rest

    def _store(self) -> BaseResultStore:
        return _stores().at(_default_storage(self.result_storage))

    def _write(
        self, key: str, obj: Any, expiration: datetime | None, serializer: Serializer, holder: str | None
    ) -> None:
        if self.lock_manager is not None and self.is_locked(key) and not self.is_lock_holder(key, holder):
            raise RuntimeError(
                f"Cannot write to result record with key {key!r} because it is locked by another holder."
            )
        store = self._store()
        store.put(obj, serializer, None if expiration is None else _microseconds(expiration), key)
        self._remember(key, ResultRecord(ResultRecordMetadata(store.place_of(key), expiration, serializer), obj))

    def _recall(self, key: str) -> ResultRecord | None:
        with self._lock:
            found = self._remembered.get(key)
        return None if found is None or _over(found.expiration) else found

    def _remember(self, key: str, record: ResultRecord) -> ResultRecord:
        if self.cache_result_in_memory:
            with self._lock:
                self._remembered[key] = record
                while len(self._remembered) > _REMEMBERED:
                    self._remembered.popitem(last=False)
        return record

    def _copy(self, storage: Any, serializer: Any, in_memory: bool) -> Self:
        return type(self)(
            result_storage=self.result_storage if storage is None else storage,
            metadata_storage=self.metadata_storage,
            lock_manager=self.lock_manager,
            cache_result_in_memory=in_memory,
            serializer=self.serializer if serializer is None else serializer,
            storage_key_fn=self.storage_key_fn,
        )


def get_result_store() -> ResultStore:
    """The store of the run this is called in; outside any run the default one."""
    here = surroundings()
    return ResultStore(result_storage=here.storage, serializer=here.serializer)


def get_default_result_serializer() -> Serializer:
    """The serializer that the settings name."""
    return resolve_serializer(get_settings().results_default_serializer)


def get_default_persist_setting() -> bool:
    """Whether the settings say that results are kept."""
    return get_settings().results_persist_by_default


def get_default_persist_setting_for_tasks() -> bool:
    """Whether the settings say that results of tasks are kept."""
    settings = get_settings()
    tasks = settings.tasks_default_persist_result
    return settings.results_persist_by_default if tasks is None else tasks


def should_persist_result() -> bool:
    """Whether the result of the run this is called in is kept; outside any run what the settings say."""
    persist = surroundings().persist
    return get_default_persist_setting() if persist is None else persist


_opened: dict[Path, ResultStores] = {}


def _stores() -> ResultStores:
    """Those of the open home; else ones of our own on the same files."""
    stores = surroundings().stores
    if stores is not None:
        return stores
    settings: Settings = get_settings()
    found = _opened.get(settings.home)
    if found is None:
        found = _opened[settings.home] = ResultStores(settings.home / "results", settings.results_default_serializer)
    return found


def _default_storage(storage: Any) -> Any:
    settings = get_settings()
    return storage or settings.results_default_storage_block or settings.results_local_storage_path


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    import asyncio

    return await asyncio.to_thread(function, *arguments)


def _microseconds(time: datetime) -> int:
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _time(us: int | None) -> datetime | None:
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def _over(expiration: datetime | None) -> bool:
    return expiration is not None and _microseconds(expiration) <= _microseconds(datetime.now(UTC))


__all__ = [
    "ResultRecord",
    "ResultRecordMetadata",
    "ResultStore",
    "Surroundings",
    "get_default_persist_setting",
    "get_default_persist_setting_for_tasks",
    "get_default_result_serializer",
    "get_result_store",
    "should_persist_result",
]
