"""An attempt of a task has failed: its log says so, and its inputs are kept so that one can look at it.

Inputs are kept of runs in a notebook and of runs whose results are kept, up to a size for each flow run. Each input is kept
for itself, so that one that cannot be pickled does not lose the others. They are as they were when the task had failed.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakKeyDictionary

import msgspec

from prefect_nb.bodies.verdict import size_text
from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import MissingResult, PrefectException, ResultCorrupt, SerializationError
from prefect_nb.execution import attachment, logs
from prefect_nb.interfaces import ResultStore
from prefect_nb.model.redaction import redact
from prefect_nb.model.words import type_name
from prefect_nb.results.serializers import PickleSerializer

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingTask

_SERIALIZER = "pickle"
_MOST_TASKS = 100
"""Of one flow run: where thousands fail, each for the same reason, the first are enough."""
_spent: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()
"""Of each flow run: how many failed tasks' inputs are kept, and how many bytes they have."""
_lock = threading.Lock()


class FailedInputs(msgspec.Struct, frozen=True):
    """What is kept of one failed task run."""

    task: str
    function: str
    """The function's name."""
    source: str | None
    """Its source; None where there is none."""
    values: dict[str, bytes]
    """Pickled, by parameter."""
    missing: dict[str, str]
    """The parameters that were not kept, and why."""


def key_of(task_run_id: UUID) -> str:
    """Where a task run's inputs are kept."""
    return f"failed-inputs/{task_run_id}"


def note(execution: RecordingTask, error: Exception) -> None:
    """Write down that the body has raised this, and what it was given if it is not called again."""
    attempt, retries = execution.run.run_count, execution.plan.retries
    with logs.sent_to(execution.ledger.log):
        logger = logs.task_run_logger(execution.run, execution.task)
        if attempt <= retries:
            logger.info("Attempt %d of %d failed: %s", attempt, retries + 1, describe(error))
        else:
            logger.error("Task run failed with exception: %s", describe(error), exc_info=error)
    if attempt > retries or execution.task.retry_condition_fn is not None:
        _keep(execution)


def _keep(execution: RecordingTask) -> None:
    """Keep the inputs of a task that has failed, if its run is one of those. Never raises."""
    limit = execution.home.settings.tasks_failed_inputs_max_bytes
    if limit <= 0 or not (execution.persist or _in_notebook()):
        return
    number, size = _spent.get(execution.scope, (0, 0)) if execution.scope is not None else (0, 0)
    if number >= _MOST_TASKS:
        return
    try:
        found = _collected(execution, limit - size)
        execution.home.results.put(
            msgspec.to_builtins(found, builtin_types=(bytes,)), _SERIALIZER, key=key_of(execution.id)
        )
    except Exception as error:  # of values' own classes, too: the task has failed, and that is what counts
        logs.task_run_logger(execution.run, execution.task).debug("Its inputs were not kept: %s", error)


def load(results: ResultStore, task_run_id: UUID) -> FailedInputs | None:
    """What is kept of a task run; None for nothing.

    Raises:
        StoreUnavailable: the results cannot be read.
    """
    reference = results.find(key_of(task_run_id))
    if reference is None:
        return None
    try:
        return msgspec.convert(results.get(reference), FailedInputs)
    except (MissingResult, ResultCorrupt, SerializationError, msgspec.ValidationError):
        return None


def _in_notebook() -> bool:
    """Whether this is a kernel."""
    if attachment.current() is not None:
        return True
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _collected(execution: RecordingTask, room: int) -> FailedInputs:
    values: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    for name, value in execution.parameters.items():
        size = _size_hint(value)
        if _is_secret(value):
            missing[name] = "it is a secret"
            continue
        if size > room:
            missing[name] = _too_large(size)
            continue
        try:
            blob = PickleSerializer().dumps(value)
        except PrefectException:
            missing[name] = f"a value of type {type_name(value)} cannot be pickled"
            continue
        if len(blob) > room:
            missing[name] = _too_large(len(blob))
            continue
        room -= len(blob)
        values[name] = blob
    if execution.scope is not None:
        with _lock:
            number, size = _spent.get(execution.scope, (0, 0))
            _spent[execution.scope] = number + 1, size + sum(map(len, values.values()))
    fn = execution.task.fn
    return FailedInputs(execution.task.name, getattr(fn, "__name__", "task"), _source(fn), values, missing)


def _too_large(size: int) -> str:
    return f"too large ({size_text(size)}); PREFECT_NB_TASKS_FAILED_INPUTS_MAX_BYTES says how much is kept of a run"


def _is_secret(value: Any) -> bool:
    """Whether it is a secret, or one of its parts is."""
    if hasattr(value, "get_secret_value"):
        return True
    if isinstance(value, str):
        return redact(value) != value
    if isinstance(value, dict):
        return any(_is_secret(part) for part in value.values())
    return isinstance(value, list | tuple | set | frozenset) and len(value) < 10_000 and any(map(_is_secret, value))


def _size_hint(value: Any) -> int:
    size = getattr(value, "nbytes", None)
    return size if isinstance(size, int) else 0


def _source(fn: Any) -> str | None:
    try:
        return redact(textwrap.dedent(inspect.getsource(inspect.unwrap(fn))))
    except (OSError, TypeError):
        return None
