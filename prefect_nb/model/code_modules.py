"""Modules the user wrote, by the text of their files: for imports inside functions, and modules used as values."""

import ast
import functools
import importlib.machinery
import importlib.util
import linecache
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from prefect_nb.model.code_names import Import, is_library_file, is_library_module, top_level
from prefect_nb.model.code_source import tree_digest
from prefect_nb.model.fingerprint_parts import Unhashable, seal


def resolve_import(statement: Import, namespace: dict[str, Any]) -> list[str]:
    """Return the full names of the modules an import statement reaches, importing none of them."""
    name = statement.module
    if statement.level:
        package = namespace.get("__package__") or namespace.get("__name__", "")
        try:
            name = importlib.util.resolve_name("." * statement.level + name, package)
        except ImportError:
            return []
    if is_library_name(name):
        return [top_level(name)]
    inner = (f"{name}.{item}" for item in statement.names if item != "*")
    return [name, *(module for module in inner if _file_of(module) is not None)]


def is_library_name(name: str) -> bool:
    """Tell whether a module, imported or not, is an installed one."""
    top = top_level(name)
    if top in sys.modules or top in sys.stdlib_module_names:
        return is_library_module(top)
    filename = _file_of(top)
    return filename is not None and is_library_file(filename)


def module_source_digest(name: str) -> bytes:
    """Return the digest of a module's syntax tree, or of the fact that there is no such file.

    Raises Unhashable for the notebook or script itself, which has no end while it runs, and for compiled modules.
    """
    if name == "__main__":
        raise Unhashable("cannot hash the module __main__")
    filename = _file_of(name)
    if filename is None:
        return seal("no module", name.encode())
    if not filename.endswith(".py"):
        raise Unhashable(f"cannot hash module {name}, which has no Python source")
    return _parsed(filename)[0]


def module_imports(name: str) -> list[str]:
    """Return the names of all modules that a module imports, directly or by way of the user's other modules."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        filename = _file_of(current)
        if filename is None or not filename.endswith(".py"):
            continue
        package = current if filename.endswith("__init__.py") else current.rpartition(".")[0]
        for statement in _parsed(filename)[1]:
            fresh = set(resolve_import(statement, {"__package__": package})) - found - {name}
            found |= fresh
            waiting += [module for module in fresh if not is_library_name(module)]
    return sorted(found)


def _parsed(filename: str) -> tuple[bytes, tuple[Import, ...]]:
    linecache.checkcache(filename)
    return _parse("".join(linecache.getlines(filename)), filename)


@functools.lru_cache(maxsize=512)
def _parse(text: str, filename: str) -> tuple[bytes, tuple[Import, ...]]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise Unhashable(f"cannot hash module {pathlib.Path(filename).name}, which does not parse: {error}") from error
    return tree_digest(tree), tuple(_statements(tree))


def _statements(tree: ast.AST) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, 0, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield Import(node.module or "", node.level, tuple(alias.name for alias in node.names))


def _file_of(name: str) -> str | None:
    """Return where a module's code is, found without importing it or its packages."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None):
        return str(loaded.__file__)
    first, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(f"{spec.name}.{part}", [*spec.submodule_search_locations])
    return spec.origin if spec is not None and spec.has_location else None
