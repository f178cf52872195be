"""Port of the outputs: what task runs printed and displayed."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import msgspec

CLEAR = "clear"
"""Kind of an output that stands for nothing: those before it are dropped."""


class Output(msgspec.Struct, frozen=True):
    """A piece of what a task run showed. `at_us` microseconds since the epoch, UTC."""

    task_run_id: UUID
    number: int
    """Its place among those of the task run, from 0; another one with this number takes its place."""
    at_us: int
    kind: str
    """"stdout", "stderr" or "display"; or `CLEAR`."""
    data: str
    """The text as it was printed; of a display, JSON: `{"data": {mime: ...}, "metadata": {mime: ...}}`."""
    flow_run_id: UUID | None = None


class OutputSummary(msgspec.Struct, frozen=True):
    """How much there is of one task run."""

    task_run_id: UUID
    count: int
    displays: int


class OutputStore(Protocol):
    """What task runs showed. Kept as log lines are: apart from the history, and the last may be lost to a power cut.

    Whoever writes sees to it that a run keeps no more than it may.
    """

    def write(self, outputs: Sequence[Output]) -> None:
        """Append outputs, or replace those with the same numbers, in this order and in one transaction."""
        ...

    def read(self, task_run_id: UUID, after: int = -1, limit: int = 10_000) -> list[Output]:
        """A task run's outputs in order, after a number."""
        ...

    def next_numbers(self, task_run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The number after the last, of those task runs that have outputs."""
        ...

    def summaries(self, flow_run_ids: Sequence[UUID]) -> list[OutputSummary]:
        """For each task run of these flow runs that showed something, in the order in which they began to."""
        ...
