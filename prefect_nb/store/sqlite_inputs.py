"""Inputs of flow runs in `prefect_nb.db`."""

import sqlite3
from collections.abc import Collection
from uuid import UUID

from prefect_nb.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect_nb.interfaces.inputs import FlowRunInput, PauseEnd
from prefect_nb.store.database import Database
from prefect_nb.store.rows import storable

_INPUT = "id, flow_run_id, key, value, sender, created_us"
_INTO_INPUTS = f"INTO run_input ({_INPUT}) VALUES (?, ?, ?, ?, ?, ?)"
_END = "state_id, flow_run_id, key, outcome, at_us"


class SqliteInputs:
    """An `InputStore` in the database of the history."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, item: FlowRunInput, replace: bool = False) -> None:
        """Keep an input.

        Raises:
            ObjectNotFound, ObjectAlreadyExists: no such flow run; the key is taken.
        """
        with self._database.transaction() as connection:
            known = connection.execute("SELECT 1 FROM flow_run WHERE id = ?", (item.flow_run_id.bytes,)).fetchone()
            if known is None:
                raise ObjectNotFound(f"There is no flow run {item.flow_run_id}.")
            verb = "REPLACE" if replace else "IGNORE"
            if connection.execute(f"INSERT OR {verb} {_INTO_INPUTS}", _input_row(item)).rowcount == 0:
                raise ObjectAlreadyExists(f"Flow run {item.flow_run_id} has an input {item.key!r} already.")

    def read(self, flow_run_id: UUID, key: str) -> FlowRunInput | None:
        """The input of that key; None for none."""
        found = self._inputs("flow_run_id = ? AND key = ?", flow_run_id.bytes, key)
        return found[0] if found else None

    def find(
        self, flow_run_id: UUID, prefix: str, limit: int | None = None, exclude: Collection[str] = ()
    ) -> list[FlowRunInput]:
        """The inputs whose keys begin with the prefix, oldest first."""
        found = self._inputs("flow_run_id = ? AND substr(key, 1, ?) = ?", flow_run_id.bytes, len(prefix), prefix)
        return [item for item in found if item.key not in exclude][:limit]

    def delete(self, flow_run_id: UUID, key: str) -> bool:
        """Drop an input; False if there was none of that key."""
        with self._database.transaction() as connection:
            sql = "DELETE FROM run_input WHERE flow_run_id = ? AND key = ?"
            return bool(connection.execute(sql, (flow_run_id.bytes, key)).rowcount)

    def end_pause(self, end: PauseEnd, response: FlowRunInput | None = None) -> bool:
        """Note how a pause ended, and keep the answer; False if it had ended already."""
        row = (end.state_id.bytes, end.flow_run_id.bytes, end.key, end.outcome, end.at_us)
        with self._database.transaction() as connection:
            first = connection.execute(f"INSERT OR IGNORE INTO pause_end ({_END}) VALUES (?, ?, ?, ?, ?)", row).rowcount
            if first and response is not None:
                connection.execute(f"INSERT OR REPLACE {_INTO_INPUTS}", _input_row(response))
            return bool(first)

    def pause_end(self, state_id: UUID) -> PauseEnd | None:
        """How that pause ended; None if it has not."""
        with self._database.reading() as connection:
            row = connection.execute(f"SELECT {_END} FROM pause_end WHERE state_id = ?", (state_id.bytes,)).fetchone()
        if row is None:
            return None
        _, flow_run_id, key, outcome, at_us = row
        return PauseEnd(state_id=state_id, flow_run_id=UUID(bytes=flow_run_id), key=key, outcome=outcome, at_us=at_us)

    def answered(self, flow_run_id: UUID) -> frozenset[str]:
        """The keys of the flow run's pauses that were resumed."""
        sql = "SELECT key FROM pause_end WHERE flow_run_id = ? AND outcome = 'resumed' AND key IS NOT NULL"
        with self._database.reading() as connection:
            return frozenset(key for (key,) in connection.execute(sql, (flow_run_id.bytes,)))

    def _inputs(self, where: str, *values: object) -> list[FlowRunInput]:
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT {_INPUT} FROM run_input WHERE {where} ORDER BY cursor", values)
            return [_input(row) for row in rows]


def _input_row(item: FlowRunInput) -> tuple[object, ...]:
    sender = None if item.sender is None else storable(item.sender)
    return (item.id.bytes, item.flow_run_id.bytes, item.key, storable(item.value), sender, item.created_us)


def _input(row: sqlite3.Row) -> FlowRunInput:
    id, flow_run_id, key, value, sender, created_us = row
    return FlowRunInput(
        id=UUID(bytes=id),
        flow_run_id=UUID(bytes=flow_run_id),
        key=key,
        value=value,
        sender=sender,
        created_us=created_us,
    )
