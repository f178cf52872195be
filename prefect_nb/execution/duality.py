"""Functions that block in plain code and are awaited in coroutines, as several of Prefect's are.

The caller's own colour decides (`model.colour`): called directly in the body of an `async def` the function gives an
awaitable, elsewhere it blocks and gives the value.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, TypeVar

from prefect_nb.model.colour import is_awaited

F = TypeVar("F", bound=Callable[..., Any])


def dual(awaiting: Callable[..., Coroutine[Any, Any, Any]] | None = None) -> Callable[[F], F]:
    """Make a blocking function one that can also be awaited.

    Args:
        awaiting: what coroutines call instead, with the same arguments; None: the function itself, in a thread.
    """

    def decorate(blocking: F) -> F:
        def either(*args: Any, **kwargs: Any) -> Any:
            if not is_awaited(sys._getframe(1)):
                return blocking(*args, **kwargs)
            if awaiting is not None:
                return awaiting(*args, **kwargs)
            return asyncio.to_thread(blocking, *args, **kwargs)

        update_wrapper(either, blocking)
        either.aio = awaiting or (lambda *args, **kwargs: asyncio.to_thread(blocking, *args, **kwargs))  # type: ignore[attr-defined]
        either.sync = blocking  # type: ignore[attr-defined]
        return either  # type: ignore[return-value]

    return decorate
