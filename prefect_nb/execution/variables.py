"""In a kernel that executes a notebook run: keeping its variables, and bringing them back. See `execution.checkpoints`."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pickle
import re
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from prefect_nb.bodies import memory
from prefect_nb.bodies.verdict import size_text
from prefect_nb.exceptions import NotebookError, PrefectException
from prefect_nb.execution.checkpoints import (
    MANIFEST,
    VALUES,
    Checkpoint,
    Declared,
    ExecutedCell,
    Kept,
    Lost,
    read_cell,
    read_checkpoint,
)
from prefect_nb.execution.scripts import private_folder, write_private
from prefect_nb.model.name_flow import names_bound
from prefect_nb.model.words import type_name

if TYPE_CHECKING:
    from prefect_nb.results.local import LocalResultStore

_SMALL = 1024 * 1024
"""Values up to this size are written together: each file costs a wait for the disk."""
_DECLARATIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_CHEAP_MAGICS = frozenset({"matplotlib", "load_ext", "reload_ext", "autoreload", "config", "pylab", "aimport"})
_HISTORY = re.compile(r"_{1,3}|_\d+|_i{1,3}|_i\d+|_[iod]h|_exit_code")
_REASONS = {
    "generator": "a generator goes on from where it is, which cannot be kept",
    "coroutine": "a coroutine cannot be kept",
    "async_generator": "an async generator cannot be kept",
    "TextIOWrapper": "an open file",
    "BufferedReader": "an open file",
    "BufferedWriter": "an open file",
    "BufferedRandom": "an open file",
    "FileIO": "an open file",
    "Connection": "an open connection",
    "Cursor": "part of an open connection",
    "socket": "an open connection",
    "SSLSocket": "an open connection",
    "Popen": "a running process",
    "Thread": "a running thread",
    "lock": "a lock",
    "RLock": "a lock",
}


class _Known:
    """What this kernel knows of the cells that have run in it."""

    def __init__(self) -> None:
        self.declared: list[Declared] = []
        self.makers: dict[str, int] = {}

    def learn(self, cell: ExecutedCell) -> None:
        """A cell has completed."""
        source, tree = read_cell(cell.source)
        bound = names_bound(tree)
        for statement in tree.body:
            text, names = _text_of(statement, source), tuple(sorted(names_bound(ast.Module([statement], []))))
            if isinstance(statement, _DECLARATIONS) or _is_cheap_magic(statement):
                # What a later one replaces need not be executed.
                self.declared = [one for one in self.declared if not one.names or not set(one.names) <= set(names)]
                self.declared.append(Declared(cell.number, text, names))
            else:
                for name in names:
                    self._undeclare(name)
        self.makers.update(dict.fromkeys(bound, cell.number))

    def _undeclare(self, name: str) -> None:
        """Something else is bound to a declared name; its value is to be kept."""
        self.declared = [
            msgspec.structs.replace(one, names=tuple(other for other in one.names if other != name))
            for one in self.declared
            if one.names != (name,)
        ]


_known = _Known()


def take(folder: str, told: str, largest: int, seconds: float) -> None:
    """Keep the notebook's variables as they are now."""
    started = time.monotonic()
    cells = msgspec.json.decode(told, type=list[ExecutedCell])
    for cell in cells:
        _known.learn(cell)
    store = _store(Path(folder))
    keeper = _Keeper(store, largest, started + seconds)
    keeper.keep(_namespace())
    keeper.close()
    checkpoint = Checkpoint(
        cell_id=cells[-1].id,
        cell_number=cells[-1].number,
        at_us=time.time_ns() // 1000,
        kept=keeper.kept,
        lost=sorted(keeper.lost, key=lambda lost: lost.name),
        declared=_known.declared,
        modules=keeper.modules,
        makers=_known.makers,
        folder=str(Path.cwd()),
        size=keeper.size,
        seconds=time.monotonic() - started,
    )
    write_private(Path(folder) / MANIFEST, msgspec.json.encode(checkpoint))
    _prune(store, {kept.result.sha256 for kept in checkpoint.kept})


