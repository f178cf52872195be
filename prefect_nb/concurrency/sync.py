"""Concurrency limits and rate limits in plain code.

with concurrency("database", occupy=1):
    ...                      # at most as many at once as the limit says, in whatever process
rate_limit("api")            # goes on when the limit's decay has made room
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from prefect_nb.concurrency.asking import claimed, stopping, tell_of_missing
from prefect_nb.exceptions import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError

__all__ = ["AcquireConcurrencySlotTimeoutError", "ConcurrencySlotAcquisitionError", "concurrency", "rate_limit"]


def concurrency(
    names: str | list[str],
    occupy: int = 1,
    timeout_seconds: float | None = None,
    max_retries: int | None = None,
    lease_duration: float = 300,  # noqa: ARG001 - Prefect's signature
    strict: bool = False,
    holder: Any = None,
    raise_on_lease_renewal_failure: bool | None = None,  # noqa: ARG001 - Prefect's signature
) -> AbstractContextManager[None]:
    """Hold slots of every limit named while the block runs; waits until all are free at once.

    The slots are free again when the block ends, or within a second when its process dies.

    Args:
        names: one limit or several. Those that do not exist are done without, with a warning.
        occupy: how many slots of each.
        timeout_seconds: how long to wait; None: as long as it takes.
        max_retries: how often to ask again, about once a second; None: as often as it takes.
        lease_duration: accepted for compatibility; what is held belongs to the living process.
        strict: raise if a limit does not exist.
        holder: who holds the slots (its `id`); None: the run this code is in.
        raise_on_lease_renewal_failure: accepted for compatibility.

    Raises:
        ConcurrencySlotAcquisitionError: `occupy` is less than one or more than the limit, a limit does not exist
            (`strict`), or the retries are used up.
        TimeoutError: not all slots were free in time.
    """
    return _held(
        names,
        occupy,
        decaying=False,
        strict=strict,
        timeout_seconds=timeout_seconds,
        max_retries=max_retries,
        holder=holder,
    )


def rate_limit(
    names: str | list[str], occupy: int = 1, timeout_seconds: float | None = None, strict: bool = False
) -> None:
    """Use up slots of every limit named; waits until the limits' decay has made room for all at once.

    Args:
        names: one limit or several, each with `slot_decay_per_second`. Those that do not exist are done without, with
            a warning.
        occupy: how many slots of each.
        timeout_seconds: how long to wait; None: as long as it takes.
        strict: raise if a limit does not exist.

    Raises:
        ConcurrencySlotAcquisitionError: a limit has no decay, `occupy` is less than one or more than the limit, or a
            limit does not exist (`strict`).
        TimeoutError: there was no room in time.
    """
    with _held(names, occupy, decaying=True, strict=strict, timeout_seconds=timeout_seconds):
        pass


@contextmanager
def _held(names: str | list[str], occupy: int, **how: Any) -> Iterator[None]:
    asked = claimed(names, occupy, **how)
    if asked is None:
        yield
        return
    limits, hold = asked
    try:
        limits.acquire(hold, stopping)
        tell_of_missing(hold)
        yield
    finally:
        limits.release(hold)
