"""Parameters of flows and tasks: validation by annotation, JSON schema, the children of `.map`, `-p name=value`."""

from __future__ import annotations

import functools
import io
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect_nb.exceptions import MappingLengthMismatch, MappingMissingIterable, ParameterTypeError
from prefect_nb.model.annotations import Annotation, allow_failure, opaque, quote, unmapped
from prefect_nb.model.docstrings import parameter_descriptions
from prefect_nb.model.signatures import Signature, check_reserved

__all__ = [
    "Signature",
    "check_reserved",
    "fits",
    "is_iterable",
    "parameter_schema",
    "parse_cli_parameters",
    "parse_cli_value",
    "split_map_arguments",
    "validate",
]

_UNIONS = (typing.Union, types.UnionType)
_SIMPLE_SCHEMAS: dict[Any, dict[str, Any]] = {
    Any: {},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
}


def validate(fn: Callable[..., Any] | Signature, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The bound parameters, coerced by their annotations: `"5"` becomes 5 for an int, a dict becomes a model.

    A value that fits its annotation already is the same object afterwards, and so is one without an annotation.
    `None` is accepted where it is the default. Raises `ParameterTypeError` with one line for each field that is wrong.
    """
    signature = fn if isinstance(fn, Signature) else Signature.of(fn)
    result = dict(parameters)
    problems: list[str] = []
    none_by_default = [name for name, default in signature.defaults.items() if default is None]
    for name, hint in signature.hints().items():
        if name not in result:
            continue
        value = result[name]
        coerce = functools.partial(_coerce, signature, name, hint, problems)
        if name == signature.var_positional:
            result[name] = tuple([coerce(member, f"{name}.{i}") for i, member in enumerate(value)])
        elif name == signature.var_keyword:
            result[name] = {key: coerce(member, f"{name}.{key}") for key, member in value.items()}
        elif not (value is None and name in none_by_default):
            result[name] = coerce(value, name)
    if problems:
        raise ParameterTypeError("Flow run received invalid parameters:\n" + "\n".join(problems))
    return result


def fits(hint: Any, value: Any) -> bool:
    """Whether the value is exactly of the annotated type, so that validating it would change nothing."""
    if hint is Any or hint is object:
        return True
    origin, arguments, kind = typing.get_origin(hint), typing.get_args(hint), type(value)
    if origin is None:
        # Types with rules of their own (models, named tuples with typed fields) are for pydantic to judge.
        return kind is hint and not hasattr(hint, "__get_pydantic_core_schema__") and not hasattr(hint, "_fields")
    if origin in _UNIONS:
        return any(fits(argument, value) for argument in arguments)
    if origin is typing.Literal:
        return any(kind is type(argument) and value == argument for argument in arguments)
    if kind is not origin:
        return False
    if origin is dict:
        key_hint, value_hint = arguments
        return all(fits(key_hint, k) and fits(value_hint, v) for k, v in value.items())
    if origin is tuple and arguments[-1:] != (Ellipsis,):
        return len(arguments) == len(value) and all(map(fits, arguments, value))
    if origin in (list, set, frozenset, tuple):
        return all(fits(arguments[0], member) for member in value)
    return False


def _coerce(signature: Signature, name: str, hint: Any, problems: list[str], value: Any, location: str) -> Any:
    if fits(hint, value):
        return value
    adapter = _adapter(signature, name, hint)
    if adapter is None:
        return value
    from pydantic import ValidationError

    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            where = ".".join([location, *(str(part) for part in detail["loc"])])
            problems.append(f" - {where}: {detail['msg']}")
        return value


def _adapter(signature: Signature, name: str, hint: Any) -> Any | None:
    """The pydantic adapter for one parameter's annotation; None for an annotation that is no type."""
    adapters = signature._adapters
    if name not in adapters:
        adapters[name] = _build_adapter(hint) if _is_type(hint) else None
    return adapters[name]


def _is_type(hint: Any) -> bool:
    if getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False):
        return False  # isinstance, which is how such a class would be checked, refuses it
    return isinstance(hint, (type, typing.NewType)) or typing.get_origin(hint) is not None or hasattr(hint, "__value__")


