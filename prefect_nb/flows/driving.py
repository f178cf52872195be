"""Driving a flow run from its first state to its last, on the caller's thread or loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import Any

from prefect_nb.execution import clock, drive
from prefect_nb.execution.flow_runs import FlowExecution
from prefect_nb.home import Home, root_hooks


class Lifetime:
    """Around the driving of a flow run: it is listed, watched and shown while it lives."""

    def __init__(self, home: Home, execution: FlowExecution) -> None:
        self._home = home
        self._execution = execution
        self._finishers: list[Callable[[], None]] = []

    def __enter__(self) -> None:
        execution = self._execution
        if execution.parent is None or execution.parent.shared:
            clock.synchronize()
            self._finishers = [
                finish for hook in list(root_hooks) if (finish := hook(self._home, execution.run.id)) is not None
            ]
        self._home.enter(execution.scope, execution.run.epoch)

    def __exit__(self, *exc: object) -> None:
        self._home.leave(self._execution.scope)
        for finish in self._finishers:
            finish()


def items(home: Home, execution: FlowExecution) -> Generator[Any, Any, Any]:
    """Drive a flow whose body is a generator, yielding its items; gives what the call would give."""
    if execution.state is not None:  # a sub-flow that completed before its parent was resumed
        yield from execution.outcome(return_state=False)
        return None
    with Lifetime(home, execution):
        yield from drive.generating(execution)
    return execution.outcome(return_state=False)


async def items_awaited(home: Home, execution: FlowExecution) -> AsyncGenerator[Any, None]:
    """The same for an async generator."""
    if execution.state is not None:
        for item in execution.outcome(return_state=False):
            yield item
        return
    with Lifetime(home, execution):
        async with aclosing(drive.generating_awaited(execution)) as items:
            async for item in items:
                yield item
    execution.outcome(return_state=False)


def driven(home: Home, execution: FlowExecution, return_state: bool) -> Any:
    """Drive a flow run to its end, in the colour of its body; gives what a call of the flow gives."""
    if execution.flow.isgenerator and not return_state:
        return items_awaited(home, execution) if execution.flow.isasync else items(home, execution)
    if execution.flow.isasync:
        return run_awaiting(home, execution, return_state)
    if execution.state is None:
        with Lifetime(home, execution):
            drive.blocking(execution)
    return execution.outcome(return_state)


async def run_awaiting(home: Home, execution: FlowExecution, return_state: bool) -> Any:
    """Drive a flow whose body is a coroutine function."""
    if execution.state is None:
        with Lifetime(home, execution):
            await drive.awaiting(execution)
    return execution.outcome(return_state)
