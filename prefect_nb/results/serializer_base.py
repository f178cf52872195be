"""What serializers have in common: options, names, and being found by name."""

import copy
import importlib
import json
from inspect import get_annotations
from typing import Any, ClassVar, NoReturn, Self

from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import ConfigurationError, SerializationError
from prefect_nb.model.words import type_name

_BUILT_IN = frozenset({"pickle", "json", "numpy", "parquet", "image", "compressed"})
_PACKAGE = __name__.rpartition(".")[0]
registered: dict[str, type["Serializer"]] = {}
"""The serializers known by name."""


class Serializer:
    """Base of all serializers. A subclass with a `type` of its own can be asked for by that name.

    `Serializer(type="json", ...)` makes the one of that name. Serializers of equal options are equal.
    """

    type: str = ""
    _only_for_writing: ClassVar[frozenset[str]] = frozenset()
    """Options that reading does not need."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.type.partition("/")[0] in _BUILT_IN and not cls.__module__.startswith(f"{_PACKAGE}."):
            raise ConfigurationError(f"{cls.__qualname__} needs a `type` of its own; {cls.type!r} is taken.")
        if "type" in cls.__dict__:
            registered[cls.type] = cls

    def __new__(cls, *_args: Any, **options: Any) -> Self:  # noqa: D102
        chosen = class_of(options["type"]) if cls is Serializer and "type" in options else cls
        return object.__new__(chosen)  # type: ignore[return-value]

    def __init__(self, **options: Any) -> None:
        options.pop("type", None)
        for name in self._options():
            if name in options:
                setattr(self, name, options.pop(name))
            elif hasattr(type(self), name):
                setattr(self, name, copy.copy(getattr(type(self), name)))
            else:
                refuse_option(self, name, None, "Field required")
        for name, value in options.items():
            refuse_option(self, name, value, "Extra inputs are not permitted")

    @classmethod
    def _options(cls) -> list[str]:
        """The names of its options: annotated attributes."""
        names = [name for base in reversed(cls.__mro__) for name in get_annotations(base)]
        return [name for name in dict.fromkeys(names) if name != "type" and not name.startswith("_")]

    @property
    def name(self) -> str:
        """What a reference calls it: its type, and the options that reading needs where they are not the default ones."""
        chosen = {
            name: getattr(self, name)
            for name in self._options()
            if name not in self._only_for_writing and getattr(self, name) != getattr(type(self), name, None)
        }
        return f"{self.type}?{json.dumps(chosen, sort_keys=True)}" if chosen else self.type

    def dumps(self, obj: Any) -> bytes:
        """The value as bytes. Raises `SerializationError` where it cannot be."""
        raise NotImplementedError

    def loads(self, blob: bytes) -> Any:
        """The value again. Raises `SerializationError` where it cannot be."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        options = {"type": self.type, **vars(self)}  # a compressed one has its inner one there, too
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def class_of(type_: str) -> type[Serializer]:
    """The serializer class known by that name. A name is never a path to import.

    Raises:
        ConfigurationError: none is.
    """
    if type_ not in registered:
        raise ConfigurationError(
            f"Unknown serializer {type_!r}; known are {', '.join(sorted(registered))} and compressed/<name>. "
            "Define or import your Serializer subclass of that `type` first."
        )
    return registered[type_]


def check_library(serializer: Serializer, option: str, kind: str, needed: tuple[str, str]) -> None:
    """Refuse an option that does not name a module with these functions."""
    name = getattr(serializer, option)
    if name == type(serializer).__dict__.get(option):
        return
    try:
        module = importlib.import_module(name)
    except ImportError:
        refuse_option(serializer, option, name, f"Failed to import requested {kind.lower()} library: {name!r}.")
    for function in needed:
        if not callable(getattr(module, function, None)):
            refuse_option(
                serializer,
                option,
                name,
                f"{kind.capitalize()} library at {name!r} does not have a {function!r} method.",
            )


def refuse_option(serializer: Serializer, option: str, value: Any, message: str) -> NoReturn:
    """Raise what pydantic raises for an option that does not fit."""
    from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

    text = PydanticCustomError("value_error", "Value error, {message}", {"message": message})
    details = InitErrorDetails(type=text, loc=(option,), input=value)
    raise ValidationError.from_exception_data(type(serializer).__name__, [details])


def refused(value: Any, how: str, error: Exception) -> SerializationError:
    """The error for a value that could not be written."""
    return SerializationError(
        f"A value of type {type_name(value)} cannot be {how}: {describe(error)}. Return plain data instead, "
        "choose another result_serializer, or set persist_result=False."
    )


def unreadable(what: str, error: Exception) -> SerializationError:
    """The error for bytes that could not be read."""
    return SerializationError(
        f"A kept result cannot be read back as {what}: {describe(error)}. Define or import what it needs, "
        "or run the task again with refresh_cache=True."
    )
