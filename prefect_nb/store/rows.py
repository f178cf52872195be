"""Snapshots and events as rows, and the statements that write them. This is the hot path."""

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.interfaces import Entry
from prefect_nb.model.codec import encode
from prefect_nb.model.events import time_of
from prefect_nb.model.runs import FlowRun, Run, TaskRun

logger = logging.getLogger("prefect_nb.store")

Row = tuple[Any, ...]

TASK_COLUMNS = (
    "id, flow_run_id, parent_id, task_key, dynamic_key, name, kind, state_type, state_name, "
    "created_us, start_us, end_us, owner_id, events, tags, body"
)
FLOW_COLUMNS = (
    "id, flow_name, name, kind, state_type, state_name, created_us, start_us, end_us, "
    "parent_task_run_id, parent_flow_run_id, owner_id, epoch, events, tags, body"
)

_ROWS_A_STATEMENT = 40
_INSERT_EVENT = "INSERT INTO event (run_id, number, at_us, body) VALUES (?, ?, ?, ?)"
_INSERT_TASK = f"INSERT INTO task_run ({TASK_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_INSERT_FLOW = f"INSERT INTO flow_run ({FLOW_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_REPLACE_TASK = _INSERT_TASK.replace("INSERT", "INSERT OR REPLACE")
_REPLACE_FLOW = _INSERT_FLOW.replace("INSERT", "INSERT OR REPLACE")
# A task run outside any flow run has no epoch to guard it. It never leaves a final state, so a writer that was declared
# dead is stopped by that.
_UPDATE_TASK = """
    UPDATE task_run SET name = ?, state_type = ?, state_name = ?, start_us = ?, end_us = ?, events = ?, body = ?
    WHERE id = ? AND events = ? AND (flow_run_id IS NOT NULL OR state_type NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED'))"""
_UPDATE_FLOW = """
    UPDATE flow_run SET name = ?, state_type = ?, state_name = ?, start_us = ?, end_us = ?, owner_id = ?, epoch = ?,
    events = ?, body = ? WHERE id = ? AND events = ?"""


class OutOfStep(Exception):
    """An event does not follow the ones that are there."""


def to_json(value: Any) -> str:
    """A value of the model as JSON text. What UTF-8 cannot express is written as in `storable`."""
    try:
        return encode(value).decode()
    except UnicodeEncodeError:
        return encode(_storable_parts(msgspec.to_builtins(value))).decode()


def storable(text: str) -> str:
    """Text without lone surrogates, which UTF-8 cannot express (file names that are no text bring them in)."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _storable_parts(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): _storable_parts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable_parts(item) for item in value]
    return value


def key(id: UUID | None) -> bytes | None:
    """An id as it is stored."""
    return None if id is None else id.bytes


def task_row(run: TaskRun) -> Row:
    """The columns of `TASK_COLUMNS`."""
    return (
        run.id.bytes,
        key(run.flow_run_id),
        key(run.parent_id),
        storable(run.task_key),
        run.dynamic_key,
        storable(run.name),
        run.kind,
        run.state_type.value,
        storable(run.state_name),
        run.created_us,
        run.start_us,
        run.end_us,
        key(run.owner_id),
        run.events,
        to_json(run.tags) if run.tags else None,
        to_json(run),
    )


def flow_row(run: FlowRun) -> Row:
    """The columns of `FLOW_COLUMNS`."""
    return (
        run.id.bytes,
        storable(run.flow_name),
        storable(run.name),
        run.kind,
        run.state_type.value,
        storable(run.state_name),
        run.created_us,
        run.start_us,
        run.end_us,
        key(run.parent_task_run_id),
        key(run.parent_flow_run_id),
        key(run.owner_id),
        run.epoch,
        run.events,
        to_json(run.tags) if run.tags else None,
        to_json(run),
    )


def replace_row(connection: sqlite3.Connection, run: Run) -> None:
    """Write a run's whole row, in place of the one there may be."""
    if isinstance(run, TaskRun):
        connection.execute(_REPLACE_TASK, task_row(run))
    else:
        connection.execute(_REPLACE_FLOW, flow_row(run))


def insert(
    connection: sqlite3.Connection, statement: str, rows: list[Row], at_once: tuple[int, ...] = (_ROWS_A_STATEMENT,)
) -> None:
    """Insert rows, many a statement.

    SQLite gives the interpreter away and takes it back once a statement, and while a flow runs other threads want it.

    Args:
        at_once: how many go with one statement: as many as possible with the first, the rest with the next.
    """
    head, values = statement.split(" VALUES ")
    done = 0
    for size in at_once:
        end = len(rows) - (len(rows) - done) % size
        if end > done:
            several = f"{head} VALUES {', '.join([values] * size)}"
            chunks = (rows[start : start + size] for start in range(done, end, size))
            connection.executemany(several, [tuple(chain.from_iterable(chunk)) for chunk in chunks])
            done = end
    connection.executemany(statement, rows[done:])


def append(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Append the events and bring the rows of their runs to the last snapshot given.

    Raises:
        OutOfStep, sqlite3.IntegrityError: an event does not follow the ones that are there; roll back.
    """
    events: list[Row] = []
    last: dict[bytes, Run] = {}
    first: dict[bytes, int] = {}
    for entry in entries:
        run, event = entry.run, entry.event
        run_key = run.id.bytes
        number = run.events - 1
        events.append((run_key, number, time_of(event), to_json(event)))
        before = last.get(run_key)
        if before is None:
            first[run_key] = number
        elif before.events != number:
            raise OutOfStep
        last[run_key] = run
    insert(connection, _INSERT_EVENT, events)

    new_tasks: list[Row] = []
    new_flows: list[Row] = []
    tasks: list[Row] = []
    flows: list[Row] = []
    for run_key, run in last.items():
        number = first[run_key]
        if isinstance(run, TaskRun):
            if number == 0:
                new_tasks.append(task_row(run))
            else:
                tasks.append(_task_changes(run, number))
        elif number == 0:
            new_flows.append(flow_row(run))
        else:
            flows.append(_flow_changes(run, number))
    if new_flows:
        connection.executemany(_INSERT_FLOW, new_flows)
    if new_tasks:
        insert(connection, _INSERT_TASK, new_tasks)
    for statement, rows in ((_UPDATE_FLOW, flows), (_UPDATE_TASK, tasks)):
        if rows and connection.executemany(statement, rows).rowcount != len(rows):
            raise OutOfStep


def following(connection: sqlite3.Connection, entries: Sequence[Entry]) -> list[Entry]:
    """The entries that follow what is there.

    What was written before is left out silently: a commit may have succeeded although its writer was told otherwise.
    From the first entry that does not fit, a run's entries are left out with a warning.
    """
    written: dict[UUID, list[str]] = {}
    refused: set[UUID] = set()
    kept: list[Entry] = []
    for entry in entries:
        run, event = entry.run, entry.event
        if run.id not in written:
            written[run.id] = _bodies(connection, run)
            if _has_ended_alone(connection, run):
                refused.add(run.id)
        bodies, number, body = written[run.id], run.events - 1, to_json(event)
        if number < len(bodies) and bodies[number] == body:
            continue
        if run.id in refused or number != len(bodies):
            refused.add(run.id)
            logger.warning(
                "%s of run %r (%s) does not follow its history and was left out.",
                type(event).__name__,
                run.name,
                run.id,
            )
            continue
        bodies.append(body)
        kept.append(entry)
    return kept


def _bodies(connection: sqlite3.Connection, run: Run) -> list[str]:
    rows = connection.execute("SELECT body FROM event WHERE run_id = ? ORDER BY number", (run.id.bytes,))
    return [body for (body,) in rows]


def _has_ended_alone(connection: sqlite3.Connection, run: Run) -> bool:
    row = connection.execute(
        "SELECT 1 FROM task_run WHERE id = ? AND flow_run_id IS NULL "
        "AND state_type IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')",
        (run.id.bytes,),
    ).fetchone()
    return row is not None


def _task_changes(run: TaskRun, first: int) -> Row:
    return (
        storable(run.name),
        run.state_type.value,
        storable(run.state_name),
        run.start_us,
        run.end_us,
        run.events,
        to_json(run),
        run.id.bytes,
        first,
    )


def _flow_changes(run: FlowRun, first: int) -> Row:
    return (
        storable(run.name),
        run.state_type.value,
        storable(run.state_name),
        run.start_us,
        run.end_us,
        key(run.owner_id),
        run.epoch,
        run.events,
        to_json(run),
        run.id.bytes,
        first,
    )