def _build_adapter(hint: Any) -> Any | None:
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            return None
    except Exception:  # pydantic runs hooks of the user's classes here
        return None
    try:
        return TypeAdapter(hint)
    except Exception:
        return None


def parameter_schema(fn: Callable[..., Any] | Signature) -> dict[str, Any]:
    """The JSON schema of a flow's parameters, in the form Prefect calls `parameter_openapi_schema`.

    Each property has its `position` in the signature, and a `description` if the docstring has one. What cannot be
    expressed (an arbitrary class, a default that is not JSON) is left out.
    """
    signature = fn if isinstance(fn, Signature) else Signature.of(fn)
    types_by_name, definitions = _type_schemas(signature)
    descriptions = parameter_descriptions(signature.docstring)
    properties: dict[str, dict[str, Any]] = {}
    required: list[str] = []
    for position, name in enumerate(signature.names):
        schema = types_by_name.get(name, {})
        variadic = name in (signature.var_positional, signature.var_keyword)
        if name == signature.var_positional:
            schema = {"type": "array", "items": schema}
        elif name == signature.var_keyword:
            schema = {"type": "object", "additionalProperties": schema or True}
        # A model's own title is kept with its definition.
        properties[name] = {**schema, "title": name, "position": position}
        if name in descriptions:
            properties[name]["description"] = descriptions[name]
        if name in signature.defaults:
            properties[name].update(_default_schema(signature.defaults[name]))
        elif not variadic:
            required.append(name)
    return {
        "title": "Parameters",
        "type": "object",
        "properties": properties,
        "required": required,
        "definitions": definitions,
    }


def _type_schemas(signature: Signature) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    hints = signature.hints()
    if all(isinstance(hint, type) and hint in _SIMPLE_SCHEMAS for hint in hints.values()):
        return {name: dict(_SIMPLE_SCHEMAS[hint]) for name, hint in hints.items()}, {}
    from pydantic import TypeAdapter

    adapters = {name: _adapter(signature, name, hint) for name, hint in hints.items()}
    inputs = [(name, "validation", adapter) for name, adapter in adapters.items() if _has_json_schema(adapter)]
    # Together, so that two models of the same name get two definitions.
    schemas, shared = TypeAdapter.json_schemas(inputs, ref_template="#/definitions/{model}")  # type: ignore[arg-type]
    return {name: dict(schema) for (name, _), schema in schemas.items()}, shared.get("$defs", {})


def _has_json_schema(adapter: Any | None) -> bool:
    if adapter is None:
        return False
    try:
        adapter.json_schema()
    except Exception:  # a class that has no JSON form, or one whose own hook fails
        return False
    return True


def _default_schema(default: Any) -> dict[str, Any]:
    try:
        json.dumps(default, allow_nan=False)
        return {"default": default}
    except (TypeError, ValueError, RecursionError):
        pass
    from pydantic_core import to_jsonable_python

    try:
        plain = to_jsonable_python(default)
        json.dumps(plain, allow_nan=False)
    except Exception:  # a default of any class whatever
        return {}
    return {"default": plain}


def is_iterable(value: Any) -> bool:
    """Whether `.map` goes over the value: it can be iterated, and is no text, bytes or open file."""
    if isinstance(value, (str, bytes, io.IOBase)):
        return False
    try:
        iter(value)
    except TypeError:
        return False
    return True


