"""What task runs printed and displayed, in memory."""

import threading
from collections.abc import Sequence
from uuid import UUID

from prefect_nb.interfaces.outputs import CLEAR, Output, OutputSummary


class MemoryOutputs:
    """An `OutputStore` that ends with its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outputs: dict[UUID, dict[int, Output]] = {}

    def write(self, outputs: Sequence[Output]) -> None:
        """Append outputs, or replace those with the same numbers."""
        with self._lock:
            for output in outputs:
                theirs = self._outputs.setdefault(output.task_run_id, {})
                if output.kind == CLEAR:
                    for number in [number for number in theirs if number <= output.number]:
                        del theirs[number]
                else:
                    theirs[output.number] = output

    def read(self, task_run_id: UUID, after: int = -1, limit: int = 10_000) -> list[Output]:
        """A task run's outputs in order, after a number."""
        return [output for output in self._of(task_run_id) if output.number > after][:limit]

    def next_numbers(self, task_run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The number after the last, of those task runs that have outputs."""
        return {id: theirs[-1].number + 1 for id in task_run_ids if (theirs := self._of(id))}

    def summaries(self, flow_run_ids: Sequence[UUID]) -> list[OutputSummary]:
        """For each task run of these flow runs that showed something."""
        every = [theirs for id in list(self._outputs) if (theirs := self._of(id))]
        ours = [theirs for theirs in every if theirs[0].flow_run_id in flow_run_ids]
        return [
            OutputSummary(theirs[0].task_run_id, len(theirs), sum(output.kind == "display" for output in theirs))
            for theirs in sorted(ours, key=lambda theirs: min(output.at_us for output in theirs))
        ]

    def _of(self, task_run_id: UUID) -> list[Output]:
        with self._lock:
            theirs = self._outputs.get(task_run_id, {})
            return [theirs[number] for number in sorted(theirs)]
