"""Stable digests of Python values: equal in every process, whatever PYTHONHASHSEED and whichever kernel made them."""

import collections
import copyreg
import datetime
import decimal
import enum
import fractions
import functools
import io
import pathlib
import struct
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from prefect_nb.model.fingerprint_arrays import Digest, Pieces, numpy_pieces, scipy_pieces
from prefect_nb.model.fingerprint_parts import Unhashable, seal
from prefect_nb.model.fingerprint_tables import arrow_pieces, pandas_pieces, polars_pieces
from prefect_nb.model.words import type_name

_Encoder = Callable[[Any], bytes]


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _of_text(value: object) -> bytes:
    return _text(str(value))


_ATOMS: dict[type, tuple[str, _Encoder]] = {
    type(None): ("none", lambda _: b""),
    type(...): ("ellipsis", lambda _: b""),
    type(NotImplemented): ("not implemented", lambda _: b""),
    bool: ("bool", lambda value: b"1" if value else b"0"),
    int: ("int", lambda value: b"%x" % value if value >= 0 else b"-%x" % -value),
    float: ("float", struct.Struct("<d").pack),
    complex: ("complex", lambda value: struct.pack("<dd", value.real, value.imag)),
    str: ("str", _text),
    bytes: ("bytes", bytes),
    bytearray: ("bytearray", bytes),
    datetime.date: ("date", _of_text),
    datetime.timedelta: ("timedelta", lambda value: b"%d,%d,%d" % (value.days, value.seconds, value.microseconds)),
    datetime.timezone: ("timezone", lambda value: repr(value).encode()),
    zoneinfo.ZoneInfo: ("zone", _of_text),
    decimal.Decimal: ("decimal", _of_text),
    fractions.Fraction: ("fraction", _of_text),
    uuid.UUID: ("uuid", lambda value: bytes(value.bytes)),
    range: ("range", lambda value: b"%d,%d,%d" % (value.start, value.stop, value.step)),
    pathlib.PosixPath: ("path", _of_text),
    pathlib.WindowsPath: ("windows path", _of_text),
    pathlib.PurePosixPath: ("pure path", _of_text),
    pathlib.PureWindowsPath: ("pure windows path", _of_text),
}

# These, alone in a list or dict, are told apart by MessagePack too: one pass in C instead of one digest for each.
_PACKED = frozenset({type(None), bool, int, float, str, bytes})
_pack = msgspec.msgpack.Encoder(order="deterministic").encode

_LIBRARIES: dict[str, Callable[[Any, Digest], Pieces | bytes | None]] = {
    "numpy": numpy_pieces,
    "pandas": pandas_pieces,
    "polars": polars_pieces,
    "pyarrow": arrow_pieces,
    "scipy": scipy_pieces,
}

_REFUSED: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (io.IOBase, "an open file"),
    (threading.Thread, "a thread"),
    ((types.GeneratorType, types.AsyncGeneratorType), "a generator is used up by reading it"),
    (Coroutine, "a coroutine is used up by awaiting it"),
    ((Iterator, AsyncIterator), "an iterator is used up by reading it"),
)

_CODE_TYPES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.ModuleType,
    type,
)

_NO_CYCLE = sys.maxsize


