"""Cache policies: what a task's cache key is made of, and how policies are added, narrowed and configured."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self
from uuid import UUID

from prefect_nb.model.fingerprint_parts import Part, combine, seal


class _Task(Protocol):
    @property
    def fn(self) -> Callable[..., Any]: ...


class _TaskRun(Protocol):
    @property
    def id(self) -> UUID: ...

    @property
    def flow_run_id(self) -> UUID | None: ...


class TaskContext(Protocol):
    """What a policy may ask about the run it makes a key for."""

    @property
    def task(self) -> _Task:
        """The task; its `fn` is the user's function."""

    @property
    def task_run(self) -> _TaskRun:
        """The task run, with its `id` and `flow_run_id`."""


CacheKeyFn = Callable[[Any, dict[str, Any]], str | None]

_SETTINGS = ("key_storage", "isolation_level", "lock_manager")


@dataclass(eq=False, repr=False)
class CachePolicy:
    """Base of all cache policies.

    Subclass it and override `compute_key` for a key of your own. Policies are added (`INPUTS + TASK_SOURCE`), narrowed
    (`INPUTS - "verbose"`) and compared by their configuration.
    """

    key_storage: Any = None
    isolation_level: Any = None
    lock_manager: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # a key computed in another way has other parts than the ones inherited
        if "compute_key" in cls.__dict__ and "parts" not in cls.__dict__:
            cls.parts = CachePolicy.parts  # type: ignore[method-assign]

    @staticmethod
    def from_cache_key_fn(cache_key_fn: CacheKeyFn) -> "CacheKeyFnPolicy":
        """Return a policy whose key is what `cache_key_fn(context, parameters)` returns; None means no caching."""
        return CacheKeyFnPolicy(cache_key_fn=cache_key_fn)

    def compute_key(
        self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """Return the cache key of a task run, or None for no caching.

        Raises Unhashable when something the key depends on has no stable digest.
        """
        raise NotImplementedError

    def parts(self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any]) -> list[Part] | None:
        """Return the named parts of the key; empty when this policy adds nothing, None when nothing must be cached."""
        key = self.compute_key(task_ctx, inputs, flow_parameters)
        return None if key is None else [_custom_part(self, key)]

    def resolve(
        self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any]
    ) -> tuple[str, list[Part]] | None:
        """Return the key together with its parts, each computed once; None for no caching. Raises as `compute_key`."""
        if type(self).parts is CachePolicy.parts:
            key = self.compute_key(task_ctx, inputs, flow_parameters)
            return None if key is None else (key, [_custom_part(self, key)])
        parts = self.parts(task_ctx, inputs, flow_parameters)
        return (combine(parts), parts) if parts else None

    def configure(self, key_storage: Any = None, lock_manager: Any = None, isolation_level: Any = None) -> Self:
        """Return a copy with the given settings: where keys are kept, who locks, how runs with one key are kept apart."""
        configured = copy.copy(self)
        for name, value in zip(_SETTINGS, (key_storage, isolation_level, lock_manager), strict=True):
            if value is not None:
                setattr(configured, name, value)
        return configured

    def __add__(self, other: object) -> "CachePolicy":
        if not isinstance(other, CachePolicy):
            return NotImplemented
        if isinstance(other, _None):
            return self
        if isinstance(self, _None):
            return other
        return CompoundCachePolicy(policies=[self, other])

    def __sub__(self, other: str) -> "CachePolicy":
        """Return the policy without the input of that name; itself where it looks at no inputs."""
        if not isinstance(other, str):
            raise TypeError("only the name of a parameter, a str, can be subtracted from a cache policy")
        return self

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if value is not None)
        return f"{type(self).__name__}({shown})"


def _custom_part(policy: CachePolicy, key: str) -> Part:
    digest = seal("custom", key.encode("utf-8", "surrogatepass"))
    return Part("custom", type(policy).__name__, digest.hex(), {"value": key[:200]})


def _value_parts(kind: str, values: dict[str, Any]) -> list[Part]:
    from prefect_nb.model.fingerprints import value_part  # slow to import, and needed for the first key only

    return [value_part(kind, name, values[name]) for name in sorted(values)]


