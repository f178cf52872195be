"""One task run with its shell: answers what `engine.task_run` asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec.structs import replace

from prefect_nb.engine import commands as c
from prefect_nb.engine.task_run import Steps, TaskPlan, task_run
from prefect_nb.exceptions import Fenced, InvalidMove, RunCancelled, TaskRunTimeoutError
from prefect_nb.execution import (
    admission,
    attempts,
    caching,
    delays,
    failures,
    hooks,
    inputs,
    keeping,
    key_waits,
    keys,
    lineage,
    logs,
    portal,
    replay,
    stopping,
    taken_up,
    task_controls,
    transactions,
)
from prefect_nb.execution.calls import call_awaiting, call_blocking
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import TaskRunContext, current_flow, current_tags, current_task
from prefect_nb.execution.futures import PrefectFuture
from prefect_nb.execution.generated import Items
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.kept import KeptResult
from prefect_nb.execution.recorder import clean, created, moved, stamp
from prefect_nb.execution.scope import Scope
from prefect_nb.execution.steps import awaiting, blocking
from prefect_nb.interfaces import Entry
from prefect_nb.model.events import Renamed, apply
from prefect_nb.model.fingerprint_parts import Part
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import TERMINAL_STATES, State, StateType

if TYPE_CHECKING:
    from prefect_nb.execution.limits import Hold
    from prefect_nb.execution.shapes import Surroundings

_NOT_SET = object()


class TaskExecution:
    """A task run in this process.

    Args:
        home: where it is recorded.
        task: the task (its `fn`, options and signature).
        parameters: arguments by name, futures still in them.
        scope: the flow run it belongs to; None outside any.
        wait_for: further upstream runs.
        persist: whether its result is kept.
    """

    __slots__ = (
        "abandoned",
        "alone",
        "args",
        "body_on",
        "body_thread",
        "cache_key",
        "dynamic_key",
        "enclosing",
        "fatal",
        "flow",
        "future",
        "held_around",
        "hold",
        "home",
        "id",
        "key_held",
        "key_parts",
        "ledger",
        "lock",
        "log_prints",
        "note",
        "outputs",
        "parameters",
        "parent",
        "persist",
        "plan",
        "proposed",
        "proposed_at",
        "returned",
        "run",
        "scope",
        "state",
        "steps",
        "task",
        "transaction",
        "wait_for",
        "waker",
        "wish",
    )  # fmt: skip

    body_thread: int | None
    body_on: int | None
    """The thread that is calling the body right now."""
    wish: task_controls.Wish | None
    waker: Callable[[], Any] | None
    """How whoever waits for something on behalf of the run is woken; when that is over, it does nothing."""

    def __init__(
        self,
        home: Surroundings,
        task: Any,
        parameters: dict[str, Any],
        *,
        scope: Scope | None,
        args: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
        wait_for: Any = None,
        persist: bool = False,
    ) -> None:
        self.home = home
        self.ledger = home.ledger
        self.task = task
        self.parameters = parameters
        self.args = args
        self.scope = scope
        self.wait_for = wait_for
        self.persist = persist
        special = wait_for is not None or inputs.has_special(parameters)
        self.plan: TaskPlan = task.plan(persist, special)
        limited = home.limits.limited_tags()
        if limited and not limited.isdisjoint(task.tags | current_tags()):
            self.plan = replace(self.plan, limited=True)
        self.hold: Hold | None = None
        self.id = new_id()
        self.run: TaskRun = _NO_RUN
        self.state: State[Any] | None = None
        self.steps: Steps = task_run(self.plan)
        self.lock: AbstractContextManager[Any] = threading.RLock()
        self.future: PrefectFuture[Any] | None = None
        self.fatal: BaseException | None = None
        self.returned: Any = _NOT_SET
        self.cache_key: str | None = None
        self.key_parts: list[Part] | None = None
        self.key_held: str | None = None
        self.alone = False
        self.body_thread = self.body_on = self.wish = self.waker = None
        self.held_around = keys.held.get()
        self.transaction: attempts.AttemptTransaction | None = None
        self.note: str | None = None
        self.outputs: replay.Outputs | replay.Shown | None = None
        self.abandoned = False
        self.proposed: State[Any] | None = None
        self.proposed_at = 0
        self.flow = current_flow.get()
        outer = current_task.get()
        self.enclosing = transactions.open_around(outer)
        # A cell is where the notebook run's own task runs are called; those of a flow inside it have the flow.
        cell = home.current_cell() if outer is None and scope is not None and scope.shared else None
        self.parent: TaskRun | None = outer.execution.run if outer is not None else cell
        self.log_prints: bool = task.log_prints
        if task.log_prints is None:
            alone = scope is None and outer is None
            self.log_prints = home.settings.logging_log_prints if alone else logs.log_prints.get()
        if self.log_prints:
            logs.install()
        self.dynamic_key = scope.position(self.parent, task.task_key) if scope is not None else str(self.id)
        if scope is not None and scope.previous:
            taken_up.be_the_run_before(self, scope)

    # Answers

    def answer_blocking(self, command: c.Command) -> Any:
        """Answer a command of the engine on this thread."""
        match command:
            case c.Record(state):
                return self.record_here(state)
            case c.CallBody():
                return self.call_here()
            case c.AwaitKey():
                return key_waits.block(self)
            case c.AwaitUpstream():
                for item, _ in self.upstream():
                    if isinstance(item, PrefectFuture) and not item.done():
                        task_controls.wait_for(self, item)
                return task_controls.wished(self) or self.resolve_upstream()
            case c.Sleep(seconds):
                return delays.sleep(self, seconds)
            case c.Admit(wait=True):
                return admission.by_waiting(self)
        return self.answer_at_once(command)

    async def answer_awaiting(self, command: c.Command) -> Any:
        """Answer a command of the engine on this loop."""
        match command:
            case c.Record(state):
                self.record(state)
                if state.is_final() and self.transacts and not attempts.settled(self, state):
                    await awaiting(attempts.ended(self, state))
                return state
            case c.CallBody():
                return await self.await_here()
            case c.AwaitKey():
                return await key_waits.wait(self)
            case c.AwaitUpstream():
                for item, _ in self.upstream():
                    if isinstance(item, PrefectFuture) and not item.done():
                        await task_controls.unless_wished(self, task_controls.ended(item))
                return task_controls.wished(self) or self.resolve_upstream()
            case c.Sleep(seconds):
                import asyncio

                await task_controls.unless_wished(self, asyncio.sleep(seconds))
                return task_controls.woken(self)
            case c.Admit(wait=True):
                return await admission.by_awaiting(self)
            case c.Fire(kind, state):
                with logs.sent_to(self.ledger.log):
                    for hook in hooks.fire(self.task, self.run, kind, state):
                        await hook
                return None
            case c.AskRetry(state):
                with logs.sent_to(self.ledger.log):
                    answer = hooks.ask_retry(self.task, self.run, state)
                    return answer if isinstance(answer, bool) else bool(await answer)
        return self.answer_at_once(command)

    def answer_at_once(self, command: c.Command) -> Any:
        """Answer a command that needs no waiting."""
        with logs.sent_to(self.ledger.log):
            match command:
                case c.LookUp():
                    return caching.look_up(self)
                case c.Keep(value):
                    return self.keep(value)
                case c.Delay(attempt):
                    return delays.delay(self, attempt)
                case c.Admit():
                    return admission.at_once(self)
                case c.Translate(error):
                    return self.translate(error)
                case c.Fire(kind, state):
                    hooks.run_all(hooks.fire(self.task, self.run, kind, state))
                    return None
                case c.AskRetry(state):
                    answer = hooks.ask_retry(self.task, self.run, state)
                    return answer if isinstance(answer, bool) else bool(portal.run_sync(answer))
        raise NotImplementedError(command)

    # Recording

    def record(self, state: State[Any]) -> State[Any]:
        """Record a state. A state with a time of its own (AwaitingRetry) gets it here."""
        if self.hold is None and self.cache_key is None:  # nothing that others wait for
            return self._record(state)
        try:
            return self._record(state)
        except (Fenced, InvalidMove):
            key_waits.release(self)
            raise
        finally:
            if self.hold is not None and (state.is_final() or state.name == "AwaitingRetry"):
                admission.leave(self)

    def _record(self, state: State[Any]) -> State[Any]:
        with self.lock:
            if self.abandoned:
                raise InvalidMove(f"Task run {self.run.name!r} ({self.id}) was cancelled while it ran.")
            flow_run_id = self.scope.flow_run_id if self.scope is not None else None
            again = self.proposed is state and self.run.events > self.proposed_at
            if not again:
                self.proposed, self.proposed_at = state, self.run.events
            if again:  # a signal came right after it was appended
                stamp(state, self.run)
            elif self.run.events == 0:
                if self.scope is not None and self.scope.closed and self.scope.stopping:
                    raise InvalidMove(f"{self.task.name!r} was called after its flow run was cancelled.")
                run = lineage.first_snapshot(self, state)
                self.ledger.append(Entry(run, created(run, state), flow_run_id), flow_run_id, self)
            else:
                resumed = self.state is None
                completed = state.type is StateType.COMPLETED
                moved(
                    self.ledger,
                    self.run,
                    state,
                    flow_run_id,
                    note=self.note if completed else None,
                    cache_key=self._key_to_index(state) if completed and self.cache_key is not None else None,
                    taken_over=resumed,
                    holder=self,
                )
            self.state = state
        if state.type in TERMINAL_STATES and self.scope is not None and self.scope.durable:
            self.ledger.commit(flow_run_id=flow_run_id)
        return state

    def _key_to_index(self, state: State[Any]) -> str | None:
        return self.cache_key if state.name != "Cached" and keeping.indexes(self) else None

    def record_here(self, state: State[Any]) -> State[Any]:
        """Record a state; if it is final, the run's transaction ends, too."""
        if self.hold is None and self.cache_key is None:
            self._record(state)
        else:
            self.record(state)
        if state.type in TERMINAL_STATES and self.transacts and not attempts.settled(self, state):
            blocking(attempts.ended(self, state))
        return state

    def abandon(self, state: State[Any]) -> None:
        """End the run in this state although its body may still be running; what it does later counts no more."""
        with self.lock:
            if self.state is not None and self.state.is_final():
                return
            self._record(state)  # what it holds under its limits it holds until its body is over
            self.abandoned = True
        self.finish(state)

    def templated_name(self) -> str:
        """The run's name by the task's `task_run_name`."""
        token = current_task.set(TaskRunContext(self))
        try:
            name = self.task.run_name(self.parameters)
        finally:
            current_task.reset(token)
        return clean(name) or name

    @property
    def reusable(self) -> State[Any] | None:
        """On a resume: the completed state of this very run from before, if its result was kept and is whole."""
        if self.run.events == 0 or self.state is not None or self.run.result is None:
            return None
        return taken_up.reusable_state(self)

    def rename_if_waiting(self) -> None:
        """Give the run its templated name once the parameters are known."""
        if self.task.task_run_name is None or not self.plan.has_upstream:
            return
        with self.lock:
            event = Renamed(self.id, now_us(), self.templated_name())
            entry = Entry(apply(self.run, event), event, self.run.flow_run_id)
            self.ledger.append(entry, self.run.flow_run_id, self)

    # Upstream

    def upstream(self) -> list[tuple[Any, bool]]:
        """The futures and states this run depends on, with whether their failure is allowed."""
        return inputs.find((self.parameters, self.wait_for))

    def resolve_upstream(self, stays: Callable[[Any], bool] | None = None) -> c.Ready | c.NotReady:
        """Put the upstream values into the parameters; every upstream run has ended.

        Args:
            stays: says of a value's handle that it goes into the parameters in place of the value.
        """
        for item, allowed in self.upstream():
            future = isinstance(item, PrefectFuture)
            state = item.state if future else item
            if not state.is_completed() and not (allowed and state.is_final()):
                run_id = item.task_run_id if future else state.state_details.task_run_id
                return c.NotReady(f"Upstream task run '{run_id}' did not reach a 'COMPLETED' state.")
        self.parameters = {name: inputs.resolve(value, stays) for name, value in self.parameters.items()}
        self.args = None
        self.rename_if_waiting()
        return c.Ready()

    # The body

    def stopped(self) -> c.Ending | None:
        """An outcome, if the flow run is being cancelled, or somebody wishes the task run to end."""
        if self.scope is not None and self.scope.stopping:
            return c.Stopped(None, self.scope.reason)
        return None if self.wish is None else task_controls.ending(self.wish)

    def call_here(self) -> c.TaskOutcome:
        """Call the sync body on this thread."""
        stopped = self.stopped()
        if stopped is not None:
            return stopped
        outcome: c.TaskOutcome | None = None
        fn = self.task.whole
        args, kwargs = self.args or self.task.signature.call_args(self.parameters)
        token = current_task.set(TaskRunContext(self))
        prints = logs.log_prints.set(self.log_prints)
        sink = logs.emit_to.set(self.ledger.log) if logs.emit_to.get() is None else None
        seen = replay.watch(self) if self.cache_key is not None else None
        held = keys.enter(self, self.key_held) if self.key_held is not None else None
        try:
            self.body_on = threading.get_ident()
            outcome = self.stopped() or call_blocking(
                lambda: fn(*args, **kwargs), self.task.timeout_seconds, self.timed_out
            )
            self.body_on = None
            if self.wish is not None:
                task_controls.landed(self)
        except task_controls.TaskStopped as late:  # between the body and here
            self.body_on = None
            outcome = outcome or c.Stopped(late)
        finally:
            if held is not None:
                keys.leave(self, held)
            if seen is not None:
                seen.close()
            current_task.reset(token)
            logs.log_prints.reset(prints)
            if sink is not None:
                logs.emit_to.reset(sink)
        outcome = self.settle(outcome)
        if self.transaction is not None and type(outcome) is not c.Returned:
            blocking(self.transaction._rolling_back())
            self.transaction = None
        return outcome

    async def await_here(self) -> c.TaskOutcome:
        """Await the async body on this loop."""
        body = task_controls.AwaitedBody(self)
        stopped = self.stopped()
        if stopped is not None:
            return stopped
        fn = self.task.whole
        args, kwargs = self.args or self.task.signature.call_args(self.parameters)
        token = current_task.set(TaskRunContext(self))
        prints = logs.log_prints.set(self.log_prints)
        sink = logs.emit_to.set(self.ledger.log) if logs.emit_to.get() is None else None
        seen = replay.watch(self) if self.cache_key is not None else None
        held = keys.enter(self, self.key_held) if self.key_held is not None else None
        try:
            outcome: c.TaskOutcome = await call_awaiting(
                lambda: fn(*args, **kwargs), self.task.timeout_seconds, self.timed_out
            )
        finally:
            body.ended()
            if held is not None:
                keys.leave(self, held)
            if seen is not None:
                seen.close()
            current_task.reset(token)
            logs.log_prints.reset(prints)
            if sink is not None:
                logs.emit_to.reset(sink)
        outcome = self.settle(outcome)
        if self.transaction is not None and type(outcome) is not c.Returned:
            await awaiting(self.transaction._rolling_back())
            self.transaction = None
        return outcome

    @contextmanager
    def _inside(self) -> Iterator[None]:
        token = current_task.set(TaskRunContext(self))
        prints = logs.log_prints.set(self.log_prints)
        sink = logs.emit_to.set(self.ledger.log) if logs.emit_to.get() is None else None
        try:
            yield
        finally:
            current_task.reset(token)
            logs.log_prints.reset(prints)
            if sink is not None:
                logs.emit_to.reset(sink)

    def items(self, _command: c.CallBody) -> Items:
        """One call of a body that is a generator."""
        args, kwargs = self.args or self.task.signature.call_args(self.parameters)
        body = partial(self.task.fn, *args, **kwargs)
        return Items(body, self._inside, self._track, self.timed_out, self.task.timeout_seconds, self.plan.persisted)

    @property
    def has_returned(self) -> bool:
        """Whether the body was called and came to its end, rather than its kept result taken."""
        return self.returned is not _NOT_SET

    def settle_items(self, items: Items) -> c.TaskOutcome:
        """What came out of it."""
        return self.settle(items.outcome)

    def _track(self, item: Any) -> None:
        if self.scope is not None:
            self.scope.track(item, self.id)

    def settle(self, outcome: c.TaskOutcome) -> c.TaskOutcome:
        """What came out of the body, seen with what is known of the run: note the value or what must be raised."""
        if self.wish is not None:
            outcome = task_controls.settled(self, outcome)
        if type(outcome) is replay.ReturnedShowing:
            self.outputs = outcome.shown
            outcome = c.Returned(outcome.value)
        if type(outcome) is c.Returned:
            self.returned = outcome.value
            return outcome
        if type(outcome) is c.Raised or type(outcome) is c.TimedOut:
            failures.note(self, outcome.error)
        elif type(outcome) is c.Interrupted:
            self.fatal = outcome.error
            return stopping.of_task(self.scope, outcome)
        elif type(outcome) is c.Stopped and outcome.error is not None:
            self.fatal = outcome.error
            if isinstance(outcome.error, task_controls.TaskStopped):
                return c.Stopped(outcome.error, "The task run that called it was stopped.")
            if self.scope is not None:
                return c.Stopped(outcome.error, self.scope.reason)
        return outcome

    def timed_out(self) -> Exception:
        """The exception that stands for a timeout."""
        return TaskRunTimeoutError(f"Task run exceeded timeout of {self.task.timeout_seconds} second(s)")

    # The transaction

    @property
    def transacts(self) -> bool:
        """Whether somebody has to hear of how the run's transaction ends."""
        return self.enclosing is not None or self.transaction is not None or bool(self.task.on_commit_hooks)

    def attempt(self) -> attempts.AttemptTransaction:
        """The transaction that this attempt is."""
        if self.transaction is None:
            with self.lock:
                if self.transaction is None:
                    self.transaction = attempts.AttemptTransaction(self)
        return self.transaction

    # The result

    def keep(self, value: Any) -> Any:
        """Keep a result. Where it cannot be kept: a note, or in a durable flow a Failed state."""
        if self.enclosing is not None and self.enclosing.defers:
            return None  # its transaction does, when it commits
        return keeping.keep(self, value)

    def expires_us(self) -> int | None:
        """When the result stops counting as a cache hit."""
        expiration: timedelta | None = self.task.cache_expiration
        return None if expiration is None else now_us() + expiration // timedelta(microseconds=1)

    # The end

    def translate(self, error: BaseException) -> BaseException:
        """An interruption between two commands: a cancel if one was asked for, else a crash. Raised again at the end."""
        self.fatal = error
        if self.scope is not None and self.scope.stopping and isinstance(error, KeyboardInterrupt):
            return RunCancelled(self.scope.reason)
        return error

    def finish(self, state: State[Any]) -> None:
        """The engine is done."""
        if self.key_held is not None or self.key_parts is not None:
            # A serializable transaction has its keys until it ends.
            waits = self.transaction is not None and self.transaction.defers and not self.transaction.is_over
            if not (waits and self.task.cache_policy.isolation_level == "SERIALIZABLE"):
                key_waits.release(self, kept=type(state.data) is KeptResult)
        if state.type is StateType.COMPLETED and self.scope is not None:
            data = state.data
            self.scope.track(data.get() if type(data) is KeptResult else data, self.id)
        if self.future is not None:
            if self.scope is not None:
                self.scope.futures.discard(self.future)
            self.future._set_final(state)
        elif self.scope is not None:
            self.scope.direct.discard(self)

    def outcome(self, return_state: bool) -> Any:
        """What a direct call hands back: the value, or the state; raises what the body raised.

        A body that returned a `State` hands it back as it is, whatever its type.
        """
        state = self.state
        assert state is not None
        if self.fatal is not None:
            raise self.fatal
        if state.is_cancelled() and self.scope is not None and self.scope.stopping:
            raise RunCancelled(state.message or "Run cancelled.")
        if return_state:
            return state
        if isinstance(self.returned, State) or (state.data is self.returned and not state.is_completed()):
            return self.returned  # whatever it says of the run: it is what the body gave
        if state.is_completed():
            return state.value()
        if not state.is_final():
            return None
        return state.value()


_NO_RUN = TaskRun(id=UUID(int=0), name="")