class ValueDigester:
    """Digests values; a subclass says what functions, classes and modules count for (`code_digest`).

    One digester serves one key: it remembers what it has seen, so shared values are hashed once.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, bytes]] = {}
        self._active: dict[int, int] = {}
        self._active_code: list[int] = []
        self._reaches_back = _NO_CYCLE
        self.root_pieces: Pieces | None = None

    def code_digest(self, value: Any) -> bytes:
        """Return the digest of a value that `is_code`."""
        raise NotImplementedError

    def is_code(self, value: Any) -> bool:
        """Tell whether a value is a function, method, class or module."""
        return isinstance(value, _CODE_TYPES) or type(value).__name__ == "cython_function_or_method"

    def digest(self, value: object) -> bytes:
        """Return the 16 bytes that stand for `value`. Raises Unhashable, with the path to the culprit."""
        atom = _ATOMS.get(type(value))
        if atom is not None:
            return seal(atom[0], atom[1](value))
        identity = id(value)
        known = self._known.get(identity)
        if known is not None:
            return known[1]
        if identity in self._active:
            return self._back_reference(value, self._active[identity])
        return self._remembered(value, identity)

    def _remembered(self, value: object, identity: int) -> bytes:
        depth = len(self._active)
        self._active[identity] = depth
        outer, self._reaches_back = self._reaches_back, _NO_CYCLE
        try:
            found = self._composite(value)
        finally:
            del self._active[identity]
        if self._reaches_back >= depth:
            # holds the value too: its id must not be given to another while it is remembered
            self._known[identity] = (value, found)
            self._reaches_back = outer
        else:
            self._reaches_back = min(outer, self._reaches_back)
        return found

    def _back_reference(self, value: object, depth: int) -> bytes:
        if not any(code >= depth for code in self._active_code):
            raise Unhashable(f"cannot hash {type_name(value)} that contains itself")
        self._reaches_back = min(self._reaches_back, depth)
        return seal("again", b"%d" % (len(self._active) - depth))

    def _composite(self, value: Any) -> bytes:
        handler = _CONTAINERS.get(type(value))
        if handler is not None:
            return handler(self, value)
        if self.is_code(value):
            self._active_code.append(len(self._active) - 1)
            try:
                return self.code_digest(value)
            finally:
                self._active_code.pop()
        for base in type(value).__mro__:
            library = _LIBRARIES.get(str(base.__module__).partition(".")[0])
            found = library(value, self.digest) if library else None
            if found is not None:
                return self._sealed(found)
        return self._object(value)

    def _sealed(self, found: Pieces | bytes) -> bytes:
        if isinstance(found, bytes):
            return found
        if len(self._active) == 1:
            self.root_pieces = found
        return found.seal()

    def _sequence(self, value: Any) -> bytes:
        tag = type(value).__name__
        if len(value) > 1 and _PACKED.issuperset(map(type, value)):
            packed = _packed(value)
            if packed is not None:
                return seal(f"packed {tag}", packed)
        return seal(tag, *(self.at(f"[{place}]", item) for place, item in enumerate(value)))

    def _mapping(self, value: Mapping[Any, Any]) -> bytes:
        if len(value) > 1 and {*map(type, value)} == {str} and _PACKED.issuperset(map(type, value.values())):
            packed = _packed(value)
            if packed is not None:
                return seal("packed dict", packed)
        pairs = sorted((self.digest_key(key), self.at(f"[{_short(key)}]", item)) for key, item in value.items())
        return seal("dict", *(piece for pair in pairs for piece in pair))

    def digest_key(self, key: object) -> bytes:
        """Return the digest of a dict's key or a set's item; the path of a refusal shows the key."""
        return self.at(f"{{{type_name(key)}}}", key)

    def _ordered(self, value: Any) -> bytes:
        return seal("OrderedDict", self._sequence([*value.items()]))

    def _set(self, value: Iterable[Any]) -> bytes:
        kind = "frozenset" if isinstance(value, frozenset) else "set"
        return seal(kind, *sorted(self.digest_key(item) for item in value))

    def _datetime(self, value: datetime.datetime | datetime.time) -> bytes:
        zone = self.digest(value.tzinfo)
        return seal(type(value).__name__, value.isoformat().encode(), b"%d" % value.fold, zone)

    def _slice(self, value: slice) -> bytes:
        return seal("slice", *map(self.digest, (value.start, value.stop, value.step)))

    def _view(self, value: memoryview) -> bytes:
        return seal("memoryview", value.format.encode(), repr(value.shape).encode(), value.tobytes())

    def _partial(self, value: Any) -> bytes:
        return seal("partial", self.digest(value.func), self.digest(value.args), self.digest(value.keywords))

    def at(self, place: str, value: object) -> bytes:
        """Return the digest of `value`, a refusal telling that it was found at `place`."""
        try:
            return self.digest(value)
        except Unhashable as refusal:
            raise refusal.within(place) from refusal.__cause__

    def attributes(self, state: Mapping[str, object]) -> bytes:
        """Return the digest of an object's attributes, whatever their order."""
        pieces = (piece for name in sorted(state) for piece in (_text(name), self.at(f".{name}", state[name])))
        return seal("attributes", *pieces)

    def _object(self, value: Any) -> bytes:
        kind = type(value)
        for refused, reason in _REFUSED:
            if isinstance(value, refused):
                raise Unhashable(f"cannot hash {type_name(value)} ({reason})")
        if isinstance(value, enum.Enum):
            return seal("enum", self.digest(kind), self.digest(value._value_), _text(str(value._name_)))
        if isinstance(value, set | frozenset):
            return seal("set subclass", self.digest(kind), self._set(value), self._own_attributes(value))
        if hasattr(kind, "__pydantic_fields_set__"):
            inner = (value.__dict__, value.__pydantic_extra__, value.__pydantic_private__)
            return seal("pydantic", self.digest(kind), *(self.attributes(state or {}) for state in inner))
        if isinstance(value, msgspec.Struct):
            state = {name: getattr(value, name) for name in value.__struct_fields__}
            return seal("struct", self.digest(kind), self.attributes(state))
        return self._reduced(value, kind)

    def _reduced(self, value: Any, kind: type) -> bytes:
        """Hash the structure that would rebuild the object, piece by piece: never the bytes of a pickle."""
        try:
            reducer = copyreg.dispatch_table.get(kind)
            reduced = reducer(value) if reducer else value.__reduce_ex__(4)
        except Unhashable:
            raise
        except Exception as error:
            raise Unhashable(f"cannot hash {type_name(value)}") from error
        if isinstance(reduced, str):
            return seal("named", self.digest(kind), _of_text(getattr(value, "__module__", "")), _text(reduced))
        rebuild, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        # copyreg's helpers get the class as an argument; anything else that rebuilds the object is part of what it is
        how = [self.digest(rebuild), self.digest(kind), *(self.at(f"({n})", item) for n, item in enumerate(arguments))]
        if items is not None:
            how.append(seal("items", self._sequence([*items])))
        if pairs is not None:
            how.append(seal("pairs", self._mapping(dict(pairs))))
        return seal("object", *how, self._state(kind, state))

    def _own_attributes(self, value: object) -> bytes:
        return self._state(type(value), getattr(value, "__dict__", None))

    def _state(self, kind: type, state: Any) -> bytes:
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict) and _plain(state[0] or {}):
            return seal("slots", self._state(kind, state[0] or {}), self._state(kind, state[1]))
        if not _plain(state):
            return self.digest(state)
        kept = {name: item for name, item in state.items() if not _is_cached_property(kind, name)}
        return self.attributes(kept)


