"""What `prefect-nb doctor` asks of a database: is the file whole, and does every row follow from its events."""

import sqlite3
from itertools import groupby
from typing import Any
from uuid import UUID

from prefect_nb.interfaces import Problem
from prefect_nb.model.codec import decode_event, decode_flow_run, decode_task_run
from prefect_nb.model.events import fold
from prefect_nb.store.database import Database
from prefect_nb.store.rows import FLOW_COLUMNS, TASK_COLUMNS, flow_row, task_row
from prefect_nb.store.sqlite_reads import marks

_RESTORE = "Restore a backup of the file. Without one, keep it: runs that are not named here can still be read."
_PAGE = 500

_TABLES: tuple[tuple[str, str, Any, Any], ...] = (
    ("flow_run", FLOW_COLUMNS, decode_flow_run, flow_row),
    ("task_run", TASK_COLUMNS, decode_task_run, task_row),
)


def integrity(database: Database) -> list[Problem]:
    """What SQLite's integrity check finds."""
    return [Problem(what, str(database.path), _RESTORE) for what in database.problems()]


def folds(database: Database) -> list[Problem]:
    """Runs whose row, columns and events do not agree; read page by page, so that nobody has to wait."""
    problems: list[Problem] = []
    for table, columns, decode, to_row in _TABLES:
        rowid = 0
        while True:
            with database.reading() as connection:
                connection.execute("BEGIN")
                rows = connection.execute(
                    f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT {_PAGE}", (rowid,)
                ).fetchall()
                events = _events(connection, [row[1] for row in rows])
            if not rows:
                break
            rowid = rows[-1][0]
            for _, *row in rows:
                what = _disagreement(tuple(row), events.get(row[0], []), decode, to_row)
                if what:
                    problems.append(Problem(what, f"{table} {UUID(bytes=row[0])} in {database.path}", _RESTORE))
    with database.reading() as connection:
        lost = connection.execute(
            "SELECT DISTINCT run_id FROM event WHERE number = 0 AND run_id NOT IN (SELECT id FROM flow_run) "
            "AND run_id NOT IN (SELECT id FROM task_run) LIMIT 20"
        ).fetchall()
    problems += [
        Problem("there are events but no row", f"run {UUID(bytes=id)} in {database.path}", _RESTORE) for (id,) in lost
    ]
    return problems


def _events(connection: sqlite3.Connection, run_ids: list[bytes]) -> dict[bytes, list[tuple[int, str]]]:
    rows = connection.execute(
        f"SELECT run_id, number, body FROM event WHERE run_id IN ({marks(run_ids)}) ORDER BY run_id, number", run_ids
    ).fetchall()
    return {
        run_id: [(number, body) for _, number, body in group] for run_id, group in groupby(rows, key=lambda row: row[0])
    }


def _disagreement(row: tuple[Any, ...], events: list[tuple[int, str]], decode: Any, to_row: Any) -> str | None:
    try:
        run = decode(row[-1])
        if [number for number, _ in events] != list(range(len(events))):
            return "its events are not numbered without gaps"
        if fold(decode_event(body) for _, body in events) != run:
            return "its row is not what its events say"
        if to_row(run)[:-1] != row[:-1]:
            return "its columns do not say what its snapshot says"
    except ValueError as error:
        return f"it cannot be read: {error}"
    return None
