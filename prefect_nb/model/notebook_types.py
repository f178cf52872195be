"""The annotations a parameters cell may use: from their text to types, and JSON values coerced to those types."""

from __future__ import annotations

import ast
import datetime
import re
import types
import typing
from pathlib import Path
from typing import Any

from prefect_nb.model.parameters import fits

_TYPES: dict[str, Any] = {
    "Any": Any,
    "None": types.NoneType,
    "bool": bool,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "dict": dict,
    "Dict": dict,
    "float": float,
    "int": int,
    "list": list,
    "List": list,
    "Path": Path,
    "str": str,
}
_MODULES = ("", "datetime", "dt", "pathlib", "t", "typing")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def annotation_type(text: str | None) -> Any | None:
    """The type an annotation's text means, without evaluating it; None for one that is not known here.

    Knows int, float, str, bool, list, dict, date, datetime, Path, Any, None, Literal, Optional, Union, `|` and
    Annotated, with or without their module's name.
    """
    if not text:
        return None
    try:
        return _read(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def coerce(kind: Any, value: Any) -> Any:
    """A JSON value as the type asks for it. Dates, datetimes and paths are checked and stay text.

    Raises `ValueError` that says what the value should have been.
    """
    if fits(kind, value):
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
    return _coerce_scalar(origin or kind, value)


def _read(node: ast.expr) -> Any | None:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # a quoted annotation
            return annotation_type(node.value)
        return types.NoneType if node.value is None else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([node.left, node.right])
    if not isinstance(node, ast.Subscript):
        return _TYPES.get(_name(node))
    members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    name = _name(node.value)
    if name == "Literal":
        return typing.Literal[tuple(ast.literal_eval(member) for member in members)]
    if name == "Optional":
        return _union([*members, ast.Constant(None)])
    if name == "Union":
        return _union(members)
    if name == "Annotated":
        return _read(members[0])
    if name in ("list", "List"):
        return types.GenericAlias(list, (_read(members[0]) or Any,))
    if name in ("dict", "Dict"):
        return types.GenericAlias(dict, (str, _read(members[-1]) or Any))
    return None


def _name(node: ast.expr) -> str:
    module, _, name = ast.unparse(node).rpartition(".")
    return name if module in _MODULES else ""


def _union(nodes: list[ast.expr]) -> Any | None:
    members = [_read(node) for node in nodes]
    return None if None in members else typing.Union[tuple(members)]  # noqa: UP007 - the members are known at run time


def _coerce_union(members: tuple[Any, ...], value: Any) -> Any:
    problems = []
    for member in members:
        try:
            return coerce(member, value)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError("; or ".join(problems))


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
    elif kind in (datetime.date, datetime.datetime) and text is not None:
        _check_iso(kind, value)
        return value
    elif kind is Path and text and "\0" not in text:
        return value
    raise ValueError(f"Input should be {_wanted(kind)}, not {_shown(value)}")


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"Input should be a number, not {_shown(value)}") from None


def _check_iso(kind: Any, text: str) -> None:
    try:
        kind.fromisoformat(text)
    except ValueError:
        raise ValueError(f"Input should be {_wanted(kind)}, not {_shown(text)}") from None


def _wanted(kind: Any) -> str:
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
        Path: "a path as text",
    }.get(kind, str(kind))


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, (str, int, float, bool, type(None))) else ""
    return f"{type(value).__name__} {text[:60]}".rstrip()