def _plain(state: object) -> bool:
    return type(state) is dict and all(type(name) is str for name in state)


def _is_cached_property(kind: type, name: str) -> bool:
    # what was computed from the state adds nothing to it, and is only there once someone has asked
    return isinstance(getattr(kind, name, None), functools.cached_property)


def _packed(value: object) -> bytes | None:
    try:
        return _pack(value)
    except (OverflowError, UnicodeEncodeError):  # integers beyond 64 bits, lone surrogates
        return None


def _short(key: object) -> str:
    text = repr(key) if isinstance(key, str | int | float | bytes | tuple | None) else type_name(key)
    return text if len(text) <= 60 else text[:57] + "..."


_CONTAINERS: dict[type, Callable[[ValueDigester, Any], bytes]] = {
    list: ValueDigester._sequence,
    tuple: ValueDigester._sequence,
    dict: ValueDigester._mapping,
    types.MappingProxyType: ValueDigester._mapping,
    collections.OrderedDict: ValueDigester._ordered,
    set: ValueDigester._set,
    frozenset: ValueDigester._set,
    datetime.datetime: ValueDigester._datetime,
    datetime.time: ValueDigester._datetime,
    slice: ValueDigester._slice,
    memoryview: ValueDigester._view,
    functools.partial: ValueDigester._partial,
}
