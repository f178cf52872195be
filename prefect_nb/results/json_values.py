"""Values that JSON has no word for, as JSON: `{"__class__": name, "data": ...}`, and exceptions.

Everything comes back as it was, or is refused when it is written. Beyond the standard library's plain values, pydantic
models, dataclasses and enumerations are known; their classes are imported again by name when they are read.
"""

import base64
import dataclasses
import enum
import importlib
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any
from uuid import UUID

_CLASS, _DATA, _EXCEPTION, _MESSAGE = "__class__", "data", "__exc_type__", "message"


def _as_text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _seconds(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


_PLAIN: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    set: (list, set),
    frozenset: (list, frozenset),
    deque: (list, deque),
    bytes: (_as_text, base64.b64decode),
    complex: (lambda value: [value.real, value.imag], lambda data: complex(*data)),
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    time: (time.isoformat, time.fromisoformat),
    timedelta: (_seconds, lambda data: timedelta(*data)),
    Decimal: (str, Decimal),
    UUID: (str, UUID),
    PosixPath: (str, Path),
    PurePosixPath: (str, PurePosixPath),
}
_BY_NAME = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _PLAIN}


def encode_object(value: Any) -> Any:
    """JSON for a value that the `json` module refuses; for its argument `default`.

    Raises:
        TypeError: it cannot be written so that it comes back equal.
    """
    if isinstance(value, BaseException):
        return _exception(value)
    plain = _PLAIN.get(type(value))
    data = plain[0](value) if plain is not None else _structured(value)
    wrapped = {_CLASS: qualified_name(type(value)), _DATA: data}
    if plain is None and decode_object(wrapped) != value:
        raise TypeError(f"a {wrapped[_CLASS]} does not come back equal")
    return wrapped


def decode_object(found: dict[str, Any]) -> Any:
    """The value of a JSON object; for the `json` module's argument `object_hook`.

    Raises:
        TypeError, ValueError, ImportError, AttributeError: its class is not there any more, or takes no such data.
    """
    if found.keys() == {_CLASS, _DATA}:
        name = found[_CLASS]
        plain = _BY_NAME.get(name)
        if plain is not None:
            return _PLAIN[plain][1](found[_DATA])
        return _rebuilt(_find_class(name), found[_DATA])
    if found.keys() == {_EXCEPTION, _MESSAGE}:
        kind = _find_class(found[_EXCEPTION])
        if not issubclass(kind, BaseException):
            raise TypeError(f"{found[_EXCEPTION]} is no exception")
        return kind(found[_MESSAGE]) if found[_MESSAGE] is not None else kind()
    return found


def is_reserved(value: dict[Any, Any]) -> bool:
    """Whether plain data looks like one of the objects above, and so would not come back as it was."""
    return value.keys() in ({_CLASS, _DATA}, {_EXCEPTION, _MESSAGE})


def qualified_name(item: Any) -> str:
    """Module and name of a class or function."""
    return f"{item.__module__}.{item.__qualname__}"


def from_qualified_name(name: str) -> Any:
    """What has this module and name. Raises ImportError, AttributeError."""
    module, _, attributes = name.rpartition(".")
    inner: list[str] = [attributes]
    while module:
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, attribute = module.rpartition(".")
            inner.insert(0, attribute)
            continue
        for attribute in inner:
            found = getattr(found, attribute)
        return found
    raise ImportError(f"There is no {name!r}.")


def _exception(error: BaseException) -> dict[str, Any]:
    if len(error.args) > 1 or any(type(argument) is not str for argument in error.args):
        raise TypeError(f"a {qualified_name(type(error))} with other arguments than one message")
    return {_EXCEPTION: qualified_name(type(error)), _MESSAGE: error.args[0] if error.args else None}


def _structured(value: Any) -> Any:
    kind = type(value)
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) or hasattr(kind, "__pydantic_core_schema__"):
        from pydantic import TypeAdapter

        return TypeAdapter(kind).dump_python(value, mode="json")
    raise TypeError(f"JSON cannot hold a {qualified_name(kind)}")


def _rebuilt(kind: type, data: Any) -> Any:
    if issubclass(kind, enum.Enum):
        return kind(data)
    if dataclasses.is_dataclass(kind) or hasattr(kind, "__pydantic_core_schema__"):
        from pydantic import TypeAdapter

        return TypeAdapter(kind).validate_python(data)
    raise TypeError(f"{qualified_name(kind)} is no class that JSON can hold")


def _find_class(name: Any) -> type:
    found = from_qualified_name(name) if isinstance(name, str) else None
    if not isinstance(found, type):
        raise TypeError(f"{name!r} is no class")
    return found
