"""Values of a flow run by key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect_nb.exceptions import ObjectNotFound
from prefect_nb.execution import pausing
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import current_flow
from prefect_nb.execution.duality import dual
from prefect_nb.execution.ids import new_id
from prefect_nb.home import Home
from prefect_nb.interfaces.inputs import FlowRunInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

SENT_BY_A_RUN = "prefect.flow-run."
"""How the sender begins where that is a flow run; its id follows."""

_KEY = re.compile(r"[a-z0-9-]+")


def ensure_flow_run_id(flow_run_id: UUID | None = None) -> UUID:
    """The id given, else that of the flow run this is called in.

    Raises:
        RuntimeError: neither.
    """
    if flow_run_id is not None:
        return flow_run_id
    context = current_flow.get()
    if context is None:
        raise RuntimeError("Must either provide a flow run ID or be within a flow run.")
    return context.flow_run.id  # type: ignore[no-any-return]


@dual()
def create_flow_run_input(key: str, value: Any, flow_run_id: UUID | None = None, sender: str | None = None) -> None:
    """Keep a value for a flow run under a key of lowercase letters, digits and dashes.

    Raises:
        ValueError: the key holds something else.
        ObjectAlreadyExists: the key is taken.
        ObjectNotFound: there is no such flow run.
    """
    put(key, value, flow_run_id, sender)


@dual()
def create_flow_run_input_from_model(
    key: str, model_instance: BaseModel, flow_run_id: UUID | None = None, sender: str | None = None
) -> None:
    """Keep a pydantic model for a flow run; as `create_flow_run_input`."""
    put_model(key, model_instance, flow_run_id, sender)


@dual()
def filter_flow_run_input(
    key_prefix: str, limit: int = 1, exclude_keys: set[str] | None = None, flow_run_id: UUID | None = None
) -> list[FlowRunInput]:
    """A flow run's values whose keys begin with the prefix, oldest first."""
    receiver = ensure_flow_run_id(flow_run_id)
    return Home.current().store.inputs.find(receiver, key_prefix, limit, exclude_keys or ())


@dual()
def read_flow_run_input(key: str, flow_run_id: UUID | None = None) -> Any:
    """The value under a key of a flow run; None for none."""
    found = Home.current().store.inputs.read(ensure_flow_run_id(flow_run_id), key)
    return None if found is None else found.decoded_value


@dual()
def delete_flow_run_input(key: str, flow_run_id: UUID | None = None) -> None:
    """Drop the value under a key of a flow run.

    Raises:
        ObjectNotFound: there is none.
    """
    receiver = ensure_flow_run_id(flow_run_id)
    if not Home.current().store.inputs.delete(receiver, key):
        raise ObjectNotFound(f"Flow run {receiver} has no input {key!r}.")


def _aio(function: Callable[..., Any]) -> Callable[..., Any]:
    return cast("Callable[..., Any]", function.aio)  # type: ignore[attr-defined]


acreate_flow_run_input = _aio(create_flow_run_input)
acreate_flow_run_input_from_model = _aio(create_flow_run_input_from_model)
afilter_flow_run_input = _aio(filter_flow_run_input)
aread_flow_run_input = _aio(read_flow_run_input)
adelete_flow_run_input = _aio(delete_flow_run_input)


def put_model(key: str, model: BaseModel, flow_run_id: UUID | None, sender: str | None) -> None:
    """Keep a model; by default the flow run this is called in is its sender."""
    context = current_flow.get()
    if sender is None and context is not None:
        sender = f"{SENT_BY_A_RUN}{context.flow_run.id}"
    put(key, model.model_dump(mode="json"), flow_run_id, sender)


def put(key: str, value: Any, flow_run_id: UUID | None, sender: str | None = None, *, replace: bool = False) -> None:
    """Keep a value, and wake who waits for it."""
    from pydantic_core import to_json

    if not _KEY.fullmatch(key):
        raise ValueError(f"The key {key!r} must only contain lowercase letters, numbers, and dashes.")
    receiver = ensure_flow_run_id(flow_run_id)
    home = Home.current()
    home.ledger.commit()  # the receiver may have been started a moment ago
    item = FlowRunInput(
        id=new_id(),
        flow_run_id=receiver,
        key=key,
        value=to_json(value, inf_nan_mode="null").decode(),
        sender=sender,
        created_us=now_us(),
    )
    home.store.inputs.add(item, replace)
    pausing.ring(receiver)
