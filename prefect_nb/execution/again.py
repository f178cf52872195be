"""What of a flow run that is gone on with in place may be taken over; `repairing` makes it, and tells the rule."""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

import msgspec

from prefect_nb.execution import inputs
from prefect_nb.execution.futures import PrefectFuture
from prefect_nb.interfaces import Store
from prefect_nb.model.fingerprint_parts import Unhashable
from prefect_nb.model.runs import TaskRun


class Place(Protocol):
    """A flow run's scope: which it is, and what there is from before."""

    flow_run_id: UUID
    previous: dict[tuple[str, str], TaskRun]


class _Home(Protocol):
    store: Store


class Arrived(Protocol):
    """A task run that was called again."""

    @property
    def home(self) -> _Home:
        """Where it is recorded."""
        ...

    run: TaskRun
    parameters: dict[str, Any]


class Again(msgspec.Struct, frozen=True):
    """What of a flow run is computed anew. Sub-flow runs of it follow the same."""

    unfit: frozenset[UUID] = frozenset()
    """Task runs (those that stand for sub-flow runs included) that are not taken over."""
    renewed: frozenset[UUID] = frozenset()
    """Those of them that completed, and that the cache may not answer either: named, or computed from what is unfit."""
    named: tuple[UUID, ...] = ()
    unfinished: dict[tuple[UUID | None, str, str], TaskRun] = {}
    """Task runs that did not complete, by flow run, name in the code, and dynamic key: their code may have changed."""

    def unfinished_run(self, scope: Place, task_key: str, dynamic_key: str) -> TaskRun | None:
        """The run of an earlier version of this task that stands at this place and did not complete."""
        found = self.unfinished.get((scope.flow_run_id, name_of(task_key), dynamic_key))
        return scope.previous.pop((found.task_key, dynamic_key), None) if found is not None else None

    def may_reuse(self, execution: Arrived) -> bool:
        """Whether a completed run may be taken over: it is not unfit, and its arguments are what they were."""
        return execution.run.id not in self.unfit and not _arguments_differ(execution)


def name_of(task_key: str) -> str:
    """The part of a task's key that its code does not change."""
    return task_key.rpartition("-")[0]


def _arguments_differ(execution: Arrived) -> bool:
    for name, value in execution.parameters.items():
        if inputs.has_special(value):
            before = {source.get("id") for source in execution.run.task_inputs.get(name, ())}
            if before != {str(_run_of(item)) for item, _ in inputs.find(value)}:
                return True
    known = execution.home.store.key_parts(execution.run.id)
    if known is None:
        return False
    from prefect_nb.model.fingerprints import value_part  # slow to import

    for part in known.parts:
        value = execution.parameters.get(part.name)
        if part.kind != "input" or inputs.has_special(value):
            continue
        try:
            if part.name not in execution.parameters or value_part("input", part.name, value).digest != part.digest:
                return True
        except Unhashable:
            return True
    return False


def _run_of(item: Any) -> UUID | None:
    run: UUID | None = item.task_run_id if isinstance(item, PrefectFuture) else item.state_details.task_run_id
    return run
