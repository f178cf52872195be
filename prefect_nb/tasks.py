"""`@task`: a function whose every call is a recorded run, with retries, caching, timeouts and concurrency."""

from __future__ import annotations

import datetime
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

from prefect_nb.engine.task_run import TaskPlan
from prefect_nb.exceptions import RunCancelled
from prefect_nb.execution import drive, inputs, logs, pump
from prefect_nb.execution.context import checked_tags, current_flow, visualizing
from prefect_nb.execution.decorated import Decorated
from prefect_nb.execution.definitions import (
    TaskDefinition,
    check_condition,
    checked_template,
    function_name,
    persists,
    retry_delays,
    task_key,
    templated_name,
)
from prefect_nb.execution.flow_runs import FlowExecution
from prefect_nb.execution.futures import PrefectFuture, PrefectFutureList
from prefect_nb.execution.scope import Scope
from prefect_nb.execution.shapes import Surroundings
from prefect_nb.execution.task_runs import TaskExecution
from prefect_nb.home import Home
from prefect_nb.interfaces import Runner
from prefect_nb.model import policies
from prefect_nb.model.policies import exponential_backoff
from prefect_nb.model.states import State
from prefect_nb.settings import get_settings

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Task", "exponential_backoff", "task", "task_input_hash"]

_UNSET_POLICY = policies.CachePolicy()


