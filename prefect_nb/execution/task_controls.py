"""Wishes about single task runs that people have while a flow runs: cancel it, skip it, begin it anew.

A wish is put on the task run's execution (`control`); from there it reaches the engine as the answer to what the engine
waits for. Whoever waits says first how to be woken (`waker`) and then looks whether there is a wish; whoever wishes puts
the wish first and then wakes: so none is overlooked, and a task run that nobody wishes anything of looks at one
attribute. A body is stopped like one whose flow run is cancelled: by an exception in its thread, by cancelling its
asyncio task, or by ending its process.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args
from uuid import UUID

import msgspec
from msgspec.structs import replace

from prefect_nb.engine import commands as c
from prefect_nb.engine.task_run import Steps, TaskPlan, is_over
from prefect_nb.exceptions import Fenced, InvalidMove, RunCancelled
from prefect_nb.execution import blocking
from prefect_nb.execution.timeouts import BodyTimedOut, call_later, raise_in_thread
from prefect_nb.model.states import Cancelled, Completed, State, StateType

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from prefect_nb.execution.futures import PrefectFuture
    from prefect_nb.execution.scope import Scope
    from prefect_nb.interfaces import Request
    from prefect_nb.model.runs import TaskRun

Kind = Literal["cancel", "skip", "retry"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REQUESTS: dict[str, Kind] = {f"{kind}-task": kind for kind in KINDS}
"""Kinds of requests in the store; the task run's id is in the details, as hex."""
GRACE_SECONDS = 5.0
"""How long a body on a thread of the pool may take to stop before it is left behind."""
SKIPPED = "Skipped"

_TAKEN, _REFUSED = "taken: ", "refused: "
_PATIENCE_US = 2_000_000
_AGAIN_SECONDS = 0.001
_NUDGE = getattr(signal, "SIGURG", None)
_PARTICIPLES = {"cancel": "Cancelled", "skip": "Skipped", "retry": "Begun anew"}


class TaskStopped(RunCancelled):
    """Raised in the body of a task run whose attempt is to end; passes through the runs called in it."""


class Wish(msgspec.Struct):
    """What somebody wishes of a task run."""

    kind: Kind
    message: str
    """For the state that comes of it."""
    sent: bool = False
    """Whether the body was told."""


class Answer(NamedTuple):
    """What became of a wish."""

    ok: bool
    message: str


class Controlled(Protocol):
    """A task run as wishes see it."""

    id: UUID
    run: TaskRun
    task: Any
    scope: Scope | None
    lock: AbstractContextManager[Any]
    state: State[Any] | None
    steps: Steps
    plan: TaskPlan
    future: PrefectFuture[Any] | None
    wish: Wish | None
    waker: Callable[[], Any] | None
    body_on: int | None

    def stopped(self) -> c.Ending | None:
        """An outcome, if the run is to end."""
        ...

    def abandon(self, state: State[Any]) -> None:
        """End the run in this state although its body may still be running."""
        ...


def message_of(kind: Kind, asked: str | None = None) -> str:
    """Such as "Cancelled by request.", or with what is said of who asked "Skipped from the notebook."."""
    return f"{_PARTICIPLES[kind]} {asked or 'by request'}."


# Wishing


def find(scopes: Iterable[Scope], task_run_id: UUID) -> Controlled | None:
    """The task run of this id that is under way in one of these scopes."""
    for scope in scopes:
        for future in list(scope.futures):
            if future.task_run_id == task_run_id and future._execution is not None:
                return future._execution  # type: ignore[no-any-return]
        for execution in list(scope.direct):
            if execution.id == task_run_id:
                return execution  # type: ignore[no-any-return]
    return None


def control(execution: Controlled, wish: Wish) -> Answer:
    """Have a wish carried out, or say why not. Returns at once."""
    with execution.lock:
        refusal = _refusal(execution, wish)
        if refusal is not None:
            return Answer(False, f"Task run {execution.run.name!r} {refusal}")
        if execution.wish is None:
            execution.wish = wish
        else:  # the same one: the body may have been told of it
            execution.wish.kind, execution.wish.message = wish.kind, wish.message
        standing, was = execution.wish, execution.run.state_name
    _reach(execution, standing)
    return Answer(True, f"Task run {execution.run.name!r} {_announced(wish.kind, was)}")


def _refusal(execution: Controlled, wish: Wish) -> str | None:
    run, earlier = execution.run, execution.wish
    if run.is_final:
        return f"has ended already: it is {run.state_name}."
    if is_over(execution.steps):
        return f"will not run: it is {run.state_name}."
    if earlier is not None and earlier.kind not in ("retry", wish.kind):
        return f"is being {_PARTICIPLES[earlier.kind].lower()} already."
    if wish.kind == "retry" and run.state_type is not StateType.RUNNING and run.state_name != "AwaitingRetry":
        return f"has not begun, so there is nothing to begin anew: it is {run.state_name}."
    return None


