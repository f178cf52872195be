"""Steps written once for both colours: a generator yields what has to be awaited, a driver waits in its own way."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

from prefect_nb.execution import portal
from prefect_nb.execution.blocking import waiting

T = TypeVar("T")
Steps = Generator[Awaitable[Any], None, T]


class Locking:
    """Waits for a lock, in either way."""

    def __init__(self, manager: Any, key: str, holder: str) -> None:
        self._manager = manager
        self._key = key
        self._holder = holder

    def here(self) -> None:
        """Block this thread."""
        with waiting():
            self._manager.acquire_lock(self._key, self._holder)

    def __await__(self) -> Any:
        return self._manager.aacquire_lock(self._key, self._holder).__await__()


def blocking(steps: Steps[T]) -> T:
    """Take the steps on this thread; async hooks are awaited on a loop of ours."""
    error: BaseException | None = None
    while True:
        try:
            awaitable = next(steps) if error is None else steps.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        error = None
        try:
            if isinstance(awaitable, Locking):
                awaitable.here()
            else:
                portal.run_sync(_coroutine(awaitable))
        except BaseException as raised:
            error = raised


async def awaiting(steps: Steps[T]) -> T:
    """Take the steps on this loop."""
    error: BaseException | None = None
    while True:
        try:
            awaitable = next(steps) if error is None else steps.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        error = None
        try:
            await awaitable
        except BaseException as raised:
            error = raised


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
