"""Taking what a flow run is sent, as iterators."""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar, cast
from uuid import UUID

from prefect_nb.execution import pausing
from prefect_nb.execution.context import current_flow, current_task
from prefect_nb.execution.duality import dual
from prefect_nb.execution.scope import Scope
from prefect_nb.home import Home
from prefect_nb.interfaces.inputs import FlowRunInput
from prefect_nb.service.input_values import ensure_flow_run_id

T = TypeVar("T")


class GetInputHandler(Generic[T]):
    """An iterator, sync and async, over what a flow run is sent. It ends when nothing more comes in time."""

    def __init__(
        self,
        run_input_cls: Any,
        key_prefix: str,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        raise_timeout_error: bool = False,
        exclude_keys: set[str] | None = None,
        flow_run_id: UUID | None = None,
        with_metadata: bool = False,
    ) -> None:
        self.run_input_cls = run_input_cls
        self.key_prefix = key_prefix
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.exclude_keys = set(exclude_keys or ())
        self.raise_timeout_error = raise_timeout_error
        self.flow_run_id = ensure_flow_run_id(flow_run_id)
        self.with_metadata = with_metadata

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self._next()
        except TimeoutError:
            if self.raise_timeout_error:
                raise
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.anext()
        except TimeoutError:
            if self.raise_timeout_error:
                raise
            raise StopAsyncIteration from None

    def to_instance(self, flow_run_input: FlowRunInput) -> T:
        """The value as the receiver gets it."""
        return cast("T", self.run_input_cls.load_from_flow_run_input(flow_run_input))

    def filter_for_inputs_sync(self) -> list[FlowRunInput]:
        """What has been sent and not been received."""
        return Home.current().store.inputs.find(self.flow_run_id, self.key_prefix, 1, self.exclude_keys)

    async def filter_for_inputs(self) -> list[FlowRunInput]:
        """What has been sent and not been received."""
        return self.filter_for_inputs_sync()

    async def anext(self) -> T:
        """The next value.

        Raises:
            TimeoutError: none came in time.
        """
        return self._received(await pausing.wait_awaiting(self._look, self.flow_run_id, _scope(), self.timeout))

    @dual(anext)  # noqa: A003 - the method above
    def next(self) -> T:
        """The next value.

        Raises:
            TimeoutError: none came in time.
        """
        return self._next()

    def _next(self) -> T:
        return self._received(pausing.wait_here(self._look, self.flow_run_id, _scope(), self.timeout))

    def _look(self) -> FlowRunInput | None:
        found = self.filter_for_inputs_sync()
        return found[0] if found else None

    def _received(self, found: FlowRunInput | None) -> T:
        if found is None:
            raise TimeoutError("Timed out waiting for input")
        self.exclude_keys.add(found.key)
        return self.to_instance(found)


class GetAutomaticInputHandler(GetInputHandler[T]):
    """The same for plain values: they come as they are, or with metadata as `AutomaticRunInput`."""

    def to_instance(self, flow_run_input: FlowRunInput) -> T:
        """The value as the receiver gets it."""
        instance: Any = self.run_input_cls.load_from_flow_run_input(flow_run_input)
        return cast("T", instance if self.with_metadata else instance.value)


def _scope() -> Scope | None:
    """The flow run whose cancel ends a wait here."""
    task, flow = current_task.get(), current_flow.get()
    scope = getattr(task.execution, "scope", None) if task is not None else None
    return scope or getattr(flow.execution if flow is not None else None, "scope", None)
