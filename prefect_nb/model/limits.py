"""Concurrency limits: how much at once, how much a second, and who may come in. Arithmetic only.

What is occupied is counted, never stored: the slots that are held, plus, for a limit with decay, what was used lately
and has not decayed yet.
"""

from collections.abc import Iterable, Mapping
from uuid import UUID

import msgspec

TAG_PREFIX = "tag:"
"""A limit of this name and a tag applies to every task run with the tag."""
_TOLERANCE = 1e-9


class Instant(msgspec.Struct, frozen=True):
    """A moment that no step of the wall clock moves: nanoseconds since a boot of the machine."""

    boot_id: str
    ns: int

    def seconds_since(self, earlier: "Instant") -> float:
        """Seconds from an earlier moment to this one; 0 where a boot lies between, for nobody knows how many."""
        if self.boot_id != earlier.boot_id:
            return 0.0
        return max(0, self.ns - earlier.ns) / 1e9


class Limit(msgspec.Struct, frozen=True):
    """A named concurrency limit.

    `slot_decay_per_second` is how many used slots become free each second; 0 for a limit whose slots are only ever
    held and given back. Times are microseconds since the epoch, UTC.
    """

    id: UUID
    name: str
    limit: int
    active: bool = True
    slot_decay_per_second: float = 0.0
    created_us: int = 0
    updated_us: int = 0
    used: float = 0.0
    """Slots used by `rate_limit`, as of `used_at`."""
    used_at: Instant | None = None

    def in_use(self, now: Instant) -> float:
        """How many of the slots used by `rate_limit` have not decayed yet."""
        if self.used_at is None:
            return 0.0
        return max(0.0, self.used - self.slot_decay_per_second * now.seconds_since(self.used_at))


class Slot(msgspec.Struct, frozen=True):
    """What one holder holds of one limit; `hold_id` is the same in every limit that was taken together."""

    hold_id: UUID
    limit_id: UUID
    owner_id: UUID
    count: int
    taken_us: int
    run_id: UUID | None = None


class Claim(msgspec.Struct, frozen=True):
    """Somebody asks for slots of several limits at once.

    `decaying`: the slots are used up and come back by decay (`rate_limit`), instead of being held until given back.
    `strict`: refuse where a limit does not exist, instead of doing without it.
    """

    hold_id: UUID
    names: tuple[str, ...]
    count: int
    owner_id: UUID
    run_id: UUID | None = None
    decaying: bool = False
    strict: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What became of a claim. Refused and without a `fault`, it may be granted later."""

    granted: bool
    missing: tuple[str, ...] = ()
    """Names of which there is no limit."""
    fault: str = ""
    """Why it can never be granted."""
    wait: float | None = None
    """Seconds until decay alone makes room."""


def judge(claim: Claim, limits: Iterable[Limit], held: Mapping[UUID, int], now: Instant) -> Answer:
    """Whether a claim is granted, all or nothing.

    Args:
        claim: what is asked.
        limits: those of its names that exist.
        held: how many slots of a limit are held, by its id.
        now: the moment.
    """
    found = {limit.name: limit for limit in limits}
    missing = tuple(name for name in claim.names if name not in found)
    if missing and claim.strict:
        return Answer(False, missing, f"Concurrency limits {list(missing)!r} must be created before acquiring slots")
    active = [limit for limit in found.values() if limit.active]
    fault = _fault(claim, active)
    if fault:
        return Answer(False, missing, fault)
    waits = [_wait(claim, limit, limit.in_use(now) + held.get(limit.id, 0)) for limit in active]
    if all(wait == 0 for wait in waits):
        return Answer(True, missing)
    known = [wait for wait in waits if wait is not None]
    return Answer(False, missing, wait=max(known) if len(known) == len(waits) else None)


def _fault(claim: Claim, limits: list[Limit]) -> str:
    small = sorted(limit.name for limit in limits if claim.count > limit.limit)
    if small:
        return f"Slots requested is greater than the limit of {', '.join(map(repr, small))}"
    steady = sorted(limit.name for limit in limits if claim.decaying and limit.slot_decay_per_second <= 0)
    if steady:
        return (
            "Only concurrency limits with slot decay can be used for rate limiting. "
            f"The following limits do not have a decay configured: {', '.join(map(repr, steady))}"
        )
    return ""


def _wait(claim: Claim, limit: Limit, occupied: float) -> float | None:
    """Seconds until there is room; 0: there is; None: somebody has to give slots back."""
    lacking = occupied + claim.count - limit.limit
    if lacking <= _TOLERANCE:
        return 0.0
    return lacking / limit.slot_decay_per_second if limit.slot_decay_per_second > 0 else None
