"""Functions that block in plain code and are awaited in coroutines, as several of Prefect's are.

Whether there is a running loop says nothing in a notebook, where one always runs. So the caller decides by its own
colour: called directly in the body of an `async def` (or in a cell with a top-level `await`) the function gives an
awaitable, elsewhere it blocks and gives the value.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from types import FrameType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_PART_OF_ITS_CALLER = frozenset({"<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>", "<lambda>"})


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


def is_awaited(caller: FrameType) -> bool:
    """Whether a call from this frame is made by a coroutine's own code."""
    frame: FrameType | None = caller
    while frame is not None and frame.f_code.co_name in _PART_OF_ITS_CALLER:
        frame = frame.f_back
    return frame is not None and bool(frame.f_code.co_flags & _ASYNC)
