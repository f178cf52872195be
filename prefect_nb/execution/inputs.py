"""Finding futures, states and marks in arguments, at any depth, and putting values in their place.

Containers that are searched: dict, list, tuple, set, frozenset, named tuples, dataclass instances and pydantic models.
Everything else is taken as it is.
"""

import dataclasses
import datetime
import decimal
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import UpstreamTaskError
from prefect_nb.execution.futures import PrefectFuture
from prefect_nb.model import redaction
from prefect_nb.model.annotations import Annotation, allow_failure, opaque, quote
from prefect_nb.model.states import State

_ATOMIC = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, bytearray, range, slice, UUID, decimal.Decimal,
        datetime.date, datetime.datetime, datetime.time, datetime.timedelta,
    }
)  # fmt: skip
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


def is_special(value: Any) -> bool:
    """Whether the value itself is something the engine resolves."""
    return isinstance(value, PrefectFuture | State | Annotation)


def listed(wait_for: Any) -> list[Any] | None:
    """What `wait_for` was given, one or several, as a list."""
    if wait_for is None or type(wait_for) is list:
        return wait_for
    return [wait_for] if is_special(wait_for) else list(wait_for)


def has_special(value: Any, _seen: set[int] | None = None) -> bool:
    """Whether a future, state or mark is anywhere in the value. Quick for plain data."""
    kind = type(value)
    if kind in _ATOMIC:
        return False
    if kind not in _CONTAINERS:
        if isinstance(value, PrefectFuture | State | Annotation):
            return True
        children = parts(value)
        if children is None:
            return False
    else:
        if not value:
            return False
        children = value.values() if kind is dict else value
        if _ATOMIC.issuperset(map(type, children)) and kind is not dict:
            return False
    seen = _seen if _seen is not None else set()
    if id(value) in seen:
        return False
    seen.add(id(value))
    return any(has_special(child, seen) for child in children)


def parts(value: Any) -> Any:
    """The parts of a structured value, or None for one that is taken whole."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if _is_model(value):
        return list(value.__dict__.values())
    if hasattr(type(value), "get_secret_value"):
        redaction.notice(value)
    return None


def _is_model(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(type(value), "model_fields") and hasattr(value, "model_copy")


def replace(value: Any, wanted: Callable[[Any], bool], by: Callable[[Any], Any], _seen: set[int] | None = None) -> Any:
    """`value` with every wanted part replaced by `by(part)`; unchanged containers keep their identity.

    What is under `quote` is left alone; what `opaque` holds is replaced but not searched; other marks are looked
    through and kept.
    """
    if wanted(value):
        return by(value)
    kind = type(value)
    if kind in _ATOMIC or isinstance(value, quote):
        return value
    if isinstance(value, opaque):
        return opaque(by(value.value)) if wanted(value.value) else value
    if isinstance(value, Annotation):
        inner = replace(value.value, wanted, by, _seen)
        return value if inner is value.value else value.rewrap(inner)
    children = parts(value)
    if children is None:
        return value
    seen = _seen if _seen is not None else set()
    if id(value) in seen:
        return value
    seen.add(id(value))
    try:
        old = list(children)
        new = [replace(child, wanted, by, seen) for child in old]
        if all(a is b for a, b in zip(old, new, strict=True)):
            return value
        return _rebuild(value, new)
    finally:
        seen.discard(id(value))


def _rebuild(value: Any, children: list[Any]) -> Any:
    if isinstance(value, dict):
        rebuilt = dict(zip(value, children, strict=True))
        return rebuilt if type(value) is dict else _like(value, rebuilt)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*children)
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(children)
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        clone = object.__new__(type(value))
        for name, child in zip(fields, children, strict=True):
            object.__setattr__(clone, name, child)
        return clone
    return value.model_copy(update=dict(zip(value.__dict__, children, strict=True)))


def _like(value: Any, items: dict[Any, Any]) -> Any:
    try:
        clone = value.copy()
        clone.update(items)
    except Exception:  # a mapping that cannot be copied is passed as plain data
        return items
    return clone


def find(value: Any) -> list[tuple[Any, bool]]:
    """Every future and state in the value, with whether its failure is allowed, in order of appearance."""
    found: list[tuple[Any, bool]] = []
    _find(value, False, found, set())
    return found


def _find(value: Any, allowed: bool, found: list[tuple[Any, bool]], seen: set[int]) -> None:
    if type(value) in _ATOMIC or isinstance(value, quote) or id(value) in seen:
        return
    if isinstance(value, PrefectFuture | State):
        found.append((value, allowed))
    elif isinstance(value, Annotation):
        _find(value.value, allowed or isinstance(value, allow_failure), found, seen)
    else:
        children = parts(value)
        if children is not None:
            seen.add(id(value))
            for child in children:
                _find(child, allowed, found, seen)


def resolve(value: Any, stays: Callable[[Any], bool] | None = None) -> Any:
    """`value` with finished futures and states replaced by their values, and marks taken off.

    An allowed failure is replaced by its exception.

    Args:
        value: what to search.
        stays: says of the handle of a value kept elsewhere that it takes the value's place.
    """
    if not has_special(value):
        return value
    return _resolve(value, False, stays)


def _resolve(value: Any, allowed: bool, stays: Callable[[Any], bool] | None) -> Any:
    if isinstance(value, quote):
        return value.value
    if isinstance(value, opaque):
        inner = value.value
        return _value_of(inner, allowed, stays) if isinstance(inner, PrefectFuture | State) else inner
    if isinstance(value, PrefectFuture | State):
        return _value_of(value, allowed, stays)
    if isinstance(value, Annotation):
        return _resolve(value.value, allowed or isinstance(value, allow_failure), stays)
    return replace(value, is_special, lambda part: _resolve(part, allowed, stays))


def _value_of(item: Any, allowed: bool, stays: Callable[[Any], bool] | None) -> Any:
    state: State[Any] = item.state if isinstance(item, PrefectFuture) else item
    if stays is not None and state.is_completed() and stays(state.data):
        return state.data
    return state.result(raise_on_failure=not allowed)


def resolve_futures_to_states(value: Any) -> Any:
    """`value` with every future in it, at any depth, replaced by its final state (waiting for it)."""

    def to_state(item: Any) -> Any:
        item.wait()
        return item.state

    return replace(value, lambda item: isinstance(item, PrefectFuture), to_state)


def resolve_futures_to_results(value: Any) -> Any:
    """`value` with every future in it, at any depth, replaced by its result (waiting for it).

    Raises:
        Exception: a run did not complete.
    """

    def to_result(item: Any) -> Any:
        item.wait()
        if not item.state.is_completed():
            raise UpstreamTaskError("At least one result did not complete successfully")
        return item.result()

    return replace(value, lambda item: isinstance(item, PrefectFuture), to_result)
