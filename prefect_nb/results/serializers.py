"""Values to bytes and back.

A serializer is asked for by name ("pickle", "json", "compressed/pickle", "compressed/json", "compressed/<other>") or
given as an instance. One's own is a subclass of `Serializer` with a `type`, the name it is known by; for reading, it is
made without arguments::

    class ArrowSerializer(Serializer):
        type = "arrow"

        def dumps(self, obj): ...
        def loads(self, blob): ...

Under the default serializer "pickle" a plain numpy array is kept in numpy's own format instead: it holds exactly the
array, and reading it runs no code. Data frames stay with pickle: of the formats at hand only pickle gives back every
index, attribute, category and dtype as it was.
"""

import importlib
import io
import json
import math
import pickle
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import ConfigurationError, SerializationError

_COMPRESSION_MAGIC = {"zlib": b"\x78", "bz2": b"BZh", "lzma": b"\xfd7zXZ\x00"}
_NUMPY_KINDS = frozenset("biufcmMSU")
_BUILT_IN = frozenset({"pickle", "json", "numpy", "compressed"})
_registered: dict[str, type["Serializer"]] = {}


class Serializer:
    """Base of all serializers. A subclass with a `type` of its own can be asked for by that name."""

    type: str = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.type.partition("/")[0] in _BUILT_IN and cls.__module__ != __name__:
            raise ConfigurationError(f"{cls.__qualname__} needs a `type` of its own; {cls.type!r} is taken.")
        if "type" in cls.__dict__:
            _registered[cls.type] = cls

    def dumps(self, obj: Any) -> bytes:
        """The value as bytes. Raises `SerializationError` where it cannot be."""
        raise NotImplementedError

    def loads(self, blob: bytes) -> Any:
        """The value again. Raises `SerializationError` where it cannot be."""
        raise NotImplementedError


class PickleSerializer(Serializer):
    """Pickle.

    What is defined in `__main__` (a notebook's classes and functions) is kept by value, with cloudpickle, so that
    another kernel can read it.
    """

    type = "pickle"

    def dumps(self, obj: Any) -> bytes:
        """The value as a pickle. Raises `SerializationError`: locks, generators, open files and the like."""
        plain = _plain_pickle(obj)
        if plain is not None:
            return plain
        try:
            buffer = io.BytesIO()
            _by_value_pickler()(buffer, protocol=5).dump(obj)
            return buffer.getvalue()
        except Exception as error:
            raise _refused(obj, "pickled", error) from error

    def loads(self, blob: bytes) -> Any:
        """The value again. Raises `SerializationError`, for example where a class is not there any more."""
        try:
            return pickle.loads(blob)
        except Exception as error:
            raise _unreadable("pickle", error) from error


class JSONSerializer(Serializer):
    """JSON, strictly: None, bool, int, finite float, str, list, dict with text keys; a tuple comes back as a list."""

    type = "json"

    def dumps(self, obj: Any) -> bytes:
        """The value as JSON text in UTF-8. Raises `SerializationError` naming the part that JSON cannot hold."""
        try:
            _check_json(obj, "$")
            return json.dumps(obj, separators=(",", ":"), allow_nan=False).encode()
        except SerializationError:
            raise
        except Exception as error:
            raise _refused(obj, "written as JSON", error) from error

    def loads(self, blob: bytes) -> Any:
        """The value again. Raises `SerializationError`."""
        try:
            return json.loads(blob)
        except Exception as error:
            raise _unreadable("JSON", error) from error


class NumpySerializer(Serializer):
    """One numpy array, in numpy's own format, without pickle."""

    type = "numpy"

    def dumps(self, obj: Any) -> bytes:
        """The array in `.npy` format. Raises `SerializationError`: arrays of objects and structured arrays."""
        from numpy.lib import format as npy

        buffer = io.BytesIO()
        try:
            npy.write_array(buffer, obj, allow_pickle=False)
        except Exception as error:
            raise _refused(obj, "written in numpy's format", error) from error
        return buffer.getvalue()

    def loads(self, blob: bytes) -> Any:
        """The array again, writable. Raises `SerializationError`."""
        try:
            from numpy.lib import format as npy

            return npy.read_array(io.BytesIO(blob), allow_pickle=False)
        except Exception as error:
            raise _unreadable("numpy's format", error) from error


class CompressedSerializer(Serializer):
    """Another serializer's bytes, compressed.

    Args:
        serializer: the inner serializer, by name or as an instance.
        compressionlib: "zlib" (fast), "bz2" or "lzma" (small). The bytes themselves tell which it was.
    """

    type = "compressed"

    def __init__(self, serializer: str | Serializer = "pickle", compressionlib: str = "zlib") -> None:
        if compressionlib not in _COMPRESSION_MAGIC:
            raise ConfigurationError(
                f"Unknown compressionlib {compressionlib!r}; there are {', '.join(_COMPRESSION_MAGIC)}."
            )
        self.serializer = resolve_serializer(serializer)
        self.compressionlib = compressionlib
        self.type = f"compressed/{self.serializer.type}"

    def dumps(self, obj: Any) -> bytes:
        """The compressed bytes. Raises `SerializationError` as the inner serializer does."""
        compressed: bytes = importlib.import_module(self.compressionlib).compress(self.serializer.dumps(obj))
        return compressed

    def loads(self, blob: bytes) -> Any:
        """The value again, whichever library compressed it. Raises `SerializationError`."""
        for library, magic in _COMPRESSION_MAGIC.items():
            if blob.startswith(magic):
                try:
                    inner = importlib.import_module(library).decompress(blob)
                except Exception as error:
                    raise _unreadable(library, error) from error
                return self.serializer.loads(inner)
        raise SerializationError("A compressed result begins with no compression library's mark.")


