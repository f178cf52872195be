"""What tasks and flows have in common: a function that keeps its looks, its signature, methods, options and hooks."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, Self

from prefect_nb.execution import generated
from prefect_nb.execution.definitions import bound_to, check_hooks
from prefect_nb.model.signatures import Signature, check_reserved

UNSET_BY_NONE = frozenset(
    {
        "cache_policy",
        "log_prints",
        "persist_result",
        "refresh_cache",
        "result_serializer",
        "result_storage",
        "result_storage_key",
        "task_run_name",
    }
)
"""Options that `with_options(...=None)` takes back; for the others None leaves what there is."""


class Decorated:
    """A function that was made a task or a flow."""

    word: ClassVar[str]
    """ "task" or "flow"."""
    HOOK_KINDS: ClassVar[tuple[str, ...]]
    """Hooks that are told of states."""
    OPTIONS: ClassVar[tuple[str, ...]]
    """Options that are kept under their own names."""
    KEPT_BY_EMPTY: ClassVar[frozenset[str]]
    """Options of which `with_options` takes an empty value for none."""

    fn: Callable[..., Any]
    name: str
    descriptor: type | None
    isgenerator: bool
    isasync: bool

    def _take(self, fn: Any) -> Any:
        """Be this function's; returns it, taken out of a `classmethod` or `staticmethod`.

        Raises:
            TypeError: it cannot be called.
            ReservedArgumentError: it has a parameter of a name that calls need themselves.
        """
        self.descriptor = type(fn) if isinstance(fn, classmethod | staticmethod) else None
        if isinstance(fn, classmethod | staticmethod):
            fn = fn.__func__
        if not callable(fn):
            raise TypeError("'fn' must be callable")
        check_reserved(fn)
        self.fn = fn
        self.isgenerator = inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)
        self.isasync = inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
        return fn

    def _look_like(self, fn: Any) -> None:
        self.__name__ = getattr(fn, "__name__", self.name)
        self.__doc__ = fn.__doc__
        self.__module__ = getattr(fn, "__module__", __name__)
        self.__qualname__ = getattr(fn, "__qualname__", self.name)
        self.__wrapped__ = fn

    def _take_hooks(self, **hooks: Any) -> None:
        for kind, given in hooks.items():
            setattr(self, f"on_{kind}_hooks", check_hooks(f"on_{kind}", given, self.word))

    @cached_property
    def signature(self) -> Signature:
        """The function's signature, read once."""
        return Signature.of(self.fn)

    @cached_property
    def whole(self) -> Callable[..., Any]:
        """The function; a generator function as one that returns the list of its items."""
        if not self.isgenerator:
            return self.fn
        return generated.listed_awaited(self.fn) if self.isasync else generated.listed(self.fn)

    @property
    def hook_kinds(self) -> frozenset[str]:
        """The kinds of hooks that there are."""
        return frozenset(kind for kind in self.HOOK_KINDS if getattr(self, f"on_{kind}_hooks"))

    # Variants

    def _changed(self, options: dict[str, Any]) -> Self:
        """One like this with some options changed.

        Raises:
            TypeError: there is no such option.
        """
        known = inspect.signature(type(self).__init__).parameters
        for option in options:
            if option not in known or option in ("self", "fn"):
                what = self.word.capitalize()
                raise TypeError(f"{what}.with_options() got an unexpected keyword argument {option!r}")
        given = {
            name: value
            for name, value in options.items()
            if (value or name not in self.KEPT_BY_EMPTY) and (value is not None or name in UNSET_BY_NONE)
        }
        return self._like(given)

    def _like(self, given: dict[str, Any]) -> Self:
        clone: Self = type(self)(self.fn, **{**self._options(), **given})  # type: ignore[call-arg]
        clone.descriptor = self.descriptor
        return clone

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {name: getattr(self, name) for name in self.OPTIONS}
        for attribute, hooks in vars(self).items():
            if attribute.startswith("on_") and attribute.endswith("_hooks"):
                options[attribute.removesuffix("_hooks")] = list(hooks) or None
        return options

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        target = bound_to(self.descriptor, instance, owner)
        if target is None or not isinstance(self.fn, types.FunctionType):
            return self
        bound = copy.copy(self)
        bound.fn = types.MethodType(self.fn, target)
        bound.__dict__.pop("signature", None)
        bound.__dict__.pop("whole", None)
        return bound

    # Hooks as decorators

    def on_completion(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Call `fn(task or flow, run, state)` when a run completes."""
        return self._add_hook("completion", fn)

    def on_failure(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Call `fn(task or flow, run, state)` when a run has failed for good."""
        return self._add_hook("failure", fn)

    def on_running(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Call `fn(task or flow, run, state)` before each attempt."""
        return self._add_hook("running", fn)

    def _add_hook(self, kind: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        getattr(self, f"on_{kind}_hooks").append(fn)
        return fn

    def __repr__(self) -> str:
        return f"{self.word.capitalize()}(name={self.name!r}, fn={self.__qualname__})"