def restore(folder: str) -> None:
    """Bring back what was kept, in a fresh kernel.

    Raises:
        NotebookError: a name cannot be brought back; it is named.
    """
    checkpoint = read_checkpoint(Path(folder))
    if checkpoint is None:
        raise NotebookError("What was kept of the notebook's variables is gone.")
    shell = _shell()
    with contextlib.suppress(OSError):
        os.chdir(checkpoint.folder)
    # A decorator or a base class may need a value, and a value its class: what fails at first is tried again after.
    waiting = [one for one in checkpoint.declared if not _declare(shell, one)]
    for alias, name in checkpoint.modules.items():
        __import__(name)
        shell.user_ns[alias] = sys.modules[name]
    store = _store(Path(folder))
    later = [kept for kept in checkpoint.kept if _load(shell, store, kept) is not None]
    for one in waiting:
        if not _declare(shell, one):
            raise NotebookError(
                f"What cell {one.cell} declares could not be executed again: {one.source.splitlines()[0]}"
            )
    for kept in later:
        error = _load(shell, store, kept)
        if error is not None:
            names = ", ".join(name for names in kept.names for name in names)
            raise NotebookError(f"{names} could not be restored: {error}")
    _known.declared, _known.makers = list(checkpoint.declared), dict(checkpoint.makers)


def _declare(shell: Any, declared: Declared) -> bool:
    """Execute a statement again; whether that went well. What else it binds was bound to something else later."""
    tree = ast.parse(declared.source)
    others = names_bound(tree) - set(declared.names)
    before = {name: shell.user_ns[name] for name in others if name in shell.user_ns}
    # Known to linecache, so that tracebacks, and whoever asks for a function's source, see it.
    filename = shell.compile.cache(declared.source, number=0, raw_code=declared.source)
    try:
        exec(compile(tree, filename, "exec"), shell.user_ns)  # noqa: S102 - the user's own code, in the user's own kernel
    except Exception:  # the same: it may need a value that is not there yet
        return False
    shell.user_ns.update(before)
    return True


def _load(shell: Any, store: LocalResultStore, kept: Kept) -> Exception | None:
    try:
        blobs = store.get(kept.result)
        for names, blob in zip(kept.names, blobs, strict=True):
            value = pickle.loads(blob)
            shell.user_ns.update(dict.fromkeys(names, value))
    except Exception as error:  # whatever the classes of the values raise
        return error
    return None


class _Keeper:
    """Keeps values, the small ones first, as long as there is room and time."""

    def __init__(self, store: LocalResultStore, largest: int, until: float) -> None:
        self._store = store
        self._room = largest
        self._largest = largest
        self._until = until
        self._small: list[tuple[list[str], bytes]] = []
        self.size = 0
        self.kept: list[Kept] = []
        self.lost: list[Lost] = []
        self.modules: dict[str, str] = {}

    def keep(self, namespace: dict[str, Any]) -> None:
        """Keep the values that are not declared."""
        declared = {name for one in _known.declared for name in one.names}
        by_object: dict[int, tuple[list[str], Any]] = {}
        for name, value in namespace.items():
            if isinstance(value, types.ModuleType):
                if name not in declared:
                    self.modules[name] = value.__name__
            elif name not in declared:
                by_object.setdefault(id(value), ([], value))[0].append(name)
        for names, value in sorted(by_object.values(), key=lambda pair: _size_hint(pair[1])):
            blob = self._pickled(names, value)
            if blob is None:
                continue
            self._room -= len(blob)
            self.size += len(blob)
            if len(blob) <= _SMALL:
                self._small.append((names, blob))
            else:
                self._write([(names, blob)])

    def close(self) -> None:
        """Write the small ones."""
        if self._small:
            self._write(self._small)

    def _pickled(self, names: list[str], value: Any) -> bytes | None:
        why = self._refusal(value)
        if why is None:
            buffer = _Bounded(self._room)
            try:
                _pickler()(buffer, protocol=5).dump(value)
                return buffer.getvalue()
            except _TooLarge:
                why = f"too large: more than {size_text(self._room)} left for it"
            except Exception as error:  # whatever its class raises
                why = _reason(value, error)
        self._lose(names, value, why)
        return None

    def _refusal(self, value: Any) -> str | None:
        """Why a value is not even tried; None if it is."""
        if time.monotonic() > self._until:
            return "there was no time left to keep it"
        hint = _size_hint(value)
        if hint > self._room:
            return f"too large: {size_text(hint)}, with {size_text(self._largest)} for all"
        free = memory.available_memory() if hint > _SMALL else None
        if free is not None and 2 * hint > free:
            return f"too large: {size_text(hint)}, with {size_text(free)} of memory left"
        return None

    def _write(self, values: list[tuple[list[str], bytes]]) -> None:
        try:
            reference = self._store.put([blob for _, blob in values], "pickle")
        except PrefectException as error:
            for names, blob in values:
                self._lose(names, pickle.loads(blob), str(error))
            return
        self.kept.append(Kept(reference, [names for names, _ in values]))

    def _lose(self, names: list[str], value: Any, reason: str) -> None:
        for name in names:
            self.lost.append(Lost(name, type_name(value), reason, _known.makers.get(name)))


