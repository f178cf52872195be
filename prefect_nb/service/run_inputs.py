"""Typed values handed to a flow run while it lives: forms, and messages from run to run."""

from __future__ import annotations

import copy
import re
import types
from hashlib import sha256
from inspect import isclass
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, cast, get_origin
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, PrivateAttr, create_model

from prefect_nb.execution.duality import dual
from prefect_nb.home import Home
from prefect_nb.interfaces.inputs import FlowRunInput
from prefect_nb.model.states import State, StateType
from prefect_nb.service.input_handlers import GetAutomaticInputHandler, GetInputHandler
from prefect_nb.service.input_values import SENT_BY_A_RUN, ensure_flow_run_id, put, put_model

T = TypeVar("T")
R = TypeVar("R", bound="BaseRunInput")

Keyset = dict[Literal["description", "response", "schema"], str]
"""The keys under which a form's parts and its answer are kept."""


def keyset_from_base_key(base_key: str) -> Keyset:
    """The keys of a form of that name."""
    return {
        "description": f"{base_key}-description",
        "response": f"{base_key}-response",
        "schema": f"{base_key}-schema",
    }


def keyset_from_paused_state(state: State[Any]) -> Keyset:
    """The keys of the form that a paused run waits for.

    Raises:
        RuntimeError: the state is not a paused one.
    """
    if state.type is not StateType.PAUSED:
        raise RuntimeError(f"{state.type.value!r} is unsupported.")
    return keyset_of_pause(state.name, state.state_details.pause_key)


def keyset_of_pause(state_name: str, key: str | None) -> Keyset:
    """The keys of the form of a pause; those of different pauses are different."""
    text = str(key)
    base_key = _as_key(text)
    if base_key != text:
        base_key += f"-{sha256(text.encode()).hexdigest()[:8]}"
    return keyset_from_base_key(f"{state_name.lower()}-{base_key}")


class RunInputMetadata(BaseModel):
    """Where a value came from."""

    key: str
    sender: str | None = None
    receiver: UUID


