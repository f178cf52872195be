"""Bodies that are generators: what they yield is handed on as it comes, what becomes of them is one outcome.

The consumer's code runs between two items: the body's context is set while the body runs, and only then. The time limit
counts the body's own time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from prefect_nb.engine.commands import Outcome, Returned
from prefect_nb.execution.calls import call_awaiting, call_blocking

_END = object()


class Items:
    """What one call of a generator body yields.

    Args:
        body: calls the generator function.
        inside: what to be in while the body runs.
        seen: told of each item.
        timed_out: makes the exception that stands for a timeout.
        timeout: seconds the body may take; None for any.
        collect: remember the items; they are the outcome's value then, instead of what the body returned.
    """

    def __init__(
        self,
        body: Callable[[], Any],
        inside: Callable[[], AbstractContextManager[Any]],
        seen: Callable[[Any], None],
        timed_out: Callable[[], Exception],
        timeout: float | None,
        collect: bool,
    ) -> None:
        self._body = body
        self._inside = inside
        self._seen = seen
        self._timed_out = timed_out
        self._left = timeout
        self._items: list[Any] | None = [] if collect else None
        self._iterator: Any = None
        self.outcome: Outcome = Returned(None)
        """How the body ended; known when the last item has been handed on."""

    def each(self) -> Generator[Any, Any, None]:
        """Yield the items of a generator. Values sent in reach the body; closing it ends the body well."""
        advance: Callable[[], Any] = self._first
        while True:
            began = time.monotonic()
            with self._inside():
                outcome = call_blocking(partial(self._stepped, advance), self._left, self._timed_out)
            if not self._goes_on(outcome, began):
                return
            item = outcome.value  # type: ignore[union-attr]
            try:
                sent = yield item
            except GeneratorExit:
                with self._inside():
                    self._ended(call_blocking(self._iterator.close, None, self._timed_out))
                raise
            except BaseException as error:
                advance = partial(self._iterator.throw, error)
            else:
                advance = partial(self._iterator.send, sent)

    async def each_awaited(self) -> AsyncGenerator[Any, None]:
        """Yield the items of an async generator."""
        while True:
            began = time.monotonic()
            with self._inside():
                outcome = await call_awaiting(self._next, self._left, self._timed_out)
            if not self._goes_on(outcome, began):
                return
            try:
                yield outcome.value  # type: ignore[union-attr]
            except GeneratorExit:
                with self._inside():
                    self._ended(await call_awaiting(self._iterator.aclose, None, self._timed_out))
                raise

    def _first(self) -> Any:
        self._iterator = self._body()
        return next(self._iterator)

    def _stepped(self, advance: Callable[[], Any]) -> Any:
        try:
            return advance()
        except StopIteration as stop:
            self.outcome = Returned(stop.value)
            return _END

    def _next(self) -> Any:
        if self._iterator is None:
            self._iterator = self._body()
        return anext(self._iterator, _END)

    def _goes_on(self, outcome: Outcome, began: float) -> bool:
        """Whether there is another item."""
        if self._left is not None:
            self._left = max(1e-6, self._left - (time.monotonic() - began))
        if type(outcome) is not Returned:
            self.outcome = outcome
            return False
        if outcome.value is _END:
            self._ended(self.outcome)
            return False
        self._seen(outcome.value)
        if self._items is not None:
            self._items.append(outcome.value)
        return True

    def _ended(self, outcome: Outcome) -> None:
        collected = type(outcome) is Returned and self._items is not None
        self.outcome = Returned(self._items) if collected else outcome


def listed(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A generator function as one that returns the list of its items."""
    return lambda *args, **kwargs: list(fn(*args, **kwargs))


def listed_awaited(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same for an async generator function: what it returns is awaited."""

    async def gathered(*args: Any, **kwargs: Any) -> list[Any]:
        return [item async for item in fn(*args, **kwargs)]

    return gathered
