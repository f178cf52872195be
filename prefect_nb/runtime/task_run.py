"""The enclosing task run: id, name, task_name, parameters, tags, run_count."""

from collections.abc import Callable
from typing import Any

from prefect_nb.execution.context import TaskRunContext
from prefect_nb.runtime.environment import fact

_FACTS: dict[str, tuple[Callable[[TaskRunContext], Any], Callable[[], Any]]] = {
    "id": (lambda context: str(context.task_run.id), lambda: None),
    "name": (lambda context: context.task_run.name, lambda: None),
    "task_name": (lambda context: context.task.name, lambda: None),
    "parameters": (lambda context: context.parameters, dict),
    "tags": (lambda context: list(context.task_run.tags), list),
    "api_url": (lambda _: None, lambda: None),
    "ui_url": (lambda _: None, lambda: None),
    "run_count": (lambda context: context.task_run.run_count, lambda: 0),
}

__all__ = sorted(_FACTS)  # noqa: PLE0605  # the names are facts, given by __getattr__


def __getattr__(name: str) -> Any:
    return fact("task_run", name, name in _FACTS, lambda: _read(name))


def _read(name: str) -> Any:
    inside, outside = _FACTS[name]
    context = TaskRunContext.get()
    return inside(context) if context is not None else outside()


def __dir__() -> list[str]:
    return sorted(_FACTS)
