"""Drivers: answer one run's commands, blocking or awaiting. `pump` answers many over a runner.

An execution answers most commands at once (`answer`). What can take long it does in the driver's own way:
`answer_blocking` on this thread, `answer_awaiting` on this loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from typing import Any, Protocol

from prefect_nb.engine.commands import CallBody, Command
from prefect_nb.engine.task_run import Steps, is_over
from prefect_nb.execution.generated import Items
from prefect_nb.model.states import State


class Execution(Protocol):
    """A run with its shell, as the drivers see it."""

    steps: Steps

    def answer_blocking(self, command: Command) -> Any:
        """The answer to a command; may block this thread."""
        ...

    async def answer_awaiting(self, command: Command) -> Any:
        """The answer to a command; may await on this loop."""
        ...


def blocking(execution: Execution) -> State[Any]:
    """Drive a run to its end on this thread; returns its final state."""
    steps, answer_to = execution.steps, execution.answer_blocking
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            while True:
                command = steps.send(answer) if error is None else steps.throw(error)
                error = None
                try:
                    answer = answer_to(command)
                except BaseException as raised:
                    error = raised
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except BaseException as between:
            # A signal may arrive between an answer and the next command: the run has to hear of it, too.
            if is_over(steps):
                raise
            error = between


async def awaiting(execution: Execution) -> State[Any]:
    """Drive a run to its end on this event loop; returns its final state."""
    steps, answer_to = execution.steps, execution.answer_awaiting
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            while True:
                command = steps.send(answer) if error is None else steps.throw(error)
                error = None
                try:
                    answer = await answer_to(command)
                except BaseException as raised:
                    error = raised
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except BaseException as between:
            if is_over(steps):
                raise
            error = between


class GeneratingExecution(Execution, Protocol):
    """A run whose body is a generator."""

    def items(self, command: CallBody) -> Items:
        """One call of the body."""
        ...

    def settle_items(self, items: Items) -> Any:
        """The answer to `CallBody`, once the items have been handed on."""
        ...


def generating(execution: GeneratingExecution) -> Generator[Any, Any, State[Any]]:
    """Drive a run whose body is a generator, yielding its items; returns its final state."""
    steps, answer_to = execution.steps, execution.answer_blocking
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            command = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        error = None
        try:
            if type(command) is not CallBody:
                answer = answer_to(command)
                continue
            items = execution.items(command)
            with suppress(GeneratorExit):  # the consumer has had enough: the body has been closed, the run ends
                yield from items.each()
            answer = execution.settle_items(items)
        except BaseException as raised:
            error = raised


async def generating_awaited(execution: GeneratingExecution) -> AsyncGenerator[Any, None]:
    """Drive a run whose body is an async generator, yielding its items; its state is the execution's."""
    steps, answer_to = execution.steps, execution.answer_awaiting
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            command = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration:
            return
        error = None
        try:
            if type(command) is not CallBody:
                answer = await answer_to(command)
                continue
            items = execution.items(command)
            each = items.each_awaited()
            try:
                async for item in each:
                    yield item
            except GeneratorExit:
                await each.aclose()
            answer = execution.settle_items(items)
        except BaseException as raised:
            error = raised
