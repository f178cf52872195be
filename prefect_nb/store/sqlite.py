"""The history in SQLite: `prefect_nb.db` for runs, `logs.db` for their log lines, in one home directory."""

import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.exceptions import ObjectNotFound, StoreDamaged, StoreUnavailable
from prefect_nb.interfaces import CacheEntry, Change, Entry, KeyParts, LogLine, Owner, Problem, Request, RunQuery
from prefect_nb.model.codec import decode_event, decode_flow_run, decode_task_run
from prefect_nb.model.events import Event
from prefect_nb.model.fingerprint_parts import Part
from prefect_nb.model.runs import FlowRun, ResultReference, Run, TaskRun
from prefect_nb.store import checks, sqlite_limits, sqlite_logs, sqlite_reads, takeover
from prefect_nb.store.crash_points import crash_point
from prefect_nb.store.database import Database
from prefect_nb.store.files import prepare_home
from prefect_nb.store.log_limits import LogLimit
from prefect_nb.store.rows import OutOfStep, append, following, replace_row, to_json
from prefect_nb.store.schema import HISTORY, LOGS
from prefect_nb.store.sqlite_blocks import SqliteBlocks
from prefect_nb.store.sqlite_inputs import SqliteInputs
from prefect_nb.store.sqlite_metrics import SqliteMetrics
from prefect_nb.store.sqlite_objects import SqliteObjects
from prefect_nb.store.sqlite_outputs import SqliteOutputs
from prefect_nb.store.sqlite_reads import decoded
from prefect_nb.store.sqlite_writes import write

logger = logging.getLogger("prefect_nb.store")

_decode_result = msgspec.json.Decoder(ResultReference).decode
_decode_parts = msgspec.json.Decoder(list[Part]).decode
_OPEN = f"state_type <> 'COMPLETED' AND state_type IN ({', '.join(repr(t.value) for t in sqlite_reads.OPEN_TYPES)})"


