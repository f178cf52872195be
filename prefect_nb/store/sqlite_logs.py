"""Log lines in `logs.db`, and how many of them a run may keep."""

import sqlite3
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from prefect_nb.interfaces import LogLine
from prefect_nb.store.log_limits import LogLimit, lines_left_out, log_of, size_of
from prefect_nb.store.rows import Row, insert, key, storable

_INSERT = "INSERT INTO log (at_us, level, name, flow_run_id, task_run_id, message) VALUES (?, ?, ?, ?, ?, ?)"
_ADD_UP = """
    INSERT INTO log_total (run_id, lines, bytes) VALUES (?, ?, ?)
    ON CONFLICT (run_id) DO UPDATE SET lines = lines + excluded.lines, bytes = bytes + excluded.bytes"""
_OF_FLOW_RUN = "flow_run_id = ?"
_OF_TASK_RUN = "task_run_id = ? AND flow_run_id IS NULL"


def write(connection: sqlite3.Connection, lines: Sequence[LogLine], limit: LogLimit) -> None:
    """Append log lines; of a run that has more than it may have, the oldest go."""
    rows: list[Row] = [
        (
            line.at_us,
            line.level,
            storable(line.name),
            key(line.flow_run_id),
            key(line.task_run_id),
            storable(line.message),
        )
        for line in lines
    ]
    insert(connection, _INSERT, rows, (500, 40))
    ordered = sorted(lines, key=lambda line: log_of(line) or UUID(int=0))
    for id, group in groupby(ordered, log_of):
        if id is None:
            continue
        theirs = list(group)
        connection.execute(_ADD_UP, (id.bytes, len(theirs), sum(map(size_of, theirs))))
        total = connection.execute("SELECT lines, bytes FROM log_total WHERE run_id = ?", (id.bytes,)).fetchone()
        if total[0] > limit.lines or total[1] > limit.bytes:
            _trim(connection, theirs[-1], total[0] - limit.lines, total[1] - limit.bytes, limit)


def _trim(connection: sqlite3.Connection, newest: LogLine, lines: int, size: int, limit: LogLimit) -> None:
    """Drop at least that many of a run's oldest lines and bytes, and say so where they were."""
    id = log_of(newest)
    assert id is not None
    where = _OF_FLOW_RUN if newest.flow_run_id is not None else _OF_TASK_RUN
    (marker,) = connection.execute("SELECT marker FROM log_total WHERE run_id = ?", (id.bytes,)).fetchone()
    oldest = connection.execute(
        f"SELECT cursor, length(CAST(message AS BLOB)), at_us FROM log WHERE {where} AND cursor > ? ORDER BY cursor",
        (id.bytes, marker or 0),
    )
    dropped = freed = last = at_us = 0
    while (dropped < lines or freed < size) and (row := oldest.fetchone()) is not None:
        last, length, at_us = row
        dropped += 1
        freed += length
    oldest.close()
    connection.execute(f"DELETE FROM log WHERE {where} AND cursor <= ?", (id.bytes, last))
    (all_dropped,) = connection.execute(
        "UPDATE log_total SET lines = lines - ?, bytes = bytes - ?, dropped = dropped + ?, marker = ? WHERE run_id = ? "
        "RETURNING dropped",
        (dropped, freed, dropped, last, id.bytes),
    ).fetchone()
    line = lines_left_out(at_us, all_dropped, limit, newest)
    connection.execute(
        _INSERT.replace("(at_us", "(cursor, at_us").replace("(?", "(?, ?", 1),
        (last, line.at_us, line.level, line.name, key(line.flow_run_id), key(line.task_run_id), line.message),
    )


def read(
    connection: sqlite3.Connection,
    flow_run_id: UUID | None,
    task_run_id: UUID | None,
    min_level: int,
    after: int,
    limit: int,
) -> list[tuple[int, LogLine]]:
    """Log lines with their cursors, oldest first, after a cursor."""
    terms = ["cursor > ?", "level >= ?"]
    values: list[Any] = [after, min_level]
    for column, id in (("flow_run_id", flow_run_id), ("task_run_id", task_run_id)):
        if id is not None:
            terms.append(f"{column} = ?")
            values.append(id.bytes)
    sql = (
        "SELECT cursor, at_us, level, name, message, flow_run_id, task_run_id FROM log "
        f"WHERE {' AND '.join(terms)} ORDER BY cursor LIMIT ?"
    )
    rows = connection.execute(sql, (*values, limit)).fetchall()
    return [
        (cursor, LogLine(at_us, level, name, message, flow and UUID(bytes=flow), task and UUID(bytes=task)))
        for cursor, at_us, level, name, message, flow, task in rows
    ]
