"""Values under keys of one's own choice, in the home's cache: what `transaction(key=...)` keeps."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import current_task
from prefect_nb.interfaces import CacheEntry
from prefect_nb.model.runs import to_datetime
from prefect_nb.results import ResultRecord, ResultRecordMetadata, ResultStore, resolve_serializer

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import Surroundings

_NOBODY = UUID(int=0)


class HomeRecords(ResultStore):
    """The home's cache as a store for transactions. A task whose cache key is the same shares what is in it.

    Args:
        home: the home.
    """

    def __init__(self, home: Surroundings) -> None:
        super().__init__()
        self._home = home

    def exists(self, key: str) -> bool:
        """Whether there is a value under the key, not expired and whole."""
        entry = self._entry(key)
        return entry is not None and self._home.results.check(entry.result)

    def read(self, key: str, holder: str | None = None) -> ResultRecord:  # noqa: ARG002
        """The value under the key.

        Raises:
            ValueError: there is none.
            ResultCorrupt: it is damaged; it was set aside.
        """
        entry = self._entry(key)
        if entry is None:
            raise ValueError(f"There is nothing under the key {key!r}.")
        reference = entry.result
        expiration = None if reference.expires_us is None else to_datetime(reference.expires_us)
        metadata = ResultRecordMetadata(key, expiration, resolve_serializer(reference.serializer))
        return ResultRecord(metadata, self._home.results.get(reference))

    def write(
        self,
        obj: Any,
        key: str | None = None,
        expiration: datetime | None = None,
        holder: str | None = None,  # noqa: ARG002
    ) -> None:
        """Keep a value under the key, durably.

        Raises:
            SerializationError, StorageFull, StoreUnavailable: it cannot be kept.
        """
        task = current_task.get()
        run_id = task.task_run.id if task is not None else _NOBODY
        expires_us = None if expiration is None else int(expiration.timestamp() * 1_000_000)
        reference = self._home.result_store().put(obj, None, expires_us)
        self._home.store.write([], {}, [CacheEntry(key or self.storage_key_fn(), reference, run_id, now_us())])

    def forget(self, key: str) -> None:
        """Drop what is under the key."""
        self._home.forget_cache(key)

    def _entry(self, key: str) -> CacheEntry | None:
        entry = self._home.cache_entry(key)
        expired = entry is not None and entry.result.expires_us is not None and entry.result.expires_us <= now_us()
        return None if expired else entry