class CompressedPickleSerializer(CompressedSerializer):
    """Pickle, compressed."""

    def __init__(self, compressionlib: str = "zlib") -> None:
        super().__init__("pickle", compressionlib)


class CompressedJSONSerializer(CompressedSerializer):
    """JSON, compressed."""

    def __init__(self, compressionlib: str = "zlib") -> None:
        super().__init__("json", compressionlib)


def resolve_serializer(serializer: str | Serializer) -> Serializer:
    """The serializer of that name; an instance stands for itself. A name is never a path to import.

    Raises:
        ConfigurationError: no serializer of that name is known in this process.
    """
    if isinstance(serializer, Serializer):
        if not serializer.type:
            raise ConfigurationError(f"{type(serializer).__qualname__} needs a `type`: the name it is known by.")
        return serializer
    if not isinstance(serializer, str):
        raise ConfigurationError(f"A serializer is a name or an instance of Serializer, not {serializer!r}.")
    outer, slash, inner = serializer.partition("/")
    if outer == "compressed" and slash:
        return CompressedSerializer(inner)
    if serializer not in _registered:
        raise ConfigurationError(
            f"Unknown serializer {serializer!r}; known are {', '.join(sorted(_registered))} and compressed/<name>. "
            "Define or import your Serializer subclass of that `type` first."
        )
    return _registered[serializer]()


def encode(value: Any, serializer: str | Serializer) -> tuple[str, bytes]:
    """A value's bytes and the name of the serializer that reads them.

    Raises:
        SerializationError: whatever went wrong in the serializer.
        ConfigurationError: no such serializer.
    """
    chosen = resolve_serializer(serializer)
    try:
        return chosen.type, chosen.dumps(value)
    except SerializationError:
        raise
    except Exception as error:
        raise _refused(value, f"serialized as {chosen.type!r}", error) from error


def decode(name: str, payload: bytes) -> Any:
    """The value that the serializer of this name reads from the bytes.

    Raises:
        SerializationError: the serializer is unknown here, or cannot read them.
    """
    try:
        return resolve_serializer(name).loads(payload)
    except SerializationError:
        raise
    except ConfigurationError as error:
        raise SerializationError(str(error)) from None
    except Exception as error:
        raise _unreadable(repr(name), error) from error


def by_type(value: Any) -> str:
    """The serializer for a value nobody chose one for: "numpy" for plain arrays, else "pickle"."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return "pickle"
    dtype = value.dtype
    exact = dtype.kind in _NUMPY_KINDS and dtype.isbuiltin != 2 and dtype.metadata is None
    return "numpy" if exact else "pickle"


def _plain_pickle(obj: Any) -> bytes | None:
    """None where plain pickle refuses, or where what it wrote can only be read in this process."""
    try:
        data = pickle.dumps(obj, protocol=5)
    except Exception:
        return None  # cloudpickle takes more; if it refuses too, its error is the one to show
    # Plain pickle names classes and functions by module, so whatever lives in `__main__` leaves that name here.
    return None if b"__main__" in data else data


@cache
def _by_value_pickler() -> Callable[..., Any]:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, io.TextIOWrapper):  # cloudpickle would keep the text and lose the file
                raise pickle.PicklingError(f"cannot pickle the open file {obj.name!r}")
            return super().reducer_override(obj)

    return Pickler


def _check_json(value: Any, path: str) -> None:
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise SerializationError(
                    f"JSON has no key {key!r} ({_name(key)}) at {path}. Use text keys, or 'pickle'."
                )
            _check_json(item, f"{path}.{key}")
    elif kind is list or kind is tuple:
        for index, item in enumerate(value):
            _check_json(item, f"{path}[{index}]")
    elif kind is float and not math.isfinite(value):
        raise SerializationError(f"JSON has no number {value!r} (at {path}). Use None, or the serializer 'pickle'.")
    elif value is not None and kind not in (str, int, float, bool):
        raise SerializationError(
            f"JSON cannot hold a {_name(value)} (at {path}). Convert it, or use the serializer 'pickle'."
        )


def _refused(value: Any, how: str, error: Exception) -> SerializationError:
    return SerializationError(
        f"A value of type {_name(value)} cannot be {how}: {describe(error)}. Return plain data instead, "
        "choose another result_serializer, or set persist_result=False."
    )


def _unreadable(what: str, error: Exception) -> SerializationError:
    return SerializationError(
        f"A kept result cannot be read back as {what}: {describe(error)}. Define or import what it needs, "
        "or run the task again with refresh_cache=True."
    )


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