class BaseRunInput(BaseModel):
    """What forms and messages have in common."""

    model_config = ConfigDict(extra="forbid")

    _description: ClassVar[str | None] = None
    _metadata: RunInputMetadata = PrivateAttr()

    @property
    def metadata(self) -> RunInputMetadata:
        """Where it came from; only of what was received."""
        return self._metadata

    @classmethod
    def keyset_from_type(cls) -> Keyset:
        """The keys of a form of this type."""
        return keyset_from_base_key(_as_key(cls.__name__))

    @classmethod
    def _save(cls, keyset: Keyset, flow_run_id: UUID | None = None) -> None:
        put(keyset["schema"], cls.model_json_schema(by_alias=True), flow_run_id, replace=True)
        if cls._description is not None:
            put(keyset["description"], cls._description, flow_run_id, replace=True)

    @classmethod
    def _load(cls, keyset: Keyset, flow_run_id: UUID | None = None) -> Any:
        receiver = ensure_flow_run_id(flow_run_id)
        found = Home.current().store.inputs.read(receiver, keyset["response"])
        return cls() if found is None else cls.load_from_flow_run_input(found)

    @classmethod
    async def asave(cls, keyset: Keyset, flow_run_id: UUID | None = None) -> None:
        """Keep the form: its JSON schema, and its description."""
        cls._save(keyset, flow_run_id)

    @classmethod
    @dual(lambda cls, *args, **kwargs: cls.asave(*args, **kwargs))
    def save(cls, keyset: Keyset, flow_run_id: UUID | None = None) -> None:
        """Keep the form: its JSON schema, and its description."""
        cls._save(keyset, flow_run_id)

    @classmethod
    async def aload(cls, keyset: Keyset, flow_run_id: UUID | None = None) -> Any:
        """The answer given to the form."""
        return cls._load(keyset, flow_run_id)

    @classmethod
    @dual(lambda cls, *args, **kwargs: cls.aload(*args, **kwargs))
    def load(cls, keyset: Keyset, flow_run_id: UUID | None = None) -> Any:
        """The answer given to the form."""
        return cls._load(keyset, flow_run_id)

    @classmethod
    def load_from_flow_run_input(cls, flow_run_input: FlowRunInput) -> Self:
        """The value as it was kept."""
        instance = cls(**flow_run_input.decoded_value)
        instance._metadata = RunInputMetadata(
            key=flow_run_input.key, sender=flow_run_input.sender, receiver=flow_run_input.flow_run_id
        )
        return instance

    @classmethod
    def with_initial_data(cls, description: str | None = None, **kwargs: Any) -> type[Self]:
        """This form with a text above it (Markdown) and with its fields filled in."""
        fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name not in cls.model_fields:
                fields[name] = (type(value), value)
                continue
            field = copy.copy(cls.model_fields[name])
            field.default, field.default_factory = value, None
            fields[name] = (field.annotation, field)
        model = cast("type[Self]", create_model(cls.__name__, __base__=cls, **fields))
        if description is not None:
            model._description = description
        return model

    async def asend_to(self, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None) -> None:
        """Send it to a flow run."""
        _send(self, flow_run_id, sender, key_prefix)

    @dual(asend_to)
    def send_to(self, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None) -> None:
        """Send it to a flow run.

        Raises:
            ObjectNotFound: there is no such flow run.
        """
        _send(self, flow_run_id, sender, key_prefix)

    def _respond(self, run_input: Any, sender: str | None, key_prefix: str | None) -> None:
        origin = self.metadata.sender
        if origin is None or not origin.startswith(SENT_BY_A_RUN):
            raise RuntimeError("Cannot respond to an input that was not sent by a flow run.")
        _send(run_input, UUID(origin.removeprefix(SENT_BY_A_RUN)), sender, key_prefix)

    async def arespond(self, run_input: Any, sender: str | None = None, key_prefix: str | None = None) -> None:
        """Send something back to the flow run that sent this."""
        self._respond(run_input, sender, key_prefix)

    @dual(arespond)
    def respond(self, run_input: Any, sender: str | None = None, key_prefix: str | None = None) -> None:
        """Send something back to the flow run that sent this.

        Raises:
            RuntimeError: it was not sent by a flow run.
        """
        self._respond(run_input, sender, key_prefix)


class RunInput(BaseRunInput):
    """A form or a message: a pydantic model, its fields given by annotations."""

    @classmethod
    def receive(
        cls,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        raise_timeout_error: bool = False,
        exclude_keys: set[str] | None = None,
        key_prefix: str | None = None,
        flow_run_id: UUID | None = None,
    ) -> GetInputHandler[Self]:
        """Iterate over the values of this type that are sent to a flow run; arguments as for `receive_input`."""
        prefix = key_prefix or f"{_as_key(cls.__name__)}-auto"
        return GetInputHandler(
            cls, prefix, timeout, poll_interval, raise_timeout_error, exclude_keys, flow_run_id=flow_run_id
        )

    @classmethod
    def subclass_from_base_model_type(cls, model_cls: type[BaseModel]) -> type[RunInput]:
        """A pydantic model as a form."""
        name = f"{model_cls.__name__}RunInput"
        made = types.new_class(
            name, (cls, model_cls), exec_body=lambda body: body.update(__module__=model_cls.__module__)
        )
        return cast("type[RunInput]", made)


