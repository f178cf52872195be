"""What task runs printed and displayed, in `logs.db`."""

import sqlite3
from collections.abc import Callable, Sequence
from uuid import UUID

from prefect_nb.interfaces.outputs import CLEAR, Output, OutputSummary
from prefect_nb.store.database import Database
from prefect_nb.store.rows import key, storable

_AT_A_TIME = 500
_COLUMNS = "task_run_id, number, at_us, kind, data, flow_run_id"
_WRITE = f"INSERT OR REPLACE INTO outputs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"


class SqliteOutputs:
    """An `OutputStore` in the database of the logs.

    Args:
        database: opens it, on first use.
    """

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database

    def write(self, outputs: Sequence[Output]) -> None:
        """Append outputs, or replace those with the same numbers."""
        if not outputs:
            return
        with self._database().transaction() as connection:
            for output in outputs:
                if output.kind == CLEAR:
                    sql = "DELETE FROM outputs WHERE task_run_id = ? AND number <= ?"
                    connection.execute(sql, (output.task_run_id.bytes, output.number))
                else:
                    _write(connection, output)

    def read(self, task_run_id: UUID, after: int = -1, limit: int = 10_000) -> list[Output]:
        """A task run's outputs in order, after a number."""
        sql = f"SELECT {_COLUMNS} FROM outputs WHERE task_run_id = ? AND number > ? ORDER BY number LIMIT ?"
        with self._database().reading() as connection:
            return list(map(_output, connection.execute(sql, (task_run_id.bytes, after, limit))))

    def next_numbers(self, task_run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The number after the last, of those task runs that have outputs."""
        found: dict[UUID, int] = {}
        with self._database().reading() as connection:
            for some in _portions(task_run_ids):
                sql = (
                    "SELECT task_run_id, max(number) + 1 FROM outputs "
                    f"WHERE task_run_id IN ({', '.join('?' * len(some))}) GROUP BY task_run_id"
                )
                rows = connection.execute(sql, [id.bytes for id in some])
                found |= {UUID(bytes=id): number for id, number in rows}
        return found

    def summaries(self, flow_run_ids: Sequence[UUID]) -> list[OutputSummary]:
        """For each task run of these flow runs that showed something."""
        found: list[OutputSummary] = []
        with self._database().reading() as connection:
            for some in _portions(flow_run_ids):
                sql = (
                    "SELECT task_run_id, count(*), sum(kind = 'display') FROM outputs "
                    f"WHERE flow_run_id IN ({', '.join('?' * len(some))}) GROUP BY task_run_id ORDER BY min(at_us)"
                )
                rows = connection.execute(sql, [id.bytes for id in some])
                found += [OutputSummary(UUID(bytes=id), count, displays) for id, count, displays in rows]
        return found


def _write(connection: sqlite3.Connection, output: Output) -> None:
    connection.execute(
        _WRITE,
        (
            output.task_run_id.bytes,
            output.number,
            output.at_us,
            output.kind,
            storable(output.data),
            key(output.flow_run_id),
        ),
    )


def _output(row: tuple[bytes, int, int, str, str, bytes | None]) -> Output:
    id, number, at_us, kind, data, flow = row
    return Output(UUID(bytes=id), number, at_us, kind, data, None if flow is None else UUID(bytes=flow))


def _portions(ids: Sequence[UUID]) -> list[Sequence[UUID]]:
    return [ids[start : start + _AT_A_TIME] for start in range(0, len(ids), _AT_A_TIME)]
