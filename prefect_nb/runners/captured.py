"""What a task's function takes along to another process without anybody having passed it: large globals and closures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from prefect_nb.model.words import one_line, type_name

logger = logging.getLogger(__name__)

LARGE_BYTES = 1_000_000
"""From this size on it is told."""
_told: set[Any] = set()


def tell(work: Any) -> None:
    """Warn of large values that the function of a work refers to: they travel with each call. Each function once."""
    task = getattr(work, "task", None)
    function = getattr(task, "fn", None)
    if not isinstance(function, FunctionType) or function.__code__ in _told:
        return
    _told.add(function.__code__)
    large = [
        f"`{name}` ({type_name(value)}, {size / 1e6:.1f} MB)"
        for name, value in _captured(function, set())
        if (size := _size(value)) >= LARGE_BYTES
    ]
    if large:
        logger.warning(
            "Each call of %r takes %s along to its worker process, because its code refers to it. Read such data "
            "inside the task, or run it on a thread pool. A change made there stays there.",
            one_line(getattr(task, "name", function.__name__)),
            " and ".join(large),
        )


def _captured(function: Callable[..., Any], seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """The values that a function of the notebook carries by value, and those of the functions that it calls."""
    import inspect

    if not isinstance(function, FunctionType) or function in seen:
        return
    if function.__module__ != "__main__" and "<locals>" not in function.__qualname__:
        return  # it is imported there
    seen.add(function)
    variables = inspect.getclosurevars(function)
    for name, value in {**variables.globals, **variables.nonlocals}.items():
        called = getattr(value, "fn", value)
        if isinstance(called, FunctionType):
            yield from _captured(called, seen)
        elif not isinstance(value, ModuleType | type):
            yield name, value


def _size(value: Any) -> int:
    import cloudpickle

    try:
        return len(cloudpickle.dumps(value))
    except Exception:  # it travelled with the rest, or the call has failed by now
        return 0
