"""Port of what runs leave for people and for each other: artifacts and variables."""

from typing import Any, Protocol
from uuid import UUID

import msgspec


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """Something a run made for people to see. Those of one key are its versions. Times: microseconds, UTC."""

    id: UUID
    key: str | None = None
    type: str | None = None
    description: str | None = None
    data: Any = None
    """What JSON can express."""
    metadata: dict[str, str] | None = None
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None
    created_us: int = 0
    updated_us: int = 0


class ArtifactQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which artifacts to list, newest first. Empty means any."""

    key: str | None = None
    flow_run_ids: tuple[UUID, ...] = ()
    task_run_ids: tuple[UUID, ...] = ()
    latest: bool = False
    """Of each key only the newest version; artifacts without a key are left out."""
    largest: int | None = None
    """Data of more characters (as JSON) is not read: the artifact comes with None for it."""
    limit: int = 200


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """A named JSON value. Times: microseconds, UTC."""

    id: UUID
    name: str
    value: Any = None
    tags: tuple[str, ...] = ()
    created_us: int = 0
    updated_us: int = 0


class ObjectStore(Protocol):
    """Artifacts and variables. Every write is durable when the call returns, and another process sees it at once."""

    def add_artifact(self, artifact: Artifact) -> None:
        """Keep a new artifact."""
        ...

    def update_artifact(self, id: UUID, at_us: int, data: Any = None, description: str | None = None) -> bool:
        """Replace the data or the description (None: leave it); False if there is no such artifact."""
        ...

    def artifact(self, id: UUID) -> Artifact | None:
        """One artifact."""
        ...

    def artifacts(self, query: ArtifactQuery) -> list[Artifact]:
        """The artifacts that fit, newest first."""
        ...

    def delete_artifacts(self, id: UUID | None = None, key: str | None = None) -> int:
        """Drop the artifact of this id, or all of this key; how many there were."""
        ...

    def set_variable(self, variable: Variable, overwrite: bool = False) -> bool:
        """Keep a variable; of one that exists only value, tags and `updated_us` change, and only with `overwrite`.

        Returns:
            False if it exists and was left as it is.
        """
        ...

    def variable(self, name: str) -> Variable | None:
        """One variable."""
        ...

    def variables(self, limit: int = 200) -> list[Variable]:
        """Variables by name."""
        ...

    def unset_variable(self, name: str) -> bool:
        """Drop a variable; False if there was none."""
        ...
