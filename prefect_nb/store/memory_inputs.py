"""Inputs of flow runs in memory."""

import threading
from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect_nb.interfaces.inputs import FlowRunInput, PauseEnd


class MemoryInputs:
    """An `InputStore` that ends with its process.

    Args:
        flow_run: looks a flow run up.
    """

    def __init__(self, flow_run: Callable[[UUID], Any]) -> None:
        self._lock = threading.RLock()
        self._flow_run = flow_run
        self._inputs: dict[tuple[UUID, str], FlowRunInput] = {}
        self._ends: dict[UUID, PauseEnd] = {}

    def add(self, item: FlowRunInput, replace: bool = False) -> None:
        """Keep an input."""
        with self._lock:
            if self._flow_run(item.flow_run_id) is None:
                raise ObjectNotFound(f"There is no flow run {item.flow_run_id}.")
            if replace:
                self._inputs.pop((item.flow_run_id, item.key), None)
            elif (item.flow_run_id, item.key) in self._inputs:
                raise ObjectAlreadyExists(f"Flow run {item.flow_run_id} has an input {item.key!r} already.")
            self._inputs[item.flow_run_id, item.key] = item

    def read(self, flow_run_id: UUID, key: str) -> FlowRunInput | None:
        """The input of that key."""
        return self._inputs.get((flow_run_id, key))

    def find(
        self, flow_run_id: UUID, prefix: str, limit: int | None = None, exclude: Collection[str] = ()
    ) -> list[FlowRunInput]:
        """The inputs whose keys begin with the prefix, oldest first."""
        with self._lock:
            items = [item for item in self._inputs.values() if item.flow_run_id == flow_run_id]
        return [item for item in items if item.key.startswith(prefix) and item.key not in exclude][:limit]

    def delete(self, flow_run_id: UUID, key: str) -> bool:
        """Drop an input."""
        with self._lock:
            return self._inputs.pop((flow_run_id, key), None) is not None

    def end_pause(self, end: PauseEnd, response: FlowRunInput | None = None) -> bool:
        """Note how a pause ended."""
        with self._lock:
            if end.state_id in self._ends:
                return False
            self._ends[end.state_id] = end
            if response is not None:
                self._inputs.pop((response.flow_run_id, response.key), None)
                self._inputs[response.flow_run_id, response.key] = response
            return True

    def pause_end(self, state_id: UUID) -> PauseEnd | None:
        """How that pause ended."""
        return self._ends.get(state_id)

    def answered(self, flow_run_id: UUID) -> frozenset[str]:
        """The keys of the flow run's pauses that were resumed."""
        with self._lock:
            ends = [end for end in self._ends.values() if end.flow_run_id == flow_run_id]
        return frozenset(end.key for end in ends if end.outcome == "resumed" and end.key is not None)
