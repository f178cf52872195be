"""Values to bytes and back.

A serializer is asked for by name ("pickle", "json", "numpy", "parquet", "image", "compressed/<other>") or given as an
instance. One's own is a subclass of `Serializer` with a `type`, the name it is known by; annotated attributes are its
options::

    class ArrowSerializer(Serializer):
        type = "arrow"
        level: int = 3

        def dumps(self, obj): ...
        def loads(self, blob): ...

A result's reference holds the name, and after a question mark those options that reading needs. Where nobody chose a
serializer, a plain numpy array is kept in numpy's own format; on storages outside the home tables and pictures are kept
as Parquet and PNG, too, if these give them back exactly. At home they stay with pickle, which is faster.
"""

import importlib
import io
import json
import pickle
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import ConfigurationError, SerializationError
from prefect_nb.model.words import type_name
from prefect_nb.results import formats, json_values, notebook_classes, serializer_base
from prefect_nb.results.serializer_base import (
    Serializer,
    check_library,
    class_of,
    refuse_option,
    refused,
    unreadable,
)

_COMPRESSION_MAGIC = {"zlib": b"\x78", "gzip": b"\x1f\x8b", "bz2": b"BZh", "lzma": b"\xfd7zXZ\x00"}
_ENCODER = "prefect_nb.serializers.prefect_json_object_encoder"
_DECODER = "prefect_nb.serializers.prefect_json_object_decoder"
_OURS: dict[str, Callable[[Any], Any]] = {_ENCODER: json_values.encode_object, _DECODER: json_values.decode_object}


