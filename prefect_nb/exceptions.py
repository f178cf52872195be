"""Every exception of prefect_nb, with Prefect's names where Prefect has one.

::

    PrefectException
    ├── CrashedRun, FailedRun, CancelledRun, PausedRun, UnfinishedRun   what `state.result()` raises
    ├── MissingResult, SerializationError, ResultCorrupt, UpstreamTaskError
    │   └── ResultTooLarge (SerializationError)
    ├── MissingFlowError, UnspecifiedFlowError, ScriptError             loading a flow from a file
    ├── ParameterTypeError, ParameterBindError, SignatureMismatchError  calling it
    ├── MappingLengthMismatch, MappingMissingIterable
    ├── MissingContextError, ReservedArgumentError, InvalidNameError, ConfigurationError
    ├── ObjectNotFound, InvalidMove, Fenced, StorageFull, StoreDamaged, StoreUnavailable, ArtifactTooLarge
    ├── ObjectAlreadyExists, ConcurrencySlotAcquisitionError, SecretKeyError
    ├── RecoveryLimit, NotResumable, NonDeterminismError
    ├── NotPausedError, FlowPauseTimeout, FlowRunWaitTimeout
    └── NotebookError, KernelDied
    PrefectSignal (BaseException)                                       control flow, never caught by `except Exception`
    ├── Abort, Pause, TerminationSignal (ExternalSignal)
    └── RunCancelled, StopFlow
    TaskRunTimeoutError, FlowRunTimeoutError, AcquireConcurrencySlotTimeoutError (TimeoutError)

Each takes one message, so that each survives pickling between processes.
"""

from typing import Any


class PrefectException(Exception):
    """Base of everything prefect_nb raises for a caller to handle."""


class CrashedRun(PrefectException):
    """The run ended because its process or infrastructure did."""


class FailedRun(PrefectException):
    """The run ended in a Failed state that carries no exception of its own."""


class CancelledRun(PrefectException):
    """The run was cancelled."""


class PausedRun(PrefectException):
    """The run is paused; it has no result yet."""


class UnfinishedRun(PrefectException):
    """The run has not finished; it has no result yet."""


class MissingResult(PrefectException):
    """The run finished but its result was not kept, or is gone."""


class SerializationError(PrefectException):
    """A value could not be turned into bytes, or back."""


class ResultTooLarge(SerializationError):
    """A value has more bytes than results may have here."""


class ResultCorrupt(PrefectException):
    """A stored result does not match its checksum."""


class UpstreamTaskError(PrefectException):
    """A run this one depends on did not complete."""


class MissingFlowError(PrefectException):
    """A file holds no flow, or none of that name."""


class UnspecifiedFlowError(PrefectException):
    """A file holds several flows and none was named."""


class ScriptError(PrefectException):
    """A file that should define a flow could not be imported."""


class ParameterTypeError(PrefectException):
    """A parameter's value does not fit its annotation."""


class ParameterBindError(TypeError, PrefectException):
    """The arguments do not fit the signature."""


class SignatureMismatchError(PrefectException, TypeError):
    """Parameters given by name do not fit the signature."""


class MappingLengthMismatch(PrefectException):
    """The iterables given to `map` have different lengths."""


class MappingMissingIterable(PrefectException):
    """`map` was given nothing to iterate over."""


class MissingContextError(PrefectException, RuntimeError):
    """Something that only works inside a run was used outside one."""


class ReservedArgumentError(PrefectException, TypeError):
    """A function uses a parameter name that the engine needs for itself."""


class InvalidNameError(PrefectException, ValueError):
    """A name holds a character that names may not hold."""


class ConfigurationError(PrefectException):
    """Options that do not go together, or a setting that is missing."""


class ObjectNotFound(PrefectException):
    """No flow, run or other object of that id or name."""


class ObjectAlreadyExists(PrefectException):
    """There is an object of that name already."""


class ConcurrencySlotAcquisitionError(PrefectException):
    """Slots of a concurrency limit cannot be had: no such limit, more than there are, or none free in so many tries."""


class InvalidMove(PrefectException):
    """A run cannot move from its state to the one proposed."""


class Fenced(PrefectException):
    """Another process has taken this run over; nothing more of it may be written from here."""


class StorageFull(PrefectException):
    """The disk that holds the history or the results has no room left."""


class StoreDamaged(PrefectException):
    """The database file is damaged, or is no database of prefect_nb."""

    run_ids: frozenset[Any] = frozenset()
    """The runs whose rows are damaged, where the rest of the file is not."""


class SecretKeyError(PrefectException):
    """The key that secrets are encrypted with is missing, is not private, or is another one."""


class StoreUnavailable(PrefectException):
    """The home directory or its database cannot be opened or written."""


class ArtifactTooLarge(PrefectException):
    """An artifact's data takes more than 5 MiB."""


class RecoveryLimit(PrefectException):
    """A run crashed too often to be resumed again."""


class NotResumable(PrefectException):
    """A run cannot be resumed: it is not crashed or failed, or its code cannot be found."""


class NotPausedError(PrefectException):
    """A run that is not paused was to be resumed."""


class FlowPauseTimeout(PrefectException):
    """A run was paused, and nobody resumed it in time."""


class FlowRunWaitTimeout(PrefectException):
    """A flow run did not end within the time somebody waited for it."""


class NonDeterminismError(PrefectException):
    """A durable flow run that was resumed called other tasks than it had before."""


class NotebookError(PrefectException):
    """A notebook could not be read, prepared or executed."""


class KernelDied(NotebookError):
    """The notebook's kernel ended before its cells did."""


class TaskRunTimeoutError(TimeoutError):
    """A task run took longer than its `timeout_seconds`."""


class FlowRunTimeoutError(TimeoutError):
    """A flow run took longer than its `timeout_seconds`."""


class AcquireConcurrencySlotTimeoutError(TimeoutError):
    """Slots of a concurrency limit were not free in time."""


class PrefectSignal(BaseException):
    """Base of what steers a run and must pass through a body's `except Exception`."""


class Abort(PrefectSignal):
    """The run was told to stop before it began; its state stays as it is."""


class Pause(PrefectSignal):
    """The run left its body in order to wait; `state` is what it waits in."""

    def __init__(self, *args: Any, state: Any = None) -> None:
        super().__init__(*args)
        self.state = state


class ExternalSignal(BaseException):
    """Base of what a process is told from outside."""


class TerminationSignal(ExternalSignal, PrefectSignal):
    """The process was told to end."""


class RunCancelled(PrefectSignal):
    """Raised inside a body whose run is being cancelled."""


class StopFlow(PrefectSignal):
    """Raised by `flow.stop`: the flow run around this code ends here, Completed; the message says why."""
