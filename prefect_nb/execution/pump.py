"""Many task runs at once over a runner: each engine is advanced by whichever thread has its answer.

A submitted run goes on as far as it can on the submitter's thread; then the upstream runs' threads, the runner's
worker, the event loop or the timer carries it on. No thread of its own, and one engine is never on two threads.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from functools import partial
from typing import Any

from prefect_nb.engine import commands as c
from prefect_nb.engine.task_run import is_going_on, is_over
from prefect_nb.exceptions import Fenced, InvalidMove, RunCancelled
from prefect_nb.execution import admission, blocking, key_waits, portal, task_controls
from prefect_nb.execution.futures import PrefectConcurrentFuture, PrefectFuture
from prefect_nb.execution.journeys import Journey, leaves_in_place
from prefect_nb.execution.scope import Scope
from prefect_nb.execution.task_runs import TaskExecution
from prefect_nb.execution.timeouts import call_later
from prefect_nb.interfaces import Emit, Runner
from prefect_nb.model.states import Cancelled, Crashed, State

logger = logging.getLogger("prefect_nb.pump")


def submit(execution: TaskExecution, runner: Runner, scope: Scope) -> PrefectFuture[Any]:
    """Start a task run over a runner; returns its future."""
    future: PrefectFuture[Any] = PrefectConcurrentFuture(execution.id)
    execution.future = future
    future._execution = execution
    reusable = execution.reusable
    if reusable is not None:
        execution.finish(reusable)
        return future
    pumped = Pumped(execution, runner, contextvars.copy_context())
    try:
        scope.futures.add(future)
        pumped.advance()
    except BaseException:  # a signal, before the run had begun: nobody has to wait for it
        if execution.run.events == 0:
            scope.futures.discard(future)
        raise
    if pumped.interrupt is not None:  # the run has heard of it; the submitter has to, too
        raise pumped.interrupt
    return future


_ELSEWHERE = object()


class Pumped:
    """One task run on its way through a runner."""

    __slots__ = ("context", "execution", "interrupt", "journey", "runner", "takes_turns", "turn_on")

    def __init__(self, execution: TaskExecution, runner: Runner, context: contextvars.Context) -> None:
        self.execution = execution
        self.runner = runner
        self.context = context
        self.interrupt: BaseException | None = None
        # What runs on a thread of the pool is Running from when the thread takes it up, not from when it joins the line.
        self.takes_turns = not runner.remote and not execution.task.isasync
        self.turn_on: int | None = None
        # Likewise what runs on a worker elsewhere.
        self.journey: Journey | None = None

    def advance(self, answer: Any = None, held: c.Command | None = None) -> None:
        """Give the engine an answer and go on until the next one has to come from elsewhere.

        Args:
            answer: to the engine's last command.
            held: that command itself, where it has still to be answered.
        """
        steps = self.execution.steps
        error: BaseException | None = None
        while not (is_over(steps) or is_going_on(steps)):  # a signal may have ended it while the answer came
            try:
                self._go_on(answer, error, held)
                return
            except BaseException as between:  # a signal, between an answer and the next command
                if is_over(steps):
                    raise
                error, held = self._noted(between), None

    def _go_on(self, answer: Any, error: BaseException | None, held: c.Command | None) -> None:
        execution = self.execution
        steps = execution.steps
        try:
            while True:
                command = held or (steps.send(answer) if error is None else steps.throw(error))
                error = held = None
                try:
                    answer = self._answer(command)
                    if answer is _ELSEWHERE:
                        return
                except (Fenced, InvalidMove):
                    raise
                except BaseException as raised:
                    error = self._noted(raised)
        except StopIteration as stop:
            execution.finish(stop.value)
        except (Fenced, InvalidMove) as refused:
            # Taken over or abandoned: somebody else has said how this run ended.
            if not execution.abandoned and execution.future is not None and not execution.future.done():
                execution.finish(Crashed(message=str(refused), data=refused))
        except BaseException as unexpected:
            if not is_over(steps):
                raise
            if execution.state is not None and execution.state.is_final():
                self._noted(unexpected)  # it came after the end
                execution.finish(execution.state)
                return
            logger.exception("The shell of task run %s failed.", execution.id)
            if execution.future is not None and not execution.future.done():
                execution.finish(Crashed(message=f"The engine failed: {unexpected}", data=unexpected))

    def _answer(self, command: Any) -> Any:
        """The answer, or `_ELSEWHERE` where somebody else will give it by calling `advance`."""
        kind = type(command)
        if kind is c.Record:
            if self.takes_turns and command.state.is_running() and not self._has_turn():
                return self._lined_up(command)
            if self.runner.remote and command.state.is_running() and self._sets_off(command):
                return _ELSEWHERE
            return self._begun(command.state)
        if kind is c.AwaitKey:
            return _ELSEWHERE if self._waits_for_key() else key_waits.if_stopped(self.execution)
        if kind is c.CallBody:
            if self._has_turn():
                return self._call_stoppably()
            if self.journey is not None:
                return self.journey.outcome() or _ELSEWHERE
        if kind is c.CallBody or kind is c.Sleep or kind is c.AwaitUpstream or (kind is c.Admit and command.wait):
            return _ELSEWHERE if self._elsewhere(command) else self._immediate(command)
        return self._at_once(command)

    def _lined_up(self, running: c.Record | None) -> Any:
        """In line for a thread, or the answer of somebody who would have the run end instead."""
        place, execution = task_controls.Place(), self.execution

        def leave_line() -> None:
            ending = task_controls.wished(execution)
            if ending is not None and place.taken():
                self.advance(ending)

        execution.waker = leave_line
        ending = task_controls.wished(execution)
        if ending is not None and place.taken():
            return ending
        self.runner.start(partial(self._turn, running, place), _nothing_more, execution.ledger.log)
        return _ELSEWHERE

    def _sets_off(self, running: c.Record) -> bool:
        """Whether the call is on its way to a worker now; if it has been taken up, or is not to begin, it is not."""
        if self.journey is not None and self.journey.running is running:
            return False
        self.journey = None
        if self.execution.stopped() is not None:
            return False
        self.execution.waker = None  # of an earlier journey
        self.journey = Journey(self, running)
        self.journey.begin()
        return True

    def _begun(self, state: State[Any]) -> Any:
        """The state as recorded; where a call elsewhere was to begin, and is not to any more, the ending instead."""
        if self.runner.remote and self.journey is None and state.is_running():
            ending = task_controls.wished(self.execution)
            if ending is not None:
                return ending
        return self._recorded(state)

    def _recorded(self, state: State[Any]) -> State[Any]:
        execution = self.execution
        if state.is_final() and execution.transacts:
            return self.context.copy().run(execution.record_here, state)
        return execution.record(state)

    def _waits_for_key(self) -> bool:
        """Whether somebody will go on when it is worth looking the key up again."""
        execution, key = self.execution, self.execution.cache_key
        scope = execution.scope
        assert scope is not None
        assert key is not None
        once = _Once()

        def wake() -> None:
            scope.stoppers.discard(wake)
            if once.first():
                self._look_again()

        scope.stoppers.add(wake)
        execution.waker = wake
        if execution.home.keys.wait(key, execution, wake) and execution.stopped() is None:
            return True
        scope.stoppers.discard(wake)
        return not once.first()

    def _look_again(self) -> None:
        stopped = key_waits.if_stopped(self.execution)
        if stopped is None and self.takes_turns:
            try:
                answer = self._lined_up(None)
                if answer is not _ELSEWHERE:
                    self.advance(answer)
                return
            except RuntimeError:  # no more threads: on this one then
                pass
        self.advance(stopped)

    def _has_turn(self) -> bool:
        return self.turn_on == threading.get_ident()

    def _at_once(self, command: c.Command) -> Any:
        if type(command) is c.Translate:
            self._noted(command.error)
        return self.context.copy().run(self.execution.answer_at_once, command)

    def _noted(self, error: BaseException) -> BaseException:
        if isinstance(error, KeyboardInterrupt | RunCancelled):
            self.interrupt = error
        return error

    def _elsewhere(self, command: Any) -> bool:
        """Whether the command is being answered by somebody who will call `advance`."""
        execution = self.execution
        if type(command) is c.AwaitUpstream:
            pending = [item for item, _ in execution.upstream() if isinstance(item, PrefectFuture) and not item.done()]
            if not pending:
                return False
            self._await(pending)
            return True
        if execution.stopped() is not None:
            return False
        if type(command) is c.Sleep:
            self._sleep(command.seconds)
            return True
        if type(command) is c.Admit:
            self._wait_in_line()
            return True
        self._call()
        return True

    def _await(self, pending: list[PrefectFuture[Any]]) -> None:
        place, execution = task_controls.Place(), self.execution

        def go_on() -> None:
            if place.taken():
                self.advance(self._resolved())

        def end() -> None:
            ending = task_controls.wished(execution)
            if ending is not None and place.taken():
                self.advance(ending)

        execution.waker = end
        _Countdown(len(pending), go_on).watch(pending)
        if execution.wish is not None:
            end()

    def _resolved(self) -> Any:
        execution = self.execution
        ending = task_controls.wished(execution)
        if ending is not None:
            return ending
        needs_values = not self.runner.remote or execution.plan.cached or execution.task.task_run_name is not None
        stays = None if needs_values else partial(leaves_in_place, self.runner)
        return self.context.copy().run(execution.resolve_upstream, stays)

    def _immediate(self, command: Any) -> Any:
        if type(command) is c.AwaitUpstream:
            return self._resolved()
        return self.execution.stopped()

    def _sleep(self, seconds: float) -> None:
        execution = self.execution
        scope = execution.scope
        assert scope is not None
        once = _Once()

        def wake() -> None:
            scope.stoppers.discard(wake)
            if once.first():
                self.advance(task_controls.woken(execution))

        scope.stoppers.add(wake)
        execution.waker = wake
        self.turn_on = None  # the next turn is another one; a thread that wakes the run may have got this one's number
        call_later(0.0 if execution.wish is not None else seconds, wake)

    def _wait_in_line(self) -> None:
        scope = self.execution.scope
        assert scope is not None
        once = _Once()

        def stop() -> None:
            stopped = self.execution.stopped()
            if stopped is not None:
                go_on(stopped)

        def go_on(answer: Any) -> None:
            scope.stoppers.discard(stop)
            if not once.first():
                return
            if self.execution.plan.hooks:  # code of the user's, for which others in line must not wait
                threading.Thread(target=self.advance, args=(answer,), name="prefect_nb-admitted", daemon=True).start()
            else:
                self.advance(answer)

        scope.stoppers.add(stop)
        self.execution.waker = stop
        admission.elsewhere(self.execution, go_on)
        if scope.stopping or self.execution.wish is not None:
            stop()

    def _call(self) -> None:
        execution = self.execution
        if execution.task.isasync:
            # A copy: the attempt before may be still in its last step, in its own.
            portal.spawn(self._await_and_advance, self.context.copy())

    def _turn(self, running: c.Command | None, place: task_controls.Place, _emit: Emit) -> c.Outcome:
        """On a thread of the pool: from Running to the end, or to where something has to be waited for."""
        if not place.taken():
            return c.Returned(None)
        # Not taken back at the end: after a delay the next turn may begin on another thread before this one is over. For
        # the same reason it gets a context of its own.
        self.turn_on = threading.get_ident()
        self.context.copy().run(self.advance, None, running)
        return c.Returned(None)

    def _call_stoppably(self) -> c.TaskOutcome:
        scope = self.execution.scope
        assert scope is not None
        try:
            with scope.stoppable_thread(), blocking.working_in(self.runner):
                outcome = self.execution.call_here()
            for _ in range(3):  # a stop sent just before arrives here, not in the pool's own code
                pass
        except RunCancelled as late:
            return self.execution.settle(c.Stopped(late, scope.reason))
        return outcome

    async def _await_and_advance(self) -> None:
        import asyncio

        scope = self.execution.scope
        assert scope is not None
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        stop = partial(_cancel_soon, loop, task)
        scope.stoppers.add(stop)
        try:
            outcome = await self.execution.await_here()
        finally:
            scope.stoppers.discard(stop)
        self.advance(outcome)


def _nothing_more(_outcome: c.Outcome) -> None:
    """A turn has carried its run on by itself."""


def _cancel_soon(loop: Any, task: Any) -> None:
    loop.call_soon_threadsafe(task.cancel)


class _Once:
    """Says to the first who asks that they are the first."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def first(self) -> bool:
        return self._lock.acquire(blocking=False)