class AutomaticRunInput(BaseRunInput, Generic[T]):
    """A plain value of any type that pydantic knows, as a form with the one field `value`."""

    value: T

    @classmethod
    def _load(cls, keyset: Keyset, flow_run_id: UUID | None = None) -> Any:
        return super()._load(keyset, flow_run_id).value

    @classmethod
    def subclass_from_type(cls, _type: type[T]) -> type[AutomaticRunInput[T]]:
        """A form for plain values of that type."""
        name = getattr(get_origin(_type) or _type, "__name__", str(_type))
        fields: dict[str, Any] = {"value": (_type, ...)}
        return create_model(f"{name}AutomaticRunInput", __base__=AutomaticRunInput, **fields)

    @classmethod
    def receive(
        cls,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        raise_timeout_error: bool = False,
        exclude_keys: set[str] | None = None,
        key_prefix: str | None = None,
        flow_run_id: UUID | None = None,
        with_metadata: bool = False,
    ) -> GetAutomaticInputHandler[T]:
        """Iterate over the values of this type that are sent to a flow run; arguments as for `receive_input`."""
        prefix = key_prefix or f"{_as_key(cls.__name__)}-auto"
        return GetAutomaticInputHandler(
            cls, prefix, timeout, poll_interval, raise_timeout_error, exclude_keys, flow_run_id, with_metadata
        )


def run_input_subclass_from_type(_type: Any) -> Any:
    """The form for a type: a `RunInput` is its own; other models and plain types get one made."""
    if isclass(_type) and issubclass(_type, BaseRunInput):
        return _type
    if isclass(_type) and issubclass(_type, BaseModel):
        return RunInput.subclass_from_base_model_type(_type)
    return AutomaticRunInput.subclass_from_type(_type)


async def asend_input(
    run_input: Any, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None
) -> None:
    """Send a value to a flow run."""
    _send(run_input, flow_run_id, sender, key_prefix)


@dual(asend_input)
def send_input(run_input: Any, flow_run_id: UUID, sender: str | None = None, key_prefix: str | None = None) -> None:
    """Send a value to a flow run, which takes it with `receive_input`.

    Args:
        run_input: a `RunInput`, another pydantic model, or a plain value.
        flow_run_id: the receiver.
        sender: who sends it; default: the flow run this is called in.
        key_prefix: what the receiver asks for instead of the type.

    Raises:
        ObjectNotFound: there is no such flow run.
    """
    _send(run_input, flow_run_id, sender, key_prefix)


def receive_input(
    input_type: Any,
    timeout: float | None = 3600,
    poll_interval: float = 10,
    raise_timeout_error: bool = False,
    exclude_keys: set[str] | None = None,
    key_prefix: str | None = None,
    flow_run_id: UUID | None = None,
    with_metadata: bool = False,
) -> Any:
    """Iterate, with `for` or `async for`, over the values of a type that are sent to a flow run.

    Args:
        input_type: a `RunInput`, another pydantic model, or a plain type such as `str` or `list[int]`.
        timeout: seconds to wait for each value.
        poll_interval: accepted for compatibility; values are seen within 0.2 seconds, those of this process at once.
        raise_timeout_error: raise `TimeoutError` when none comes in time, instead of ending.
        exclude_keys: keys of values not wanted.
        key_prefix: what the sender gave.
        flow_run_id: whose values; default: the flow run this is called in.
        with_metadata: give plain values as objects with `.value`, `.metadata` and `.respond()`.

    Raises:
        RuntimeError: no flow run is given, and this is called outside any.
    """
    form = run_input_subclass_from_type(input_type)
    options: dict[str, Any] = {"with_metadata": with_metadata} if issubclass(form, AutomaticRunInput) else {}
    return form.receive(
        timeout=timeout,
        poll_interval=poll_interval,
        raise_timeout_error=raise_timeout_error,
        exclude_keys=exclude_keys,
        key_prefix=key_prefix,
        flow_run_id=flow_run_id,
        **options,
    )


def _send(run_input: Any, flow_run_id: UUID, sender: str | None, key_prefix: str | None) -> None:
    if not isinstance(run_input, BaseRunInput):
        form = run_input_subclass_from_type(type(run_input))
        fields = run_input.model_dump() if isinstance(run_input, BaseModel) else {"value": run_input}
        run_input = form(**fields)
    prefix = key_prefix or f"{_as_key(type(run_input).__name__)}-auto"
    put_model(f"{prefix}-{uuid4()}", run_input, flow_run_id, sender)


def _as_key(name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", name.lower())
