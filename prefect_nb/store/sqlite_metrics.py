"""Metrics in `logs.db`: a name and run is stored once, a point in a few bytes. SQLite's NULL stands for NaN."""

import math
import sqlite3
from collections.abc import Callable, Sequence
from uuid import UUID

from prefect_nb.interfaces.metrics import MetricPoint, MetricSummary
from prefect_nb.store.database import Database
from prefect_nb.store.rows import key, storable

_NONE = UUID(int=0).bytes
_SUMMARY = """
    SELECT m.id, m.name, m.flow_run_id, m.task_run_id, p.number, newest.value, p.least, p.greatest
    FROM metric AS m
    JOIN (SELECT metric_id, count(*) AS number, max(cursor) AS cursor, min(value) AS least, max(value) AS greatest
        FROM metric_point WHERE metric_id IN (SELECT id FROM metric WHERE {}) GROUP BY metric_id) AS p
    ON p.metric_id = m.id
    JOIN metric_point AS newest ON newest.cursor = p.cursor
    ORDER BY m.id"""


class SqliteMetrics:
    """A `MetricStore` in the database of the logs.

    Args:
        database: opens it, on first use.
    """

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database

    def write(self, points: Sequence[MetricPoint]) -> None:
        """Append points, in one transaction."""
        if not points:
            return
        with self._database().transaction() as connection:
            ids: dict[tuple[UUID | None, UUID | None, str], int] = {}
            rows = []
            for point in points:
                metric = (point.flow_run_id, point.task_run_id, point.name)
                id = ids.get(metric)
                if id is None:
                    id = ids[metric] = _metric_id(connection, point)
                rows.append((id, point.at_us, point.step, point.value))
            sql = "INSERT INTO metric_point (metric_id, at_us, step, value) VALUES (?, ?, ?, ?)"
            connection.executemany(sql, rows)

    def points(self, id: int, after: int = 0, limit: int = 10_000) -> list[tuple[int, MetricPoint]]:
        """Points of one run and name with their cursors, oldest first, after a cursor."""
        sql = (
            "SELECT cursor, at_us, value, step FROM metric_point WHERE metric_id = ? AND cursor > ? "
            "ORDER BY cursor LIMIT ?"
        )
        with self._database().reading() as connection:
            metric = connection.execute("SELECT name, flow_run_id, task_run_id FROM metric WHERE id = ?", (id,))
            name, flow, task = metric.fetchone()
            rows = connection.execute(sql, (id, after, limit)).fetchall()
        runs = (_uuid(flow), _uuid(task))
        return [
            (cursor, MetricPoint(at_us, name, math.nan if value is None else value, step, *runs))
            for cursor, at_us, value, step in rows
        ]

    def summaries(self, flow_run_ids: Sequence[UUID] = (), task_run_ids: Sequence[UUID] = ()) -> list[MetricSummary]:
        """For each name and run, in the order in which they first came."""
        runs = {"flow_run_id": flow_run_ids, "run_id": task_run_ids}
        terms = [f"{column} IN ({', '.join('?' * len(ids))})" for column, ids in runs.items() if ids]
        values = [id.bytes for ids in runs.values() for id in ids]
        with self._database().reading() as connection:
            rows = connection.execute(_SUMMARY.format(" OR ".join(terms) or "false"), values).fetchall()
        return [
            MetricSummary(
                id, name, _uuid(flow), _uuid(task), count, math.nan if last is None else last, least, greatest
            )
            for id, name, flow, task, count, last, least, greatest in rows
        ]


def _metric_id(connection: sqlite3.Connection, point: MetricPoint) -> int:
    run = point.run_id
    known = (run.bytes if run is not None else _NONE, storable(point.name))
    sql = "SELECT id FROM metric WHERE run_id = ? AND name = ?"
    found = connection.execute(sql, known).fetchone()
    if found is None:
        connection.execute(
            "INSERT INTO metric (run_id, name, flow_run_id, task_run_id) VALUES (?, ?, ?, ?)",
            (*known, key(point.flow_run_id), key(point.task_run_id)),
        )
        found = connection.execute(sql, known).fetchone()
    return int(found[0])


def _uuid(stored: bytes | None) -> UUID | None:
    return None if stored is None else UUID(bytes=stored)
