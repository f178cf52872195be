"""Concurrency limits and rate limits in coroutines; what waits does not block the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from prefect_nb.concurrency.asking import claimed, tell_of_missing
from prefect_nb.exceptions import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError
from prefect_nb.execution.limits import until_free, until_held

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
) -> AbstractAsyncContextManager[None]:
    """Hold slots of every limit named while the block runs; see `prefect_nb.concurrency.sync.concurrency`.

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


async def rate_limit(
    names: str | list[str], occupy: int = 1, timeout_seconds: float | None = None, strict: bool = False
) -> None:
    """Use up slots of every limit named; see `prefect_nb.concurrency.sync.rate_limit`.

    Raises:
        ConcurrencySlotAcquisitionError: a limit has no decay, `occupy` is less than one or more than the limit, or a
            limit does not exist (`strict`).
        TimeoutError: there was no room in time.
    """
    async with _held(names, occupy, decaying=True, strict=strict, timeout_seconds=timeout_seconds):
        pass


@asynccontextmanager
async def _held(names: str | list[str], occupy: int, **how: Any) -> AsyncIterator[None]:
    asked = claimed(names, occupy, **how)
    if asked is None:
        yield
        return
    limits, hold = asked
    try:
        await until_held(limits, hold)
        tell_of_missing(hold)
        yield
    finally:
        await until_free(limits, hold)
