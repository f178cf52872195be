"""Questions to the history, as SQL. Each takes a connection and is over when it returns."""

import sqlite3
from collections.abc import Callable, Sequence, Sized
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from prefect_nb.exceptions import StoreDamaged
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.codec import decode_flow_run, decode_task_run
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, StateType
from prefect_nb.store import takeover

T = TypeVar("T")

RESOLVE_LIMIT = 20
OPEN_TYPES = tuple(type_ for type_ in StateType if type_ not in TERMINAL_STATES)


class _Where:
    """Conditions with their values."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.values: list[Any] = []

    def add(self, term: str, *values: Any) -> None:
        self.terms.append(term)
        self.values.extend(values)

    def among(self, column: str, values: Sequence[Any]) -> None:
        if values:
            self.add(f"{column} IN ({marks(values)})", *values)

    def __str__(self) -> str:
        return " AND ".join(self.terms) or "1"


def marks(values: Sized) -> str:
    """One question mark a value."""
    return ",".join("?" * len(values))


def flow_runs(connection: sqlite3.Connection, query: RunQuery) -> list[FlowRun]:
    """The flow runs that fit."""
    where = _common(query, "flow_run")
    if query.flow_run_id is not None:
        where.add("parent_flow_run_id = ?", query.flow_run_id.bytes)
    if query.parent_id is not None:
        where.add("parent_task_run_id = ?", query.parent_id.bytes)
    if query.flow_name is not None:
        where.add("flow_name = ?", query.flow_name)
    if query.task_key is not None:
        where.add("id IN (SELECT flow_run_id FROM task_run WHERE task_key = ?)", query.task_key)
    return _list(connection, "flow_run", where, query, decode_flow_run)


def task_runs(connection: sqlite3.Connection, query: RunQuery) -> list[TaskRun]:
    """The task runs that fit."""
    where = _common(query, "task_run")
    if query.flow_run_id is not None:
        where.add("flow_run_id = ?", query.flow_run_id.bytes)
    if query.parent_id is not None:
        where.add("parent_id = ?", query.parent_id.bytes)
    if query.flow_name is not None:
        where.add("flow_run_id IN (SELECT id FROM flow_run WHERE flow_name = ?)", query.flow_name)
    if query.task_key is not None:
        where.add("task_key = ?", query.task_key)
    return _list(connection, "task_run", where, query, decode_task_run)


def open_task_runs(connection: sqlite3.Connection, flow_run_id: UUID) -> list[TaskRun]:
    """A flow run's task runs that have not ended, oldest first; however many."""
    query = RunQuery(flow_run_id=flow_run_id, state_types=OPEN_TYPES, oldest_first=True, limit=-1)
    return task_runs(connection, query)


def resolve(connection: sqlite3.Connection, text: str) -> list[Run]:
    """Runs by id, by a prefix of the id, or by exact name; flow runs first, newest first."""
    found: list[Run] = []
    for table, decode in (("flow_run", decode_flow_run), ("task_run", decode_task_run)):
        terms = ["name = ?"]
        values: list[Any] = [text]
        span = _id_span(text)
        if span is not None:
            terms.append("id BETWEEN ? AND ?")
            values += span
        sql = f"SELECT id, body FROM {table} WHERE {' OR '.join(terms)} ORDER BY created_us DESC, id DESC LIMIT ?"
        found += decoded(decode, connection.execute(sql, (*values, RESOLVE_LIMIT)).fetchall())
    return found[:RESOLVE_LIMIT]


def decoded(decode: Callable[[str], T], rows: Sequence[tuple[bytes, str]]) -> list[T]:
    """The snapshots (or events) of these ids and bodies.

    Raises:
        StoreDamaged: one cannot be read; the message names the run and what mends it.
    """
    try:
        return [decode(body) for _, body in rows]
    except ValueError as error:
        raise StoreDamaged(_unreadable(decode, rows)) from error


def _unreadable(decode: Callable[[str], Any], rows: Sequence[tuple[bytes, str]]) -> str:
    for id, body in rows:
        try:
            decode(body)
        except ValueError as error:
            return (
                f"What the history keeps of run {UUID(bytes=id)} cannot be read: {error}. "
                "`prefect-nb doctor --mend` writes a damaged row again from the run's events."
            )
    raise AssertionError("every row can be read")


def _id_span(text: str) -> tuple[bytes, bytes] | None:
    """The least and the greatest id that begin so; None for text that begins no id."""
    digits = text.lower().replace("-", "")
    if not 4 <= len(digits) <= 32 or not set(digits) <= set("0123456789abcdef"):
        return None
    if "-" in text and not str(UUID(digits.ljust(32, "0"))).startswith(text.lower()):
        return None
    return bytes.fromhex(digits.ljust(32, "0")), bytes.fromhex(digits.ljust(32, "f"))


def _common(query: RunQuery, table: str) -> _Where:
    where = _Where()
    where.among("id", [id.bytes for id in query.ids])
    if query.state_types:
        if StateType.COMPLETED not in query.state_types:
            # Says what the partial index on states leaves out, so that it is used.
            where.add("state_type <> 'COMPLETED'")
        where.among("state_type", [type_.value for type_ in query.state_types])
    where.among("state_name", query.state_names)
    where.among("kind", query.kinds)
    if query.name_contains is not None:
        escaped = query.name_contains.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        where.add("name LIKE ? ESCAPE '\\'", f"%{escaped}%")
    for tag in query.tags:
        where.add("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", tag)
    if query.owner_id is not None:
        where.add("owner_id = ?", query.owner_id.bytes)
    if query.before is not None:
        where.add(f"(created_us, id) < (SELECT created_us, id FROM {table} WHERE id = ?)", query.before.bytes)
    return where


def _list(
    connection: sqlite3.Connection, table: str, where: _Where, query: RunQuery, decode: Callable[[str], Any]
) -> list[Any]:
    direction = "ASC" if query.oldest_first else "DESC"
    sql = f"SELECT id, body FROM {table} WHERE {where} ORDER BY created_us {direction}, id {direction} LIMIT ?"
    return decoded(decode, connection.execute(sql, (*where.values, query.limit)).fetchall())


def open_cancels(connection: sqlite3.Connection) -> dict[UUID, str]:
    """Why flow runs were to be cancelled that nobody has cancelled yet, by their ids."""
    rows = connection.execute("SELECT flow_run_id, details FROM request WHERE kind = 'cancel' AND outcome IS NULL")
    return {UUID(bytes=id): takeover.reason_of(msgspec.json.decode(details)) for id, details in rows}
