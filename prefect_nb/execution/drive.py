"""Drivers: answer one run's commands, blocking or awaiting. `pump` answers many over a runner.

An execution answers most commands at once (`answer`). What can take long it does in the driver's own way:
`answer_blocking` on this thread, `answer_awaiting` on this loop.
"""

from __future__ import annotations

from typing import Any, Protocol

from prefect_nb.engine.commands import Command
from prefect_nb.engine.task_run import Steps, is_over
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
