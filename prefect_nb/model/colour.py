"""Who calls: plain code, or a coroutine's own code.

Whether there is a running loop says nothing in a notebook, where one always runs. So what Prefect lets one call in
either colour decides by its caller's: in the body of an `async def`, or in a cell with a top-level `await`, it gives
something to await.
"""

import inspect
from types import FrameType

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_PART_OF_ITS_CALLER = frozenset({"<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>", "<lambda>"})


def is_awaited(caller: FrameType) -> bool:
    """Whether a call from this frame is made by a coroutine's own code."""
    frame: FrameType | None = caller
    while frame is not None and frame.f_code.co_name in _PART_OF_ITS_CALLER:
        frame = frame.f_back
    return frame is not None and bool(frame.f_code.co_flags & _ASYNC)
