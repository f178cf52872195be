"""Cache keys of a task run, and looking them up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefect_nb.engine.commands import Busy
from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import (
    ConfigurationError,
    InvalidNameError,
    MissingResult,
    ResultCorrupt,
    SerializationError,
    StoreUnavailable,
)
from prefect_nb.execution import keeping, keys, logs, replay
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.kept import KeptResult
from prefect_nb.execution.transaction_modes import UNSUPPORTED
from prefect_nb.interfaces import Entry, KeyParts
from prefect_nb.interfaces.key_locks import KeyLocks
from prefect_nb.model.events import KeyComputed, apply
from prefect_nb.model.fingerprint_parts import Part, Unhashable, combine, seal
from prefect_nb.model.policies import DEFAULT, INPUTS, TASK_SOURCE
from prefect_nb.model.runs import to_datetime
from prefect_nb.model.states import Completed, Failed, State

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask

_BUSY = Busy()
_LONGEST_SOURCE = 100_000


class TaskKeyContext:
    """What a cache policy or `cache_key_fn` sees of a task run."""

    __slots__ = ("parameters", "start_time", "task", "task_run")

    def __init__(self, task: Any, task_run: Any, parameters: dict[str, Any]) -> None:
        self.task = task
        self.task_run = task_run
        self.parameters = parameters
        self.start_time = to_datetime(now_us())


def look_up(execution: RecordingTask) -> State[Any] | Busy | None:
    """Compute the run's cache key, note its parts, and return a Completed/"Cached" state if the key is known.

    Where it is not, the run takes the key, or is told that another run has it. A key that cannot be computed means no
    caching for this run, and a warning; never a weaker key.
    """
    try:
        if execution.key_parts is not None:  # it has waited for its key
            return _answer(execution, execution.key_parts)
        found = key_of(execution)
        if isinstance(found, str):
            _no_key(execution, found)
            return None
        execution.cache_key, parts = found
        run = execution.run
        with execution.lock:
            event = KeyComputed(run.id, now_us(), execution.cache_key, execution.expires_us())
            execution.ledger.append(Entry(apply(run, event), event, run.flow_run_id), run.flow_run_id, execution)
        return _answer(execution, parts)
    except (ConfigurationError, InvalidNameError) as error:
        return _unusable(error)


def _unusable(error: Exception) -> State[Any]:
    return Failed(message=f"Task run encountered an exception {describe(error)}", data=error)


def key_of(execution: RecordingTask, *, warns: bool = True) -> tuple[str, list[Part]] | str:
    """The run's cache key and its parts, or why it has none; with a warning where it was to have one.

    Raises:
        ConfigurationError: runs are to be kept apart, and nothing is there to lock with; or a storage key names what
            there is not.
    """
    task, run = execution.task, execution.run
    if execution.home.settings.tasks_disable_caching:
        return "caching is switched off by the setting tasks_disable_caching"
    policy = task.cache_policy
    if policy.isolation_level == "SERIALIZABLE" and policy.lock_manager is None:
        raise ConfigurationError(UNSUPPORTED)
    if task.result_storage_key is not None:
        key = keeping.storage_key(execution)
        return key, [Part("custom", "result_storage_key", seal("custom", key.encode()).hex(), {"value": key[:200]})]
    try:
        flow_parameters = execution.scope.parameters if execution.scope is not None else {}
        context = TaskKeyContext(task, run, execution.parameters)
        if execution.scope is not None and execution.scope.across_runs and policy == DEFAULT:
            policy = INPUTS + TASK_SOURCE
        resolved = policy.resolve(context, execution.parameters, flow_parameters)
    except Exception as error:
        return _warn_no_key(execution, error) if warns else _reason(error)
    if resolved is None:
        return "its cache policy made no key"
    key, parts = resolved
    if not any(part.kind in ("source", "custom") for part in parts):
        # Inputs alone name no task: two tasks called with equal inputs must not get each other's results.
        parts = [*parts, Part("task", task.name, seal("task", task.name.encode()).hex())]
        key = combine(parts)
    return key, parts


def _answer(execution: RecordingTask, parts: list[Part]) -> State[Any] | Busy | None:
    """What the key stands for, which has been computed of these parts."""
    run, key = execution.run, execution.cache_key
    assert key is not None
    refreshed = _refreshed(execution)
    hit, note = _find(execution, key) if refreshed is None else (None, refreshed)
    if hit is None and refreshed is None and not execution.alone:
        locks = _locks(execution, parts)
        if locks is not None:
            if not execution.home.keys.take(key, execution, locks):
                execution.key_parts = parts
                return _BUSY
            execution.key_held = key
            hit, noted = _find(execution, key)  # it may have been kept just before the key was free
            note = None if hit is not None else note or noted
    execution.key_parts = None
    sources = {} if hit is not None else _sources(parts)
    told = KeyParts(run.id, run.task_key, parts, hit is not None, note, sources)
    execution.ledger.append(told, run.flow_run_id)
    if hit is not None:
        replay.show_again(execution, hit.data.reference)
    return hit


def _locks(execution: RecordingTask, parts: list[Part]) -> Sequence[KeyLocks] | None:
    """What has to be held to compute the key; None where nobody is to be kept from computing it, too."""
    policy = execution.task.cache_policy
    if policy.isolation_level == "READ_COMMITTED" or execution.cache_key in keys.held.get():
        return None
    # Nobody outside the flow run can want a key that the run is part of.
    locks: list[KeyLocks] = [] if any(part.kind == "run" for part in parts) else [execution.home.keys.locks]
    if policy.isolation_level == "SERIALIZABLE":
        locks.append(keys.ManagerLocks(policy.lock_manager, f"{os.getpid()}:{execution.run.id}"))
    return locks


def _no_key(execution: RecordingTask, reason: str) -> None:
    """Keep why a run that might have been cached has no key."""
    run = execution.run
    execution.ledger.append(KeyParts(run.id, run.task_key, [], note=reason), run.flow_run_id)


def _refreshed(execution: RecordingTask) -> str | None:
    """Why a known result is not even looked for; None where it is."""
    if execution.task.refresh_cache:
        return "refresh_cache=True"
    if execution.task.refresh_cache is None and execution.home.settings.tasks_refresh_cache:
        return "refresh_cache (the setting tasks_refresh_cache)"
    again = execution.scope.again if execution.scope is not None else None
    return "its flow run was repaired" if again is not None and execution.run.id in again.renewed else None


def _sources(parts: list[Part]) -> dict[str, str]:
    """Texts of the functions among the parts, by the digests that stand for them."""
    from prefect_nb.model.code_source import source_text  # slow to import, and needed for the first key only

    found: dict[str, str] = {}
    for part in parts:
        digest = part.digest if part.kind == "source" else (part.detail or {}).get("source")
        text = source_text(digest) if digest is not None else None
        if digest is not None and text is not None:
            found[digest] = text[:_LONGEST_SOURCE]
    return found


def _find(execution: RecordingTask, key: str) -> tuple[State[Any] | None, str | None]:
    """What the key stands for; or None, and why what it stood for was not used."""
    try:
        reference = keeping.find(execution, key)
    except StoreUnavailable as error:
        logs.task_run_logger(execution.run, execution.task).warning("Nothing cached can be looked up: %s", error)
        return None, f"its storage cannot be read: {error}"
    if reference is None:
        return None, None
    if reference.expires_us is not None and reference.expires_us <= now_us():
        return None, f"expired {reference.expires_us}"
    from prefect_nb.results.notebook_classes import ClassChanged, exact_classes

    handle = KeptResult(reference, execution.home.results)
    try:
        with exact_classes():
            handle.get()
    except ClassChanged as error:
        return None, f"changed: {error}"
    except (MissingResult, ResultCorrupt, SerializationError) as error:
        logs.task_run_logger(execution.run, execution.task).warning(
            "The cached result of %r cannot be used and is computed again: %s", execution.run.name, error
        )
        if keeping.indexes(execution):
            execution.home.forget_cache(key)
        return None, f"damaged: {error}"
    return Completed(name="Cached", data=handle), None


def _warn_no_key(execution: RecordingTask, error: Exception) -> str:
    reason = str(error) if isinstance(error, Unhashable) else f"{type(error).__name__}: {error}"
    text = f"Task run {execution.run.name!r} is not cached, because its cache key cannot be computed: {reason}"
    logs.task_run_logger(execution.run, execution.task).warning("%s", text)
    return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, Unhashable):
        return f"unhashable {error}"
    return f"its key could not be computed: {type(error).__name__}: {error}"