class PickleSerializer(Serializer):
    """Pickle.

    What is defined in `__main__` (a notebook's classes and functions) is kept by value, with cloudpickle, so that
    another kernel can read it.

    Args:
        picklelib: "cloudpickle", "pickle", or the name of a module with their `dumps` and `loads`.
        picklelib_version: accepted for compatibility.
    """

    type = "pickle"
    picklelib: str = "cloudpickle"
    picklelib_version: str | None = None
    _only_for_writing = frozenset({"picklelib_version"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        check_library(self, "picklelib", "pickle", ("dumps", "loads"))

    def dumps(self, obj: Any) -> bytes:
        """The value as a pickle. Raises `SerializationError`: locks, generators, open files and the like."""
        try:
            if self.picklelib != "cloudpickle":
                dumped: bytes = importlib.import_module(self.picklelib).dumps(obj)
                return dumped
            plain = _plain_pickle(obj)
            if plain is not None:
                return plain
            buffer = io.BytesIO()
            _by_value_pickler()(buffer, protocol=5).dump(obj)
            return buffer.getvalue()
        except Exception as error:
            raise refused(obj, "pickled", error) from error

    def loads(self, blob: bytes) -> Any:
        """The value again. Raises `SerializationError`, for example where a class is not there any more."""
        try:
            return (pickle if self.picklelib == "cloudpickle" else importlib.import_module(self.picklelib)).loads(blob)
        except notebook_classes.ClassChanged:
            raise
        except Exception as error:
            raise unreadable("pickle", error) from error


class JSONSerializer(Serializer):
    """JSON.

    It holds None, booleans, numbers, text, lists, dicts with text keys; and, by name, sets, bytes, times, UUIDs, paths,
    decimals, enumerations, dataclasses, pydantic models and exceptions. A tuple comes back as a list.

    Args:
        jsonlib: the module that writes it, such as "orjson".
        object_encoder: module and name of a function that turns other objects into JSON; None: they are refused.
        object_decoder: module and name of a function that turns JSON objects back; None: they stay dicts.
        dumps_kwargs: further arguments of `dumps`.
        loads_kwargs: further arguments of `loads`.
    """

    type = "json"
    jsonlib: str = "json"
    object_encoder: str | None = _ENCODER
    object_decoder: str | None = _DECODER
    dumps_kwargs: dict[str, Any] = {}  # noqa: RUF012  # each instance has a copy
    loads_kwargs: dict[str, Any] = {}  # noqa: RUF012
    _only_for_writing = frozenset({"object_encoder", "dumps_kwargs"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        check_library(self, "jsonlib", "JSON", ("dumps", "loads"))
        if "default" in self.dumps_kwargs:
            refuse_option(
                self, "dumps_kwargs", self.dumps_kwargs, "`default` cannot be provided. Use `object_encoder` instead."
            )
        if "object_hook" in self.loads_kwargs:
            refuse_option(
                self,
                "loads_kwargs",
                self.loads_kwargs,
                "`object_hook` cannot be provided. Use `object_decoder` instead.",
            )

    def dumps(self, obj: Any) -> bytes:
        """The value as JSON text in UTF-8. Raises `SerializationError` naming the part that JSON cannot hold."""
        options = dict(self.dumps_kwargs)
        encoder = _named(self.object_encoder)
        if encoder is not None:
            options["default"] = encoder
        if self.jsonlib == "json":
            options.setdefault("separators", (",", ":"))
        try:
            _check_json(obj, "$", encoder)
            text = importlib.import_module(self.jsonlib).dumps(obj, **options)
        except SerializationError:
            raise
        except Exception as error:
            raise refused(obj, "written as JSON", error) from error
        return text if isinstance(text, bytes) else text.encode()

    def loads(self, blob: bytes) -> Any:
        """The value again. Raises `SerializationError`."""
        options = dict(self.loads_kwargs)
        decoder = _named(self.object_decoder)
        if decoder is not None:
            options["object_hook"] = decoder
        try:
            # Whichever library wrote it, it is JSON; not each of them can give objects back.
            return (json if decoder is not None else importlib.import_module(self.jsonlib)).loads(blob, **options)
        except Exception as error:
            raise unreadable("JSON", error) from error


class NumpySerializer(Serializer):
    """One numpy array, in numpy's own format, without pickle. Refuses arrays of objects and structured arrays."""

    type = "numpy"

    def dumps(self, obj: Any) -> bytes:
        """The array in `.npy` format. Raises `SerializationError`."""
        return _written(obj, "written in numpy's format", formats.write_array)

    def loads(self, blob: bytes) -> Any:
        """The array again, writable. Raises `SerializationError`."""
        return _read(blob, "numpy's format", formats.read_array)


class ParquetSerializer(Serializer):
    """A pandas or polars data frame or a pyarrow table, as Parquet, if it comes back from there exactly."""

    type = "parquet"

    def dumps(self, obj: Any) -> bytes:
        """The table as Parquet. Raises `SerializationError`."""
        return _written(obj, "written as Parquet", formats.write_table)

    def loads(self, blob: bytes) -> Any:
        """The table again, of the same library. Raises `SerializationError`."""
        return _read(blob, "Parquet", formats.read_table)


class ImageSerializer(Serializer):
    """A PIL image as PNG, if it comes back from there exactly. A matplotlib figure comes back as such a picture."""

    type = "image"

    def dumps(self, obj: Any) -> bytes:
        """The picture as PNG. Raises `SerializationError`."""
        return _written(obj, "written as PNG", formats.write_picture)

    def loads(self, blob: bytes) -> Any:
        """The picture as a PIL image. Raises `SerializationError`."""
        return _read(blob, "PNG", formats.read_picture)


class CompressedSerializer(Serializer):
    """Another serializer's bytes, compressed.

    Args:
        serializer: the inner serializer, by name or as an instance.
        compressionlib: "zlib" (fast), "gzip", "bz2", "lzma" (small), or a module with their `compress` and `decompress`.
    """

    type = "compressed"
    compressionlib: str = "zlib"

    def __init__(self, serializer: str | Serializer = "pickle", compressionlib: str = "zlib", **options: Any) -> None:
        super().__init__(compressionlib=compressionlib, **options)
        self.serializer = resolve_serializer(serializer)
        self.type = f"compressed/{self.serializer.type}"
        check_library(self, "compressionlib", "compression", ("compress", "decompress"))

    @property
    def name(self) -> str:
        """What a reference calls it. Bytes of the standard library's modules tell themselves which it was."""
        own = "" if self.compressionlib in _COMPRESSION_MAGIC else f":{self.compressionlib}"
        return f"compressed{own}/{self.serializer.name}"

    def dumps(self, obj: Any) -> bytes:
        """The compressed bytes. Raises `SerializationError` as the inner serializer does."""
        compressed: bytes = importlib.import_module(self.compressionlib).compress(self.serializer.dumps(obj))
        return compressed

    def loads(self, blob: bytes) -> Any:
        """The value again, whichever library compressed it. Raises `SerializationError`."""
        library = self.compressionlib
        if library in _COMPRESSION_MAGIC:
            library = next((name for name, magic in _COMPRESSION_MAGIC.items() if blob.startswith(magic)), "")
            if not library:
                raise SerializationError("A compressed result begins with no compression library's mark.")
        try:
            inner = importlib.import_module(library).decompress(blob)
        except Exception as error:
            raise unreadable(library, error) from error
        return self.serializer.loads(inner)


class CompressedPickleSerializer(CompressedSerializer):
    """Pickle, compressed."""

    type = "compressed/pickle"

    def __init__(self, compressionlib: str = "zlib", serializer: str | Serializer = "pickle", **options: Any) -> None:
        super().__init__(serializer, compressionlib, **options)


class CompressedJSONSerializer(CompressedSerializer):
    """JSON, compressed."""

    type = "compressed/json"

    def __init__(self, compressionlib: str = "zlib", serializer: str | Serializer = "json", **options: Any) -> None:
        super().__init__(serializer, compressionlib, **options)


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
    outer, _, library = outer.partition(":")
    if outer == "compressed" and slash:
        return CompressedSerializer(inner, library or "zlib")
    type_, _, options = serializer.partition("?")
    cls = class_of(type_)
    return cls(**json.loads(options)) if options else cls()


_instances: dict[type[Serializer], Serializer] = {}


def _shared(name: str) -> Serializer:
    """The serializer of that name, made once where it has no options: it is not given away."""
    cls = serializer_base.registered.get(name)
    if cls is None:
        return resolve_serializer(name)
    found = _instances.get(cls)
    if found is None:
        found = _instances[cls] = resolve_serializer(name)
    return found


def encode(value: Any, serializer: str | Serializer) -> tuple[str, bytes]:
    """A value's bytes and the name of the serializer that reads them.

    Raises:
        SerializationError: whatever went wrong in the serializer.
        ConfigurationError: no such serializer.
    """
    name = serializer if isinstance(serializer, str) else None
    chosen = _shared(name) if name is not None else resolve_serializer(serializer)
    try:
        return name or chosen.name, chosen.dumps(value)
    except SerializationError:
        raise
    except Exception as error:
        raise refused(value, f"serialized as {chosen.type!r}", error) from error


def decode(name: str, payload: bytes) -> Any:
    """The value that the serializer of this name reads from the bytes.

    Raises:
        SerializationError: the serializer is unknown here, or cannot read them.
    """
    try:
        return _shared(name).loads(payload)
    except SerializationError:
        raise
    except ConfigurationError as error:
        raise SerializationError(str(error)) from None
    except Exception as error:
        raise unreadable(repr(name), error) from error


def encode_by_type(value: Any, exact_formats: bool = False) -> tuple[str, bytes]:
    """A value's bytes in the serializer for values nobody chose one for, and that one's name.

    Args:
        value: what to write.
        exact_formats: whether tables and pictures go into formats of their own, if these give them back exactly.

    Raises:
        SerializationError: whatever went wrong in the serializer.
    """
    name = by_type(value, exact_formats)
    if name in {"parquet", "image"}:
        try:
            return encode(value, name)
        except SerializationError:
            name = "pickle"
    return encode(value, name)


def by_type(value: Any, exact_formats: bool = False) -> str:
    """The serializer to try first for a value nobody chose one for."""
    if exact_formats:
        return formats.format_of(value) or "pickle"
    return "numpy" if formats.is_plain_array(value) else "pickle"


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
            return notebook_classes.reduced(obj) or super().reducer_override(obj)

    return Pickler


def _check_json(value: Any, path: str, encoder: Callable[[Any], Any] | None) -> None:
    """Refuse what the `json` module would silently change, or does not know how to name."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise SerializationError(
                    f"JSON has no key {key!r} ({type_name(key)}) at {path}. Use text keys, or 'pickle'."
                )
            _check_json(item, f"{path}.{key}", encoder)
        if encoder is json_values.encode_object and json_values.is_reserved(value):
            raise SerializationError(f"The dict at {path} would come back as an object. Use other keys, or 'pickle'.")
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for index, item in enumerate(value):
            _check_json(item, f"{path}[{index}]", encoder)
    elif value is not None and not isinstance(value, str | int | float):
        try:
            (encoder or _no_encoder)(value)
        except Exception as error:
            raise SerializationError(
                f"JSON cannot hold a {type_name(value)} (at {path}): {describe(error)}. Convert it, or use the serializer "
                "'pickle'."
            ) from error


def _no_encoder(_value: Any) -> Any:
    raise TypeError("there is no object_encoder")


def _written(value: Any, how: str, write: Callable[[Any], bytes]) -> bytes:
    try:
        return write(value)
    except Exception as error:
        raise refused(value, how, error) from error


def _read(blob: bytes, what: str, read: Callable[[bytes], Any]) -> Any:
    try:
        return read(blob)
    except Exception as error:
        raise unreadable(what, error) from error


def _named(name: str | None) -> Callable[[Any], Any] | None:
    """The function of that name; ours is where Prefect has its own."""
    if name is None or name in _OURS:
        return _OURS[name] if name else None
    try:
        found: Callable[[Any], Any] = json_values.from_qualified_name(name)
        return found
    except (ImportError, AttributeError) as error:
        raise SerializationError(f"The function {name!r} is not there: {error}.") from error
