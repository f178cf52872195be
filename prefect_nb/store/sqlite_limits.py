"""Concurrency limits and slots in `prefect_nb.db`."""

import sqlite3
from collections import Counter
from collections.abc import Collection
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import Fenced, ObjectAlreadyExists
from prefect_nb.model.limits import Answer, Claim, Instant, Limit, Slot, judge
from prefect_nb.store.crash_points import crash_point
from prefect_nb.store.database import Database
from prefect_nb.store.rows import storable

_LIMIT = (
    "SELECT id, name, max, active, slot_decay_per_second, created_us, updated_us, used, used_boot, used_ns "
    "FROM concurrency_limit"
)
_SLOT = "SELECT hold_id, limit_id, owner_id, count, taken_us, run_id FROM slot"
_ALREADY = "There is a concurrency limit of the name {!r} already."


class SqliteLimits:
    """A `LimitStore` in the database of the history.

    Args:
        database: the history.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, limit: Limit) -> None:
        """Add a limit."""
        try:
            with self._database.transaction() as connection:
                connection.execute(
                    "INSERT INTO concurrency_limit (id, name, max, active, slot_decay_per_second, created_us, "
                    "updated_us, used) VALUES (?, ?, ?, ?, ?, ?, ?, 0.0)",
                    (
                        limit.id.bytes,
                        storable(limit.name),
                        limit.limit,
                        limit.active,
                        limit.slot_decay_per_second,
                        limit.created_us,
                        limit.updated_us,
                    ),
                )
        except sqlite3.IntegrityError as error:
            raise ObjectAlreadyExists(_ALREADY.format(limit.name)) from error

    def find(self, name: str) -> Limit | None:
        """The limit of that name, or of that id."""
        with self._database.reading() as connection:
            found = _limits(connection, "WHERE name = ?", storable(name))
            if not found and (id := _uuid(name)) is not None:
                found = _limits(connection, "WHERE id = ?", id.bytes)
        return found[0] if found else None

    def all(self) -> list[Limit]:
        """Every limit, by name."""
        with self._database.reading() as connection:
            return _limits(connection, "ORDER BY name")

    def update(
        self,
        id: UUID,
        at_us: int,
        *,
        name: str | None = None,
        limit: int | None = None,
        active: bool | None = None,
        slot_decay_per_second: float | None = None,
    ) -> Limit | None:
        """Change what is given."""
        try:
            with self._database.transaction() as connection:
                connection.execute(
                    "UPDATE concurrency_limit SET name = coalesce(?, name), max = coalesce(?, max), "
                    "active = coalesce(?, active), slot_decay_per_second = coalesce(?, slot_decay_per_second), "
                    "updated_us = ? WHERE id = ?",
                    (name and storable(name), limit, active, slot_decay_per_second, at_us, id.bytes),
                )
                found = _limits(connection, "WHERE id = ?", id.bytes)
        except sqlite3.IntegrityError as error:
            raise ObjectAlreadyExists(_ALREADY.format(name)) from error
        return found[0] if found else None

    def delete(self, id: UUID) -> bool:
        """Remove a limit and what is held of it; whether there was one."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM slot WHERE limit_id = ?", (id.bytes,))
            return connection.execute("DELETE FROM concurrency_limit WHERE id = ?", (id.bytes,)).rowcount > 0

    def slots(self, limit_id: UUID | None = None) -> list[Slot]:
        """What is held, longest held first."""
        of_limit, values = ("WHERE limit_id = ?", (limit_id.bytes,)) if limit_id is not None else ("", ())
        with self._database.reading() as connection:
            rows = connection.execute(f"{_SLOT} {of_limit} ORDER BY taken_us, hold_id", values).fetchall()
        return [
            Slot(UUID(bytes=hold), UUID(bytes=limit), UUID(bytes=owner), count, taken_us, run and UUID(bytes=run))
            for hold, limit, owner, count, taken_us, run in rows
        ]

    def take(self, claim: Claim, now: Instant, at_us: int, dead: Collection[UUID] = ()) -> Answer:
        """Take slots of every limit a claim names in one transaction, or of none."""
        # Looked at first, so that those who wait do not stand in the way of those who write.
        with self._database.reading() as connection:
            answer = _judge(connection, claim, now, dead)
        if not answer.granted or len(answer.missing) == len(claim.names):
            return answer
        with self._database.transaction() as connection:
            if dead:
                connection.executemany("DELETE FROM slot WHERE owner_id = ?", [(id.bytes,) for id in dead])
            connection.execute("DELETE FROM slot WHERE owner_id NOT IN (SELECT id FROM owner)")
            if not connection.execute("SELECT 1 FROM owner WHERE id = ?", (claim.owner_id.bytes,)).fetchone():
                raise Fenced("Others took this process for dead: it can take no slots. Restart it.")
            answer = _judge(connection, claim, now, ())
            if answer.granted:
                _enter(connection, claim, now, at_us)
            crash_point("before_take_commit")
        return answer

    def give_back(self, hold_ids: Collection[UUID]) -> None:
        """Free what was taken under these ids."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM slot WHERE hold_id = ?", [(id.bytes,) for id in hold_ids])
            crash_point("before_release_commit")

    def reset(self, limit_id: UUID) -> int:
        """Free every slot of a limit, and what was used of it."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE concurrency_limit SET used = 0.0 WHERE id = ?", (limit_id.bytes,))
            return connection.execute("DELETE FROM slot WHERE limit_id = ?", (limit_id.bytes,)).rowcount


