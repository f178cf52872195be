"""The tables of `prefect_nb.db` and `logs.db`, as steps that sqlite-utils' migrations apply and remember.

Ids are the 16 bytes of a UUID, times integers (microseconds since 1970 UTC). A run's `body` is the JSON of its whole
snapshot; the columns beside it repeat what is searched for. `user_version` counts the steps applied.
"""

import sqlite3
from typing import NamedTuple

from prefect_nb.store.crash_points import crash_point


class Schema(NamedTuple):
    """The tables of one file."""

    name: str
    application_id: int
    steps: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of the step, and its statements. A step that was released is never changed; a new one is added."""

    @property
    def version(self) -> int:
        """The `user_version` of a file that is up to date."""
        return len(self.steps)


_FIRST_HISTORY = (
    "CREATE TABLE flow (id BLOB PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, created_us INTEGER NOT NULL) STRICT",
    """CREATE TABLE flow_run (
        id BLOB PRIMARY KEY NOT NULL, flow_name TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
        state_type TEXT NOT NULL, state_name TEXT NOT NULL,
        created_us INTEGER NOT NULL, start_us INTEGER, end_us INTEGER,
        parent_task_run_id BLOB, parent_flow_run_id BLOB, owner_id BLOB, epoch INTEGER NOT NULL,
        events INTEGER NOT NULL, tags TEXT,
        body TEXT NOT NULL) STRICT""",
    "CREATE INDEX flow_run_created ON flow_run (created_us)",
    "CREATE INDEX flow_run_name ON flow_run (name)",
    "CREATE INDEX flow_run_flow ON flow_run (flow_name, created_us)",
    "CREATE INDEX flow_run_owner ON flow_run (owner_id) WHERE owner_id IS NOT NULL",
    "CREATE INDEX flow_run_parent ON flow_run (parent_flow_run_id, created_us) WHERE parent_flow_run_id IS NOT NULL",
    "CREATE INDEX flow_run_parent_task ON flow_run (parent_task_run_id) WHERE parent_task_run_id IS NOT NULL",
    # What people and the reaper look for is what has not completed; leaving the rest out keeps the index tiny.
    "CREATE INDEX flow_run_state ON flow_run (state_type, created_us) WHERE state_type <> 'COMPLETED'",
    """CREATE TABLE task_run (
        id BLOB PRIMARY KEY NOT NULL, flow_run_id BLOB, parent_id BLOB, task_key TEXT NOT NULL,
        dynamic_key TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
        state_type TEXT NOT NULL, state_name TEXT NOT NULL,
        created_us INTEGER NOT NULL, start_us INTEGER, end_us INTEGER, owner_id BLOB,
        events INTEGER NOT NULL, tags TEXT,
        body TEXT NOT NULL) STRICT""",
    "CREATE INDEX task_run_created ON task_run (created_us)",
    "CREATE INDEX task_run_flow_run ON task_run (flow_run_id, created_us)",
    "CREATE INDEX task_run_key ON task_run (task_key, flow_run_id, dynamic_key)",
    "CREATE INDEX task_run_parent ON task_run (parent_id) WHERE parent_id IS NOT NULL",
    "CREATE INDEX task_run_state ON task_run (state_type, created_us) WHERE state_type <> 'COMPLETED'",
    "CREATE INDEX task_run_owner ON task_run (owner_id) WHERE owner_id IS NOT NULL",
    """CREATE TABLE event (
        cursor INTEGER PRIMARY KEY AUTOINCREMENT, run_id BLOB NOT NULL, number INTEGER NOT NULL, at_us INTEGER NOT NULL,
        body TEXT NOT NULL) STRICT""",
    # Unique, so that two writers who both believe a run is theirs cannot both append to it.
    "CREATE UNIQUE INDEX event_run ON event (run_id, number)",
    """CREATE TABLE owner (
        id BLOB PRIMARY KEY NOT NULL, kind TEXT NOT NULL, host_id TEXT NOT NULL, boot_id TEXT NOT NULL,
        pid INTEGER NOT NULL, lock_path TEXT NOT NULL, started_us INTEGER NOT NULL) STRICT""",
    """CREATE TABLE request (
        id INTEGER PRIMARY KEY AUTOINCREMENT, flow_run_id BLOB NOT NULL, kind TEXT NOT NULL, at_us INTEGER NOT NULL,
        details TEXT NOT NULL, outcome TEXT) STRICT""",
    "CREATE INDEX request_open ON request (flow_run_id) WHERE outcome IS NULL",
    """CREATE TABLE cache (
        key TEXT PRIMARY KEY NOT NULL, task_run_id BLOB NOT NULL, created_us INTEGER NOT NULL,
        result TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE key_parts (
        task_run_id BLOB PRIMARY KEY NOT NULL, task_key TEXT NOT NULL, created_us INTEGER NOT NULL, hit INTEGER NOT NULL,
        parts TEXT NOT NULL) STRICT""",
    "CREATE INDEX key_parts_task ON key_parts (task_key, created_us, task_run_id)",
)

_EXPLAINED = (
    "ALTER TABLE key_parts ADD COLUMN note TEXT",
    "CREATE TABLE source_text (digest TEXT PRIMARY KEY NOT NULL, text TEXT NOT NULL) STRICT, WITHOUT ROWID",
)

_LIMITS = (
    """CREATE TABLE concurrency_limit (
        id BLOB PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, max INTEGER NOT NULL, active INTEGER NOT NULL,
        slot_decay_per_second REAL NOT NULL, created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL,
        used REAL NOT NULL, used_boot TEXT, used_ns INTEGER) STRICT""",
    """CREATE TABLE slot (
        hold_id BLOB NOT NULL, limit_id BLOB NOT NULL, owner_id BLOB NOT NULL, count INTEGER NOT NULL,
        taken_us INTEGER NOT NULL, run_id BLOB, PRIMARY KEY (hold_id, limit_id)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX slot_limit ON slot (limit_id)",
)

_OBJECTS = (
    """CREATE TABLE artifact (
        id BLOB PRIMARY KEY NOT NULL, key TEXT, type TEXT, description TEXT, data TEXT NOT NULL, metadata TEXT,
        flow_run_id BLOB, task_run_id BLOB, created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL) STRICT""",
    "CREATE INDEX artifact_key ON artifact (key, created_us, id) WHERE key IS NOT NULL",
    "CREATE INDEX artifact_created ON artifact (created_us)",
    "CREATE INDEX artifact_flow_run ON artifact (flow_run_id) WHERE flow_run_id IS NOT NULL",
    "CREATE INDEX artifact_task_run ON artifact (task_run_id) WHERE task_run_id IS NOT NULL",
    """CREATE TABLE variable (
        name TEXT PRIMARY KEY NOT NULL, id BLOB NOT NULL, value TEXT NOT NULL, tags TEXT NOT NULL,
        created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL) STRICT""",
)

_METRICS = (
    """CREATE TABLE metric (
        id INTEGER PRIMARY KEY NOT NULL, run_id BLOB NOT NULL, name TEXT NOT NULL, flow_run_id BLOB,
        task_run_id BLOB) STRICT""",
    "CREATE UNIQUE INDEX metric_run ON metric (run_id, name)",
    "CREATE INDEX metric_flow_run ON metric (flow_run_id) WHERE flow_run_id IS NOT NULL",
    """CREATE TABLE metric_point (
        cursor INTEGER PRIMARY KEY AUTOINCREMENT, metric_id INTEGER NOT NULL, at_us INTEGER NOT NULL, step INTEGER,
        value REAL) STRICT""",
    "CREATE INDEX metric_point_metric ON metric_point (metric_id)",
)

_BLOCKS = (
    """CREATE TABLE block (
        id BLOB PRIMARY KEY NOT NULL, type_slug TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL,
        created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL, UNIQUE (type_slug, name)) STRICT""",
    "CREATE TABLE block_type (slug TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL, created_us INTEGER NOT NULL) STRICT",
    "CREATE TABLE secret_key (id TEXT PRIMARY KEY NOT NULL) STRICT",
)

_INPUTS = (
    """CREATE TABLE run_input (
        cursor INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL, flow_run_id BLOB NOT NULL, key TEXT NOT NULL,
        value TEXT NOT NULL, sender TEXT, created_us INTEGER NOT NULL, UNIQUE (flow_run_id, key)) STRICT""",
    """CREATE TABLE pause_end (
        state_id BLOB PRIMARY KEY NOT NULL, flow_run_id BLOB NOT NULL, key TEXT, outcome TEXT NOT NULL,
        at_us INTEGER NOT NULL) STRICT""",
    "CREATE INDEX pause_end_flow_run ON pause_end (flow_run_id)",
)

_LOG_TOTALS = (
    """CREATE TABLE log_total (
        run_id BLOB PRIMARY KEY NOT NULL, lines INTEGER NOT NULL, bytes INTEGER NOT NULL,
        dropped INTEGER NOT NULL DEFAULT 0, marker INTEGER) STRICT, WITHOUT ROWID""",
    """INSERT INTO log_total (run_id, lines, bytes)
        SELECT coalesce(flow_run_id, task_run_id) AS run_id, count(*), sum(length(CAST(message AS BLOB))) FROM log
        WHERE coalesce(flow_run_id, task_run_id) IS NOT NULL GROUP BY 1""",
)

_OUTPUTS = (
    """CREATE TABLE outputs (
        task_run_id BLOB NOT NULL, number INTEGER NOT NULL, at_us INTEGER NOT NULL, kind TEXT NOT NULL,
        data TEXT NOT NULL, flow_run_id BLOB, PRIMARY KEY (task_run_id, number)) STRICT""",
    "CREATE INDEX outputs_flow_run ON outputs (flow_run_id) WHERE flow_run_id IS NOT NULL",
)

HISTORY = Schema(
    "prefect_nb",
    0x50664E42,
    (
        ("m001_history", _FIRST_HISTORY),
        ("m002_limits", _LIMITS),
        ("m003_objects", _OBJECTS),
        ("m004_blocks", _BLOCKS),
        ("m005_inputs", _INPUTS),
        ("m006_explained", _EXPLAINED),
    ),
)

LOGS = Schema(
    "prefect_nb_logs",
    0x50664E4C,
    (
        (
            "m001_logs",
            (
                """CREATE TABLE log (
                    cursor INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, level INTEGER NOT NULL,
                    name TEXT NOT NULL, flow_run_id BLOB, task_run_id BLOB, message TEXT NOT NULL) STRICT""",
                "CREATE INDEX log_flow_run ON log (flow_run_id) WHERE flow_run_id IS NOT NULL",
                "CREATE INDEX log_task_run ON log (task_run_id) WHERE task_run_id IS NOT NULL",
            ),
        ),
        ("m002_metrics", _METRICS),
        ("m003_log_totals", _LOG_TOTALS),
        ("m004_outputs", _OUTPUTS),
    ),
)


def migrate(connection: sqlite3.Connection, schema: Schema) -> None:
    """Bring a file up to date; each step happens whole or not at all. The caller holds the writer lock."""
    # Importing sqlite-utils takes longer than everything else an up-to-date home needs.
    from sqlite_utils import Database, Migrations

    migrations = Migrations(schema.name)
    for number, (name, statements) in enumerate(schema.steps, start=1):
        migrations(name=name)(_step(schema, number, statements))
    migrations.apply(Database(connection, execute_plugins=False))


def _step(schema: Schema, number: int, statements: tuple[str, ...]):  # type: ignore[no-untyped-def]
    def step(database) -> None:  # type: ignore[no-untyped-def]
        for statement in statements:
            database.execute(statement)
            crash_point("after_migration_step")
        database.execute(f"PRAGMA application_id = {schema.application_id}")
        database.execute(f"PRAGMA user_version = {number}")

    return step
