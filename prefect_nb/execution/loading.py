"""From an entrypoint to the flow: `path/to/file.py:name`, `path/to/file.py`, `package.module:name`.

A file is executed as `python file.py` would, apart from its name: its folder comes first on the module search path, and
it is registered as a module, so that what it defines can be sent to worker processes. A file of a package is imported
as a module of that package.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from prefect_nb.exceptions import MissingFlowError, ObjectNotFound, PrefectSignal, ScriptError, UnspecifiedFlowError
from prefect_nb.execution.definitions import FlowDefinition, TaskDefinition
from prefect_nb.model.words import did_you_mean

_SOURCE = "__prefect_nb_source__"
"""In a module that was loaded here: the digest of its file then."""


class Entrypoint(msgspec.Struct, frozen=True):
    """Where a flow is defined: a file or an importable module, and its name there (None: the only one)."""

    path: Path | None
    module: str | None
    name: str | None

    def __str__(self) -> str:
        where = str(self.path) if self.path is not None else str(self.module)
        return where if self.name is None else f"{where}:{self.name}"


def parse_entrypoint(text: str) -> Entrypoint:
    """The parts of an entrypoint.

    Raises:
        MissingFlowError: it has none of the three forms.
    """
    where, colon, name = text.rpartition(":")
    if not colon:
        where, name = text, ""
    named = all(part.isidentifier() for part in name.replace("<locals>", "locals").split("."))
    if where.endswith(".py"):
        if named or not colon:
            return Entrypoint(Path(where), None, name or None)
    elif named and all(part.isidentifier() for part in where.split(".")):
        return Entrypoint(None, where, name)
    raise MissingFlowError(
        f"{text!r} does not say where a flow is. Give a notebook (report.ipynb), a file and the flow's name "
        "(flows.py:my_flow), or a module and the flow's name (package.module:my_flow)."
    )


def load_flow(entrypoint: str) -> Any:
    """The flow an entrypoint names.

    Args:
        entrypoint: `path/to/file.py:name`, `path/to/file.py` where the file has a single flow, or
            `package.module:name`. The name is the variable's, or else the flow's own.

    Raises:
        ObjectNotFound: there is no such file or module.
        ScriptError: it could not be imported; the message has the file's own traceback.
        MissingFlowError: it has no flow, or none of that name; the nearest names are given.
        UnspecifiedFlowError: it has several flows, and none was named.
    """
    parsed = parse_entrypoint(entrypoint)
    if parsed.path is not None:
        return _pick(_import_file(parsed.path), parsed)
    _put_first(str(Path.cwd()))
    return _pick(_import_module(str(parsed.module)), parsed)


def in_folder(source: str | os.PathLike[str], entrypoint: str) -> tuple[Path, str]:
    """The file, and the name in it, of an entrypoint within a folder of this machine.

    Raises:
        ObjectNotFound: there is no such folder.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ObjectNotFound(
            f"There is no folder {os.fspath(source)!r}. Only folders of this machine can be loaded from."
        )
    file, colon, name = entrypoint.rpartition(":")
    return (folder / file, name) if colon else (folder / entrypoint, "")


def load_what_can_be(entrypoint: str) -> Any | None:
    """The flow of a file that cannot be imported whole: imports and statements that fail are passed over.

    Returns:
        The flow; None where its own definition needs what is missing.

    Raises:
        ObjectNotFound, MissingFlowError: as `load_flow`.
    """
    parsed = parse_entrypoint(entrypoint)
    if parsed.path is None or parsed.name is None:
        return None
    path = parsed.path.expanduser().absolute()
    if not path.is_file():
        raise ObjectNotFound(f"There is no file {path}.")
    namespace = ModuleType(_module_name(path)[0])
    namespace.__file__ = str(path)
    for statement in _statements(path):
        # What a statement needs may be among what is missing.
        with contextlib.suppress(Exception, SystemExit):
            exec(compile(ast.Module([statement], []), str(path), "exec"), vars(namespace))  # noqa: S102 - the user's file
    try:
        return _named(namespace, parsed.name, str(path))
    except MissingFlowError:
        return None


