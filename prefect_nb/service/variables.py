"""Variables: named JSON values that outlive runs."""

import json
import re
from typing import Any

from prefect_nb.exceptions import ObjectNotFound
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.ids import new_id
from prefect_nb.home import Home
from prefect_nb.interfaces import Variable
from prefect_nb.service.documents import Document, iso
from prefect_nb.service.text import did_you_mean, one_line

LONGEST_NAME = 255
LONGEST_VALUE = 5000
"""Characters of a name, and of a value as JSON."""

_NAME = re.compile(r"[a-z0-9_-]*")


def check_name(name: str) -> str:
    """The name, if it is one.

    Raises:
        ValueError: it is none.
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"Variable name must have at most {LONGEST_NAME} characters.")
    if not _NAME.fullmatch(name):
        raise ValueError("Variable name must only contain lowercase letters, numbers, and dashes or underscores.")
    return name


def check_value(value: Any) -> Any:
    """The value as JSON gives it back.

    Raises:
        ValueError: JSON cannot express it, or it is too long.
    """
    if not _is_json(value):
        raise ValueError("Variable value must be serializable to JSON")
    text = json.dumps(value, allow_nan=False)
    if len(text) > LONGEST_VALUE:
        raise ValueError(f"Variable value must be less than {LONGEST_VALUE} characters")
    return json.loads(text)


def put(name: str, value: Any, tags: list[str], overwrite: bool) -> Variable | None:
    """Keep a variable whose name and value have been checked; None: it exists and was left as it is."""
    now = now_us()
    variable = Variable(id=new_id(), name=name, value=value, tags=tuple(tags), created_us=now, updated_us=now)
    return variable if Home.current().store.objects.set_variable(variable, overwrite) else None


def get(name: str) -> Variable | None:
    """The variable of this name, if there is one."""
    return Home.current().store.objects.variable(name)


def find(name: str) -> Variable:
    """The variable of this name.

    Raises:
        ObjectNotFound: there is none; the message names those spelled alike.
    """
    found = get(name)
    if found is None:
        raise not_found(name)
    return found


def unset(name: str) -> bool:
    """Drop a variable; False if there was none."""
    return Home.current().store.objects.unset_variable(name)


def listing(limit: int = 100) -> list[Variable]:
    """Variables by name."""
    return Home.current().store.objects.variables(limit)


def not_found(name: str) -> ObjectNotFound:
    """What to raise for a name that no variable has."""
    near = did_you_mean(name, (variable.name for variable in listing(1000)))
    return ObjectNotFound(f"There is no variable {one_line(name)!r}.{near} `prefect-nb variable ls` lists them.")


def document(variable: Variable) -> Document:
    """A variable for programs: `id`, `created`, `updated`, `name`, `value`, `tags`."""
    return {
        "id": str(variable.id),
        "created": iso(variable.created_us),
        "updated": iso(variable.updated_us),
        "name": variable.name,
        "value": variable.value,
        "tags": list(variable.tags),
    }


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int | float | bool)
