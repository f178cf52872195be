"""The annotations a parameters cell may use: from their text to types, and values coerced to those types."""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import re
import types
import typing
import uuid
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from prefect_nb.model.durations import seconds_of
from prefect_nb.model.parameters import fits

Names = Mapping[str, Any]
"""What names mean in a cell beyond their usual meaning: types, the names of imported modules, and None for unknown."""


class Secret(str):
    """The type of a parameter that is kept secret: text, which the notebook gets wrapped in its own class."""

    __slots__ = ()


_TYPES: dict[str, Any] = {
    "Any": Any,
    "None": types.NoneType,
    "bool": bool,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "Decimal": decimal.Decimal,
    "dict": dict,
    "Dict": dict,
    "float": float,
    "int": int,
    "list": list,
    "List": list,
    "Path": Path,
    "Secret": Secret,
    "SecretStr": Secret,
    "str": str,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "UUID": uuid.UUID,
}
_MODULES = ("", "datetime", "decimal", "dt", "pathlib", "pydantic", "t", "typing", "uuid")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
MODULES_OF_TYPES = frozenset(_MODULES) - {"", "dt", "t"}
_ISO = (datetime.date, datetime.datetime, datetime.time)
_OBJECTS = (*_ISO, datetime.timedelta, decimal.Decimal, uuid.UUID, Path)
_MAKERS = frozenset({"combine", "cwd", "fromisoformat", "fromtimestamp", "home", "now", "strptime", "today", "utcnow"})
"""Methods of these classes that give an instance."""


def annotation_type(text: str | None, names: Names | None = None) -> Any | None:
    """The type an annotation's text means, without evaluating it; None for one that is not known here.

    Knows int, float, str, bool, list, dict, date, datetime, time, timedelta, Path, Decimal, UUID, SecretStr, Any, None,
    Literal, Optional, Union, `|` and Annotated, with or without their module's name; and `names`.
    """
    node = _parsed(text)
    try:
        return None if node is None else _Reader(names or {}).read(node)
    except (ValueError, TypeError, RecursionError):
        return None


def default_type(text: str | None, names: Names | None = None) -> Any | None:
    """The type of a default such as `date(2026, 1, 1)`, `Path("data") / "x"`, `datetime.now()` or `Color.RED`.

    None for anything else: of what is no object of its own (numbers, text, lists) every JSON value may take the place.
    """
    node = _parsed(text)
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        node = node.left
    called = isinstance(node, ast.Call)
    node = node.func if isinstance(node, ast.Call) else node
    if not _is_dotted(node):
        return None
    reader = _Reader(names or {})
    assert node is not None
    kind = reader.read(node)
    if kind is None and isinstance(node, ast.Attribute):
        kind = reader.read(node.value)
        is_member = isinstance(kind, enum.EnumMeta) and not called
        if not is_member and not (called and node.attr in _MAKERS):
            return None
    elif not called:
        return None
    return kind if takes_objects(kind) or kind is Secret else None


def takes_objects(kind: Any) -> bool:
    """Whether values of this type can be anything that JSON has not: a date, a path, a member of an enum."""
    if kind in _OBJECTS or isinstance(kind, enum.EnumMeta):
        return True
    return typing.get_origin(kind) is not typing.Literal and any(map(takes_objects, typing.get_args(kind)))


def type_named(name: str) -> Any | None:
    """The type of that name; None for one that is not known here."""
    return _TYPES.get(name)


def is_secret(kind: Any) -> bool:
    """Whether the type is that of a secret, or of one that may be None."""
    return kind is Secret or Secret in typing.get_args(kind)


WRITTEN = "__written__"
"""The attribute of a stand-in for an enum that says how the cell refers to the class."""


def make_enum(name: str, members: Mapping[str, Any], written: str) -> Any:
    """A stand-in for an enum of the notebook.

    Args:
        name: of the class.
        members: their values, as far as they are known without running anything.
        written: how the cell refers to the class.
    """
    plain = {member: value if _is_scalar(value) else member for member, value in members.items()}
    made: Any = enum.Enum(name, plain)  # type: ignore[misc]
    setattr(made, WRITTEN, written)
    return made


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def coerce(kind: Any, value: Any) -> Any:
    """A value as the type asks for it: `"5"` becomes 5, `"2026-01-01"` a date, `"red"` the member of an enum.

    Raises `ValueError` that says what the value should have been.
    """
    if kind is not Path and kind is not Secret and fits(kind, value):
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union:
        return _coerce_union(arguments, value)
    if origin is typing.Literal:
        raise ValueError(f"Input should be one of {', '.join(map(repr, arguments))}, not {_shown(value)}")
    if origin is list and isinstance(value, list):
        return [coerce(arguments[0], member) for member in value]
    if origin is dict and isinstance(value, dict):
        return {key: coerce(arguments[1], member) for key, member in value.items()}
    if isinstance(kind, enum.EnumMeta):
        return _coerce_member(kind, value)
    if kind in _OBJECTS:
        return _coerce_object(kind, value)
    return _coerce_scalar(origin or kind, value)


def as_text(value: Any) -> Any:
    """An object as the text that stands for it; JSON as it is."""
    if isinstance(value, _ISO):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return msgspec.to_builtins(value)
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, list):
        return [as_text(member) for member in value]
    if isinstance(value, dict):
        return {key: as_text(member) for key, member in value.items()}
    return str(value) if isinstance(value, decimal.Decimal | uuid.UUID | PurePath) else value