def split_map_arguments(signature: Signature, supplied: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters of each child of a `.map` call, with defaults applied.

    `supplied` is what the caller gave (`Signature.bind_supplied`), futures resolved. Every iterable in it gives one
    element to each child; `unmapped` values, scalars, text, bytes and defaults go whole to each. `allow_failure`,
    `quote` and `opaque` around an iterable are put around each element. `*args` is one parameter: each of its members is
    the positional arguments of one child. The members of `**kwargs` count as parameters of their own.

    Raises `MappingMissingIterable` if nothing is iterable, and `MappingLengthMismatch` if lengths differ.
    """
    columns: dict[_Slot, list[Any]] = {}
    static: dict[_Slot, Any] = {}
    for slot, value in _slots(signature, supplied):
        inner = value.unwrap() if isinstance(value, (allow_failure, quote, opaque)) else value
        if isinstance(value, unmapped):
            static[slot] = value.unwrap()
        elif not is_iterable(inner) or (slot[0] == signature.var_positional and not inner):
            static[slot] = value
        elif isinstance(value, Annotation):
            columns[slot] = [value.rewrap(element) for element in inner]
        else:
            columns[slot] = list(inner)
    _check_lengths(signature, supplied, columns)
    children = []
    for row in zip(*columns.values(), strict=True):
        values = {**static, **dict(zip(columns, row, strict=True))}
        children.append(_collect(signature, supplied, values))
    return children


# A parameter's name, and the index or key inside `*args` or `**kwargs`.
_Slot = tuple[str, int | str | None]


def _slots(signature: Signature, supplied: Mapping[str, Any]) -> list[tuple[_Slot, Any]]:
    slots: list[tuple[_Slot, Any]] = []
    for name, value in supplied.items():
        if name == signature.var_keyword:
            slots += [((name, key), member) for key, member in value.items()]
        else:
            slots.append(((name, None), value))
    return slots


def _check_lengths(signature: Signature, supplied: Mapping[str, Any], columns: Mapping[_Slot, list[Any]]) -> None:
    if not columns:
        raise MappingMissingIterable(
            "No iterable parameters were received. Parameters for map must include at least one iterable. "
            f"Parameters: {dict(supplied)!r:.500}. To run {signature.name} once, call it or use .submit()."
        )
    lengths = {(name if inner is None else f"{name}.{inner}"): len(column) for (name, inner), column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise MappingLengthMismatch(
            "Received iterable parameters with different lengths. Parameters for map must all be the same length. "
            f"Got lengths: {lengths}. Wrap in `unmapped` what every child of {signature.name} should get whole."
        )


def _collect(signature: Signature, supplied: Mapping[str, Any], values: Mapping[_Slot, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name in signature.names:
        if name not in supplied:
            default = signature.defaults[name]
            parameters[name] = default.unwrap() if isinstance(default, unmapped) else default
        elif name == signature.var_positional:
            parameters[name] = _several(signature, values[name, None])
        elif name == signature.var_keyword:
            parameters[name] = {key: values[name, key] for key in supplied[name]}
        else:
            parameters[name] = values[name, None]
    return parameters


def _several(signature: Signature, member: Any) -> tuple[Any, ...]:
    try:
        return tuple(member)
    except TypeError:
        raise TypeError(
            f"{signature.name}.map() takes *{signature.var_positional} as the arguments of one child each, so each must "
            f"be iterable, not {member!r}."
        ) from None


def parse_cli_value(text: str, annotation: Any | None = None) -> Any:
    """The value of `-p name=text`: JSON if it is JSON, else the text itself.

    A parameter annotated as text, date, path or the like keeps its text as it is (`5` stays `"5"`).
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    members = typing.get_args(annotation) if typing.get_origin(annotation) in _UNIONS else (annotation,)
    if isinstance(value, str) or (value is None and type(None) in members):
        return value
    if any(text in typing.get_args(member) for member in members if typing.get_origin(member) is typing.Literal):
        return text
    if type(value) not in members and any(_is_written_as_text(member) for member in members):
        return text
    return value


def parse_cli_parameters(pairs: Sequence[str], annotations: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`["n=5", "name=Ada"]` as parameters. `annotations` are types by parameter name, where known.

    Raises `ValueError` for a pair without `=`, with a name that is no identifier, or with a name given before.
    """
    parameters: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} is not of the form name=value.")
        if not name.isidentifier():
            raise ValueError(f"{pair!r}: {name!r} is not the name of a parameter.")
        if name in parameters:
            raise ValueError(f"{pair!r}: the parameter '{name}' is given twice.")
        parameters[name] = parse_cli_value(text, (annotations or {}).get(name))
    return parameters


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _is_written_as_text(annotation: Any) -> bool:
    import datetime
    import decimal
    import pathlib
    import uuid

    written = (str, bytes, datetime.date, datetime.time, decimal.Decimal, pathlib.PurePath, uuid.UUID)
    return isinstance(annotation, type) and issubclass(annotation, written)
