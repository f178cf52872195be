"""What names mean in a parameters cell, read and not run: the enums it defines or imports, types under other names."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

from prefect_nb.model.notebook_types import MODULES_OF_TYPES, Names, make_enum, type_named

FindSource = Callable[[str], str | None]
"""Gives the source of a module by its dotted name; None for one that cannot be found."""

_ENUMS = frozenset({"Enum", "IntEnum", "StrEnum", "ReprEnum"})


def names_of(tree: ast.Module, find_source: FindSource | None = None) -> Names:
    """The names that a cell's top level binds and that annotations of its parameters may use.

    Args:
        tree: of the cell.
        find_source: how to look for enums in modules the cell imports from; None: they are not known.
    """
    found: dict[str, Any] = {}
    used = set(_dotted_names(tree))
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            found[statement.name] = _enum_of(statement, statement.name)
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            for alias in statement.names:
                name = alias.asname or alias.name
                if statement.module in MODULES_OF_TYPES:
                    found[name] = type_named(alias.name)
                elif name in used:
                    found[name] = _imported(find_source, statement.module, alias.name, name)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                root = alias.asname or alias.name
                if alias.name in MODULES_OF_TYPES:
                    found[root] = alias.name
                    continue
                for name in used:
                    module, _, attribute = name.rpartition(".")
                    if module == root:
                        found[name] = _imported(find_source, alias.name, attribute, name)
    return found


def _dotted_names(tree: ast.Module) -> Iterator[str]:
    """The names that are written where a parameter is declared: in its annotation, or as its default."""
    for statement in tree.body:
        parts: list[ast.expr | None] = []
        if isinstance(statement, ast.AnnAssign):
            parts = [statement.annotation, statement.value]
        elif isinstance(statement, ast.Assign):
            parts = [statement.value]
        for part in parts:
            for node in ast.walk(part) if part is not None else ():
                if isinstance(node, ast.Name | ast.Attribute):
                    yield ast.unparse(node)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                    yield node.value


def _imported(find_source: FindSource | None, module: str, name: str, written: str) -> Any | None:
    source = find_source(module) if find_source is not None else None
    if source is None:
        return None
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return _enum_of(statement, written)
    return None


def _enum_of(definition: ast.ClassDef, written: str) -> Any | None:
    """A stand-in for the enum that a class definition makes; None for another class."""
    bases = {ast.unparse(base).rpartition(".")[2] for base in definition.bases}
    if not bases & _ENUMS:
        return None
    members: dict[str, Any] = {}
    for statement in definition.body:
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            continue
        target = statement.targets[0]
        if isinstance(target, ast.Name) and not target.id.startswith("_"):
            members[target.id] = _value_of(statement.value, target.id, bases)
    return make_enum(definition.name, members, written) if members else None


def _value_of(node: ast.expr, name: str, bases: set[str]) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return name.lower() if "StrEnum" in bases else None
