"""What a function's result depends on besides its inputs: its source, the helpers, closures, defaults and globals it reads."""

import dataclasses
import enum
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import msgspec

from prefect_nb.model.code_modules import is_library_name, module_imports, module_source_digest, resolve_import
from prefect_nb.model.code_names import (
    is_builtin,
    is_library_function,
    is_library_module,
    library_of,
    reads_of,
)
from prefect_nb.model.code_source import source_of
from prefect_nb.model.code_writes import written_only
from prefect_nb.model.fingerprint_parts import DETAIL_LIMIT, Part, Unhashable, combine, seal
from prefect_nb.model.fingerprint_values import ValueDigester
from prefect_nb.model.words import type_name

_MISSING: Any = object()
_UNDEFINED = seal("undefined")
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_DECLARING = ("__pydantic_fields__", "__attrs_attrs__", "__slots__")
_SHOWN = (bool, int, float, type(None))


def code_parts(fn: Callable[..., Any]) -> list[Part]:
    """Return everything a function's result depends on besides its inputs, one part each.

    A helper counts as much as the function itself, however it is reached: by a global name, as an attribute of a module the
    user wrote, through a closure or inside a value. Installed libraries count by their version. Global values count as they
    are at this moment. Raises Unhashable, naming the global or captured value no digest can be made of.
    """
    digester = CodeDigester()
    target = digester.unwrap(fn)
    if not isinstance(target, FunctionType):
        owner = target.__func__ if isinstance(target, types.MethodType) else target
        name = getattr(owner, "__qualname__", type_name(owner))
        return [Part("source", _tail(name), digester.at(f"callable {name}", target).hex()), *digester.reached()]
    root = [
        Part("source", _tail(target.__qualname__), source_of(target).digest.hex()),
        *(digester.part("closure", name, value) for name, value in _closure(target)),
        *(digester.part("default", name, value) for name, value in _defaults(target)),
    ]
    digester.visit(target)
    return [*root, *digester.reached()]