def definition_of(entrypoint: str) -> tuple[str, str | None]:
    """The name and docstring that a flow's definition gives it, read without executing anything.

    Raises:
        ObjectNotFound, MissingFlowError: there is no such file, or no such function in it.
    """
    parsed = parse_entrypoint(entrypoint)
    if parsed.path is None or not parsed.path.expanduser().is_file():
        raise ObjectNotFound(f"There is no file {parsed.path or parsed.module}.")
    for statement in ast.walk(ast.parse(parsed.path.expanduser().read_text())):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == parsed.name:
            named = statement.name.replace("_", "-")
            for decorator in statement.decorator_list:
                for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
                    if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                        named = str(keyword.value.value)
            return named, ast.get_docstring(statement)
    raise MissingFlowError(f"{parsed.path} has no function {parsed.name!r}.")


def _statements(path: Path) -> list[ast.stmt]:
    try:
        return ast.parse(path.read_text()).body
    except SyntaxError as error:
        raise _script_error(str(path), error, str(path)) from error


def load_tasks(entrypoint: str) -> list[Any]:
    """The task an entrypoint names, or every task that the file defines.

    Args:
        entrypoint: `path/to/file.py:name`, `path/to/file.py`, or `package.module:name`.

    Raises:
        ObjectNotFound, ScriptError: as `load_flow`.
        MissingFlowError: there is no such task; the nearest names are given.
    """
    parsed = parse_entrypoint(entrypoint)
    if parsed.path is not None:
        module = _import_file(parsed.path)
    else:
        _put_first(str(Path.cwd()))
        module = _import_module(str(parsed.module))
    where = str(parsed.path or parsed.module)
    tasks = {name: value for name, value in vars(module).items() if isinstance(value, TaskDefinition)}
    if parsed.name is None:
        own = [task for task in tasks.values() if task.__module__ == module.__name__]
        if not own:
            raise MissingFlowError(f"{where} defines no task. Put @task above the function that is to be served.")
        return own
    found: Any = module
    for part in parsed.name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, TaskDefinition):
        return [found]
    has = f"It has {', '.join(map(repr, tasks))}." if tasks else "It defines no task."
    raise MissingFlowError(f"{where} has no task {parsed.name!r}.{did_you_mean(parsed.name, tasks)} {has}")


def _pick(module: ModuleType, entrypoint: Entrypoint) -> Any:
    where = str(entrypoint.path or entrypoint.module)
    if entrypoint.name is not None:
        return _named(module, entrypoint.name, where)
    flows = _flows_of(module)
    own = {name: flow for name, flow in flows.items() if flow.__module__ == module.__name__} or flows
    if not own:
        raise MissingFlowError(f"{where} defines no flow. Put @flow above the function that is to be run.")
    if len({id(flow) for flow in own.values()}) > 1:
        listed = "\n".join(f"  {where}:{name}" for name in own)
        raise UnspecifiedFlowError(f"{where} defines {len(own)} flows; say which:\n{listed}")
    return next(iter(own.values()))


def _named(module: ModuleType, name: str, where: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, FlowDefinition):
        return found
    flows = _flows_of(module)
    for flow in flows.values():
        if name in (flow.name, flow.__qualname__):
            return flow
    if found is not None:
        if isinstance(found, TaskDefinition):
            raise MissingFlowError(f"{name!r} in {where} is a task, not a flow. Name a flow that calls it.")
        kind = type(found).__name__
        raise MissingFlowError(f"{name!r} in {where} is a {kind}, not a flow. Put @flow above it, or name a flow.")
    if "<locals>" in name:
        raise MissingFlowError(
            f"{name!r} in {where} is defined inside a function, where it cannot be found again. Define it at the top level."
        )
    names = {*flows, *(flow.name for flow in flows.values())}
    has = f"It has {', '.join(map(repr, flows))}." if flows else "It defines no flow."
    raise MissingFlowError(f"{where} has no flow {name!r}.{did_you_mean(name, names)} {has}")