class _OfParts(CachePolicy):
    """A policy that is defined by its parts."""

    def parts(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any]
    ) -> list[Part] | None:
        raise NotImplementedError

    def compute_key(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        parts = self.parts(task_ctx, inputs, flow_parameters)
        return combine(parts) if parts else None


@dataclass(eq=False, repr=False)
class CacheKeyFnPolicy(CachePolicy):
    """The key is what the user's function returns."""

    cache_key_fn: CacheKeyFn | None = None

    def compute_key(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """Return the function's answer; None, without a function or by its answer, means no caching."""
        return None if self.cache_key_fn is None else self.cache_key_fn(task_ctx, inputs)


@dataclass(eq=False, repr=False)
class CompoundCachePolicy(_OfParts):
    """All of several policies: the key changes when any of theirs does, and one that forbids caching forbids it for all.

    Raises ValueError when two of them are configured differently.
    """

    policies: list[CachePolicy] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policies = _one_of_inputs([inner for policy in self.policies for inner in _flat(policy)])
        for name in _SETTINGS:
            values = [value for policy in (self, *self.policies) if (value := getattr(policy, name)) is not None]
            if any(value != values[0] for value in values):
                raise ValueError(f"cannot add cache policies with different settings of {name}: {values}")
            if values:
                setattr(self, name, values[0])

    def parts(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any]
    ) -> list[Part] | None:
        """Return the parts of all policies."""
        gathered: list[Part] = []
        for policy in self.policies:
            parts = policy.parts(task_ctx, inputs, flow_parameters)
            if parts is None:
                return None
            gathered += parts
        return gathered

    def __sub__(self, other: str) -> CachePolicy:
        super().__sub__(other)
        narrowed = copy.copy(self)
        narrowed.policies = [policy - other for policy in self.policies]
        return narrowed


def _one_of_inputs(policies: list[CachePolicy]) -> list[CachePolicy]:
    """The policies, those of inputs made one, at the place of the first, that leaves out what any of them does."""
    inputs = [policy for policy in policies if type(policy) is Inputs]
    if len(inputs) < 2:
        return policies
    merged = inputs[0]
    for further in inputs[1:]:
        merged = merged.configure(**{name: getattr(further, name) for name in _SETTINGS})
    merged = copy.copy(merged)
    merged.exclude = sorted({name for policy in inputs for name in policy.exclude})
    return [
        merged if policy is inputs[0] else policy
        for policy in policies
        if policy is inputs[0] or type(policy) is not Inputs
    ]


def _flat(policy: CachePolicy) -> list[CachePolicy]:
    if isinstance(policy, _None):
        return []
    if type(policy) is not CompoundCachePolicy:
        return [policy]
    # settings given to the sum belong to each summand
    settings = {name: getattr(policy, name) for name in _SETTINGS}
    return [inner.configure(**settings) for inner in policy.policies]


class _None(CachePolicy):
    """No caching; the neutral element of addition."""

    def compute_key(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """Return None."""
        return None


class TaskSource(_OfParts):
    """The task's code: its source, the helpers it reaches, its closures and defaults, and the globals it reads."""

    def parts(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any]
    ) -> list[Part] | None:
        """Return a part for each thing the task's function depends on."""
        from prefect_nb.model.code_fingerprints import code_parts  # slow to import, and needed for the first key only

        return code_parts(task_ctx.task.fn)


@dataclass(eq=False, repr=False)
class Inputs(_OfParts):
    """The values of the task's parameters, but for the names in `exclude`."""

    exclude: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.exclude = sorted(set(self.exclude or ()))

    def parts(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any]
    ) -> list[Part] | None:
        """Return a part for each input; none for a task without inputs."""
        counted = {name: value for name, value in (inputs or {}).items() if name not in self.exclude}
        if inputs and not counted:  # a task all of whose inputs do not matter has one key, not none
            return [Part("input", "(excluded)", seal("excluded").hex())]
        return _value_parts("input", counted)

    def __sub__(self, other: str) -> CachePolicy:
        super().__sub__(other)
        narrowed = copy.copy(self)
        narrowed.exclude = sorted({*self.exclude, other})
        return narrowed


class FlowParameters(_OfParts):
    """The parameters of the flow run the task belongs to."""

    def parts(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any]
    ) -> list[Part] | None:
        """Return a part for each parameter; none outside a flow or without parameters."""
        return _value_parts("flow_parameter", flow_parameters or {})


class RunId(_OfParts):
    """The flow run the task belongs to; outside a flow, the task run itself."""

    def parts(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any]
    ) -> list[Part] | None:
        """Return one part for the run."""
        kind, run_id = _belongs_to(task_ctx.task_run)
        return [Part("run", kind, seal(kind, str(run_id).encode()).hex(), {"id": str(run_id)})]

    def compute_key(
        self, task_ctx: TaskContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str:
        """Return the id of the run."""
        return str(_belongs_to(task_ctx.task_run)[1])


def _belongs_to(run: _TaskRun) -> tuple[str, UUID]:
    return ("flow run", run.flow_run_id) if run.flow_run_id else ("task run", run.id)


INPUTS = Inputs()
TASK_SOURCE = TaskSource()
FLOW_PARAMETERS = FlowParameters()
RUN_ID = RunId()
NONE = _None()
NO_CACHE = NONE
DEFAULT = INPUTS + TASK_SOURCE + RUN_ID


_MOST_DELAYS = 50


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Return a function from a number of retries to their delays in seconds, each twice the one before.

    `exponential_backoff(2)(3)` is `[2, 4, 8]`; at most 50, of which the last one serves for more. Raises ValueError for a negative factor.
    """
    if backoff_factor < 0:
        raise ValueError(f"backoff_factor must not be negative, but is {backoff_factor}")

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**attempt for attempt in range(min(retries, _MOST_DELAYS))]

    return delays