def free(connection: sqlite3.Connection, owner_ids: Collection[bytes]) -> None:
    """Free what these dead owners held, in a transaction of the caller's."""
    connection.executemany("DELETE FROM slot WHERE owner_id = ?", [(id,) for id in owner_ids])


def _judge(connection: sqlite3.Connection, claim: Claim, now: Instant, dead: Collection[UUID]) -> Answer:
    limits = _named(connection, claim.names)
    held: Counter[UUID] = Counter()
    marks = ", ".join("?" * len(limits))
    gone = {id.bytes for id in dead}
    for limit_id, owner_id, count in connection.execute(
        f"SELECT limit_id, owner_id, count FROM slot WHERE limit_id IN ({marks}) AND owner_id IN (SELECT id FROM owner)",
        [limit.id.bytes for limit in limits],
    ):
        if owner_id not in gone:
            held[UUID(bytes=limit_id)] += count
    return judge(claim, limits, held, now)


def _enter(connection: sqlite3.Connection, claim: Claim, now: Instant, at_us: int) -> None:
    run_id = claim.run_id and claim.run_id.bytes
    for limit in _named(connection, claim.names):
        if not limit.active:
            continue
        if claim.decaying:
            connection.execute(
                "UPDATE concurrency_limit SET used = ?, used_boot = ?, used_ns = ? WHERE id = ?",
                (limit.in_use(now) + claim.count, now.boot_id, now.ns, limit.id.bytes),
            )
        else:
            connection.execute(
                "INSERT INTO slot (hold_id, limit_id, owner_id, count, taken_us, run_id) VALUES (?, ?, ?, ?, ?, ?)",
                (claim.hold_id.bytes, limit.id.bytes, claim.owner_id.bytes, claim.count, at_us, run_id),
            )


def _named(connection: sqlite3.Connection, names: Collection[str]) -> list[Limit]:
    return _limits(connection, f"WHERE name IN ({', '.join('?' * len(names))})", *map(storable, names))


def _limits(connection: sqlite3.Connection, where: str, *values: Any) -> list[Limit]:
    return [
        Limit(
            id=UUID(bytes=id),
            name=name,
            limit=most,
            active=bool(active),
            slot_decay_per_second=decay,
            created_us=created_us,
            updated_us=updated_us,
            used=used,
            used_at=None if ns is None else Instant(boot or "", ns),
        )
        for id, name, most, active, decay, created_us, updated_us, used, boot, ns in connection.execute(
            f"{_LIMIT} {where}", values
        )
    ]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
