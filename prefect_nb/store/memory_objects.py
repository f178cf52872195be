"""Artifacts and variables in memory."""

import threading
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from msgspec.json import encode
from msgspec.structs import replace

from prefect_nb.interfaces.objects import Artifact, ArtifactQuery, Variable


class MemoryObjects:
    """An `ObjectStore` that ends with its process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._artifacts: dict[UUID, Artifact] = {}
        self._variables: dict[str, Variable] = {}

    def add_artifact(self, artifact: Artifact) -> None:
        """Keep a new artifact."""
        with self._lock:
            self._artifacts[artifact.id] = artifact

    def update_artifact(self, id: UUID, at_us: int, data: Any = None, description: str | None = None) -> bool:
        """Replace the data or the description."""
        changes = {"data": data, "description": description}
        with self._lock:
            found = self._artifacts.get(id)
            if found is not None:
                kept = {name: value for name, value in changes.items() if value is not None}
                self._artifacts[id] = replace(found, updated_us=at_us, **kept)
            return found is not None

    def artifact(self, id: UUID) -> Artifact | None:
        """One artifact."""
        return self._artifacts.get(id)

    def artifacts(self, query: ArtifactQuery) -> list[Artifact]:
        """The artifacts that fit."""
        with self._lock:
            artifacts: Iterable[Artifact] = sorted(self._artifacts.values(), key=_age)
        if query.latest:
            artifacts = {item.key: item for item in artifacts if item.key is not None}.values()
        some_run = query.flow_run_ids or query.task_run_ids
        found = [
            item
            for item in artifacts
            if query.key in (None, item.key)
            and (not some_run or item.flow_run_id in query.flow_run_ids or item.task_run_id in query.task_run_ids)
        ]
        found.sort(key=_age, reverse=True)
        found = found[: query.limit if query.limit >= 0 else None]
        if query.largest is None:
            return found
        most = query.largest
        return [replace(item, data=None) if len(encode(item.data).decode()) > most else item for item in found]

    def delete_artifacts(self, id: UUID | None = None, key: str | None = None) -> int:
        """Drop the artifact of this id, or all of this key."""
        with self._lock:
            gone = [item for item in self._artifacts.values() if item.id == id or (key is not None and item.key == key)]
            for item in gone:
                del self._artifacts[item.id]
            return len(gone)

    def set_variable(self, variable: Variable, overwrite: bool = False) -> bool:
        """Keep a variable."""
        with self._lock:
            before = self._variables.get(variable.name)
            if before is not None:
                if not overwrite:
                    return False
                variable = replace(variable, id=before.id, created_us=before.created_us)
            self._variables[variable.name] = variable
            return True

    def variable(self, name: str) -> Variable | None:
        """One variable."""
        return self._variables.get(name)

    def variables(self, limit: int = 200) -> list[Variable]:
        """Variables by name."""
        with self._lock:
            found = [self._variables[name] for name in sorted(self._variables)]
        return found[: limit if limit >= 0 else None]

    def unset_variable(self, name: str) -> bool:
        """Drop a variable."""
        with self._lock:
            return self._variables.pop(name, None) is not None


def _age(artifact: Artifact) -> tuple[int, bytes]:
    return (artifact.created_us, artifact.id.bytes)
