"""Port of what people and runs hand a flow run while it lives: inputs by key, and how its pauses ended."""

from collections.abc import Collection
from typing import Any, Protocol
from uuid import UUID

import msgspec


class FlowRunInput(msgspec.Struct, frozen=True, kw_only=True):
    """One value handed to a flow run. A key is used once in a flow run. Times: microseconds, UTC."""

    id: UUID
    flow_run_id: UUID
    key: str
    value: str
    """JSON text."""
    sender: str | None = None
    created_us: int = 0

    @property
    def decoded_value(self) -> Any:
        """The value."""
        return msgspec.json.decode(self.value)


class PauseEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a pause ended: `outcome` is "resumed" or "timed out"."""

    state_id: UUID
    """The Paused state; every pause has one of its own."""
    flow_run_id: UUID
    key: str | None
    """The pause's key: in a flow run, one that was answered is not asked again."""
    outcome: str
    at_us: int


class InputStore(Protocol):
    """Inputs of flow runs. Every write is durable when the call returns, and another process sees it at once."""

    def add(self, item: FlowRunInput, replace: bool = False) -> None:
        """Keep an input; with `replace`, in place of the one of its key.

        Raises:
            ObjectNotFound: there is no such flow run.
            ObjectAlreadyExists: the flow run has an input of that key.
        """
        ...

    def read(self, flow_run_id: UUID, key: str) -> FlowRunInput | None:
        """The input of that key; None for none."""
        ...

    def find(
        self, flow_run_id: UUID, prefix: str, limit: int | None = None, exclude: Collection[str] = ()
    ) -> list[FlowRunInput]:
        """The flow run's inputs whose keys begin with the prefix, oldest first, but for the keys excluded."""
        ...

    def delete(self, flow_run_id: UUID, key: str) -> bool:
        """Drop an input; False if there was none of that key."""
        ...

    def end_pause(self, end: PauseEnd, response: FlowRunInput | None = None) -> bool:
        """Note how a pause ended, and keep the answer given (in place of an older one of its key), in one transaction.

        Returns:
            False if it had ended already: nothing is written then. Of several who end a pause, one succeeds.
        """
        ...

    def pause_end(self, state_id: UUID) -> PauseEnd | None:
        """How that pause ended; None if it has not."""
        ...

    def answered(self, flow_run_id: UUID) -> frozenset[str]:
        """The keys of the flow run's pauses that were resumed."""
        ...