class CodeDigester(ValueDigester):
    """Digests values and code. What the user's functions in them read is collected, and followed by `reached`."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[bytes, FunctionType]] = []
        self._seen: set[int] = set()
        self._namespaces: dict[int, int] = {}

    def unwrap(self, value: Any) -> Any:
        """Return the function of a task or flow, and anything else as it is."""
        return value.fn if _is_run_maker(value) else value

    def is_code(self, value: Any) -> bool:
        """Tell whether a value is a function, method, class, module, task or flow."""
        return super().is_code(value) or isinstance(value, functools._lru_cache_wrapper) or _is_run_maker(value)

    def code_digest(self, value: Any) -> bytes:
        """Return the digest of code: the user's by what it says and holds, a library's by its name and version."""
        match value:
            case FunctionType():
                return self._function(value)
            case type():
                return self._class(value)
            case ModuleType():
                if is_library_module(value.__name__):
                    return seal("module", value.__name__.encode(), library_of(value.__name__).encode())
                return module_source_digest(value.__name__)
            case types.MethodType():
                return seal("method", self.digest(value.__func__), self.at(".__self__", value.__self__))
            case functools._lru_cache_wrapper():
                return seal("cached", self.digest(value.__wrapped__))
        if _is_run_maker(value):
            return self.digest(value.fn)
        return self._built_in(value)

    def _function(self, function: FunctionType) -> bytes:
        held = [
            *(seal(f"closure {name}", self.at(f"closure {name}", value)) for name, value in _closure(function)),
            *(seal(f"default {name}", self.at(f"default {name}", value)) for name, value in _defaults(function)),
        ]
        if is_library_function(function):
            return seal("library function", _library_name(function), *held)
        found = seal("function", source_of(function).digest, *held)
        self.visit(function, found)
        return found

    def _built_in(self, value: Any) -> bytes:
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, ModuleType):
            return seal("bound built-in", value.__name__.encode(), self.digest(owner))
        module = getattr(value, "__module__", None) or getattr(getattr(value, "__objclass__", None), "__module__", "")
        return seal("built-in", value.__qualname__.encode(), library_of(str(module)).encode())

    def _class(self, kind: type) -> bytes:
        if is_library_module(kind.__module__) and "<locals>" not in kind.__qualname__:
            return seal("library class", _library_name(kind))
        bases = [self.digest(base) for base in kind.__bases__]
        members = sorted(_members(kind), key=lambda member: member[0])
        held = [seal(name, self._member(f"class {kind.__qualname__}.{name}", value)) for name, value in members]
        return seal("class", kind.__qualname__.encode(), self.digest(type(kind)), *bases, b"", *held)

    def _member(self, place: str, value: Any) -> bytes:
        match value:
            case staticmethod() | classmethod():
                return seal(type(value).__name__, self.at(place, value.__func__))
            case property():
                return seal("property", *(self.at(place, part) for part in (value.fget, value.fset, value.fdel)))
            case functools.cached_property():
                return seal("cached_property", self.at(place, value.func))
        return self.at(place, value)

    def visit(self, function: FunctionType, digest: bytes = b"") -> None:
        """Have what a function reads followed by `reached`, once."""
        if id(function) not in self._seen:
            self._seen.add(id(function))
            self._waiting.append((digest, function))

    def reached(self) -> list[Part]:
        """Follow all functions met so far, and those met on the way, and return a part for each thing they read."""
        parts: list[Part] = []
        while self._waiting:
            # found in the order values hold them; sorted, as the order of a dict must not matter
            batch, self._waiting = sorted(self._waiting, key=lambda item: item[0]), []
            for _, function in batch:
                parts.extend(self._reads(function))
        return parts

    def _reads(self, function: FunctionType) -> Iterator[Part]:
        namespace = function.__globals__
        number = self._namespaces.setdefault(id(namespace), len(self._namespaces))
        names, imports = reads_of(function)
        told = set()
        written = written_only(function.__code__)
        for chain in names:
            if chain[0] in written:
                continue
            found = _look_up(namespace, chain)
            if found is None or found[0] in told:
                continue
            told.add(found[0])
            yield _numbered(self._read(*found), number)
        for statement in imports:
            for module in resolve_import(statement, namespace):
                yield self._imported(module)

    def _read(self, name: str, value: Any) -> Part:
        if value is _MISSING:
            return Part("global", name, _UNDEFINED.hex(), {"type": "undefined"})
        target = self.unwrap(value)
        if isinstance(target, ModuleType) and is_library_module(target.__name__):
            return Part("helper", name, self.digest(target).hex(), {"library": library_of(target.__name__)})
        if not self.is_code(target):
            return self.part("global", name, value)
        digest = self.at(f"helper {name}", target).hex()
        detail = self._code_detail(target) if isinstance(target, FunctionType) else None
        return Part("helper", name, digest, detail)

    def _imported(self, module: str) -> Part:
        if is_library_name(module):
            library = library_of(module)
            return Part("helper", module, seal("module", module.encode(), library.encode()).hex(), {"library": library})
        digest = seal("imported module", module_source_digest(module), *map(self._import_of, module_imports(module)))
        return Part("helper", module, digest.hex())

    def _import_of(self, module: str) -> bytes:
        known = library_of(module).encode() if is_library_name(module) else module_source_digest(module)
        return seal(module, known)

    def _code_detail(self, function: FunctionType) -> dict[str, str]:
        if is_library_function(function):
            return {"library": library_of(function.__module__)}
        detail = {f"captured `{name}`": self.digest(value).hex() for name, value in _closure(function)}
        detail |= {f"default `{name}`": self.digest(value).hex() for name, value in _defaults(function)}
        return {"source": source_of(function).digest.hex(), **dict([*detail.items()][: DETAIL_LIMIT - 1])}

    def part(self, kind: str, name: str, value: object) -> Part:
        """Return the part of one value, with finer digests to explain a later difference by."""
        self.root_pieces = None
        if value is _MISSING:
            return Part(kind, name, _UNDEFINED.hex(), {"type": "undefined"})
        try:
            return Part(kind, name, self.at(f"{kind} {name}", value).hex(), self._detail(value))
        except RecursionError:
            raise too_deep(value).within(f"{kind} {name}") from None

    def _detail(self, value: Any) -> dict[str, str]:
        detail = {"type": type_name(value)}
        if self.root_pieces is not None:
            detail |= self.root_pieces.facts
            for key, piece in self.root_pieces.named:
                if len(detail) < DETAIL_LIMIT:
                    detail[key[:120]] = piece.hex()
        elif type(value) in _SHOWN:
            detail["value"] = repr(value)[:60]
        elif isinstance(value, dict):
            detail["length"] = str(len(value))
            for key, item in value.items():
                if len(detail) < DETAIL_LIMIT:
                    detail[f"key {key!r}"[:120]] = self.digest(item).hex()
        elif isinstance(value, list | tuple | str | bytes | set | frozenset):
            detail["length"] = str(len(value))
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value)[: DETAIL_LIMIT - 1]:
                detail[f"attribute {field.name}"] = self.digest(getattr(value, field.name, None)).hex()
        return detail


def too_deep(value: object) -> Unhashable:
    """Return the refusal of a value nested deeper than Python recurses."""
    return Unhashable(f"cannot hash {type_name(value)}: nested too deeply")


def with_reached(digester: CodeDigester, digest: bytes) -> bytes:
    """Return `digest` extended by what the code met so far reads; the same digest if it met none."""
    parts = digester.reached()
    return seal("with code", digest, combine(parts).encode()) if parts else digest


def _is_run_maker(value: Any) -> bool:
    kinds = type(value).__mro__
    if not any(kind.__name__ in ("Task", "Flow") for kind in kinds) or isinstance(value, type):
        return False
    return isinstance(getattr(value, "fn", None), FunctionType)


def _tail(qualname: str) -> str:
    return qualname.rpartition("<locals>.")[2]


def _library_name(value: FunctionType | type) -> bytes:
    return f"{value.__module__}:{value.__qualname__}:{library_of(str(value.__module__))}".encode()


def _closure(function: FunctionType) -> Iterator[tuple[str, Any]]:
    written = written_only(function.__code__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name in written:
            continue
        try:
            yield name, cell.cell_contents
        except ValueError:  # the name is not bound yet
            yield name, _MISSING


def _defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code, positional = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    yield from zip(names[len(names) - len(positional) :], positional, strict=True)
    yield from sorted((function.__kwdefaults__ or {}).items())


def _look_up(namespace: dict[str, Any], chain: tuple[str, ...]) -> tuple[str, Any] | None:
    """Return the name to tell and the value found under it; None for Python's built-in names.

    Attributes are followed through the user's modules only: of an object the whole value counts.
    """
    value = namespace.get(chain[0], _MISSING)
    if value is _MISSING and is_builtin(chain[0]):
        return None
    name = chain[0]
    for attribute in chain[1:]:
        if not isinstance(value, ModuleType) or is_library_module(value.__name__):
            break
        name = f"{name}.{attribute}"
        value = inspect.getattr_static(value, attribute, _MISSING)
    return name, value


def _numbered(part: Part, namespace: int) -> Part:
    # two modules may give one name different meanings; the first namespace met is the function's own
    if namespace == 0:
        return part
    return Part(part.kind, part.name, seal(f"namespace {namespace}", part.digest.encode()).hex(), part.detail)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield what the user wrote in a class, as it is now: methods, attributes, fields and their annotations."""
    is_enum = issubclass(kind, enum.Enum)
    if issubclass(kind, enum.Enum):
        yield "members", {name: kind[name].value for name in kind.__members__}
    if issubclass(kind, msgspec.Struct):
        yield "fields", [_struct_field(field) for field in msgspec.structs.fields(kind)]
        config = kind.__struct_config__
        yield "config", {name: getattr(config, name) for name in dir(config) if not name.startswith("_")}
    for name, value in vars(kind).items():
        if name == "__annotations__":
            yield name, {key: item if isinstance(item, str | type) else repr(item) for key, item in value.items()}
        elif name == "__dataclass_fields__":
            yield name, [_dataclass_field(field) for field in value.values()]
        elif name == "__dataclass_params__":
            yield name, repr(value)
        elif name in _DECLARING or (_is_written(name, value) and not (is_enum and _of_enum(kind, name))):
            yield name, value


def _is_written(name: str, value: Any) -> bool:
    if name == "_abc_impl" or isinstance(value, _DESCRIPTORS):
        return False
    if isinstance(value, FunctionType):
        # attrs writes these from `__attrs_attrs__`, which counts
        return not value.__code__.co_filename.startswith("<attrs generated")
    is_dunder = name.startswith("__") and name.endswith("__")
    return not is_dunder or isinstance(value, staticmethod | classmethod | property)


def _of_enum(kind: type, name: str) -> bool:
    return (name.startswith("_") and not name.startswith("__")) or name in kind.__dict__["_member_map_"]


def _struct_field(field: Any) -> tuple[Any, ...]:
    chosen = (None if item is msgspec.NODEFAULT else item for item in (field.default, field.default_factory))
    return (field.name, field.encode_name, *chosen)


def _dataclass_field(field: Any) -> tuple[Any, ...]:
    chosen = (None if item is dataclasses.MISSING else item for item in (field.default, field.default_factory))
    flags = (field.init, field.repr, field.hash, field.compare, field.kw_only)
    return (field.name, *chosen, *map(repr, flags), dict(field.metadata))
