"""Calling a user's hooks: an error in one is logged and changes nothing.

A hook may be sync or async. Sync ones are called here; what an async one leaves to be awaited is handed to the driver,
which awaits it in its own way (`run_sync` for the blocking one).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from prefect_nb.execution import logs, portal
from prefect_nb.model.runs import TaskRun


def fire(owner: Any, run: Any, kind: str, state: Any) -> Iterator[Coroutine[Any, Any, Any]]:
    """Call every hook of a kind with (task or flow, run, state), in order; yields what has to be awaited before the next."""
    for hook in list(getattr(owner, f"on_{kind}_hooks", ()) or ()):
        name = getattr(hook, "__name__", None) or hook
        refused = _Refused(owner, run, f"An error was encountered while running hook {name!r}")
        answer = refused.unless(lambda hook=hook: hook(owner, run, state))  # type: ignore[misc]
        if inspect.isawaitable(answer):
            yield refused.awaiting(answer)


def ask_retry(task: Any, run: Any, state: Any) -> bool | Coroutine[Any, Any, bool]:
    """Whether the task's condition wants another attempt, or what to await to know; an error in it means no."""
    refused = _Refused(task, run, "An error was encountered while running `retry_condition_fn`")
    answer = refused.unless(lambda: task.retry_condition_fn(task, run, state))
    return refused.awaiting(answer) if inspect.isawaitable(answer) else bool(answer)


def run_all(coroutines: Iterator[Coroutine[Any, Any, Any]]) -> None:
    """Await each on a loop of ours, from sync code."""
    for coroutine in coroutines:
        portal.run_sync(coroutine)


class _Refused:
    """Logs what goes wrong in a user's function, and answers None for it."""

    def __init__(self, owner: Any, run: Any, message: str) -> None:
        self._owner = owner
        self._run = run
        self._message = message

    def unless(self, call: Callable[[], Any]) -> Any:
        """What the call returns."""
        try:
            return call()
        except Exception:
            self._log()
            return None

    async def awaiting(self, awaitable: Any) -> Any:
        """What the awaitable gives."""
        try:
            return await awaitable
        except Exception:
            self._log()
            return None

    def _log(self) -> None:
        run = self._run
        make = logs.task_run_logger if isinstance(run, TaskRun) else logs.flow_run_logger
        make(run, self._owner).exception(self._message)
