"""What a function's code refers to, and which of that its author wrote: the rest is named by its library's version."""

import builtins
import dis
import functools
import os
import sys
import sysconfig
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from prefect_nb.model.code_source import nested_code, source_of

_GLOBAL_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTE_LOADS = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_CLASS_BODY_NAMES = frozenset({"__name__", "__qualname__", "__module__"})
_OURSELVES = "prefect_nb"


class Import(NamedTuple):
    """An import statement inside a function."""

    module: str
    level: int
    names: tuple[str, ...]


class Reads(NamedTuple):
    """The dotted names a function's code looks up in its globals, and the modules it imports itself."""

    names: tuple[tuple[str, ...], ...]
    imports: tuple[Import, ...]


def reads_of(function: FunctionType) -> tuple[tuple[tuple[str, ...], ...], tuple[Import, ...]]:
    """Return what a function, all functions within it and its decorators refer to, in a fixed order."""
    reads = _code_reads(function.__code__)
    decorators = source_of(function).decorator_names
    return tuple(sorted({*reads.names, *decorators})) if decorators else reads.names, reads.imports


@functools.lru_cache(maxsize=4096)
def _code_reads(code: CodeType) -> Reads:
    names: set[tuple[str, ...]] = set()
    imports: set[Import] = set()
    for inner in nested_code(code):
        _scan(inner, names, imports)
    return Reads(tuple(sorted(names)), tuple(sorted(imports)))


def _scan(code: CodeType, names: set[tuple[str, ...]], imports: set[Import]) -> None:
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG", "PUSH_NULL")]
    own = {step.argval for step in steps if step.opname == "STORE_NAME"} | _CLASS_BODY_NAMES
    for place, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level, fromlist = steps[place - 2].argval, steps[place - 1].argval
            imports.add(Import(step.argval, level, fromlist or ()))
        elif step.opname in _GLOBAL_LOADS and not (step.opname != "LOAD_GLOBAL" and step.argval in own):
            chain = [step.argval]
            for later in steps[place + 1 :]:
                if later.opname not in _ATTRIBUTE_LOADS:
                    break
                chain.append(later.argval)
            names.add(tuple(chain))


def is_builtin(name: str) -> bool:
    """Tell whether a name that is no global is one of Python's built-in names."""
    return hasattr(builtins, name)


@functools.cache
def _library_folders() -> tuple[str, ...]:
    found = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(os.path.realpath(path) + os.sep for path in found if path)


@functools.lru_cache(maxsize=4096)
def is_library_file(filename: str) -> bool:
    """Tell whether a file belongs to Python or to an installed distribution; an editable install does not."""
    if f"{os.sep}site-packages{os.sep}" in filename or f"{os.sep}dist-packages{os.sep}" in filename:
        return True
    return os.path.realpath(filename).startswith(_library_folders()) or filename.startswith("<frozen ")


def is_library_module(name: str | None) -> bool:
    """Tell whether the module of this name was installed and not written by the user."""
    if not name or name == "__main__":
        return False
    top = top_level(name)
    if top == _OURSELVES or top in sys.builtin_module_names:
        return True
    module = sys.modules.get(name)
    if module is None:
        return top in sys.stdlib_module_names
    filename = getattr(module, "__file__", None)
    if filename is None:
        folders = [*getattr(module, "__path__", ())]
        return all(is_library_file(os.path.join(folder, "")) for folder in folders) and bool(folders)
    return is_library_file(filename)


def is_library_function(function: FunctionType) -> bool:
    """Tell whether a function's code was installed; a wrapper made by a library's decorator is library code."""
    filename = function.__code__.co_filename
    if top_level(str(function.__globals__.get("__name__"))) == _OURSELVES:
        return True
    if filename.startswith("<") and not filename.startswith("<frozen "):
        return is_library_module(function.__globals__.get("__name__"))
    return is_library_file(filename)


def top_level(name: str) -> str:
    """Return the first name of a dotted one."""
    return name.partition(".")[0]


def library_of(module_name: str) -> str:
    """Return a library's name and version ("numpy 2.3.1"), as found once in this process; Python's own for its own."""
    return _library(top_level(module_name))


@functools.cache
def _library(top: str) -> str:
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return f"Python {sys.version_info.major}.{sys.version_info.minor}"
    if top == _OURSELVES:
        return top
    # the module's own dict: a lazy `__getattr__` may warn or import
    module = sys.modules.get(top)
    version: Any = vars(module).get("__version__") if isinstance(module, ModuleType) else None
    return f"{top} {version if isinstance(version, str) else _installed_version(top)}".rstrip()


def _installed_version(top: str) -> str:
    from importlib import metadata  # slow to import, and seldom needed

    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        return " ".join(metadata.version(owner) for owner in sorted(set(_distributions().get(top, ()))))


@functools.cache
def _distributions() -> dict[str, list[str]]:
    import importlib.metadata

    return dict(importlib.metadata.packages_distributions())
