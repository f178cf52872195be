"""Where a task run's result is kept, under which key, and how it is found again or forgotten."""

from __future__ import annotations

import hashlib
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import (
    ConfigurationError,
    InvalidNameError,
    MissingResult,
    PrefectException,
    ResultCorrupt,
    SerializationError,
    StorageFull,
    StoreUnavailable,
)
from prefect_nb.execution import logs, replay
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.kept import KeptResult
from prefect_nb.execution.recorder import moved
from prefect_nb.interfaces import CacheEntry, Entry
from prefect_nb.model.events import ResultKept, apply
from prefect_nb.model.runs import ResultReference
from prefect_nb.model.states import Failed, RolledBack, State

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask

_PLAIN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,199}")
_NOT_KEPT = (SerializationError, StorageFull, StoreUnavailable, InvalidNameError, ConfigurationError)


def keep(execution: RecordingTask, value: Any) -> Any:
    """Keep a result. Where it cannot be kept: None and a note, or in a durable flow a Failed state."""
    home, scope = execution.home, execution.scope
    try:
        store = home.result_store(storage_of(execution))
        key = storage_key(execution) if execution.task.result_storage_key is not None else None
        reference = store.put(value, _serializer_of(execution), execution.expires_us(), key)
        if execution.outputs is not None:
            reference = replay.keep(execution.outputs, reference, home.results)
        _index(execution, reference)
    except _NOT_KEPT as error:
        if scope is not None and scope.durable:
            name = "StorageFull" if isinstance(error, StorageFull) else ""
            return Failed(name=name, message=str(error), data=error)
        execution.note = f"not persisted: {error}"
        logs.task_run_logger(execution.run, execution.task).warning(
            "The result of task run %r was not kept: %s", execution.run.name, error
        )
        return None
    return KeptResult(reference, home.results, value)


def storage_of(execution: RecordingTask) -> Any:
    """The storage that the task names, else its flow or a flow around that; None for the default one."""
    if execution.task.result_storage is not None or execution.scope is None:
        return execution.task.result_storage
    return execution.scope.result_storage


def _serializer_of(execution: RecordingTask) -> Any:
    if execution.task.result_serializer is not None or execution.scope is None:
        return execution.task.result_serializer
    return execution.scope.result_serializer


def storage_key(execution: RecordingTask) -> str:
    """The task's `result_storage_key` with what it names of the run filled in.

    Raises:
        ConfigurationError: it names what there is not.
    """
    run, flow = execution.run, execution.flow
    flow_run = flow.flow_run if flow is not None else None
    task_facts = {
        "id": str(run.id),
        "name": run.name,
        "task_name": execution.task.name,
        "parameters": execution.parameters,
        "tags": list(run.tags),
        "run_count": run.run_count,
    }
    flow_facts: dict[str, Any] = dict.fromkeys(("id", "name", "flow_name", "parameters", "tags", "run_count"))
    if flow_run is not None:
        flow_facts = {name: getattr(flow_run, name) for name in flow_facts}
        flow_facts["parameters"] = flow.parameters
    template: str = execution.task.result_storage_key
    try:
        return template.format(
            parameters=execution.parameters,
            task_run=SimpleNamespace(**task_facts),
            flow_run=SimpleNamespace(**flow_facts),
        )
    except (KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise ConfigurationError(f"result_storage_key {template!r} cannot be filled in: {describe(error)}") from error


def indexes(execution: RecordingTask) -> bool:
    """Whether the home's own index says where the results of this task are."""
    return execution.task.result_storage_key is None and execution.task.cache_policy.key_storage is None


def find(execution: RecordingTask, key: str) -> ResultReference | None:
    """What is kept under a cache key, wherever this task looks for it.

    Raises:
        InvalidNameError: the key leads elsewhere.
        ConfigurationError, StoreUnavailable: there is no such storage, or it cannot be read.
    """
    home = execution.home
    if execution.task.result_storage_key is not None:
        return home.result_store(storage_of(execution)).find(key)
    key_storage = execution.task.cache_policy.key_storage
    if key_storage is not None:
        found = home.result_store(key_storage).find(_file_name(key))
        return None if found is None else _pointed_at(home, found)
    entry = home.cache_entry(key)
    return None if entry is None else replace(entry.result, source=entry.task_run_id)


def _pointed_at(home: Any, pointer: ResultReference) -> ResultReference | None:
    try:
        return msgspec.convert(home.results.get(pointer), ResultReference | None)
    except (MissingResult, ResultCorrupt, SerializationError, msgspec.ValidationError):
        return None


def _index(execution: RecordingTask, reference: ResultReference | None) -> None:
    """Where keys have a storage of their own: note there where the result is; None for nowhere any more."""
    key_storage = execution.task.cache_policy.key_storage
    if key_storage is not None and execution.cache_key is not None and execution.task.result_storage_key is None:
        expires = None if reference is None else reference.expires_us
        store = execution.home.result_store(key_storage)
        store.put(msgspec.to_builtins(reference), "json", expires, _file_name(execution.cache_key))


def _file_name(key: str) -> str:
    """A key that users make may hold what file names may not."""
    return key if _PLAIN_KEY.fullmatch(key) else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def keep_late(execution: RecordingTask) -> None:
    """Keep the result of a completed run, which was not kept before because its transaction had not committed."""
    if execution.state is None:
        return
    returned = execution.returned
    kept = keep(execution, returned.data if isinstance(returned, State) and returned.id is None else returned)
    reference = kept.reference if type(kept) is KeptResult else None
    with execution.lock:
        run, key = execution.run, execution.cache_key
        event = ResultKept(run.id, max(now_us(), run.state_us), reference, execution.note)
        entry: Any = Entry(apply(run, event), event, run.flow_run_id)
        if reference is not None and key is not None and indexes(execution):
            entry = (entry, CacheEntry(key, reference, run.id, event.at_us))
        execution.ledger.append(entry, run.flow_run_id, execution)
    if reference is not None:
        execution.state.data = kept


def take_back(execution: RecordingTask) -> None:
    """Record that a run completed in vain, as its transaction was rolled back, and forget its result."""
    home, key, had = execution.home, execution.cache_key, execution.run.result
    state: State[Any] = RolledBack(message="Task rolled back as part of transaction")
    try:
        with execution.lock:
            moved(execution.ledger, execution.run, state, execution.run.flow_run_id, holder=execution)
        if had is None or key is None:
            return
        if not indexes(execution):
            _index(execution, None)
            return
        entry = home.cache_entry(key)
        if entry is not None and entry.task_run_id == execution.id:
            # What is on its way into the index would be there again after it was dropped.
            execution.ledger.commit()
            home.forget_cache(key)
    except PrefectException as error:
        logs.task_run_logger(execution.run, execution.task).warning(
            "Task run %r was rolled back, which could not be recorded: %s", execution.run.name, error
        )