class _TooLarge(Exception):
    """A value has more bytes than there is room for."""


class _Bounded(io.BytesIO):
    def __init__(self, room: int) -> None:
        super().__init__()
        self._left = room

    def write(self, data: Any) -> int:
        self._left -= len(memoryview(data).cast("B"))
        if self._left < 0:
            raise _TooLarge
        return super().write(data)


def _pickler() -> Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """By name what the notebook declares: it is declared again, and must not be there twice."""

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type | types.FunctionType) and obj.__module__ == "__main__":
                name = obj.__qualname__
                if any(name in one.names for one in _known.declared) and vars(sys.modules["__main__"]).get(name) is obj:
                    return NotImplemented
            return super().reducer_override(obj)

    return Pickler


def _reason(value: Any, error: Exception) -> str:
    kind = next((_REASONS[base.__name__] for base in type(value).__mro__ if base.__name__ in _REASONS), None)
    return kind or f"it cannot be pickled: {str(error) or type(error).__name__}"[:200]


def _size_hint(value: Any) -> int:
    """About how many bytes a value has, without looking into it."""
    try:
        size = getattr(value, "nbytes", None)
        if isinstance(size, int):
            return size
        usage = getattr(value, "memory_usage", None)
        if callable(usage) and type(value).__module__.startswith("pandas"):
            used = usage(deep=False)
            return int(used.sum() if hasattr(used, "sum") else used)
        return sys.getsizeof(value)
    except Exception:  # of somebody else's class
        return 0


def _namespace() -> dict[str, Any]:
    """The notebook's own variables."""
    shell = _shell()
    hidden = shell.user_ns_hidden
    return {
        name: value
        for name, value in shell.user_ns.items()
        if not _HISTORY.fullmatch(name) and not (name in hidden and hidden[name] is value) and name not in _IPYTHON
    }


_IPYTHON = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open", "__builtins__", "__builtin__"})


def _shell() -> Any:
    from IPython import get_ipython

    return get_ipython()


def _store(folder: Path) -> LocalResultStore:
    from prefect_nb.results.local import LocalResultStore

    private_folder(folder / VALUES)
    return LocalResultStore(folder / VALUES)


def _prune(store: LocalResultStore, wanted: set[str]) -> None:
    for file in store.root.glob("??/*"):
        if file.name not in wanted:
            file.unlink(missing_ok=True)


def _text_of(statement: ast.stmt, source: str) -> str:
    """A statement as it is written, comments included: what a function is cached by must not change."""
    first = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", ()))])
    text = "\n".join(source.splitlines()[first - 1 : statement.end_lineno])
    try:
        alone = len(ast.parse(text).body) == 1
    except SyntaxError:
        alone = False
    return text if alone else ast.unparse(statement)


def _is_cheap_magic(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(ast.Call(func=ast.Attribute(attr="run_line_magic"), args=[ast.Constant(str(name)), *_])):
            return name in _CHEAP_MAGICS
    return False
