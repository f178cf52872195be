"""Port of the concurrency limits, and of the slots that are held of them."""

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from prefect_nb.model.limits import Answer, Claim, Instant, Limit, Slot

__all__ = ["Answer", "Claim", "Instant", "Limit", "LimitStore", "Slot"]


class LimitStore(Protocol):
    """Limits and slots. There is no counter: what is held is the sum of the slots' rows, each with a living owner.

    Slots of owners that have died are freed by `Store.crash`, in its transaction, and by the next `take` that is told
    of the death. An owner that is not registered holds nothing. Each write is one short transaction.
    """

    def create(self, limit: Limit) -> None:
        """Add a limit.

        Raises:
            ObjectAlreadyExists: there is one of that name.
        """
        ...

    def find(self, name: str) -> Limit | None:
        """The limit of that name, or of that id."""
        ...

    def all(self) -> list[Limit]:
        """Every limit, by name."""
        ...

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
        """Change what is given, and return the limit as it is then; None if there is none. Slots stay held.

        Raises:
            ObjectAlreadyExists: another one has that name.
        """
        ...

    def delete(self, id: UUID) -> bool:
        """Remove a limit and what is held of it; whether there was one."""
        ...

    def slots(self, limit_id: UUID | None = None) -> list[Slot]:
        """What is held, of one limit or of all, longest held first."""
        ...

    def take(self, claim: Claim, now: Instant, at_us: int, dead: Collection[UUID] = ()) -> Answer:
        """Take slots of every limit a claim names in one transaction, or of none.

        Args:
            claim: what is asked. Limits that do not exist, or are not active, are done without.
            now: the moment, for limits with decay.
            at_us: when the slots were taken.
            dead: owners known to be dead; what they held is free.

        Raises:
            Fenced: the owner is not registered: others took it for dead.
        """
        ...

    def give_back(self, hold_ids: Collection[UUID]) -> None:
        """Free what was taken under these ids; what is not held (any more) is no fault."""
        ...

    def reset(self, limit_id: UUID) -> int:
        """Free every slot of a limit, whoever holds it, and what was used of it; how many slots were held."""
        ...
