"""What the ledger writes, inside a transaction: fences first, then events and rows, cache entries and key parts."""

import sqlite3
from collections.abc import Mapping, Sequence
from uuid import UUID

from prefect_nb.interfaces import CacheEntry, Entry, KeyParts
from prefect_nb.store.rows import append, storable, to_json
from prefect_nb.store.sqlite_reads import marks


def write(
    connection: sqlite3.Connection,
    entries: Sequence[Entry],
    fences: Mapping[UUID, int],
    caches: Sequence[CacheEntry],
    parts: Sequence[KeyParts],
) -> set[UUID]:
    """Write what is not fenced off; the flow runs that are.

    Raises:
        OutOfStep, sqlite3.IntegrityError: an event does not follow the ones that are there; roll back.
    """
    fenced = _fenced(connection, fences)
    if fenced:
        indexed = [item.task_run_id for item in caches] + [item.task_run_id for item in parts]
        flow_run_of = _flow_runs_of(connection, entries, indexed)
        entries = [entry for entry in entries if entry.flow_run_id not in fenced]
        caches = [item for item in caches if flow_run_of.get(item.task_run_id) not in fenced]
        parts = [item for item in parts if flow_run_of.get(item.task_run_id) not in fenced]
    if entries:
        append(connection, entries)
    if caches:
        connection.executemany(
            "INSERT OR REPLACE INTO cache (key, task_run_id, created_us, result) VALUES (?, ?, ?, ?)",
            [(item.key, item.task_run_id.bytes, item.created_us, to_json(item.result)) for item in caches],
        )
    if parts:
        connection.executemany(
            "INSERT OR REPLACE INTO key_parts (task_run_id, task_key, created_us, hit, parts, note) "
            "VALUES (?1, ?2, coalesce((SELECT created_us FROM task_run WHERE id = ?1), 0), ?3, ?4, ?5)",
            [
                (
                    item.task_run_id.bytes,
                    item.task_key,
                    item.hit,
                    to_json(item.parts),
                    item.note and storable(item.note),
                )
                for item in parts
            ],
        )
        sources = {digest: text for item in parts for digest, text in item.sources.items()}
        if sources:
            connection.executemany(
                "INSERT OR IGNORE INTO source_text (digest, text) VALUES (?, ?)",
                [(digest, storable(text)) for digest, text in sources.items()],
            )
    return fenced


def _fenced(connection: sqlite3.Connection, fences: Mapping[UUID, int]) -> set[UUID]:
    """The flow runs whose rows have another epoch than their writer."""
    if not fences:
        return set()
    ids = {id.bytes: id for id in fences}
    sql = f"SELECT id, epoch FROM flow_run WHERE id IN ({marks(ids)})"
    return {ids[key] for key, epoch in connection.execute(sql, list(ids)) if epoch != fences[ids[key]]}


def _flow_runs_of(
    connection: sqlite3.Connection, entries: Sequence[Entry], task_run_ids: Sequence[UUID]
) -> dict[UUID, UUID | None]:
    found: dict[UUID, UUID | None] = {entry.run.id: entry.flow_run_id for entry in entries}
    for id in task_run_ids:
        if id not in found:
            row = connection.execute("SELECT flow_run_id FROM task_run WHERE id = ?", (id.bytes,)).fetchone()
            found[id] = UUID(bytes=row[0]) if row and row[0] else None
    return found