class SqliteStore:
    """The history of one home directory. Open it with `SqliteStore.open(home)`."""

    def __init__(self, home: Path, history: Database) -> None:
        self._home = home
        self._history = history
        self._logs: Database | None = None
        self._logs_guard = threading.Lock()
        self.log_limit = LogLimit()
        self.limits = sqlite_limits.SqliteLimits(history)
        self.objects = SqliteObjects(history)
        self.blocks = SqliteBlocks(history)
        self.inputs = SqliteInputs(history)
        self.metrics = SqliteMetrics(self._log_database)
        self.outputs = SqliteOutputs(self._log_database)
        self._flow_ids: dict[str, UUID] = {}
        self._closed = False

    @classmethod
    def open(cls, home: Path) -> "SqliteStore":
        """Open the history, making home and files where there are none (modes 0700 and 0600).

        Raises:
            StoreUnavailable: the home is read-only, a file, a symbolic link, or somebody else's.
            StoreDamaged: the database is damaged, is something else, or was written by a newer version.
            StorageFull: no room to make it.
        """
        home = home.expanduser().absolute()
        prepare_home(home)
        store = cls(home, Database(home / "prefect_nb.db", HISTORY, "FULL"))
        if not (home / "logs.db").exists():
            # Made now: an interpreter that is shutting down can no longer import what makes a database.
            store._log_database()
        return store

    def close(self) -> None:
        """Release files and connections; idempotent."""
        with self._logs_guard:
            self._closed = True
            if self._logs is not None:
                self._logs.close()
        self._history.close()

    # -- writing runs

    def write(
        self,
        entries: Sequence[Entry],
        fences: Mapping[UUID, int],
        caches: Sequence[CacheEntry] = (),
        parts: Sequence[KeyParts] = (),
    ) -> set[UUID]:
        """Append these events and replace their runs' rows in one transaction; see `interfaces.Store.write`."""
        try:
            with self._history.transaction() as connection:
                return write(connection, entries, fences, caches, parts)
        except (OutOfStep, sqlite3.IntegrityError):
            pass
        try:
            with self._history.transaction() as connection:
                return write(connection, following(connection, entries), fences, caches, parts)
        except (OutOfStep, sqlite3.IntegrityError) as error:
            raise checks.out_of_step(self._history, [entry.run for entry in entries]) from error

    # -- reading runs

    def flow_run(self, id: UUID) -> FlowRun | None:
        """One flow run."""
        found = decoded(decode_flow_run, self._rows("SELECT id, body FROM flow_run WHERE id = ?", id.bytes))
        return found[0] if found else None

    def task_run(self, id: UUID) -> TaskRun | None:
        """One task run."""
        found = decoded(decode_task_run, self._rows("SELECT id, body FROM task_run WHERE id = ?", id.bytes))
        return found[0] if found else None

    def flow_runs(self, query: RunQuery) -> list[FlowRun]:
        """The flow runs that fit."""
        with self._history.reading() as connection:
            return sqlite_reads.flow_runs(connection, query)

    def task_runs(self, query: RunQuery) -> list[TaskRun]:
        """The task runs that fit."""
        with self._history.reading() as connection:
            return sqlite_reads.task_runs(connection, query)

    def resolve_run(self, text: str) -> list[Run]:
        """Runs by whole id, by a prefix of the id of at least 4 characters, or by exact name; at most 20."""
        with self._history.reading() as connection:
            return sqlite_reads.resolve(connection, text)

    def count_task_states(self, flow_run_id: UUID) -> dict[str, int]:
        """State name -> number of the flow run's task runs."""
        sql = "SELECT state_name, count(*) FROM task_run WHERE flow_run_id = ? GROUP BY state_name"
        return dict(self._rows(sql, flow_run_id.bytes))

    def events(self, run_id: UUID) -> list[Event]:
        """A run's events, in order."""
        rows = self._rows("SELECT run_id, body FROM event WHERE run_id = ? ORDER BY number", run_id.bytes)
        return decoded(decode_event, rows)

    def changes(self, cursor: int, limit: int = 1000) -> list[Change]:
        """Events written after the cursor, in the order of their commit."""
        sql = "SELECT cursor, run_id, number, body FROM event WHERE cursor > ? ORDER BY cursor LIMIT ?"
        rows = self._rows(sql, cursor, limit)
        events = decoded(decode_event, [(run_id, body) for _, run_id, _, body in rows])
        return [
            Change(cursor=at, run_id=UUID(bytes=run_id), number=number, event=event)
            for (at, run_id, number, _), event in zip(rows, events, strict=True)
        ]

    def last_cursor(self) -> int:
        """The newest event's cursor; 0 for an empty history."""
        return int(self._value("SELECT max(cursor) FROM event") or 0)

    def flow_id(self, name: str) -> UUID:
        """The flow's id, made on first use."""
        known = self._flow_ids.get(name)
        if known is not None:
            return known
        sql = "SELECT id FROM flow WHERE name = ?"
        found = self._value(sql, name)
        if found is None:
            with self._history.transaction() as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO flow (id, name, created_us) VALUES (?, ?, ?)",
                    (uuid.uuid4().bytes, name, time.time_ns() // 1000),
                )
                found = connection.execute(sql, (name,)).fetchone()[0]
        self._flow_ids[name] = id = UUID(bytes=found)
        return id

    # -- logs

    def write_logs(self, lines: Sequence[LogLine]) -> None:
        """Append log lines; they survive a killed process, but the last may be lost to a power cut."""
        if lines:
            with self._log_database().transaction() as connection:
                sqlite_logs.write(connection, lines, self.log_limit)

    def logs(
        self,
        flow_run_id: UUID | None = None,
        task_run_id: UUID | None = None,
        min_level: int = 0,
        after: int = 0,
        limit: int = 1000,
    ) -> list[tuple[int, LogLine]]:
        """Log lines with their cursors, oldest first, after a cursor."""
        with self._log_database().reading() as connection:
            return sqlite_logs.read(connection, flow_run_id, task_run_id, min_level, after, limit)

    def _log_database(self) -> Database:
        with self._logs_guard:
            if self._closed:
                raise StoreUnavailable(f"The history in {self._home} has been closed.")
            if self._logs is None:
                self._logs = Database(self._home / "logs.db", LOGS, "NORMAL")
            return self._logs

    # -- owners

    def add_owner(self, owner: Owner) -> None:
        """Register a process that is about to execute runs."""
        with self._history.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO owner (id, kind, host_id, boot_id, pid, lock_path, started_us) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    owner.id.bytes,
                    owner.kind,
                    owner.host_id,
                    owner.boot_id,
                    owner.pid,
                    owner.lock_path,
                    owner.started_us,
                ),
            )

    def remove_owner(self, id: UUID) -> None:
        """Forget an owner that left in good order."""
        with self._history.transaction() as connection:
            connection.execute("DELETE FROM owner WHERE id = ?", (id.bytes,))

    def owners(self) -> list[Owner]:
        """Every registered owner, living or dead."""
        sql = "SELECT id, host_id, boot_id, pid, lock_path, started_us, kind FROM owner ORDER BY started_us, id"
        return [Owner(UUID(bytes=id), *rest) for id, *rest in self._rows(sql)]

    def claim(
        self, flow_run_id: UUID, owner_id: UUID, at_us: int, recoveries: int, expected_epoch: int | None = None
    ) -> FlowRun:
        """Make this owner the flow run's, under a new epoch; open child task runs become Crashed.

        Raises:
            ObjectNotFound: no such run.
            Fenced: it is not at the epoch expected.
        """
        with self._history.transaction() as connection:
            rows = connection.execute("SELECT id, body FROM flow_run WHERE id = ?", (flow_run_id.bytes,)).fetchall()
            if not rows:
                raise ObjectNotFound(f"There is no flow run {flow_run_id}. `prefect-nb flow-run ls` lists them.")
            (run,) = decoded(decode_flow_run, rows)
            takeover.check_epoch(run, expected_epoch)
            tasks = sqlite_reads.open_task_runs(connection, flow_run_id)
            claimed, entries = takeover.claim(run, tasks, owner_id, at_us, recoveries)
            append(connection, entries)
            crash_point("before_claim_commit")
            return claimed

    def claim_task_run(self, id: UUID, owner_id: UUID, at_us: int) -> TaskRun | None:
        """Make this owner the deferred task run's, if it waits for one; None if it does not."""
        with self._history.transaction() as connection:
            rows = connection.execute("SELECT id, body FROM task_run WHERE id = ?", (id.bytes,)).fetchall()
            found = decoded(decode_task_run, rows)
            entry = takeover.claim_task(found[0] if found else None, owner_id, at_us)
            if entry is None:
                return None
            append(connection, [entry])
            replace_row(connection, entry.run)  # its owner is a column of its own
            assert isinstance(entry.run, TaskRun)
            return entry.run

    def crash(self, owner_ids: Sequence[UUID], at_us: int, message: str) -> list[Run]:
        """Every open run of these dead owners ends, in one transaction; see `interfaces.Store.crash`."""
        if not owner_ids:
            return []
        owners = [id.bytes for id in owner_ids]
        theirs = f"WHERE {_OPEN} AND owner_id IN ({sqlite_reads.marks(owners)})"
        entries: list[Entry] = []
        with self._history.transaction() as connection:
            rows = connection.execute(f"SELECT id, body FROM flow_run {theirs}", owners).fetchall()
            runs = decoded(decode_flow_run, rows)
            cancels = sqlite_reads.open_cancels(connection) if runs else {}
            for run in runs:
                if run.is_suspended:
                    continue
                tasks = sqlite_reads.open_task_runs(connection, run.id)
                entries += takeover.crash(run, tasks, at_us, message, cancels)
                connection.execute(
                    "UPDATE request SET outcome = ? WHERE flow_run_id = ? AND kind = 'cancel' AND outcome IS NULL",
                    (entries[-1].run.state_name.lower(), run.id.bytes),
                )
            ended = {entry.run.id for entry in entries}
            # Also what such an owner left open in a flow run that has ended. The plus has the few open rows looked
            # through, not all task runs of all its flow runs.
            inside = f"+flow_run_id IN (SELECT id FROM flow_run WHERE owner_id IN ({sqlite_reads.marks(owners)}))"
            rows = connection.execute(
                f"SELECT id, body FROM task_run {theirs} UNION SELECT id, body FROM task_run WHERE {_OPEN} AND {inside}",
                (*owners, *owners),
            ).fetchall()
            for task in decoded(decode_task_run, rows):
                if task.id not in ended and takeover.is_open(task):
                    entries.append(takeover.crash_task(task, at_us, message))
            append(connection, entries)
            connection.executemany("DELETE FROM owner WHERE id = ?", [(id,) for id in owners])
            sqlite_limits.free(connection, owners)
            crash_point("before_crash_commit")
        return list({entry.run.id: entry.run for entry in entries}.values())

    # -- requests

    def add_request(self, flow_run_id: UUID, kind: str, at_us: int, details: Mapping[str, Any]) -> Request:
        """Ask something of a flow run's owner."""
        with self._history.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO request (flow_run_id, kind, at_us, details) VALUES (?, ?, ?, ?)",
                (flow_run_id.bytes, kind, at_us, to_json(dict(details))),
            )
            return Request(cursor.lastrowid or 0, flow_run_id, kind, at_us, dict(details))

    def open_requests(self, flow_run_ids: Sequence[UUID]) -> list[Request]:
        """Requests nobody has settled, for these flow runs, oldest first."""
        if not flow_run_ids:
            return []
        sql = (
            "SELECT id, flow_run_id, kind, at_us, details FROM request "
            f"WHERE outcome IS NULL AND flow_run_id IN ({sqlite_reads.marks(flow_run_ids)}) ORDER BY id"
        )
        return [
            Request(id, UUID(bytes=flow_run_id), kind, at_us, msgspec.json.decode(details))
            for id, flow_run_id, kind, at_us, details in self._rows(sql, *(id.bytes for id in flow_run_ids))
        ]

    def settle_request(self, id: int, outcome: str) -> None:
        """Note what became of a request."""
        with self._history.transaction() as connection:
            connection.execute("UPDATE request SET outcome = ? WHERE id = ?", (outcome, id))

    def request_outcome(self, id: int) -> str | None:
        """What became of a request; None while nobody has settled it."""
        outcome: str | None = self._value("SELECT outcome FROM request WHERE id = ?", id)
        return outcome

    # -- cache index

    def cache_entry(self, key: str) -> CacheEntry | None:
        """What a cache key stands for; expired entries too."""
        rows = self._rows("SELECT result, task_run_id, created_us FROM cache WHERE key = ?", key)
        for result, task_run_id, created_us in rows:
            return CacheEntry(key, _decode_result(result), UUID(bytes=task_run_id), created_us)
        return None

    def forget_cache(self, key: str) -> None:
        """Drop a cache key."""
        with self._history.transaction() as connection:
            connection.execute("DELETE FROM cache WHERE key = ?", (key,))

    def key_parts(self, task_run_id: UUID) -> KeyParts | None:
        """The parts of one task run's key."""
        return next(iter(self._parts("WHERE task_run_id = ?", task_run_id.bytes)), None)

    def previous_key_parts(self, task_key: str, before: UUID) -> KeyParts | None:
        """The parts of the newest other run of this task created before that run; if it is unknown, of the newest."""
        return next(iter(self._earlier("task_key = ?", (task_key,), before, 1)), None)

    def earlier_key_parts(self, task_key: str, before: UUID, limit: int) -> list[KeyParts]:
        """The parts of other runs of the task of that name created before that run; see `interfaces.Store`."""
        name = task_key.rpartition("-")[0]
        same_code = self._earlier("task_key = ?", (task_key,), before, limit)
        # A hyphen comes right before a full stop: what lies between are the keys that begin with the name and a hyphen.
        other = "task_key > ? AND task_key < ? AND task_key <> ? AND length(task_key) = ?"
        bounds = (f"{name}-", f"{name}.", task_key, len(task_key))
        return same_code + self._earlier(other, bounds, before, limit)

    def _earlier(self, which: str, values: tuple[Any, ...], before: UUID, limit: int) -> list[KeyParts]:
        created_us = self._value("SELECT created_us FROM task_run WHERE id = ?", before.bytes)
        if created_us is None:
            created_us = 2**62
        return self._parts(
            f"WHERE {which} AND (created_us, task_run_id) < (?, ?) AND task_run_id <> ? AND parts <> '[]' "
            "ORDER BY created_us DESC, task_run_id DESC LIMIT ?",
            *values,
            created_us,
            before.bytes,
            before.bytes,
            limit,
        )

    def source_text(self, digest: str) -> str | None:
        """The source of a function by the digest that stands for it in key parts; None if it was never kept."""
        text = self._value("SELECT text FROM source_text WHERE digest = ?", digest)
        return None if text is None else str(text)

    def _parts(self, where: str, *values: Any) -> list[KeyParts]:
        rows = self._rows(f"SELECT task_run_id, task_key, parts, hit, note FROM key_parts {where}", *values)
        return [
            KeyParts(UUID(bytes=task_run_id), task_key, _decode_parts(parts), bool(hit), note)
            for task_run_id, task_key, parts, hit, note in rows
        ]

    # -- health

    def check(self) -> list[Problem]:
        """Integrity of the files, and `fold(events) == row` for every run."""
        problems = checks.integrity(self._history)
        if not problems:
            problems += checks.folds(self._history)
        if (self._home / "logs.db").exists():
            problems += self._log_problems()
        return problems

    def _log_problems(self) -> list[Problem]:
        try:
            return checks.integrity(self._log_database())
        except (StoreDamaged, StoreUnavailable) as error:
            return [checks.unusable_logs(self._home, error)]

    def rebuild(self, run_id: UUID) -> bool:
        """Write a run's row from the fold of its events, in one transaction; see `interfaces.Store.rebuild`."""
        with self._history.transaction() as connection:
            run = checks.folded(connection, run_id)
            if run is not None:
                replace_row(connection, run)
        return run is not None

    def describe(self) -> dict[str, str]:
        """What keeps the history: the file, and the SQLite in use."""
        return {"store": "SQLite", "version": sqlite3.sqlite_version, "path": str(self._history.path)}

    # -- helpers

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with self._history.reading() as connection:
            return connection.execute(sql, values).fetchall()

    def _value(self, sql: str, *values: Any) -> Any:
        with self._history.reading() as connection:
            row = connection.execute(sql, values).fetchone()
        return None if row is None else row[0]
