"""One flow run with its shell: answers what `engine.flow_run` asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from prefect_nb.engine import commands as c
from prefect_nb.engine.flow_run import FlowPlan, Steps, flow_run
from prefect_nb.engine.judging import judge_return
from prefect_nb.exceptions import (
    CancelledRun,
    ConfigurationError,
    Fenced,
    FlowRunTimeoutError,
    ParameterTypeError,
    Pause,
    RunCancelled,
    SerializationError,
    StorageFull,
    StoreUnavailable,
)
from prefect_nb.execution import hooks, inputs, interrupts, logs, pausing, pump, stopping, transactions
from prefect_nb.execution.calls import call_awaiting, call_blocking
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import FlowRunContext, current_flow, current_task
from prefect_nb.execution.futures import PrefectFuture
from prefect_nb.execution.generated import Items
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.kept import KeptResult
from prefect_nb.execution.recorder import created, moved, stamp
from prefect_nb.execution.same_path import RecordedPath
from prefect_nb.execution.scope import Scope
from prefect_nb.interfaces import Entry, Request, RunQuery
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, Cancelling, Failed, State, StateType, Suspended

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import Surroundings

CANCEL_GRACE_SECONDS = 5.0


class FlowExecution:
    """A flow run in this process.

    Args:
        home: where it is recorded.
        flow: the flow (its `fn`, options and signature).
        run: the snapshot to start from: fresh (`events == 0`) or, on a resume, as the store has it.
        parameters: arguments by name; futures still in them.
        scope: what its task runs will share.
        wait_for: upstream runs, of a sub-flow.
        parent: the enclosing flow run's scope, of a sub-flow.
        invalid: why its parameters do not fit.
    """

    def __init__(
        self,
        home: Surroundings,
        flow: Any,
        run: FlowRun,
        parameters: dict[str, Any],
        scope: Scope,
        *,
        wait_for: Any = None,
        parent: Scope | None = None,
        parent_task_run: TaskRun | None = None,
        invalid: Exception | None = None,
        persist: bool = False,
    ) -> None:
        self.home = home
        self.ledger = home.ledger
        self.flow = flow
        self.run = run
        self.parameters = parameters
        self.scope = scope
        if flow.result_storage is not None:
            scope.result_storage = flow.result_storage
        if flow.result_serializer is not None:
            scope.result_serializer = flow.result_serializer
        scope.on_wish = self.carry_out
        scope.on_linger = self.linger
        self.parent = parent
        self.persist = persist
        self.wait_for = wait_for
        self.dummy = parent_task_run
        self.resumed = run.events > 0
        self.reopens_dummy = parent_task_run is not None and parent_task_run.events > 0
        self.task_runner = flow.task_runner
        self.state: State[Any] | None = None
        self.fatal: BaseException | None = None
        self.returned: Any = None
        self.collected = False
        """Whether the body returned a collection: its caller gets it, whatever the states in it say of the run."""
        self.pause: Pause | None = None
        self.watches_path = self.resumed and scope.durable
        self.proposed: State[Any] | None = None
        self.proposed_at = 0
        self.lock = threading.Lock()
        self.in_body = False
        wanted = flow.log_prints
        if wanted is None:
            inherited = logs.log_prints.get() if parent is not None else home.settings.logging_log_prints
            wanted = inherited
        self.log_prints: bool = wanted
        if wanted:
            logs.install()
        self.plan = FlowPlan(
            retries=run.retries,
            retry_delay=run.retry_delays[0] if run.retry_delays else 0.0,
            persisted=persist,
            hooks=flow.hook_kinds,
            has_upstream=wait_for is not None or inputs.has_special(parameters),
            invalid=invalid,
        )
        self.steps: Steps = flow_run(self.plan)

    # Answers

    def answer_blocking(self, command: c.Command) -> Any:
        """Answer a command of the engine on this thread."""
        match command:
            case c.Record(state):
                return self.record(state)
            case c.CallBody(attempt):
                if attempt > 1:
                    self.scope.begin_again()
                return self.call_here()
            case c.Conclude(value):
                self.wait_for_children_here()
                return self.conclude(value)
            case c.Leave(pause):
                self.wait_for_children_here()
                return self.leave(pause)
            case c.AwaitUpstream():
                for item, _ in self.upstream():
                    if isinstance(item, PrefectFuture):
                        item.wait()
                return self.resolve_upstream()
            case c.Sleep(seconds):
                return self.sleep(seconds)
        return self.answer_at_once(command)

    async def answer_awaiting(self, command: c.Command) -> Any:
        """Answer a command of the engine on this loop."""
        match command:
            case c.Record(state):
                return self.record(state)
            case c.CallBody(attempt):
                if attempt > 1:
                    self.scope.begin_again()
                return await self.await_here()
            case c.Conclude(value):
                await self.wait_for_children()
                return self.conclude(value)
            case c.Leave(pause):
                await self.wait_for_children()
                return self.leave(pause)
            case c.AwaitUpstream():
                import asyncio

                for item, _ in self.upstream():
                    if isinstance(item, PrefectFuture) and not item.done():
                        await asyncio.to_thread(item.wait)
                return self.resolve_upstream()
            case c.Sleep(seconds):
                import asyncio

                await asyncio.sleep(seconds)
                return self.stopped()
            case c.Fire(kind, state):
                with logs.sent_to(self.ledger.log):
                    for hook in hooks.fire(self.flow, self.run, kind, state):
                        await hook
                return None
        return self.answer_at_once(command)

    def answer_at_once(self, command: c.Command) -> Any:
        """Answer a command that needs no waiting."""
        with logs.sent_to(self.ledger.log):
            match command:
                case c.Fire(kind, state):
                    hooks.run_all(hooks.fire(self.flow, self.run, kind, state))
                    return None
                case c.Keep(value):
                    return self.keep(value)
                case c.Translate(error):
                    return self.translate(error)
        raise NotImplementedError(command)

    # Recording

    def record(self, state: State[Any]) -> State[Any]:
        """Record a state; the run's own final state is durable when this returns."""
        if state.type is StateType.CANCELLED or state.type is StateType.CRASHED:
            self._end_task_runs(state.type)
        with self.lock:
            again = self.proposed is state and self.run.events > self.proposed_at
            if not again:
                self.proposed, self.proposed_at = state, self.run.events
            if again:  # a signal came right after it was appended
                stamp(state, self.run)
            elif self.run.events == 0:
                now = now_us()
                run = replace(
                    self.run,
                    state_type=state.type,
                    state_name=state.name,
                    state_message=state.message,
                    state_id=new_id(),
                    state_us=now,
                    created_us=now,
                    expected_us=now,
                    events=1,
                )
                self.ledger.append(Entry(run, created(run, state), run.id), run.id, self)
            else:
                resumed = self.state is None
                moved(self.ledger, self.run, state, self.run.id, taken_over=resumed, holder=self)
            self.state = state
        self._mirror(state)
        if state.is_final() or state.is_paused():  # others act upon it from now on
            self.ledger.commit(flow_run_id=self.run.id)
        return state

    def _end_task_runs(self, type_: StateType) -> None:
        """Nothing of an ended run stays open: end the task runs whose threads were left behind."""
        try:
            self.ledger.commit(flow_run_id=self.run.id)
        except (StorageFull, StoreUnavailable):  # said when the final state is committed
            return
        open_types = tuple(set(StateType) - TERMINAL_STATES)
        query = RunQuery(flow_run_id=self.run.id, state_types=open_types, limit=1_000_000)
        for task_run in self.home.store.task_runs(query):
            if task_run.state_name != "NotReady":
                end: State[Any] = State(type=type_, message="Its flow run ended, and its thread was left behind.")
                moved(self.ledger, task_run, end, self.run.id)

    def _mirror(self, state: State[Any]) -> None:
        """Show the state on the task run that stands for this flow run in its parent."""
        if self.dummy is None or self.parent is None:
            return
        mirrored: State[Any] = State(type=state.type, name=state.name, message=state.message)
        mirrored.state_details.child_flow_run_id = self.run.id
        if self.dummy.events == 0:
            if self.dummy.state_type is not state.type:
                return
            now = now_us()
            self.dummy = replace(self.dummy, state_id=new_id(), state_us=now, created_us=now, expected_us=now, events=1)
            event = created(self.dummy, mirrored)
            self.ledger.append(Entry(self.dummy, event, self.parent.flow_run_id), self.parent.flow_run_id)
        elif self.reopens_dummy or not self.dummy.is_final:
            flow_run_id, reopens = self.parent.flow_run_id, self.reopens_dummy
            self.dummy = moved(self.ledger, self.dummy, mirrored, flow_run_id, taken_over=reopens)  # type: ignore[assignment]
            self.reopens_dummy = False
            if state.is_completed() and type(state.data) is KeptResult and self.dummy is not None:
                self.parent.finished_flows[self.dummy.task_key, self.dummy.dynamic_key] = state
        if state.is_completed():
            data = state.data
            self.parent.track_flow(data.get() if type(data) is KeptResult else data, self.run.id)

    # The body

    def upstream(self) -> list[tuple[Any, bool]]:
        """The futures and states this run depends on, with whether their failure is allowed."""
        return inputs.find((self.parameters, self.wait_for))

    def resolve_upstream(self) -> c.Ready | c.NotReady | c.Invalid:
        """Put the upstream values into the parameters; every upstream run has ended."""
        for item, allowed in self.upstream():
            future = isinstance(item, PrefectFuture)
            state = item.state if future else item
            if not state.is_completed() and not (allowed and state.is_final()):
                run_id = item.task_run_id if future else state.state_details.task_run_id
                return c.NotReady(f"Upstream task run '{run_id}' did not reach a 'COMPLETED' state.")
        self.parameters = {name: inputs.resolve(value) for name, value in self.parameters.items()}
        if self.flow.should_validate_parameters:
            try:
                self.parameters = self.flow.validate_parameters(self.parameters)
            except ParameterTypeError as error:
                return c.Invalid(error)
        self.scope.parameters = self.parameters
        return c.Ready()

    def stopped(self) -> c.Stopped | None:
        """An outcome, if the run is being cancelled."""
        return c.Stopped(None, self.scope.reason) if self.scope.stopping else None

    def call_here(self) -> c.Outcome:
        """Call the sync body on this thread."""
        args, kwargs = self.flow.signature.call_args(self.parameters)
        tokens = self._enter()
        self.in_body = True
        try:
            with interrupts.stoppable(self.scope):
                stopped = self.stopped()
                if stopped is not None:
                    return stopped
                outcome = call_blocking(
                    lambda: self.flow.whole(*args, **kwargs), self.flow.timeout_seconds, self.timed_out
                )
        except (KeyboardInterrupt, RunCancelled) as late:  # it arrived between two lines of ours
            outcome = c.Stopped(late, str(late) or None)
        finally:
            self._leave(tokens)
        return self.settle(outcome)

    async def await_here(self) -> c.Outcome:
        """Await the async body on this loop."""
        args, kwargs = self.flow.signature.call_args(self.parameters)
        tokens = self._enter()
        self.in_body = True
        try:
            with interrupts.stoppable_task(self.scope):
                stopped = self.stopped()
                if stopped is not None:
                    return stopped
                outcome = await call_awaiting(
                    lambda: self.flow.whole(*args, **kwargs), self.flow.timeout_seconds, self.timed_out
                )
        finally:
            self._leave(tokens)
        return self.settle(outcome)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        stoppable = interrupts.stoppable_task if self.flow.isasync else interrupts.stoppable
        tokens = self._enter()
        try:
            with stoppable(self.scope):
                if self.scope.stopping:
                    raise RunCancelled(self.scope.reason)
                yield
        finally:
            self._leave(tokens)

    def items(self, command: c.CallBody) -> Items:
        """One call of a body that is a generator."""
        if command.attempt > 1:
            self.scope.begin_again()
        args, kwargs = self.flow.signature.call_args(self.parameters)
        body = partial(self.flow.fn, *args, **kwargs)
        return Items(body, self._inside, _unseen, self.timed_out, self.flow.timeout_seconds, self.plan.persisted)

    def settle_items(self, items: Items) -> c.Outcome:
        """What came out of it."""
        return self.settle(items.outcome)

    def _enter(self) -> tuple[Any, ...]:
        if self.watches_path:
            self.watches_path = False
            if self.scope.again is None:
                self.scope.path = RecordedPath(self.run, self.scope.previous, not self.flow.isasync)
        outer = current_task.get()
        # What the task run's body calls by way of this flow is part of its transaction, too.
        around = transactions.active.set(transactions.get_transaction()) if outer is not None else None
        return (
            around,
            current_flow.set(FlowRunContext(self)),
            current_task.set(None),
            logs.log_prints.set(self.log_prints),
            logs.emit_to.set(self.ledger.log),
        )

    def _leave(self, tokens: tuple[Any, ...]) -> None:
        around, flow, task, prints, sink = tokens
        if around is not None:
            transactions.active.reset(around)
        current_flow.reset(flow)
        current_task.reset(task)
        logs.log_prints.reset(prints)
        logs.emit_to.reset(sink)

    def settle(self, outcome: c.Outcome) -> c.Outcome:
        """What came out of the body, seen with what is known of the run."""
        outcome = stopping.ended_early(self.scope, outcome)
        with self.lock:
            self.in_body = False
            is_cancelling = self.run.state_type is StateType.CANCELLING
        if is_cancelling and type(outcome) is c.Returned:
            return c.Stopped(None, self.scope.reason)
        if type(outcome) is c.Returned:
            self.returned = outcome.value
        elif type(outcome) is c.Interrupted:
            self.fatal = outcome.error
            if self.scope.stopping:
                return c.Stopped(outcome.error, self.scope.reason)
        elif type(outcome) is c.Stopped:
            self.fatal = outcome.error
            return c.Stopped(outcome.error, self.scope.reason)
        if self.scope.stopping and type(outcome) is not c.Returned:
            return c.Stopped(None, self.scope.reason)
        return outcome

    def linger(self) -> None:
        """The run was to stop some time ago. If it goes on, say so; from then on it can only be Cancelled."""
        with self.lock:
            is_held_up = self.fatal is not None and self.scope.stopping and bool(self.scope.futures)
            if (self.in_body or is_held_up) and self.run.state_type is StateType.RUNNING:
                what = "The code it is in has" if self.in_body else "The tasks it started have"
                again = " Another interrupt does not wait for that." if self.scope.stopped_by_keyboard else ""
                reason = f"{self.scope.reason} {what} not come to an end yet.{again}"
                with suppress(Fenced):
                    moved(self.ledger, self.run, Cancelling(message=reason), self.run.id, holder=self)

    def conclude(self, value: Any) -> State[Any]:
        """The final state that the body's return value means; every child has ended."""
        if self.scope.early is not None:
            return stopping.final_state(self.scope.early)
        value = inputs.resolve_futures_to_states(value) if inputs.has_special(value) else value
        final = judge_return(value)
        self.collected = final.data is value and isinstance(value, list | tuple | set)
        return final

    def wait_for_children_here(self) -> None:
        """Wait on this thread until every submitted run has ended; an interrupt cancels those that have not.

        Raises:
            KeyboardInterrupt, RunCancelled: that happened; they have ended all the same.
        """
        interruption: BaseException | None = None
        while self.scope.futures:
            impatient = self.scope.stopping
            try:
                with interrupts.stoppable(self.scope):
                    pump.wait_for_children(self.scope, CANCEL_GRACE_SECONDS)
                break
            except RunCancelled as error:
                interruption = interruption or error
            except KeyboardInterrupt as error:
                interruption = error
                if impatient:
                    pump.abandon_children(self.scope)
                    break
        if interruption is not None:
            raise interruption

    async def wait_for_children(self) -> None:
        """The same on this loop."""
        import asyncio

        interrupted = False
        while self.scope.futures:
            impatient = self.scope.stopping
            try:
                with interrupts.stoppable_task(self.scope):
                    await asyncio.to_thread(pump.wait_for_children, self.scope, CANCEL_GRACE_SECONDS)
                break
            except asyncio.CancelledError:
                if not self.scope.stopping:
                    raise
                interrupted = True
                if impatient:
                    pump.abandon_children(self.scope)
                    break
        if interrupted:
            raise RunCancelled(self.scope.reason)

    def carry_out(self, wish: Request) -> None:
        """Before a task run starts: pause or suspend, as somebody asked from outside."""
        pausing.carry_out(self, wish)

    def leave(self, pause: Pause) -> c.Stopped | None:
        """The body was left in order to wait; every child has ended."""
        stopped = self.stopped()
        if stopped is None:
            pause.state = pause.state or Suspended()
            pause.state.state_details.pause_reschedule = True  # whoever resumes it starts it anew
            self.pause = pause
            pausing.suspended_here[self.run.id] = self.flow
            with logs.sent_to(self.ledger.log):
                pausing.warn_of_lost_results(self)
        return stopped

    def timed_out(self) -> Exception:
        """The exception that stands for a timeout."""
        return FlowRunTimeoutError(f"Flow run exceeded timeout of {self.flow.timeout_seconds} second(s)")

    def sleep(self, seconds: float) -> c.Stopped | None:
        """Wait before the next attempt; a cancel ends the wait."""
        woken = threading.Event()
        with interrupts.stoppable(self.scope):
            self.scope.stoppers.add(woken.set)
            try:
                woken.wait(seconds)
            finally:
                self.scope.stoppers.discard(woken.set)
        return self.stopped()

    def keep(self, value: Any) -> Any:
        """Keep the flow's result. Where it cannot be kept: a warning, or in a durable flow a Failed state."""
        try:
            store = self.home.result_store(self.scope.result_storage)
            return KeptResult(store.put(value, self.scope.result_serializer), self.home.results, value)
        except (SerializationError, StorageFull, StoreUnavailable, ConfigurationError) as error:
            if self.scope.durable:
                return Failed(message=str(error), data=error)
            logs.flow_run_logger(self.run, self.flow).warning("The flow's result was not kept: %s", error)
            return None

    # The end

    def translate(self, error: BaseException) -> BaseException:
        """An interruption between two commands: a cancel if one was asked for, else a crash. Raised again at the end."""
        self.fatal = error
        if self.scope.stopping and isinstance(error, KeyboardInterrupt):
            return RunCancelled(self.scope.reason)
        return error

    def outcome(self, return_state: bool) -> Any:
        """What a call hands back: the value, or the state; raises what the body raised.

        Raises:
            KeyboardInterrupt: the user interrupted the run.
            CancelledRun: somebody cancelled it.
            Pause: it was suspended.
        """
        state = self.state
        assert state is not None
        if self.pause is not None and state.is_paused():
            self.pause.state = state
            raise self.pause
        if self.fatal is not None:
            if not self.scope.stopping:
                raise self.fatal
            if self.parent is not None and self.parent.stopping:
                raise (
                    self.fatal
                    if isinstance(self.fatal, KeyboardInterrupt | RunCancelled)
                    else RunCancelled(self.scope.reason)
                )
            if self.scope.root.stopped_by_keyboard:
                raise KeyboardInterrupt(self.scope.reason) from None
        if return_state:
            return state
        if state.is_cancelled() and self.scope.stopping:
            raise CancelledRun(f"Flow run {self.run.name!r} was cancelled: {state.message}") from None
        if self.collected and not state.is_completed() and isinstance(state.data, list | tuple | set):
            return state.data
        return state.value()


def _unseen(_item: Any) -> None:
    """What a flow yields comes from no task run."""
