"""Values typed on a command line, several of one name: `-p tag=a -p tag=b`, `--sweep depth=3,5,8`."""

from __future__ import annotations

import json
import re
import types
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prefect_nb.model.parameters import parse_cli_parameters, parse_cli_value

_RANGE = re.compile(r"(-?\d{1,9})\.\.(-?\d{1,9})")
_MOST = 10_000


def parse_parameters(pairs: Sequence[str], annotations: Mapping[str, Any]) -> dict[str, Any]:
    """`parse_cli_parameters`, where a name may be given several times if its values are lists: each adds a member.

    Given once, what is no JSON list is the list's only member.

    Raises `ValueError` as that does.
    """
    counts = Counter(pair.partition("=")[0] for pair in pairs if "=" in pair)
    rest: list[str] = []
    lists: dict[str, list[Any]] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        member = _member_type(annotations.get(name))
        if member is _NO_LIST or (counts[name] == 1 and text.lstrip().startswith("[")):
            rest.append(pair)
        elif name.isidentifier():
            lists.setdefault(name, []).append(parse_cli_value(text, member))
        else:
            rest.append(pair)
    return {**parse_cli_parameters(rest, annotations), **lists}


def parse_sweep(text: str, annotation: Any = None) -> list[Any]:
    """The values of `depth=3,5,8` after the sign: between commas, a JSON list, or a range of whole numbers `1..5`.

    Raises `ValueError`: there is none, or there are more than 10,000.
    """
    found = _RANGE.fullmatch(text.strip())
    if found:
        first, last = int(found[1]), int(found[2])
        step = 1 if last >= first else -1
        if abs(last - first) >= _MOST:
            raise ValueError(f"{text!r} has more than {_MOST:,} values.")
        return list(range(first, last + step, step))
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{text!r} begins like a list and is none ({error}).") from None
    else:
        values = [parse_cli_value(part.strip(), annotation) for part in text.split(",") if part.strip()]
    if not values:
        raise ValueError("there is no value after the sign.")
    return list(values)


_NO_LIST: Any = object()


def _member_type(annotation: Any) -> Any:
    """The type of a list's members; `_NO_LIST` for another annotation."""
    if annotation is list:
        return None
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [_member_type(one) for one in typing.get_args(annotation) if one is not types.NoneType]
        return members[0] if len(members) == 1 else _NO_LIST
    if typing.get_origin(annotation) is list:
        return typing.get_args(annotation)[0]
    return _NO_LIST
