"""Cache keys of a task run, and looking them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_nb.exceptions import MissingResult, ResultCorrupt, SerializationError
from prefect_nb.execution import logs
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.kept import KeptResult
from prefect_nb.interfaces import Entry, KeyParts
from prefect_nb.model.events import KeyComputed, apply
from prefect_nb.model.fingerprint_parts import Part, Unhashable, combine, seal
from prefect_nb.model.policies import DEFAULT, INPUTS, TASK_SOURCE
from prefect_nb.model.states import Completed, State

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask


class TaskKeyContext:
    """What a cache policy or `cache_key_fn` sees of a task run."""

    __slots__ = ("parameters", "task", "task_run")

    def __init__(self, task: Any, task_run: Any, parameters: dict[str, Any]) -> None:
        self.task = task
        self.task_run = task_run
        self.parameters = parameters


def look_up(execution: RecordingTask) -> State[Any] | None:
    """Compute the run's cache key, note its parts, and return a Completed/"Cached" state if the key is known.

    A key that cannot be computed means no caching for this run, and a warning; never a weaker key.
    """
    task, run, home = execution.task, execution.run, execution.home
    if home.settings.tasks_disable_caching:
        return None
    try:
        flow_parameters = execution.scope.parameters if execution.scope is not None else {}
        context = TaskKeyContext(task, run, execution.parameters)
        policy = task.cache_policy
        if execution.scope is not None and execution.scope.across_runs and policy == DEFAULT:
            policy = INPUTS + TASK_SOURCE
        resolved = policy.resolve(context, execution.parameters, flow_parameters)
    except Exception as error:
        _warn_no_key(execution, error)
        return None
    if resolved is None:
        return None
    key, parts = resolved
    if not any(part.kind in ("source", "custom") for part in parts):
        # Inputs alone name no task: two tasks called with equal inputs must not get each other's results.
        parts = [*parts, Part("task", task.name, seal("task", task.name.encode()).hex())]
        key = combine(parts)
    execution.cache_key = key
    with execution.lock:
        event = KeyComputed(run.id, now_us(), key, execution.expires_us())
        execution.ledger.append(Entry(apply(run, event), event, run.flow_run_id), run.flow_run_id, execution)
    hit = None if task.refresh_cache or home.settings.tasks_refresh_cache else _find(execution, key)
    execution.ledger.append(KeyParts(run.id, run.task_key, parts, hit is not None), run.flow_run_id)
    return hit


def _find(execution: RecordingTask, key: str) -> State[Any] | None:
    entry = execution.home.cache_entry(key)
    if entry is None:
        return None
    reference = entry.result
    if reference.expires_us is not None and reference.expires_us <= now_us():
        return None
    handle = KeptResult(reference, execution.home.results)
    try:
        handle.get()
    except (MissingResult, ResultCorrupt, SerializationError) as error:
        logs.task_run_logger(execution.run, execution.task).warning(
            "The cached result of %r cannot be used and is computed again: %s", execution.run.name, error
        )
        execution.home.forget_cache(key)
        return None
    return Completed(name="Cached", data=handle)


def _warn_no_key(execution: RecordingTask, error: Exception) -> None:
    reason = str(error) if isinstance(error, Unhashable) else f"{type(error).__name__}: {error}"
    text = f"Task run {execution.run.name!r} is not cached, because its cache key cannot be computed: {reason}"
    logs.task_run_logger(execution.run, execution.task).warning("%s", text)
