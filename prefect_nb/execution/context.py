"""Which run am I in.

The contexts are set while a body runs and copied into worker threads. A context is never set by one notebook cell for
the next: what a kernel process as a whole belongs to is `Home.attached`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from prefect_nb.exceptions import InvalidNameError, MissingContextError

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import FlowShell, TaskShell
    from prefect_nb.model.runs import FlowRun, TaskRun

LONGEST_NAME = 255
MOST_TAGS = 64
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

visualizing: ContextVar[Any] = ContextVar("prefect_nb_visualizing", default=None)
"""The graph that is being made instead of running tasks (`execution.visualizing`); None nearly always."""
_tags: ContextVar[frozenset[str]] = ContextVar("prefect_nb_tags", default=frozenset())


class _Context:
    """A run and its body, as seen from inside."""

    __slots__ = ()
    _var: ClassVar[ContextVar[Any]]

    @property
    def result_store(self) -> Any:
        """Where results of the run this is asked in are kept, a `ResultStore`."""
        from prefect_nb.results import get_result_store

        return get_result_store()

    @classmethod
    def get(cls) -> Self | None:
        """The context of the run this code runs in, or None."""
        return cls._var.get()  # type: ignore[no-any-return]


class FlowRunContext(_Context):
    """The flow run this code runs in."""

    __slots__ = ("execution",)
    _var = ContextVar("prefect_nb_flow_run", default=None)

    def __init__(self, execution: FlowShell) -> None:
        self.execution = execution

    @property
    def flow(self) -> Any:
        """The flow."""
        return self.execution.flow

    @property
    def flow_run(self) -> FlowRun:
        """The run's newest snapshot."""
        return self.execution.run

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters, validated."""
        return self.execution.parameters

    @property
    def start_time(self) -> datetime | None:
        """When the run first became Running (UTC)."""
        return self.execution.run.start_time

    @property
    def task_runner(self) -> Any:
        """The runner of its submitted tasks."""
        return self.execution.task_runner

    @property
    def persist_result(self) -> bool:
        """Whether its result is kept."""
        return self.execution.persist

    @property
    def log_prints(self) -> bool:
        """Whether what it prints is logged."""
        return self.execution.log_prints


class TaskRunContext(_Context):
    """The task run this code runs in."""

    __slots__ = ("execution",)
    _var = ContextVar("prefect_nb_task_run", default=None)

    def __init__(self, execution: TaskShell) -> None:
        self.execution = execution

    @property
    def task(self) -> Any:
        """The task."""
        return self.execution.task

    @property
    def task_run(self) -> TaskRun:
        """The run's newest snapshot."""
        return self.execution.run

    @property
    def start_time(self) -> datetime | None:
        """When the run first became Running (UTC)."""
        return self.execution.run.start_time

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters, upstream results filled in."""
        return self.execution.parameters

    @property
    def persist_result(self) -> bool:
        """Whether its result is kept."""
        return self.execution.persist


current_flow = FlowRunContext._var
current_task = TaskRunContext._var


def get_run_context() -> FlowRunContext | TaskRunContext:
    """The innermost run's context.

    Raises:
        MissingContextError: outside any run.
    """
    context = current_task.get() or current_flow.get()
    if context is None:
        raise MissingContextError("No run context available. You are not in a flow or task run context.")
    return context  # type: ignore[no-any-return]


def forget() -> None:
    """After a fork: the child is in none of its parent's runs."""
    current_flow.set(None)
    current_task.set(None)


@contextmanager
def tags(*new_tags: str) -> Iterator[set[str]]:
    """Add tags to every flow and task run that starts inside; nests by union.

    Raises:
        InvalidNameError: a tag is too long or holds a control character, or there are more than 64.
    """
    merged = checked_tags(_tags.get() | frozenset(new_tags))
    token = _tags.set(merged)
    try:
        yield set(merged)
    finally:
        _tags.reset(token)


def checked_tags(tags: frozenset[str]) -> frozenset[str]:
    """Tags, if they can be some.

    Raises:
        InvalidNameError: one has more than 255 characters or a control character, or there are more than 64.
    """
    if len(tags) > MOST_TAGS:
        raise InvalidNameError(f"A run may have {MOST_TAGS} tags, not {len(tags)}.")
    for tag in tags:
        if len(str(tag)) > LONGEST_NAME or _CONTROL.search(str(tag)):
            raise InvalidNameError(
                f"Tag {str(tag)[:80]!r} must have at most {LONGEST_NAME} characters, none of them a control character."
            )
    return tags


def current_tags() -> frozenset[str]:
    """The tags of the enclosing `tags(...)` blocks."""
    return _tags.get()
