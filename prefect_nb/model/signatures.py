"""The signature of a flow or task function: call arguments to parameters by name, and back."""

from __future__ import annotations

import functools
import inspect
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prefect_nb.exceptions import ParameterBindError, ReservedArgumentError, SignatureMismatchError
from prefect_nb.model.words import nearest

RESERVED_NAMES = ("return_state", "wait_for")

_EMPTY = inspect.Parameter.empty
_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_PLAIN = inspect.Parameter.POSITIONAL_OR_KEYWORD
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD

_known: weakref.WeakKeyDictionary[Callable[..., Any], Signature] = weakref.WeakKeyDictionary()


class Signature:
    """The parameters of one function. Get it with `Signature.of(fn)`, which builds it once per function."""

    # The function itself is not kept: this object is a value in a dictionary whose weak keys are the functions.
    __slots__ = (
        "_adapters",
        "_default_tails",
        "_hints",
        "_is_plain",
        "_namespace",
        "_required",
        "defaults",
        "docstring",
        "name",
        "names",
        "parameters",
        "var_keyword",
        "var_positional",
    )

    name: str
    docstring: str
    parameters: tuple[inspect.Parameter, ...]
    names: tuple[str, ...]
    defaults: dict[str, Any]
    var_positional: str | None
    var_keyword: str | None

    def __init__(self, fn: Callable[..., Any]) -> None:
        """Read the signature of `fn`; a builtin that has none is taken as `(*args, **kwargs)`."""
        self.name = getattr(fn, "__name__", None) or type(fn).__name__
        self.docstring = inspect.getdoc(fn) or ""
        self.parameters = _parameters_of(fn)
        self.names = tuple(p.name for p in self.parameters)
        self.defaults = {p.name: p.default for p in self.parameters if p.default is not _EMPTY}
        self.var_positional = next((p.name for p in self.parameters if p.kind is _VAR_POSITIONAL), None)
        self.var_keyword = next((p.name for p in self.parameters if p.kind is _VAR_KEYWORD), None)
        self._is_plain = all(p.kind is _PLAIN for p in self.parameters)
        self._required = len(self.names) - len(self.defaults)
        # What a call with n positional arguments leaves to the defaults, by n.
        self._default_tails = tuple(
            {name: self.defaults[name] for name in self.names[count:] if name in self.defaults}
            for count in range(len(self.names) + 1)
        )
        self._namespace: dict[str, Any] = _namespace_of(fn)
        self._hints: dict[str, Any] | None = None
        self._adapters: dict[str, Any] = {}

    @classmethod
    def of(cls, fn: Callable[..., Any]) -> Signature:
        """The signature of `fn`, built at its first use and kept as long as the function lives."""
        try:
            known = _known.get(fn)
        except TypeError:  # neither hashable nor weakly referable
            return cls(fn)
        if known is None:
            known = _known[fn] = cls(fn)
        return known

    def __str__(self) -> str:
        plain = [p.replace(annotation=_EMPTY) for p in self.parameters]
        return f"{self.name}{inspect.Signature(plain)}"

    def __getstate__(self) -> dict[str, Any]:
        # A module's globals do not travel, and validators are built again where they are needed.
        state = {name: getattr(self, name) for name in self.__slots__}
        return {**state, "_namespace": {}, "_adapters": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters by name, in the order of the signature, with defaults applied.

        `*args` is a tuple and `**kwargs` a dict, each under its own name. Raises `ParameterBindError` when an argument
        is missing, unexpected or given twice.
        """
        names = self.names
        count = len(args)
        if not self._is_plain or count > len(names):
            return self._bind_any(args, kwargs, apply_defaults=True)
        bound = dict(zip(names, args, strict=False))
        if not kwargs:
            if count < self._required:
                return self._bind_any(args, kwargs, apply_defaults=True)
            if count < len(names):
                bound.update(self._default_tails[count])
            return bound
        defaults = self.defaults
        used = 0
        for name in names[count:]:
            if name in kwargs:
                bound[name] = kwargs[name]
                used += 1
            elif name in defaults:
                bound[name] = defaults[name]
        if used == len(kwargs) and len(bound) == len(names):
            return bound
        return self._bind_any(args, kwargs, apply_defaults=True)

    def bind_supplied(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Like `bind`, but without the defaults: only what the caller gave. Raises `ParameterBindError`."""
        return self._bind_any(args, kwargs, apply_defaults=False)

    def bind_names(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Like `bind` for parameters given by name only, as from a command line or an API.

        Positional-only parameters are accepted by name, `*args` as a list and `**kwargs` as a dict under their names.
        Raises `ParameterBindError`.
        """
        args, kwargs, unknown = self._spread(given)
        return self.bind(args, {**kwargs, **unknown})

    def call_args(self, parameters: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inverse of `bind`: the arguments with which to call the function.

        Parameters left out are left to the function's defaults. Raises `SignatureMismatchError` for a name the
        signature does not have.
        """
        names = self.names
        if self._is_plain and len(parameters) == len(names):
            try:
                return tuple([parameters[name] for name in names]), {}
            except KeyError:
                pass  # an unknown name: named below
        args, kwargs, unknown = self._spread(parameters)
        if unknown:
            raise SignatureMismatchError(f"{self} has no parameter {_listed(unknown)}; given: {list(parameters)}.")
        return args, kwargs

    def hints(self) -> dict[str, Any]:
        """Annotations by parameter name, text resolved to types.

        A parameter whose annotation names something that is not (yet) defined is left out.
        """
        if self._hints is None:
            raw = {p.name: p.annotation for p in self.parameters if p.annotation is not _EMPTY}
            hints = _resolve(raw, self._namespace)
            if len(hints) < len(raw):
                return hints
            self._hints = hints
        return self._hints

    def _spread(self, parameters: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Positional arguments, keyword arguments, and what belongs to no parameter."""
        unknown = dict(parameters)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        by_position = True
        for parameter in self.parameters:
            name = parameter.name
            if name not in unknown:
                by_position = by_position and parameter.kind is _VAR_POSITIONAL
                continue
            value = unknown.pop(name)
            if parameter.kind is _VAR_KEYWORD:
                kwargs.update(self._expect(name, value, Mapping, "a dict"))
            elif parameter.kind is _VAR_POSITIONAL:
                members = self._expect(name, value, (list, tuple), "a list")
                if members and not by_position:
                    raise ParameterBindError(f"{self}: '*{name}' was given, but a parameter before it was not.")
                args.extend(members)
            elif parameter.kind is _KEYWORD_ONLY or not by_position:
                kwargs[name] = value
            else:
                args.append(value)
        if self.var_keyword is not None:
            kwargs.update(unknown)
            unknown = {}
        return tuple(args), kwargs, unknown

    def _expect(self, name: str, value: Any, kind: Any, wanted: str) -> Any:
        if isinstance(value, kind):
            return value
        raise ParameterBindError(f"{self}: '{name}' must be given as {wanted}, not {type(value).__name__}.")

    def _bind_any(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, apply_defaults: bool) -> dict[str, Any]:
        rest = dict(kwargs)
        bound: dict[str, Any] = {}
        missing: list[str] = []
        taken = 0
        for parameter in self.parameters:
            name, kind = parameter.name, parameter.kind
            if kind is _VAR_KEYWORD:
                bound[name], rest = rest, {}
            elif kind is _VAR_POSITIONAL:
                bound[name], taken = args[taken:], len(args)
            elif kind is not _KEYWORD_ONLY and taken < len(args):
                if kind is _PLAIN and name in rest:
                    raise ParameterBindError(self._refused(f"multiple values for argument '{name}'"))
                bound[name] = args[taken]
                taken += 1
            elif kind is not _POSITIONAL_ONLY and name in rest:
                bound[name] = rest.pop(name)
            elif name not in self.defaults:
                missing.append(name)
            elif apply_defaults:
                bound[name] = self.defaults[name]
        if taken < len(args):
            raise ParameterBindError(
                self._refused(f"too many positional arguments: it takes {taken}, {len(args)} were given")
            )
        if rest:
            raise ParameterBindError(self._unexpected(rest, free=[n for n in self.names if n not in bound]))
        if missing:
            raise ParameterBindError(
                self._refused(
                    f"missing {'required arguments' if len(missing) > 1 else 'a required argument'}: {_listed(missing)}"
                )
            )
        return bound

    def _unexpected(self, rest: Mapping[str, Any], free: list[str]) -> str:
        name = next(iter(rest))
        if any(p.name == name and p.kind is _POSITIONAL_ONLY for p in self.parameters):
            return self._refused(f"'{name}' is positional-only; give it without its name")
        # A name still free is the likelier target of a typing error than one that has its value.
        hint = did_you_mean(name, free) or did_you_mean(name, self.names)
        return self._refused(f"got an unexpected keyword argument '{name}'{hint}")

    def _refused(self, why: str) -> str:
        return f"Error binding parameters for function '{self.name}': {why.removesuffix('?')}{'?' * why.endswith('?') or '.'} It is {self}."


def check_reserved(fn: Callable[..., Any]) -> None:
    """Raise `ReservedArgumentError` if `fn` has a parameter whose name is an option of the call itself."""
    signature = Signature.of(fn)
    for name in RESERVED_NAMES:
        if name in signature.names:
            raise ReservedArgumentError(
                f"'{name}' is a reserved argument name and cannot be used: calls of flows and tasks take an option of "
                f"that name. Rename the parameter of {signature.name}()."
            )


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`": did you mean 'depth'?"` for the nearest of the candidates, or nothing."""
    near = nearest(name, candidates, 1)
    return f": did you mean '{near[0]}'?" if near else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _parameters_of(fn: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    try:
        return tuple(inspect.signature(fn).parameters.values())
    except ValueError:
        return inspect.Parameter("args", _VAR_POSITIONAL), inspect.Parameter("kwargs", _VAR_KEYWORD)


def _namespace_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The globals in which the annotations of `fn` were written."""
    inner: Any = inspect.unwrap(fn)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    inner = getattr(inner, "__func__", inner)
    if not hasattr(inner, "__globals__"):
        inner = type(inner).__call__
    namespace: dict[str, Any] = getattr(inner, "__globals__", {})
    return namespace


def _resolve(raw: dict[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__=raw), namespace, include_extras=True)
    except Exception:  # an annotation is an expression of the user's: it may raise anything
        if len(raw) == 1:
            return {}
        return {n: hint for name, value in raw.items() for n, hint in _resolve({name: value}, namespace).items()}