def _flows_of(module: ModuleType) -> dict[str, Any]:
    """Flows at the top level by their first variable, in the order of the file."""
    seen: set[int] = set()
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, FlowDefinition) and id(value) not in seen:
            seen.add(id(value))
            found[name] = value
    return found


def _import_file(path: Path) -> ModuleType:
    path = path.expanduser().absolute()
    if not path.is_file():
        near = did_you_mean(path.name, (other.name for other in _siblings(path)), 1)
        raise ObjectNotFound(f"There is no file {path}.{near}")
    _put_first(str(path.parent))
    package = _package_of(path)
    if package is not None:
        _put_first(str(package))
        return _import_module(".".join(path.relative_to(package).with_suffix("").parts))
    name, importable = _module_name(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = sys.modules.get(name)
    # One without the mark was imported by the program itself.
    if known is not None and getattr(known, _SOURCE, digest) == digest:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, _SOURCE, digest)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (KeyboardInterrupt, PrefectSignal):
        raise
    except BaseException as error:  # SystemExit too: a file that exits defines nothing
        del sys.modules[name]
        raise _script_error(str(path), error, str(path)) from error
    if not importable:
        import cloudpickle

        # Worker processes could not import it by this name.
        cloudpickle.register_pickle_by_value(module)
    return module


def _import_module(name: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ObjectNotFound(
                f"There is no module {error.name!r}. Run this where `import {name}` works, or give the file's path."
            ) from None
        raise _script_error(name, error, None) from error
    except (KeyboardInterrupt, PrefectSignal):
        raise
    except BaseException as error:
        raise _script_error(name, error, None) from error


def _put_first(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _package_of(path: Path) -> Path | None:
    """The folder a file's package lies in, if it is part of one: only as its module can it import its neighbours."""
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier() and folder.parent != folder:
        folder = folder.parent
    return folder if folder != path.parent and path.stem.isidentifier() else None


def _siblings(path: Path) -> list[Path]:
    try:
        return [other for other in path.parent.iterdir() if other.suffix in (".py", ".ipynb")]
    except OSError:
        return []


def _module_name(path: Path) -> tuple[str, bool]:
    """What to register a file as, and whether other processes can import it by that name.

    The name is part of a task's identity, so it is the same each time: the file's, unless that is another module's.
    """
    stem = path.stem
    known = sys.modules.get(stem)
    ours = known is None or _is_file(known, path)
    if stem.isidentifier() and stem not in sys.stdlib_module_names and ours:
        return stem, True
    safe = "".join(char if char.isalnum() else "_" for char in stem)
    return f"{safe}_{hashlib.sha256(str(path).encode('utf-8', 'surrogateescape')).hexdigest()[:8]}", False


def _is_file(module: ModuleType, path: Path) -> bool:
    origin = getattr(module, "__file__", None)
    return origin is not None and os.path.realpath(origin) == os.path.realpath(path)


def _script_error(where: str, error: BaseException, path: str | None) -> ScriptError:
    """Says where in the user's own code the import went wrong."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((i for i, frame in enumerate(frames) if frame.filename == path), None)
    if first is None:
        # Ours and the import system's come before the user's.
        inner = (i for i, frame in enumerate(frames) if i and "importlib" not in frame.filename)
        first = next(inner, len(frames))
    trace = "".join(traceback.format_list(list(frames[first:]))).rstrip()
    words = "".join(traceback.format_exception_only(error)).rstrip()
    if isinstance(error, SystemExit):
        words = f"The file ended the interpreter (exit code {error.code}) instead of defining a flow."
    return ScriptError(
        f"{where} could not be imported:\n{trace}\n{words}" if trace else f"{where} could not be imported:\n{words}"
    )
