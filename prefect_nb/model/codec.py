"""Events and snapshots <-> JSON bytes. The version is part of the database schema, not of every row."""

import os
from typing import Any

import msgspec

from prefect_nb.model.events import Event
from prefect_nb.model.runs import FlowRun, TaskRun

_encoder = msgspec.json.Encoder()
encode = _encoder.encode
"""Any value of `model` as JSON bytes."""

decode_event = msgspec.json.Decoder(Event).decode
decode_task_run = msgspec.json.Decoder(TaskRun).decode
decode_flow_run = msgspec.json.Decoder(FlowRun).decode


DEEPEST = 32
"""How deep parameters may be nested."""


def jsonable(value: Any, *, depth: int = DEEPEST, limit: int = 64 * 1024) -> Any:
    """`value` as something JSON can hold, for showing: what cannot be expressed becomes a short text.

    Args:
        depth: how deep containers are followed.
        limit: bytes of JSON above which only a note of the size is kept.
    """
    try:
        encoded = _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError):
        converted = _convert(value, depth)
        try:
            encoded = _encoder.encode(converted)
        except (TypeError, ValueError, OverflowError):
            return _placeholder(value)
    if len(encoded) > limit:
        return f"<{type(value).__name__}: {len(encoded)} bytes of JSON>"
    return msgspec.json.decode(encoded)


def is_deeper(value: Any, depth: int) -> bool:
    """Whether dicts and lists are nested more than so deep in a value."""
    if not isinstance(value, dict | list | tuple):
        return False
    return depth == 0 or any(
        is_deeper(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value)
    )


def is_note(plain: Any, value: Any) -> bool:
    """Whether what `jsonable` made of a value only says what it was."""
    if not isinstance(plain, str) or isinstance(value, str):
        return False
    return plain == _placeholder(value) or (plain.startswith("<") and plain.endswith(" bytes of JSON>"))


def _convert(value: Any, depth: int) -> Any:
    if depth == 0:
        return _placeholder(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, dict):
        return {str(key): _convert(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_convert(item, depth - 1) for item in value]
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        try:
            return dump(mode="json")
        except Exception:  # a model of the user's; showing a parameter must not fail the run
            return _placeholder(value)
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        return _placeholder(value)


def _placeholder(value: Any) -> str:
    return f"<{type(value).__module__}.{type(value).__qualname__}>"
