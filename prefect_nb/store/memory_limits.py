"""Concurrency limits and slots in memory."""

from collections import Counter
from collections.abc import Collection, Container
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from prefect_nb.exceptions import Fenced, ObjectAlreadyExists
from prefect_nb.model.limits import Answer, Claim, Instant, Limit, Slot, judge


class MemoryLimits:
    """A `LimitStore` that ends with its process.

    Args:
        lock: the store's.
        owners: the ids of the registered owners.
    """

    def __init__(self, lock: AbstractContextManager[Any], owners: Container[UUID]) -> None:
        self._lock = lock
        self._owners = owners
        self._limits: dict[UUID, Limit] = {}
        self._slots: list[Slot] = []

    def create(self, limit: Limit) -> None:
        """Add a limit."""
        with self._lock:
            self._refuse_second(limit.name)
            self._limits[limit.id] = limit

    def _refuse_second(self, name: str) -> None:
        if any(limit.name == name for limit in self._limits.values()):
            raise ObjectAlreadyExists(f"There is a concurrency limit of the name {name!r} already.")

    def find(self, name: str) -> Limit | None:
        """The limit of that name, or of that id."""
        limits = self.all()
        named = [limit for limit in limits if limit.name == name]
        return next(iter(named or [limit for limit in limits if name in (str(limit.id), limit.id.hex)]), None)

    def all(self) -> list[Limit]:
        """Every limit, by name."""
        with self._lock:
            return sorted(self._limits.values(), key=lambda limit: limit.name)

    def update(self, id: UUID, at_us: int, **changes: Any) -> Limit | None:
        """Change what is given."""
        with self._lock:
            limit = self._limits.get(id)
            if limit is None:
                return None
            given = {name: value for name, value in changes.items() if value is not None}
            if given.get("name", limit.name) != limit.name:
                self._refuse_second(given["name"])
            self._limits[id] = replace(limit, updated_us=at_us, **given)
            return self._limits[id]

    def delete(self, id: UUID) -> bool:
        """Remove a limit and what is held of it."""
        with self._lock:
            self.reset(id)
            return self._limits.pop(id, None) is not None

    def slots(self, limit_id: UUID | None = None) -> list[Slot]:
        """What is held, longest held first."""
        with self._lock:
            found = [slot for slot in self._slots if limit_id in (None, slot.limit_id)]
        return sorted(found, key=lambda slot: (slot.taken_us, slot.hold_id.bytes))

    def take(self, claim: Claim, now: Instant, at_us: int, dead: Collection[UUID] = ()) -> Answer:
        """Take slots of every limit a claim names, or of none."""
        with self._lock:
            self._slots = [s for s in self._slots if s.owner_id not in dead and s.owner_id in self._owners]
            limits = [limit for limit in self._limits.values() if limit.name in claim.names]
            held: Counter[UUID] = Counter()
            for slot in self._slots:
                held[slot.limit_id] += slot.count
            answer = judge(claim, limits, held, now)
            if answer.granted:
                if claim.owner_id not in self._owners:
                    raise Fenced("Others took this process for dead: it can take no slots.")
                for limit in limits:
                    if limit.active:
                        self._enter(claim, limit, now, at_us)
            return answer

    def _enter(self, claim: Claim, limit: Limit, now: Instant, at_us: int) -> None:
        if claim.decaying:
            self._limits[limit.id] = replace(limit, used=limit.in_use(now) + claim.count, used_at=now)
        else:
            slot = Slot(claim.hold_id, limit.id, claim.owner_id, claim.count, at_us, claim.run_id)
            self._slots.append(slot)

    def give_back(self, hold_ids: Collection[UUID]) -> None:
        """Free what was taken under these ids."""
        with self._lock:
            self._slots = [slot for slot in self._slots if slot.hold_id not in hold_ids]

    def reset(self, limit_id: UUID) -> int:
        """Free every slot of a limit, and what was used of it."""
        with self._lock:
            freed = [slot for slot in self._slots if slot.limit_id == limit_id]
            self._slots = [slot for slot in self._slots if slot.limit_id != limit_id]
            if limit_id in self._limits:
                self._limits[limit_id] = replace(self._limits[limit_id], used=0.0)
            return len(freed)

    def free(self, owner_ids: Collection[UUID]) -> None:
        """Free what these dead owners held."""
        with self._lock:
            self._slots = [slot for slot in self._slots if slot.owner_id not in owner_ids]
