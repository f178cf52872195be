"""Variables: named JSON values that outlive runs and are shared by all of them.

    Variable.set("threshold", 0.5)
    Variable.get("threshold", default=0.1)

Each call is awaited where it is made in a coroutine, and has a twin (`aset`, `aget`, `aunset`).
"""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from prefect_nb.execution.duality import dual
from prefect_nb.service import variables as _service

MAX_VARIABLE_NAME_LENGTH = _service.LONGEST_NAME


class Variable(BaseModel):
    """A named JSON value.

    Names have lowercase letters, digits, dashes and underscores, at most 255; values as JSON at most 5,000 characters.
    """

    name: str = Field(max_length=MAX_VARIABLE_NAME_LENGTH)
    value: Annotated[Any, BeforeValidator(_service.check_value)]
    tags: list[str] | None = None

    @classmethod
    @dual()
    def set(cls, name: str, value: Any, tags: list[str] | None = None, overwrite: bool = False) -> "Variable":
        """Keep a value under a name; it is durable when this returns.

        Args:
            name: the variable's name.
            value: what JSON can express.
            tags: words to find it by; those it had before are replaced.
            overwrite: whether to replace one that exists.

        Raises:
            ValueError: it exists and is not to be overwritten; or the name or the value cannot be taken.
        """
        return _set(name, value, tags, overwrite)

    @classmethod
    @dual()
    def get(cls, name: str, default: Any = None) -> Any:
        """The value under a name, or the default."""
        return _get(name, default)

    @classmethod
    @dual()
    def unset(cls, name: str) -> bool:
        """Drop a variable; False if there was none."""
        return _service.unset(name)

    @classmethod
    def aset(
        cls, name: str, value: Any, tags: list[str] | None = None, overwrite: bool = False
    ) -> Coroutine[Any, Any, "Variable"]:
        """Keep a value under a name; see `set`."""
        return asyncio.to_thread(_set, name, value, tags, overwrite)

    @classmethod
    def aget(cls, name: str, default: Any = None) -> Coroutine[Any, Any, Any]:
        """The value under a name, or the default."""
        return asyncio.to_thread(_get, name, default)

    @classmethod
    def aunset(cls, name: str) -> Coroutine[Any, Any, bool]:
        """Drop a variable; False if there was none."""
        return asyncio.to_thread(_service.unset, name)


class _NewVariable(Variable):
    name: Annotated[str, AfterValidator(_service.check_name)] = Field(max_length=MAX_VARIABLE_NAME_LENGTH)


def _set(name: str, value: Any, tags: list[str] | None, overwrite: bool) -> Variable:
    new = _NewVariable(name=name, value=value, tags=tags)
    kept = _service.put(new.name, new.value, new.tags or [], overwrite)
    if kept is None:
        raise ValueError(f"Variable {name!r} already exists. Use `overwrite=True` to update it.")
    return Variable(name=kept.name, value=kept.value, tags=list(kept.tags))


def _get(name: str, default: Any) -> Any:
    found = _service.get(name)
    return default if found is None else found.value


__all__ = ["Variable"]
