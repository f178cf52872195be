"""Values of parameters as Python source, which can carry no code; nothing else writes them."""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from prefect_nb.model.notebook_types import WRITTEN

# Under names of ours, so that nothing of the notebook's own is bound anew.
_ALIASES = {"datetime": "_datetime", "decimal": "_decimal", "os": "_os", "pathlib": "_pathlib", "uuid": "_uuid"}
_CALLS = frozenset(
    {
        "_datetime.date.fromisoformat",
        "_datetime.datetime.fromisoformat",
        "_datetime.time.fromisoformat",
        "_datetime.timedelta",
        "_decimal.Decimal",
        "_pathlib.Path",
        "_uuid.UUID",
    }
)


def literal(value: Any) -> str:
    """Python source of a checked value, on one line and free of unprintable characters."""
    match value:
        case float() if not math.isfinite(value):
            return f'float("{value}")'
        case list():
            return f"[{', '.join(map(literal, value))}]"
        case dict():
            return "{" + ", ".join(f"{key!r}: {literal(member)}" for key, member in value.items()) + "}"
        case enum.Enum():
            return f"{getattr(type(value), WRITTEN)}.{value.name}"
        case datetime.datetime():
            return f"_datetime.datetime.fromisoformat({value.isoformat()!r})"
        case datetime.date():
            return f"_datetime.date.fromisoformat({value.isoformat()!r})"
        case datetime.time():
            return f"_datetime.time.fromisoformat({value.isoformat()!r})"
        case datetime.timedelta():
            return f"_datetime.timedelta(days={value.days}, seconds={value.seconds}, microseconds={value.microseconds})"
        case decimal.Decimal():
            return f"_decimal.Decimal({str(value)!r})"
        case uuid.UUID():
            return f"_uuid.UUID({str(value)!r})"
        case PurePath():
            return f"_pathlib.Path({str(value)!r})"
    return repr(value)


def secret_variable(name: str) -> str:
    """The variable of the kernel's environment by which a secret parameter comes to it, past the document."""
    return f"PREFECT_NB_PARAMETER_{name}_SECRET"


def secret_literal(name: str, wrapper: str | None) -> str:
    """Source that takes a secret parameter from the environment.

    Args:
        name: of the parameter.
        wrapper: the class to wrap it in, as the cell writes it; None for none.
    """
    text = f"_os.environ[{secret_variable(name)!r}]"
    return f"{wrapper}({text})" if wrapper else text


def imports_for(source: str) -> str:
    """The imports that literals in some source need, a line each."""
    lines = (f"import {module} as {alias}\n" for module, alias in _ALIASES.items() if f"{alias}." in source)
    return "".join(lines)


def is_constant(node: ast.expr) -> bool:
    """Whether an expression is one that `literal` writes: constants, and calls that make values of them."""
    match node:
        case ast.Constant():
            return True
        case ast.List():
            return all(map(is_constant, node.elts))
        case ast.Dict():
            return all(isinstance(key, ast.Constant) for key in node.keys) and all(map(is_constant, node.values))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return True
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value="nan" | "inf" | "-inf")], keywords=[]):
            return True
        case ast.Call(func=ast.Attribute()):
            parts: Iterable[ast.expr] = [*node.args, *(keyword.value for keyword in node.keywords)]
            return ast.unparse(node.func) in _CALLS and all(map(is_constant, parts))
        case _:
            return False
