"""On the resume of a durable flow run: whether its code calls what it called before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from prefect_nb.exceptions import NonDeterminismError
from prefect_nb.execution import caching, inputs
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType


class RecordedPath:
    """The task runs that the flow itself called and whose results were kept, in the order of their calls.

    What can be seen: a task that was not called before although recorded ones are still to come (only where the calls
    come from the flow's own thread: elsewhere their order is chance), and a call with other inputs than were recorded
    for its position. Calls that are left out at the end, or in another order, are not refused: each finds its own
    result by task and position.

    Args:
        run: the flow run.
        previous: its task runs from before.
        ordered: whether the order of calls is the code's own: not in a coroutine.
    """

    def __init__(self, run: FlowRun, previous: Mapping[tuple[str, str], TaskRun], ordered: bool) -> None:
        self._run = run
        self._left = {key: found for key, found in previous.items() if _is_kept(found)}
        self._total = len(self._left)
        self._thread = threading.get_ident() if ordered else None

    def called(self, execution: Any, found: TaskRun | None) -> None:
        """The flow calls a task; `found` is the run of the same task and position from before.

        Raises:
            NonDeterminismError: the code is not on the path it was on; nothing has been written of this call.
        """
        position = self._total - len(self._left) + 1
        task, key = execution.task, (execution.task.task_key, execution.dynamic_key)
        if found is None:
            if self._left and threading.get_ident() == self._thread:
                expected = next(iter(self._left.values()))
                raise self._error(position, f"{expected.name!r} was recorded, and now {task.name!r} is called")
            return
        if self._left.pop(key, None) is not None and (changed := _changed_inputs(execution, found)):
            words = ", ".join(map(repr, changed))
            raise self._error(position, f"{found.name!r} was recorded, and now it is called with another {words}")

    def _error(self, position: int, words: str) -> NonDeterminismError:
        return NonDeterminismError(
            f"Flow run {self._run.name!r} cannot go on: at task call {position} {words}. Nothing was overwritten. "
            "Resume it with the code it was started with, or start a new run."
        )


def _is_kept(run: TaskRun) -> bool:
    called_by_flow = run.kind == "task" and run.parent_id is None
    return called_by_flow and run.state_type is StateType.COMPLETED and run.result is not None


def _changed_inputs(execution: Any, found: TaskRun) -> list[str]:
    """The parameters whose values are others than were recorded; none where that cannot be known."""
    if execution.wait_for is not None or inputs.has_special(execution.parameters):
        return []
    recorded = execution.home.store.key_parts(found.id)
    if recorded is None or not recorded.parts:
        return []
    try:
        context = caching.TaskKeyContext(execution.task, found, execution.parameters)
        resolved = execution.task.cache_policy.resolve(context, execution.parameters, execution.scope.parameters)
    except Exception:  # a key that cannot be computed any more says nothing
        return []
    before = {part.name: part.digest for part in recorded.parts if part.kind == "input"}
    now = {part.name: part.digest for part in resolved[1] if part.kind == "input"} if resolved is not None else {}
    return sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