class _Reader:
    def __init__(self, names: Names) -> None:
        self._names = names

    def read(self, node: ast.expr) -> Any | None:
        """The type an expression means."""
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):  # a quoted annotation
                return annotation_type(node.value, self._names)
            return types.NoneType if node.value is None else None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return self._union([node.left, node.right])
        if not isinstance(node, ast.Subscript):
            return self._named(node)
        members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        name = _name(node.value)
        if name == "Literal":
            return typing.Literal[tuple(ast.literal_eval(member) for member in members)]
        if name == "Optional":
            return self._union([*members, ast.Constant(None)])
        if name == "Union":
            return self._union(members)
        if name == "Annotated":
            return self.read(members[0])
        if name == "Secret":
            return Secret
        if name in ("list", "List"):
            return types.GenericAlias(list, (self.read(members[0]) or Any,))
        if name in ("dict", "Dict"):
            return types.GenericAlias(dict, (str, self.read(members[-1]) or Any))
        return None

    def _named(self, node: ast.expr) -> Any | None:
        text = ast.unparse(node)
        if text in self._names:
            return self._names[text]
        root, dot, rest = text.partition(".")
        if dot and root in self._names:
            return _TYPES.get(rest) if self._names[root] in _MODULES else None
        return _TYPES.get(_name(node))

    def _union(self, nodes: list[ast.expr]) -> Any | None:
        members = [self.read(node) for node in nodes]
        return None if None in members else typing.Union[tuple(members)]  # noqa: UP007 - known at run time


def _parsed(text: str | None) -> ast.expr | None:
    if not text:
        return None
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _is_dotted(node: ast.expr | None) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _name(node: ast.expr) -> str:
    module, _, name = ast.unparse(node).rpartition(".")
    return name if module in _MODULES else ""


def _coerce_union(members: tuple[Any, ...], value: Any) -> Any:
    problems = []
    for member in members:
        try:
            return coerce(member, value)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError("; or ".join(problems))


def _coerce_member(kind: Any, value: Any) -> Any:
    """A member by itself, by its value, or by its name."""
    if isinstance(value, enum.Enum):
        if type(value) is kind or type(value).__name__ == kind.__name__:
            value = value.name
        else:
            raise ValueError(f"Input should be {_wanted(kind)}, not {type(value).__name__}.{value.name}")
    elif not _is_scalar(value):
        raise ValueError(f"Input should be {_wanted(kind)}, not {_shown(value)}")
    for member in kind:
        if type(member.value) is type(value) and member.value == value:
            return member
    if isinstance(value, str) and value in kind.__members__:
        return kind.__members__[value]
    alike = [member for member in kind if str(member.value) == str(value)]
    if len(alike) == 1:
        return alike[0]
    raise ValueError(f"Input should be {_wanted(kind)}, not {_shown(value)}")


def _coerce_object(kind: Any, value: Any) -> Any:
    if kind is Path and isinstance(value, PurePath):
        return Path(value)
    if kind is decimal.Decimal and type(value) is int:
        return decimal.Decimal(value)
    if kind is datetime.timedelta and type(value) in (int, float):
        value = str(value)
    if isinstance(value, str):
        try:
            return _FROM_TEXT[kind](value)
        except (ValueError, ArithmeticError, msgspec.ValidationError, OverflowError):
            pass
    raise ValueError(f"Input should be {_wanted(kind)}, not {_shown(value)}")


def _path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise ValueError
    return Path(text)


def _length_of_time(text: str) -> datetime.timedelta:
    clock = re.fullmatch(r"(\d+):([0-5]\d)(?::([0-5]\d))?", text.strip())
    if clock:
        hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if text.strip().lstrip("-").startswith("P"):
        return msgspec.convert(text.strip(), datetime.timedelta)
    return datetime.timedelta(seconds=seconds_of(text))


_FROM_TEXT: dict[Any, Any] = {
    datetime.date: datetime.date.fromisoformat,
    datetime.datetime: datetime.datetime.fromisoformat,
    datetime.time: datetime.time.fromisoformat,
    datetime.timedelta: _length_of_time,
    decimal.Decimal: lambda text: decimal.Decimal(text.strip()),
    uuid.UUID: lambda text: uuid.UUID(text.strip()),
    Path: _path,
}


def _coerce_scalar(kind: Any, value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else None
    if kind is int:
        if text is not None and re.fullmatch(r"[+-]?[0-9]+", text):
            return int(text)
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif kind is float:
        if type(value) is int or text is not None:
            return _to_float(value)
    elif kind is bool:
        word = text.lower() if text is not None else str(value)
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    elif kind is Secret and text is not None and "\0" not in value:
        return value
    raise ValueError(
        f"Input should be {_wanted(kind)}, not {'' if kind is Secret else _shown(value)}".removesuffix(", not ")
    )


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"Input should be a number, not {_shown(value)}") from None


def _wanted(kind: Any) -> str:
    if isinstance(kind, enum.EnumMeta):
        members: Any = kind
        choices = [m.name if m.name == m.value else f"{m.name} ({m.value!r})" for m in members]
        return f"one of {', '.join(choices)}"
    return {
        int: "an integer",
        float: "a number",
        str: "text",
        bool: "true or false",
        list: "a list",
        dict: "a dict with text keys",
        types.NoneType: "None",
        datetime.date: "a date like '2024-12-31'",
        datetime.datetime: "a date and time like '2024-12-31T18:00:00+00:00'",
        datetime.time: "a time like '18:30'",
        datetime.timedelta: "a length of time like '90s', '10m', '1.5h', '2d' or '1:30:00'",
        decimal.Decimal: "a decimal number like '1.10', as text",
        uuid.UUID: "a UUID",
        Path: "a path as text",
        Secret: "text without null characters",
    }.get(kind, str(kind))


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, (str, int, float, bool, type(None))) else ""
    return f"{type(value).__name__} {text[:60]}".rstrip()
