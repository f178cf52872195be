"""Artifacts and variables in `prefect_nb.db`."""

from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.interfaces.objects import Artifact, ArtifactQuery, Variable
from prefect_nb.store.database import Database
from prefect_nb.store.rows import key as key_of
from prefect_nb.store.rows import storable, to_json

_ARTIFACT = "id, key, type, description, data, metadata, flow_run_id, task_run_id, created_us, updated_us"
_VARIABLE = "id, name, value, tags, created_us, updated_us"
_decode = msgspec.json.decode


class SqliteObjects:
    """An `ObjectStore` in the database of the history."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_artifact(self, artifact: Artifact) -> None:
        """Keep a new artifact."""
        row = (
            artifact.id.bytes,
            _text(artifact.key),
            _text(artifact.type),
            _text(artifact.description),
            to_json(artifact.data),
            None if artifact.metadata is None else to_json(artifact.metadata),
            key_of(artifact.flow_run_id),
            key_of(artifact.task_run_id),
            artifact.created_us,
            artifact.updated_us,
        )
        with self._database.transaction() as connection:
            connection.execute(f"INSERT INTO artifact ({_ARTIFACT}) VALUES (?,?,?,?,?,?,?,?,?,?)", row)

    def update_artifact(self, id: UUID, at_us: int, data: Any = None, description: str | None = None) -> bool:
        """Replace the data or the description."""
        new = (None if data is None else to_json(data), _text(description), at_us, id.bytes)
        sql = (
            "UPDATE artifact SET data = coalesce(?, data), description = coalesce(?, description), updated_us = ? "
            "WHERE id = ?"
        )
        with self._database.transaction() as connection:
            return bool(connection.execute(sql, new).rowcount)

    def artifact(self, id: UUID) -> Artifact | None:
        """One artifact."""
        found = self._artifacts("WHERE id = ?", id.bytes)
        return found[0] if found else None

    def artifacts(self, query: ArtifactQuery) -> list[Artifact]:
        """The artifacts that fit."""
        terms = ["true"]
        values: list[str | bytes] = []
        if query.key is not None:
            terms.append("key = ?")
            values.append(query.key)
        runs = {"flow_run_id": query.flow_run_ids, "task_run_id": query.task_run_ids}
        of_runs = [f"{column} IN ({', '.join('?' * len(ids))})" for column, ids in runs.items() if ids]
        if of_runs:
            terms.append(f"({' OR '.join(of_runs)})")
            values += [id.bytes for ids in runs.values() for id in ids]
        if query.latest:
            terms.append(
                "key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM artifact AS newer WHERE newer.key = artifact.key "
                "AND (newer.created_us, newer.id) > (artifact.created_us, artifact.id))"
            )
        where = f"WHERE {' AND '.join(terms)} ORDER BY created_us DESC, id DESC LIMIT ?"
        data = "data" if query.largest is None else f"iif(length(data) > {int(query.largest)}, 'null', data)"
        return self._artifacts(where, *values, query.limit, data=data)

    def delete_artifacts(self, id: UUID | None = None, key: str | None = None) -> int:
        """Drop the artifact of this id, or all of this key."""
        with self._database.transaction() as connection:
            sql = "DELETE FROM artifact WHERE id = ? OR key = ?"
            return connection.execute(sql, (key_of(id), key)).rowcount

    def set_variable(self, variable: Variable, overwrite: bool = False) -> bool:
        """Keep a variable."""
        sql = f"INSERT INTO variable ({_VARIABLE}) VALUES (?,?,?,?,?,?) ON CONFLICT (name) DO "
        if overwrite:
            sql += "UPDATE SET value = excluded.value, tags = excluded.tags, updated_us = excluded.updated_us"
        else:
            sql += "NOTHING"
        row = (
            variable.id.bytes,
            storable(variable.name),
            to_json(variable.value),
            to_json(list(variable.tags)),
            variable.created_us,
            variable.updated_us,
        )
        with self._database.transaction() as connection:
            return bool(connection.execute(sql, row).rowcount)

    def variable(self, name: str) -> Variable | None:
        """One variable."""
        found = self._variables("WHERE name = ?", storable(name))
        return found[0] if found else None

    def variables(self, limit: int = 200) -> list[Variable]:
        """Variables by name."""
        return self._variables("ORDER BY name LIMIT ?", limit)

    def unset_variable(self, name: str) -> bool:
        """Drop a variable."""
        with self._database.transaction() as connection:
            return bool(connection.execute("DELETE FROM variable WHERE name = ?", (storable(name),)).rowcount)

    def _artifacts(self, rest: str, *values: Any, data: str = "data") -> list[Artifact]:
        columns = _ARTIFACT.replace("data,", f"{data},", 1)
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT {columns} FROM artifact {rest}", values).fetchall()
        return [
            Artifact(
                id=UUID(bytes=id),
                key=key,
                type=type_,
                description=description,
                data=_decode(data),
                metadata=metadata and _decode(metadata),
                flow_run_id=flow and UUID(bytes=flow),
                task_run_id=task and UUID(bytes=task),
                created_us=created_us,
                updated_us=updated_us,
            )
            for id, key, type_, description, data, metadata, flow, task, created_us, updated_us in rows
        ]

    def _variables(self, rest: str, *values: Any) -> list[Variable]:
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT {_VARIABLE} FROM variable {rest}", values).fetchall()
        return [
            Variable(
                id=UUID(bytes=id),
                name=name,
                value=_decode(value),
                tags=tuple(_decode(tags)),
                created_us=created_us,
                updated_us=updated_us,
            )
            for id, name, value, tags, created_us, updated_us in rows
        ]


def _text(text: str | None) -> str | None:
    return None if text is None else storable(text)