def _announced(kind: Kind, was: str) -> str:
    if kind == "retry":
        return "waits no longer: its next attempt begins." if was == "AwaitingRetry" else "is stopped and begun anew."
    return "is being cancelled." if kind == "cancel" else "is being skipped."


def _reach(execution: Controlled, wish: Wish) -> None:
    """Stop the body, or wake who waits. What follows may take its time, and is done on a thread of its own."""
    if not _break(execution, wish):
        waker = execution.waker
        if waker is not None:
            threading.Thread(target=waker, name="prefect_nb-wish", daemon=True).start()
    if wish.kind != "retry":
        call_later(GRACE_SECONDS, partial(_leave_behind, execution, wish))


def _leave_behind(execution: Controlled, wish: Wish) -> None:
    if execution.future is None or execution.future.done() or execution.wish is not wish:
        return  # what was called directly is waited for: nobody could go on without it
    message = f"{wish.message} Its thread did not stop in time and was left behind."
    with suppress(InvalidMove, Fenced):
        execution.abandon(_state(wish, message))


def _state(wish: Wish, message: str) -> State[Any]:
    return Cancelled(message=message) if wish.kind == "cancel" else Completed(name=SKIPPED, message=message)


# Requests of other processes


def details_of(task_run_id: UUID, message: str) -> dict[str, Any]:
    """The details of a request about a task run."""
    return {"task_run_id": task_run_id.hex, "message": message}


def task_run_id_of(request: Request) -> UUID:
    """Which task run a request is about."""
    return UUID(hex=request.details["task_run_id"])


def take(scope: Scope, request: Request) -> str | None:
    """Have a request carried out if its task run is under way in this scope; what became of it, or None."""
    execution = find((scope,), task_run_id_of(request)) if request.at_us >= scope.entered_us else None
    if execution is None:
        return None
    wish = Wish(REQUESTS[request.kind], str(request.details["message"]))
    return outcome_of(control(execution, wish))


def too_late(run: TaskRun | None, request: Request, entered_us: int, now_us: int) -> str | None:
    """What becomes of a request whose task run is not under way where its flow run is executed; None to look again.

    It may be under way in a process that belongs to the run, as a notebook's kernel does: that one looks by itself.
    """
    if run is None:
        return outcome_of(Answer(False, "There is no such task run."))
    if run.is_final:
        return outcome_of(Answer(False, ended_already(run)))
    if request.at_us < entered_us:
        return outcome_of(Answer(False, f"Task run {run.name!r}: it was asked before its flow run was begun again."))
    return None if now_us - request.at_us < _PATIENCE_US else outcome_of(Answer(False, out_of_reach(run)))


def ended_already(run: TaskRun) -> str:
    """Why nothing can be wished of a run that has ended."""
    return f"Task run {run.name!r} has ended already: it is {run.state_name}."


def out_of_reach(run: TaskRun) -> str:
    """Why nothing can be wished of a run that goes on."""
    return (
        f"Task run {run.name!r} cannot be reached by itself, as it was called in a worker process or is a generator. "
        "Cancel what called it, or the flow run."
    )


def outcome_of(answer: Answer) -> str:
    """An answer as a request's outcome."""
    return f"{_TAKEN if answer.ok else _REFUSED}{answer.message}"


def answer_of(outcome: str) -> Answer:
    """The answer that a request's outcome means."""
    return Answer(outcome.startswith(_TAKEN), outcome.removeprefix(_TAKEN).removeprefix(_REFUSED))


# What the engine is answered


def ending(wish: Wish) -> c.Ending | None:
    """What a wish means to a run whose body is not being called."""
    if wish.kind == "retry":
        return None
    return c.Stopped(None, wish.message) if wish.kind == "cancel" else c.Skipped(wish.message)


def wished(execution: Controlled) -> c.Ending | None:
    """The ending that somebody wishes for."""
    return None if execution.wish is None else ending(execution.wish)


def woken(execution: Controlled) -> c.Ending | None:
    """The answer to a wait before the next attempt that is over, or was cut short."""
    with execution.lock:
        stopped = execution.stopped()
        if stopped is None:
            execution.wish = None
    return stopped


def settled(execution: Controlled, outcome: c.TaskOutcome) -> c.TaskOutcome:
    """What came out of a body, seen with the wish that there is. What the body returned all the same is its result."""
    with execution.lock:
        wish = execution.wish
        assert wish is not None
        if wish.kind == "retry":
            execution.wish = None
    is_ours = wish.sent and not (execution.scope is not None and execution.scope.stopping)
    if not is_ours or isinstance(outcome, c.Returned | c.Skipped) or _is_from_elsewhere(outcome):
        return outcome
    if wish.kind == "retry":
        execution.plan = replace(execution.plan, retries=execution.plan.retries + 1)  # for what is told of attempts
        return c.Again(wish.message)
    return ending(wish) or outcome