class Task(Decorated, TaskDefinition, Generic[P, R]):
    """A task. Made by `@task`; the arguments are those of `task`."""

    word = "task"
    HOOK_KINDS = ("completion", "failure", "running")
    OPTIONS = (
        "name", "description", "tags", "version", "cache_key_fn", "cache_expiration", "task_run_name", "retries",
        "retry_jitter_factor", "persist_result", "result_storage", "result_serializer", "result_storage_key",
        "cache_result_in_memory", "timeout_seconds", "log_prints", "refresh_cache", "retry_condition_fn",
        "viz_return_value",
    )  # fmt: skip
    KEPT_BY_EMPTY = frozenset({"description", "name", "tags"})

    def __init__(
        self,
        fn: Callable[P, R],
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        version: str | None = None,
        cache_policy: policies.CachePolicy | None = _UNSET_POLICY,
        cache_key_fn: Callable[[Any, dict[str, Any]], str | None] | None = None,
        cache_expiration: datetime.timedelta | None = None,
        task_run_name: str | Callable[..., str] | None = None,
        retries: int | None = None,
        retry_delay_seconds: float | list[float] | Callable[[int], list[float]] | None = None,
        retry_jitter_factor: float | None = None,
        persist_result: bool | None = None,
        result_storage: Any = None,
        result_serializer: Any = None,
        result_storage_key: str | None = None,
        cache_result_in_memory: bool = True,
        timeout_seconds: float | None = None,
        log_prints: bool | None = None,
        refresh_cache: bool | None = None,
        on_completion: list[Callable[..., Any]] | None = None,
        on_failure: list[Callable[..., Any]] | None = None,
        on_running: list[Callable[..., Any]] | None = None,
        on_rollback: list[Callable[..., Any]] | None = None,
        on_commit: list[Callable[..., Any]] | None = None,
        retry_condition_fn: Callable[..., Any] | None = None,
        viz_return_value: Any = None,
    ) -> None:
        fn = self._take(fn)
        settings = get_settings()
        self.name = name or function_name(fn)
        self.description = description or inspect.getdoc(fn)
        self.tags = checked_tags(frozenset(tags or ()))
        self.version = version
        self.task_key = task_key(fn)
        self.task_run_name = checked_template("task_run_name", task_run_name)
        self.retries = settings.task_default_retries if retries is None else retries
        if retry_delay_seconds is None:
            retry_delay_seconds = settings.task_default_retry_delay_seconds
        self._delays_asked = retry_delay_seconds
        self.retry_delay_seconds = (
            retry_delay_seconds(self.retries) if callable(retry_delay_seconds) else retry_delay_seconds
        )
        self.retry_delays = retry_delays(self.retries, retry_delay_seconds)
        if retry_jitter_factor is not None and retry_jitter_factor < 0:
            raise ValueError("`retry_jitter_factor` must be >= 0.")
        self.retry_jitter_factor = retry_jitter_factor
        self.retry_condition_fn = check_condition(retry_condition_fn)
        self.timeout_seconds = float(timeout_seconds) if timeout_seconds else None
        self.log_prints = log_prints
        self.refresh_cache = refresh_cache
        self.cache_expiration = cache_expiration
        self.cache_key_fn = cache_key_fn
        self.cache_result_in_memory = cache_result_in_memory
        self.result_storage = result_storage
        self.result_serializer = result_serializer
        self.result_storage_key = result_storage_key
        self.viz_return_value = viz_return_value
        cache_policy = _given_policy(cache_policy, cache_key_fn or result_storage_key)
        self.persist_result = persists(
            persist_result,
            cache_policy not in (None, policies.NO_CACHE)
            or any(
                option is not None for option in (cache_key_fn, result_storage_key, result_storage, result_serializer)
            ),
        )
        self.cache_policy = self._policy(cache_policy, settings.tasks_default_no_cache)
        self._take_hooks(
            completion=on_completion, failure=on_failure, running=on_running, rollback=on_rollback, commit=on_commit
        )
        self._plans: dict[tuple[bool, bool], TaskPlan] = {}
        self._look_like(fn)

    def _policy(self, chosen: policies.CachePolicy | None, default_none: bool) -> policies.CachePolicy:
        if self.persist_result is False:
            if self.cache_key_fn is not None or chosen not in (None, policies.NO_CACHE):
                logs.install()
                logs._task_logger.warning(
                    "Task %r asks for caching and `persist_result=False` at once: nothing of it is cached.", self.name
                )
            return policies.NO_CACHE
        if self.cache_key_fn is not None:
            if chosen is not None:
                logs.install()
                logs._task_logger.warning(
                    "Task %r has both `cache_policy` and `cache_key_fn`: `cache_key_fn` is used.", self.name
                )
            return policies.CachePolicy.from_cache_key_fn(self.cache_key_fn)
        if chosen is not None:
            return chosen
        return policies.NO_CACHE if default_none else policies.DEFAULT

    def plan(self, persist: bool, has_upstream: bool) -> TaskPlan:
        """What the engine needs to know for one run."""
        plan = self._plans.get((persist, has_upstream))
        if plan is None:
            plan = self._plans[persist, has_upstream] = TaskPlan(
                retries=self.retries,
                ask_retry=self.retry_condition_fn is not None,
                has_delay=any(self.retry_delays),
                cached=persist and self.cache_policy != policies.NO_CACHE,
                persisted=persist,
                hooks=self.hook_kinds,
                has_upstream=has_upstream,
            )
        return plan

    def run_name(self, parameters: dict[str, Any]) -> str:
        """A run's name from the `task_run_name` template or callable."""
        return templated_name(self.task_run_name, parameters, "task_run_name")

    # Calling

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(self, *args: Any, return_state: bool, wait_for: Any = ..., **kwargs: Any) -> Any: ...

    def __call__(  # type: ignore[misc]
        self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any
    ) -> Any:
        """Run the task on this thread (an async task: give the coroutine that does) and return its value.

        Args:
            return_state: return the final `State` instead, and do not raise what the task raised.
            wait_for: futures or states that must have completed first.
        """
        parameters = self.signature.bind(args, kwargs)
        if (drawing := visualizing.get()) is not None:
            return drawing.called(self, parameters, wait_for, "call")
        home, scope = _surroundings()
        execution = TaskExecution(
            home,
            self,
            parameters,
            scope=scope,
            args=(args, kwargs),
            wait_for=inputs.listed(wait_for),
            persist=self._persisted(scope, home),
        )
        if self.isgenerator and not return_state:
            return _items_awaited(execution) if self.isasync else _items(execution)
        if self.isasync:
            return _run_awaiting(execution, return_state)
        if scope is not None:
            scope.direct.add(execution)
        reusable = execution.reusable
        execution.finish(drive.blocking(execution) if reusable is None else reusable)
        return execution.outcome(return_state)

    def submit(
        self, *args: Any, return_state: bool = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> Any:
        """Start a run of the task on the flow's task runner and return its future at once.

        Args:
            return_state: wait, and return the final `State` instead.
            wait_for: futures or states that must have completed first.
        """
        if (drawing := visualizing.get()) is not None:
            return drawing.called(self, self.signature.bind(args, kwargs), wait_for, "submit")
        scope = self._submitting_scope()
        future = self._submit(scope.runner, self.signature.bind(args, kwargs), scope, wait_for)
        if return_state:
            future.wait()
            return future.state
        return future

    def map(
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Iterable[Any] | None = None,
        deferred: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Start one run for each element of the iterable arguments; returns a `PrefectFutureList`, in order.

        Strings, bytes and whatever is not iterable are given whole to every run; so is `unmapped(value)`.

        Args:
            return_state: wait, and return the final states instead.
            wait_for: futures or states that must have completed before any of the runs.
            deferred: leave the runs to a task worker, as `delay` does.

        Raises:
            MappingLengthMismatch: the iterables have different lengths.
            MappingMissingIterable: nothing to iterate over.
        """
        if (drawing := visualizing.get()) is not None:
            return drawing.called(self, (args, kwargs), wait_for, "map")
        if deferred:
            return self._map_deferred(self.signature.bind_supplied(args, kwargs), wait_for)
        scope = self._submitting_scope()
        supplied = self.signature.bind_supplied(args, kwargs)
        futures = self._map(scope.runner, supplied, scope, wait_for)
        if return_state:
            futures.wait()
            return [future.state for future in futures]
        return futures

    def delay(self, *args: Any, **kwargs: Any) -> PrefectFuture[R]:
        """Record a run for a task worker (`serve`, `prefect-nb task serve`) to execute; returns its future at once.

        The arguments are kept with pickle; the result always is. The future may be waited for here or anywhere.
        """
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        dependencies: Any = None,  # noqa: ARG002 - Prefect's signature; what the arguments came from is known anyway
    ) -> PrefectFuture[R]:
        """`delay`, with the arguments as a tuple and a dict, and further runs to wait for first."""
        from prefect_nb.execution.deferred import defer

        parameters = self.signature.bind(args or (), kwargs or {})
        return defer(_surroundings()[0], Home.current, self, parameters, inputs.listed(wait_for))

    def serve(self, limit: int | None = 10, timeout: float | None = None) -> None:
        """Execute delayed runs of this task in this process, until interrupted."""
        from prefect_nb.execution.deferred import TaskWorker

        TaskWorker(Home.current(), [self], limit).start(timeout)

    def submit_to(
        self, runner: Runner, parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFuture[R]:
        """Start a run on a given runner; what `TaskRunner.submit` calls."""
        return self._submit(runner, self.signature.bind_names(parameters), self._submitting_scope(), wait_for)

    def map_to(
        self, runner: Runner, parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFutureList[R]:
        """Start one run an element on a given runner; what `TaskRunner.map` calls."""
        return self._map(runner, parameters, self._submitting_scope(), wait_for)

    def _map(
        self, runner: Runner, supplied: dict[str, Any], scope: Scope, wait_for: Iterable[Any] | None
    ) -> PrefectFutureList[R]:
        from prefect_nb.model.parameters import split_map_arguments

        waited = {name: _wait_for_list(value) for name, value in supplied.items()}
        children = split_map_arguments(self.signature, waited)
        bound = [self.signature.bind_names(child) for child in children]
        before = inputs.listed(wait_for)
        return PrefectFutureList([self._submit(runner, child, scope, before) for child in bound])

    def _map_deferred(self, supplied: dict[str, Any], wait_for: Iterable[Any] | None) -> PrefectFutureList[R]:
        from prefect_nb.execution.deferred import defer
        from prefect_nb.model.parameters import split_map_arguments

        children = split_map_arguments(self.signature, {name: _wait_for_list(v) for name, v in supplied.items()})
        home, before = _surroundings()[0], inputs.listed(wait_for)
        bound = [self.signature.bind_names(child) for child in children]
        return PrefectFutureList([defer(home, Home.current, self, child, before) for child in bound])

    def _submit(
        self, runner: Runner, parameters: dict[str, Any], scope: Scope, wait_for: Iterable[Any] | None
    ) -> PrefectFuture[R]:
        home, _ = _surroundings()
        execution = TaskExecution(
            home,
            self,
            parameters,
            scope=scope,
            wait_for=inputs.listed(wait_for),
            persist=self._persisted(scope, home),
        )
        return pump.submit(execution, runner, scope)

    def _submitting_scope(self) -> Scope:
        home, scope = _surroundings()
        if scope is None:
            scope = detached_scope(home)
        if scope.stopping:
            raise RunCancelled(scope.reason)
        return scope

    def _persisted(self, scope: Scope | None, home: Surroundings) -> bool:
        if self.persist_result is not None:
            return self.persist_result
        if scope is not None and (scope.durable or scope.persist is not None):
            return scope.durable or bool(scope.persist)
        default = home.settings.tasks_default_persist_result
        return home.settings.results_persist_by_default if default is None else default

    # Variants

    def with_options(self, **options: Any) -> Task[P, R]:
        """A new task with some options changed; the others, hooks and key stay.

        Empty `tags` and an empty description leave the old ones, and so does None for most options; for what may be inherited from a flow or a
        setting (`execution.decorated.UNSET_BY_NONE`) it takes the option back. `timeout_seconds=0` takes the timeout back.
        """
        if options.get("cache_key_fn") is not None and "cache_policy" not in options:
            options["cache_policy"] = _UNSET_POLICY
        return self._changed(options)

    def _like(self, given: dict[str, Any]) -> Self:
        clone = super()._like(given)
        clone.task_key = self.task_key
        return clone

    def _options(self) -> dict[str, Any]:
        options = {**super()._options(), "retry_delay_seconds": self._delays_asked}
        if self.cache_key_fn is None and self.cache_policy != policies.DEFAULT:
            options["cache_policy"] = self.cache_policy
        return options

    # Hooks as decorators

    def on_rollback(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Call `fn(transaction)` when the transaction of a run is rolled back."""
        return self._add_hook("rollback", fn)

    def on_commit(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Call `fn(transaction)` when the transaction of a run commits."""
        return self._add_hook("commit", fn)

    def _add_hook(self, kind: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        self._plans.clear()
        return super()._add_hook(kind, fn)


def _given_policy(policy: policies.CachePolicy | None, own_key: Any) -> policies.CachePolicy | None:
    """The policy a task was given, which may be None for no caching; None where it was given none."""
    if policy is _UNSET_POLICY:
        return None
    return policies.NO_CACHE if policy is None and own_key is None else policy


def _items(execution: TaskExecution) -> Generator[Any, Any, Any]:
    if execution.reusable is None:
        execution.finish((yield from drive.generating(execution)))
    value = execution.outcome(return_state=False)
    if not execution.has_returned:  # nothing was yielded live: the items come from the kept result
        yield from value
    return value


async def _items_awaited(execution: TaskExecution) -> AsyncGenerator[Any, None]:
    if execution.reusable is None:
        async with aclosing(drive.generating_awaited(execution)) as items:
            async for item in items:
                yield item
        assert execution.state is not None
        execution.finish(execution.state)
    value = execution.outcome(return_state=False)
    if not execution.has_returned:
        for item in value:
            yield item


async def _run_awaiting(execution: TaskExecution, return_state: bool) -> Any:
    if execution.scope is not None:
        execution.scope.direct.add(execution)
    reusable = execution.reusable
    execution.finish(await drive.awaiting(execution) if reusable is None else reusable)
    return execution.outcome(return_state)


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(fn: None = None, /, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Any = None, /, **options: Any) -> Any:
    """Make a function a task.

    Called, it runs on the caller's thread; `.submit()` and `.map()` run it on the flow's task runner.

    Args:
        name: of the task; default: the function's name.
        description: default: the docstring.
        tags: given to every run.
        version: of the task, for people.
        cache_policy: what a run's cache key is made of (`INPUTS`, `TASK_SOURCE`, ...; `NO_CACHE` for none). Giving one
            keeps results. Default: inputs, source and flow run, used only where results are kept.
        cache_key_fn: `(context, parameters) -> str | None`, instead of a policy.
        cache_expiration: how long a kept result counts as a hit (timedelta).
        task_run_name: template such as `"clean {date}"`, or a callable.
        retries: further attempts after a failure.
        retry_delay_seconds: seconds before each: a number, a list, or a callable such as `exponential_backoff(2)`.
        retry_jitter_factor: spreads each delay by up to this share.
        persist_result: keep the result on disk, whole and checked.
        result_serializer: "pickle", "json", "compressed/pickle", ... or an instance.
        timeout_seconds: how long one attempt may take.
        log_prints: write prints to the run's log; None: as the flow does.
        refresh_cache: compute and overwrite even on a hit.
        on_completion, on_failure, on_running: hooks `(task, run, state)`.
        retry_condition_fn: `(task, run, state) -> bool`, whether a failure deserves another attempt.
    """
    if fn is None:
        return partial(_make, options)
    return Task(fn, **options)


def _make(options: dict[str, Any], fn: Callable[P, R]) -> Task[P, R]:
    return Task(fn, **options)


def task_input_hash(context: Any, arguments: dict[str, Any]) -> str | None:
    """A `cache_key_fn`: same code and same arguments, same key.

    Raises:
        Unhashable: an argument has no stable digest; a run is then not cached.
    """
    return (policies.TASK_SOURCE + policies.INPUTS).compute_key(context, arguments, {})


def _surroundings() -> tuple[Surroundings, Scope | None]:
    """Where a run started here is recorded, and what it belongs to."""
    context = current_flow.get()
    execution = context.execution if context is not None else None
    if isinstance(execution, FlowExecution):
        return execution.home, execution.scope
    home = Home.current()
    return home, home.attached_scope()


def current_scope(home: Home) -> Scope | None:
    """What a run started here belongs to: the enclosing flow run, else the run this process is attached to."""
    context = current_flow.get()
    if context is not None and isinstance(context.execution, FlowExecution):
        return context.execution.scope
    return home.attached_scope()


def detached_scope(home: Surroundings) -> Scope:
    """A scope for tasks submitted outside any flow run: each stands alone; a default runner carries them."""
    found = home.__dict__.get("_detached")
    if found is None:
        from prefect_nb.execution.scope import DetachedScope
        from prefect_nb.execution.task_runners import ThreadPoolTaskRunner

        found = home.__dict__.setdefault("_detached", DetachedScope(ThreadPoolTaskRunner().open))
    return cast("Scope", found)


def _wait_for_list(value: Any) -> Any:
    """A future of a list, mapped over: its list, once it is there."""
    if isinstance(value, PrefectFuture):
        return value.result()
    if isinstance(value, State):
        return value.result()
    return value
