"""What a run asks of its shell (commands), and what it is answered with (outcomes)."""

from typing import Any

import msgspec

from prefect_nb.exceptions import Pause
from prefect_nb.model.states import State


class Record(msgspec.Struct, frozen=True):
    """Record this state. Answered with the `State` as recorded; for a Running also `Ending`: it is not to begin."""

    state: State[Any]


class AwaitUpstream(msgspec.Struct, frozen=True):
    """Wait for what the parameters and `wait_for` refer to. Answered `Ready`, `NotReady`, `Ending`; by a flow `Invalid`."""


class Ready(msgspec.Struct, frozen=True):
    """Every upstream run completed; the parameters hold their values."""


class NotReady(msgspec.Struct, frozen=True):
    """An upstream run did not complete."""

    message: str


class Invalid(msgspec.Struct, frozen=True):
    """A flow's parameters do not fit, now that the upstream values are in them."""

    error: Exception


class LookUp(msgspec.Struct, frozen=True):
    """Compute the cache key and look for a kept result.

    Answered with the `State` the run ends in without its body being called, `Busy`, or None: the body is to be called.
    """


class Busy(msgspec.Struct, frozen=True):
    """Another run computes what the cache key stands for."""


class AwaitKey(msgspec.Struct, frozen=True):
    """Wait until it is worth looking the cache key up again. Answered None, or `Ending`."""


class Admit(msgspec.Struct, frozen=True):
    """Take the slots of the concurrency limits that the run is under. Answered None, or `Outcome | Skipped`, its end.

    Without `wait` also answered `Full`, at once, where they are not free.
    """

    wait: bool = False


class Full(msgspec.Struct, frozen=True):
    """No slots are free."""


class Fire(msgspec.Struct, frozen=True):
    """Call the hooks of one kind ("running", "completion", "failure", "cancellation", "crashed") with this state."""

    kind: str
    state: State[Any]


class CallBody(msgspec.Struct, frozen=True):
    """Call the body. Answered with an `Outcome`, by a task with a `TaskOutcome`."""

    attempt: int
    """1 for the first."""


class Returned(msgspec.Struct, frozen=True):
    """The body returned a value."""

    value: Any


class Raised(msgspec.Struct, frozen=True):
    """The body raised an exception of its own."""

    error: Exception


class TimedOut(msgspec.Struct, frozen=True):
    """The body took longer than its timeout."""

    error: Exception


class Interrupted(msgspec.Struct, frozen=True):
    """The body ended by an interrupt, exit or death of its process (`error`), not by a cancel."""

    error: BaseException
    message: str


class Stopped(msgspec.Struct, frozen=True):
    """The run was cancelled before or while its body ran."""

    error: BaseException | None = None
    message: str | None = None


class Skipped(msgspec.Struct, frozen=True):
    """Somebody wishes the run to do without (the rest of) its body, and others to go on as if it had given None."""

    message: str | None = None


class Again(msgspec.Struct, frozen=True):
    """Somebody had the attempt stopped so that it is begun anew; it does not count."""

    message: str | None = None


Outcome = Returned | Raised | TimedOut | Interrupted | Stopped
"""What a call of a body can come to."""

Ending = Stopped | Skipped
"""Instead of what a task run waits for: it is to end."""

TaskOutcome = Outcome | Skipped | Again
"""What a task run's call of its body can come to."""


class AskRetry(msgspec.Struct, frozen=True):
    """Ask the task's `retry_condition_fn` whether this failure deserves another attempt. Answered True or False."""

    state: State[Any]


class Delay(msgspec.Struct, frozen=True):
    """How long to wait before the next attempt. Answered with seconds; jitter is the shell's."""

    attempt: int


class Sleep(msgspec.Struct, frozen=True):
    """Wait this many seconds, or fewer where somebody cuts it short. Answered None, or `Ending`."""

    seconds: float


class Keep(msgspec.Struct, frozen=True):
    """Keep this value durably. Answered with a handle to put into the state, or None where it could not be kept."""

    value: Any


class Translate(msgspec.Struct, frozen=True):
    """Say what an exception that came instead of an answer means to the run. Answered with an exception."""

    error: BaseException


class Leave(msgspec.Struct, frozen=True):
    """The body was left in order to wait for somebody: wait for the children. Answered None, or `Stopped`."""

    pause: Pause


class Conclude(msgspec.Struct, frozen=True):
    """Wait for the children, then answer with the final state that the body's return value means."""

    value: Any


Command = (
    Record
    | AwaitUpstream
    | LookUp
    | Admit
    | AwaitKey
    | Fire
    | CallBody
    | AskRetry
    | Delay
    | Sleep
    | Keep
    | Translate
    | Leave
    | Conclude
)
