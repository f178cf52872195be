"""Calling a user's hooks: an error in one is logged and changes nothing."""

from __future__ import annotations

import inspect
from typing import Any

from prefect_nb.execution import logs, portal
from prefect_nb.model.runs import TaskRun


def _hooks(owner: Any, kind: str) -> list[Any]:
    return list(getattr(owner, f"on_{kind}_hooks", ()) or ())


def _logger(owner: Any, run: Any) -> logs.RunLogger:
    return logs.task_run_logger(run, owner) if isinstance(run, TaskRun) else logs.flow_run_logger(run, owner)


def fire(owner: Any, run: Any, kind: str, state: Any) -> None:
    """Call every hook of a kind with (task or flow, run, state), in order."""
    for hook in _hooks(owner, kind):
        try:
            outcome = hook(owner, run, state)
            if inspect.isawaitable(outcome):
                portal.run_sync(_await(outcome))
        except Exception:
            _logger(owner, run).exception("An error was encountered while running hook %r", _name(hook))


async def fire_awaiting(owner: Any, run: Any, kind: str, state: Any) -> None:
    """The same on an event loop."""
    for hook in _hooks(owner, kind):
        try:
            outcome = hook(owner, run, state)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception:
            _logger(owner, run).exception("An error was encountered while running hook %r", _name(hook))


def ask_retry(task: Any, run: Any, state: Any) -> bool:
    """Whether the task's condition wants another attempt; an error in it means no."""
    try:
        answer = task.retry_condition_fn(task, run, state)
        if inspect.isawaitable(answer):
            answer = portal.run_sync(_await(answer))
        return bool(answer)
    except Exception:
        _logger(task, run).exception("An error was encountered while running `retry_condition_fn`")
        return False


async def ask_retry_awaiting(task: Any, run: Any, state: Any) -> bool:
    """The same on an event loop."""
    try:
        answer = task.retry_condition_fn(task, run, state)
        if inspect.isawaitable(answer):
            answer = await answer
        return bool(answer)
    except Exception:
        _logger(task, run).exception("An error was encountered while running `retry_condition_fn`")
        return False


async def _await(awaitable: Any) -> Any:
    return await awaitable


def _name(hook: Any) -> str:
    return str(getattr(hook, "__name__", None) or hook)
