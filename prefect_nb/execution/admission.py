"""A task run's place under the limits of its tags: taken before it is Running, given back when it is not any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from prefect_nb.engine import commands as c
from prefect_nb.exceptions import RunCancelled
from prefect_nb.execution import task_controls
from prefect_nb.execution.limits import Hold, until_held
from prefect_nb.model.limits import TAG_PREFIX

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import Surroundings
    from prefect_nb.model.runs import TaskRun


class Limited(task_controls.Controlled, Protocol):
    """A task run that may have to wait for slots."""

    home: Surroundings
    run: TaskRun
    hold: Hold | None


def at_once(execution: Limited) -> Any:
    """Take the slots if they are free: None (the run may go on), `c.Full`, or an outcome that ends it."""
    stopped = execution.stopped()
    if stopped is not None or execution.hold is not None:
        return stopped
    limits = execution.home.limits
    names = [f"{TAG_PREFIX}{tag}" for tag in execution.run.tags if tag in limits.limited_tags()]
    if not names:
        return None
    execution.hold = hold = limits.claim(names, 1, run_id=execution.run.id)
    return _outcome(execution) if limits.ask(hold) else c.Full()


def by_waiting(execution: Limited) -> Any:
    """Take the slots, blocking this thread."""
    hold = _hold(execution)

    def stopping() -> str | None:
        stopped = execution.stopped()
        return None if stopped is None else stopped.message or "Run cancelled."

    limits = execution.home.limits
    try:
        limits.acquire(hold, stopping)
    except BaseException as error:
        leave(execution)
        if isinstance(error, RunCancelled) and (ending := task_controls.wished(execution)) is not None:
            return ending
        if isinstance(error, Exception):
            return c.Raised(error)
        raise
    return None


async def by_awaiting(execution: Limited) -> Any:
    """Take the slots, awaiting on this loop."""
    hold = _hold(execution)
    try:
        await task_controls.unless_wished(execution, until_held(execution.home.limits, hold))
    except BaseException as error:
        leave(execution)
        if isinstance(error, Exception):
            return c.Raised(error)
        raise
    stopped = execution.stopped()
    if stopped is not None:
        leave(execution)
    return stopped


def elsewhere(execution: Limited, go_on: Callable[[Any], None]) -> None:
    """Have `go_on` called with the answer when the slots are taken; it must be quick."""
    execution.home.limits.line_up(_hold(execution), lambda: go_on(_outcome(execution)))


def leave(execution: Limited) -> None:
    """Give back what the run holds, or give up its place in line."""
    hold, execution.hold = execution.hold, None
    if hold is not None:
        execution.home.limits.release(hold)


def _hold(execution: Limited) -> Hold:
    assert execution.hold is not None
    return execution.hold


def _outcome(execution: Limited) -> Any:
    error = _hold(execution).error
    if error is None:
        return execution.stopped()
    leave(execution)
    return c.Raised(error)
