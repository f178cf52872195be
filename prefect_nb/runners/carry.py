"""What it takes to carry work to another process and its outcome back."""

import contextlib
import functools
import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prefect_nb.engine.commands import Interrupted, Outcome, Raised, Returned
from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import SerializationError
from prefect_nb.model.words import type_name
from prefect_nb.runners import captured
from prefect_nb.runners.aside import unpacking

_DEEPEST_BLAME = 6


class WorkerTraceback(Exception):
    """The text of a traceback from another process; the cause of the exception that came from there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def call(work: Callable[[Any], Outcome], emit: Callable[[Any], None]) -> Outcome:
    """The outcome; work that raises against its promise is judged by what it raised."""
    try:
        return work(emit)
    except Exception as error:
        return Raised(error)
    except BaseException as error:
        return Interrupted(error, f"The call ended by {describe(error)}.")


def answer(
    data: bytes,
    emit: Callable[[Any], None],
    held: Sequence[bytes] = (),
    around: Callable[[Any], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> tuple[Outcome, bytes]:
    """In a worker process: read work, call it; the outcome, and it as bytes.

    Args:
        data: what `pickle_work` made.
        emit: where the work sends its log lines.
        held: the values that were put aside for it, see `aside`.
        around: entered with the work while it is called.
    """
    import cloudpickle

    try:
        with unpacking([functools.partial(_value_of, value) for value in held]):
            work = cloudpickle.loads(data)
    except Exception as error:
        outcome: Outcome = Raised(
            SerializationError(
                f"This call cannot be read in the worker process: {describe(error)}. Make what it needs importable "
                "there, or run it on a thread pool."
            )
        )
    else:
        with around(work):
            outcome = call(work, emit)
    return outcome, pickle_outcome(outcome)


def _value_of(data: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(data)[0].value


def pickle_work(work: Any) -> bytes:
    """Work as bytes for another process.

    Raises:
        SerializationError: it cannot go there; the message names the part that cannot.
    """
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(work)
    except Exception as error:
        raise SerializationError(
            f"This call cannot be sent to a worker process, because of {_blame(work)}: {describe(error)}. "
            "Pass plain data and make such objects inside the task, or run it on a thread pool."
        ) from error
    if len(data) >= captured.LARGE_BYTES:
        captured.tell(work)
    return data


def pickle_outcome(outcome: Outcome) -> bytes:
    """An outcome as bytes that the other process can surely read, with the traceback's text of an exception.

    A value that cannot be carried becomes `Raised`; an exception that cannot, a `RuntimeError` with its name and text.
    """
    import cloudpickle

    error = getattr(outcome, "error", None)
    if error is None:
        try:
            data: bytes = cloudpickle.dumps((outcome, None))
        except Exception as refusal:
            return pickle_outcome(Raised(_cannot_return(outcome, refusal)))
        return data
    trace = _trace(error)
    with contextlib.suppress(Exception):
        data = cloudpickle.dumps((outcome, trace))
        if type(cloudpickle.loads(data)[0].error) is type(error):
            return data
    copy: bytes = cloudpickle.dumps((_with_error(outcome, RuntimeError(describe(error))), trace))
    return copy


def unpickle_outcome(data: bytes) -> Outcome:
    """The outcome; its exception has the other process's traceback as its cause."""
    import cloudpickle

    try:
        outcome, trace = cloudpickle.loads(data)
    except Exception as error:
        return Raised(
            SerializationError(
                f"What the task returned cannot be read back from the worker process: {describe(error)}. "
                "Return plain data, or run the task on a thread pool."
            )
        )
    if trace is not None:
        outcome.error.__cause__ = WorkerTraceback(trace)
    carried: Outcome = outcome
    return carried


def _cannot_return(outcome: Outcome, refusal: Exception) -> SerializationError:
    value = outcome.value if isinstance(outcome, Returned) else outcome
    return SerializationError(
        f"The task returned a value of type {type_name(value)} that cannot be sent back from the worker process, "
        f"because of {_blame(value)}: {describe(refusal)}. Return plain data, or run the task on a thread pool."
    )


def _with_error(outcome: Outcome, error: Exception) -> Outcome:
    kind: Any = type(outcome)
    message = getattr(outcome, "message", None)
    return kind(error) if message is None else kind(error, message)  # type: ignore[no-any-return]


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # its `str` raises
        return "".join([*traceback.format_tb(error.__traceback__), describe(error)])


def _blame(value: Any) -> str:
    """Which part of a value does not pickle, as near as it can be told: `lock (of type _thread.lock)`."""
    path: list[str] = []
    for _ in range(_DEEPEST_BLAME):
        culprit = next(((name, part) for name, part in _parts(value) if not _pickles(part)), None)
        if culprit is None:
            break
        path.append(culprit[0])
        value = culprit[1]
    named = ".".join(path) or "a value"
    return f"{named} (of type {type_name(value)})"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, functools.partial):
        yield from ((f"argument {number}", part) for number, part in enumerate(value.args, 1))
        yield from value.keywords.items()
        yield getattr(value.func, "__name__", "function"), value.func
    elif isinstance(value, dict):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"item {number}", part) for number, part in enumerate(value))
    elif inspect.isfunction(value):
        variables = inspect.getclosurevars(value)
        yield from variables.nonlocals.items()
        yield from variables.globals.items()
    else:
        yield from getattr(value, "__dict__", {}).items()
        slots = [name for name in getattr(type(value), "__struct_fields__", ()) if hasattr(value, name)]
        yield from ((name, getattr(value, name)) for name in slots)


def _pickles(value: Any) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True
