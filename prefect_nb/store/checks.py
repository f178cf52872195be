"""What `prefect-nb doctor` asks of a database: is the file whole, and does every row follow from its events."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import StoreDamaged
from prefect_nb.interfaces import Problem
from prefect_nb.model.codec import decode_event, decode_flow_run, decode_task_run
from prefect_nb.model.events import fold
from prefect_nb.model.runs import Run, TaskRun
from prefect_nb.store.database import Database
from prefect_nb.store.rows import FLOW_COLUMNS, TASK_COLUMNS, flow_row, task_row
from prefect_nb.store.sqlite_reads import marks

_RESTORE = "Restore a backup of the file. Without one, keep it: runs that are not named here can still be read."
_REBUILD = "`prefect-nb doctor --mend` writes the row again from the run's events."
_PAGE = 500

_TABLES: tuple[tuple[str, str, Any, Any], ...] = (
    ("flow_run", FLOW_COLUMNS, decode_flow_run, flow_row),
    ("task_run", TASK_COLUMNS, decode_task_run, task_row),
)


def integrity(database: Database) -> list[Problem]:
    """What SQLite's integrity check finds."""
    return [Problem(what, str(database.path), _RESTORE) for what in database.problems()]


def unusable_logs(home: Path, error: Exception) -> Problem:
    """That the file of the log lines cannot be opened; the runs are in another one."""
    aside = home / "damaged-logs"
    mend = (
        f"Only log lines are in it. Stop what uses it and move it away, and a new one begins: "
        f"mkdir {aside} && mv {home}/logs.db* {aside}"
    )
    return Problem(str(error), str(home / "logs.db"), mend)


def folds(database: Database) -> list[Problem]:
    """Runs whose row, columns and events do not agree; read page by page, so that nobody has to wait."""
    problems: list[Problem] = []
    for table, columns, decode, to_row in _TABLES:
        rowid = 0
        while True:
            with _reading_any_text(database) as connection:
                connection.execute("BEGIN")
                rows = connection.execute(
                    f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT {_PAGE}", (rowid,)
                ).fetchall()
                events = _events(connection, [row[1] for row in rows])
            if not rows:
                break
            rowid = rows[-1][0]
            for _, *row in rows:
                wrong = _disagreement(tuple(row), events.get(row[0], []), decode, to_row)
                if wrong:
                    what, mend = wrong
                    problems.append(Problem(what, f"{table} {UUID(bytes=row[0])} in {database.path}", mend))
    with database.reading() as connection:
        lost = connection.execute(
            "SELECT DISTINCT run_id FROM event WHERE number = 0 AND run_id NOT IN (SELECT id FROM flow_run) "
            "AND run_id NOT IN (SELECT id FROM task_run) LIMIT 20"
        ).fetchall()
    problems += [
        Problem("there are events but no row", f"run {UUID(bytes=id)} in {database.path}", _REBUILD) for (id,) in lost
    ]
    return problems


def folded(connection: sqlite3.Connection, run_id: UUID) -> Run | None:
    """What a run's events make of it; None if there are none, or they are not all there, or cannot be read."""
    try:
        run = _fold(_events(connection, [run_id.bytes]).get(run_id.bytes, []))
    except ValueError:
        return None
    return run if run is not None and run.id == run_id else None


def out_of_step(database: Database, runs: Iterable[Run]) -> StoreDamaged:
    """Why these runs take no more events: the rows of some count others than there are."""
    names: list[str] = []
    ids: set[UUID] = set()
    with database.reading() as connection:
        for run in {run.id: run for run in runs}.values():
            table = "task_run" if isinstance(run, TaskRun) else "flow_run"
            row, events = connection.execute(
                f"SELECT (SELECT events FROM {table} WHERE id = ?1), (SELECT count(*) FROM event WHERE run_id = ?1)",
                (run.id.bytes,),
            ).fetchone()
            if (row or 0) != events:
                names.append(f"{run.name!r} ({run.id})")
                ids.add(run.id)
    error = StoreDamaged(
        f"{database.path}: the row of {', '.join(names) or 'a run'} is not what its events say; nothing was written. "
        "`prefect-nb doctor --mend` writes it again from its events."
    )
    error.run_ids = frozenset(ids)
    return error


@contextmanager
def _reading_any_text(database: Database) -> Iterator[sqlite3.Connection]:
    """As `Database.reading`; what is no UTF-8 is read all the same, and is then not what the events say."""
    with database.reading() as connection:
        connection.text_factory = lambda data: data.decode(errors="replace")
        try:
            yield connection
        finally:
            connection.text_factory = str


def _events(connection: sqlite3.Connection, run_ids: list[bytes]) -> dict[bytes, list[tuple[int, str]]]:
    rows = connection.execute(
        f"SELECT run_id, number, body FROM event WHERE run_id IN ({marks(run_ids)}) ORDER BY run_id, number", run_ids
    ).fetchall()
    return {
        run_id: [(number, body) for _, number, body in group] for run_id, group in groupby(rows, key=lambda row: row[0])
    }


def _fold(events: Sequence[tuple[int, str]]) -> Run | None:
    """Numbers and bodies of events as a snapshot.

    Raises:
        ValueError: one is missing, cannot be read, or does not follow.
    """
    if [number for number, _ in events] != list(range(len(events))):
        raise ValueError("they are not numbered without gaps")
    return fold(decode_event(body) for _, body in events)


def _disagreement(
    row: tuple[Any, ...], events: list[tuple[int, str]], decode: Any, to_row: Any
) -> tuple[str, str] | None:
    """What is wrong with a run, and how to mend it."""
    try:
        run = _fold(events)
    except ValueError as error:
        return f"its events cannot be read: {error}", _RESTORE
    if run is None:
        return "there is a row but no events", _RESTORE
    try:
        found = decode(row[-1])
    except ValueError as error:
        return f"its row cannot be read: {error}", _REBUILD
    if found != run:
        return "its row is not what its events say", _REBUILD
    if to_row(run)[:-1] != row[:-1]:
        return "its columns do not say what its snapshot says", _REBUILD
    return None