def _is_from_elsewhere(outcome: c.TaskOutcome) -> bool:
    return type(outcome) is c.Interrupted and isinstance(outcome.error, KeyboardInterrupt | SystemExit | BodyTimedOut)


# Bodies on threads

_telling = threading.Lock()
_told: dict[int, tuple[Controlled, Wish]] = {}
"""Whose body is to stop, by the thread it is on."""
_other_hook: Callable[[Any], Any] | None = None
_can_nudge = False


def prepare_main_thread() -> None:
    """On the main thread: have it woken from system calls when a body that it calls is to stop."""
    global _can_nudge
    if _can_nudge or _NUDGE is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(_NUDGE) is signal.SIG_DFL:
        signal.signal(_NUDGE, _nudged)
    _can_nudge = callable(signal.getsignal(_NUDGE))


def _nudged(_signum: int, _frame: Any) -> None:
    """The exception is raised as the interpreter enters this function, or right after it."""


def _break(execution: Controlled, wish: Wish) -> bool:
    """Raise `TaskStopped` in the thread that calls the body; False where none does."""
    with _telling:
        ident = execution.body_on
        if ident is None:
            return False
        wish.sent = True
        _told[ident] = (execution, wish)
        _watch_for_losses()
        raise_in_thread(ident, TaskStopped)
    if _can_nudge and ident == threading.main_thread().ident and threading.get_ident() != ident:
        signal.pthread_kill(ident, _NUDGE)  # type: ignore[arg-type]
    return True


def _watch_for_losses() -> None:
    global _other_hook
    if _other_hook is None:
        _other_hook, sys.unraisablehook = sys.unraisablehook, _lost


def _lost(unraisable: Any) -> None:
    """What is raised in a finalizer or a weak reference's callback is only reported: raise it again, outside."""
    told = _told.get(threading.get_ident())
    if unraisable.exc_type is TaskStopped and told is not None:
        call_later(_AGAIN_SECONDS, partial(_tell_again, *told))
    elif _other_hook is not None:
        _other_hook(unraisable)


def _tell_again(execution: Controlled, wish: Wish) -> None:
    if execution.wish is wish:
        _break(execution, wish)


def landed(execution: Controlled) -> None:
    """On the thread of a body that has come to its end: what was still to be raised in it is raised here."""
    with _telling:
        execution.body_on = None
        _told.pop(threading.get_ident(), None)
    for _ in range(3):
        pass


# Waits


def wait_for(execution: Controlled, future: PrefectFuture[Any]) -> None:
    """Wait on this thread until another run has ended, or something is wished of this one."""
    over = threading.Event()
    future.add_done_callback(lambda _: over.set())
    execution.waker = over.set
    if execution.wish is None:
        with blocking.waiting():
            over.wait()


async def ended(future: PrefectFuture[Any]) -> None:
    """Await the end of another run on this loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    over = loop.create_future()
    future.add_done_callback(lambda _: _call_soon(loop, partial(_resolve, over)))
    await over


async def unless_wished(execution: Controlled, wait: Coroutine[Any, Any, Any]) -> None:
    """Await something on this loop until it is over, or something is wished of the run."""
    import asyncio

    loop = asyncio.get_running_loop()
    wish = loop.create_future()
    waiting = loop.create_task(wait)
    execution.waker = partial(_call_soon, loop, partial(_resolve, wish))
    try:
        if execution.wish is None:
            await asyncio.wait({waiting, wish}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            waiting.result()
    finally:
        waiting.cancel()
        wish.cancel()


def _resolve(future: Any) -> None:
    if not future.done():
        future.set_result(None)


def _call_soon(loop: Any, call: Callable[[], Any]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
        loop.call_soon_threadsafe(call)


class AwaitedBody:
    """Around the await of an async body: a wish cancels its asyncio task, at most once, and only while it is at it.

    Args:
        execution: the task run; it is told how the body is stopped.
    """

    __slots__ = ("_execution", "_is_cancelled", "_is_over", "_loop", "_task")

    def __init__(self, execution: Controlled) -> None:
        import asyncio

        self._execution = execution
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._is_over = self._is_cancelled = False
        execution.waker = self._wake

    def _wake(self) -> None:
        _call_soon(self._loop, self._cancel)

    def _cancel(self) -> None:
        wish = self._execution.wish
        if self._is_over or self._is_cancelled or wish is None or self._task is None:
            return
        wish.sent = self._is_cancelled = True
        self._task.cancel()

    def ended(self) -> None:
        """The body has come to its end."""
        self._is_over = True
        if self._is_cancelled and self._task is not None:
            self._task.uncancel()


class Place:
    """A wait that either its end or a wish puts an end to; whichever comes first `takes` it."""

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free = [None]

    def taken(self) -> bool:
        """Whether the caller is the first."""
        try:
            self._free.pop()
        except IndexError:
            return False
        return True