class _Countdown:
    """Calls an action when the last of several futures has ended."""

    __slots__ = ("_action", "_left", "_lock")

    def __init__(self, count: int, action: Any) -> None:
        self._left = count
        self._action = action
        self._lock = threading.Lock()

    def watch(self, futures: list[PrefectFuture[Any]]) -> None:
        for future in futures:
            future.add_done_callback(self._one_done)

    def _one_done(self, _future: PrefectFuture[Any]) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._action()


def wait_for_children(scope: Scope, grace: float) -> None:
    """Wait until every submitted run of a scope has ended.

    While the scope is being cancelled, runs that have not ended after `grace` seconds are abandoned as Cancelled.
    """
    import time

    from prefect_nb.execution.futures import wait

    deadline: float | None = None
    while scope.futures:
        wait(list(scope.futures), timeout=0.2 if not scope.stopping else 0.05)
        if not scope.stopping:
            continue
        deadline = deadline or time.monotonic() + grace
        if time.monotonic() > deadline:
            abandon_children(scope)
            return


def abandon_children(scope: Scope) -> None:
    """End what has not ended as Cancelled, although threads may still be at it."""
    for future in list(scope.futures):
        if future._execution is not None:
            future._execution.abandon(_cancelled(scope))


def _cancelled(scope: Scope) -> State[Any]:
    return Cancelled(message=f"{scope.reason} Its thread did not stop in time and was left behind.")
