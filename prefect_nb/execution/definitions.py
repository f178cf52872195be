"""What a decorated function is called, where it comes from, and whether its options fit."""

from __future__ import annotations

import datetime
import hashlib
import inspect
import re
import string
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect_nb.exceptions import InvalidNameError
from prefect_nb.execution.context import LONGEST_NAME

_FORBIDDEN = re.compile(r"[/%&><]")
_MAX_DELAYS = 50
# In a template: anything but plain `{parameter}`.
_REACHES_IN = re.compile(r"\{[^{}]*[.\[:!]")
_PRIVATE = re.compile(r"[.\[]\s*['\"]?_")
_WIDE = re.compile(r"\d{4}")


class FlowDefinition:
    """What `@flow` makes, as those see it who only have to know it when they meet it."""


class TaskDefinition:
    """What `@task` makes, likewise."""


def function_name(fn: Any) -> str:
    """A task's default name: the function's."""
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return "unknown-lambda" if name == "<lambda>" else name


def task_key(fn: Any) -> str:
    """What identifies a task in the history: qualified name, and a digest of module and code."""
    target = inspect.unwrap(fn)
    target = getattr(target, "func", target)
    code = getattr(target, "__code__", None)
    digest = hashlib.sha256()
    digest.update(_module_of(target).encode())
    if code is not None:
        _digest_code(code, digest)
    qualname = getattr(target, "__qualname__", type(target).__qualname__)
    return f"{qualname}-{digest.hexdigest()[:8]}"


def _module_of(target: Any) -> str:
    """The module, by its file's name where it has one: run as a script a file is `__main__`, loaded again it is not."""
    path = source_file(target)
    return path.stem if path is not None else str(getattr(target, "__module__", ""))


def _digest_code(code: types.CodeType, digest: Any) -> None:
    digest.update(code.co_code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _digest_code(constant, digest)
        else:
            digest.update(repr(constant).encode("utf-8", "backslashreplace"))
    digest.update("\0".join(code.co_names).encode())


def persists(explicit: bool | None, implied: bool) -> bool | None:
    """Whether results are kept, where an option that only makes sense with kept results implies it."""
    if explicit is None and implied:
        return True
    return explicit


def check_condition(fn: Any) -> Any:
    """A retry condition, if it can be called.

    Raises:
        TypeError: it cannot.
    """
    if fn is not None and not callable(fn):
        raise TypeError(f"Expected `retry_condition_fn` to be callable, got {type(fn).__name__} instead.")
    return fn


def check_hooks(option: str, hooks: Any, kind: str = "flow") -> list[Callable[..., Any]]:
    """Hooks as a list of callables.

    Raises:
        TypeError: it is no list, or an item cannot be called.
    """
    if hooks is None:
        return []
    wrong = None
    if not isinstance(hooks, list | tuple | set | frozenset):
        wrong = f"Expected iterable for '{option}'; got {type(hooks).__name__}"
    for hook in () if wrong else hooks:
        if not callable(hook):
            wrong = f"Expected callables in '{option}'; got {type(hook).__name__}"
    if wrong:
        raise TypeError(
            f"{wrong} instead. Please provide a list of hooks to '{option}':\n\n"
            f"@{kind}({option}=[hook1, hook2])\ndef my_{kind}():\n\tpass"
        )
    return list(hooks)


def retry_delays(retries: int, delays: float | list[float] | Callable[[int], list[float]] | None) -> tuple[float, ...]:
    """Seconds before each further attempt; the last one serves for all that follow.

    Raises:
        ValueError: there are more than 50, or one is negative.
    """
    if delays is None:
        return ()
    if callable(delays):
        delays = delays(retries)
    listed = tuple(float(delay) for delay in delays) if isinstance(delays, list | tuple) else (float(delays),)
    if len(listed) > _MAX_DELAYS:
        raise ValueError("Can not configure more than 50 retry delays per task.")
    if any(delay < 0 for delay in listed):
        raise ValueError("`retry_delay_seconds` must not be negative.")
    return listed


class _Template(string.Formatter):
    """`str.format` without what is nobody's business in a name: private attributes, and names of any length."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if _PRIVATE.search(field_name):
            raise ValueError(f"A name's template may not use the private attribute in {{{field_name}}}.")
        return super().get_field(field_name, args, kwargs)

    def format_field(self, value: Any, format_spec: str) -> Any:
        if _WIDE.search(format_spec) and not isinstance(value, datetime.date | datetime.time):
            raise ValueError(f"A name's template may not ask for a width such as {format_spec!r}.")
        return super().format_field(value, format_spec)


def checked_template(option: str, template: Any) -> Any:
    """What names runs, if it can: a template, a callable, or None.

    Raises:
        TypeError: it is something else.
    """
    if template is not None and not isinstance(template, str) and not callable(template):
        raise TypeError(f"Expected string or callable for '{option}'; got {type(template).__name__} instead.")
    return template


def templated_name(template: Any, parameters: dict[str, Any], option: str) -> str:
    """A run's name from a template over the parameters, or from a callable; its first 255 characters.

    Raises:
        TypeError: the callable gave something else than a string.
        ValueError: the template names a parameter that does not exist.
    """
    if callable(template):
        accepts = "parameters" in inspect.signature(template).parameters
        name = template(parameters=parameters) if accepts else template()
        if not isinstance(name, str):
            raise TypeError(f"Callable {template} for `{option}` must return a string, got {type(name).__name__}.")
        return name[:LONGEST_NAME]
    now = datetime.datetime.now(datetime.UTC)
    try:
        if _REACHES_IN.search(template):
            return str(_Template().vformat(template, (), {"date": now, **parameters}))[:LONGEST_NAME]
        return str(template.format(**{"date": now, **parameters}))[:LONGEST_NAME]
    except (KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"`{option}` {template!r} cannot be filled in: {error!r} is no parameter.") from None


def bound_to(descriptor: type | None, instance: Any, owner: type | None) -> Any:
    """What a function in a class gets as its first argument: the instance or the class; None for nothing."""
    if descriptor is staticmethod:
        return None
    return owner if descriptor is classmethod else instance


def flow_name(fn: Any) -> str:
    """A flow's default name: the function's, with - for _."""
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return "unknown-lambda" if name == "<lambda>" else name.replace("_", "-")


def checked_name(name: str) -> str:
    """A flow's name, if it is one.

    Raises:
        InvalidNameError: it is empty, too long, or holds a character that names may not hold.
        TypeError: it is no string.
    """
    if not isinstance(name, str):
        raise TypeError(f"Expected string for flow parameter 'name'; got {type(name).__name__} instead.")
    found = _FORBIDDEN.search(name)
    if found:
        raise InvalidNameError(f"Name {name!r} contains an invalid character: {found.group()!r}. Leave out / % & > <.")
    if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in name) or len(name) > 255:
        raise InvalidNameError(f"Name {name[:80]!r} must have 1 to 255 characters, none of them a control character.")
    if not name.strip():
        raise InvalidNameError("A name must not be empty.")
    return name


def name_like(text: str) -> str:
    """A flow's name made of any text: what names may not hold becomes -."""
    return _FORBIDDEN.sub("-", text)


def source_file(fn: Any) -> Path | None:
    """The .py file a function comes from; None for cells and interactive code."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    if code is None or code.co_filename.startswith("<") or "ipykernel_" in code.co_filename:
        return None
    path = Path(code.co_filename)
    return path.absolute() if path.suffix == ".py" and path.is_file() else None


def file_version(fn: Any) -> str | None:
    """A hash of that file."""
    path = source_file(fn)
    if path is None:
        return None
    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return None
