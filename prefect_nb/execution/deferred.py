"""Task runs for later, and the worker that takes them up: `task.delay()` and `serve(task)`.

`delay` keeps the arguments as a result and records the run as Scheduled; the history is the queue. A worker claims a
run in one transaction, so each is executed by one worker; from then on it is a task run like any other, whose result is
always kept, because whoever asked for it is as a rule another process.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import ConfigurationError, MissingResult, PrefectException, ResultCorrupt, SerializationError
from prefect_nb.execution import drive, inputs, portal, secrets
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import _tags, current_flow, current_tags, current_task
from prefect_nb.execution.futures import PrefectFuture
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.kept import KeptResult, NotKept
from prefect_nb.execution.lineage import inputs_of
from prefect_nb.execution.recorder import created
from prefect_nb.execution.shapes import Surroundings
from prefect_nb.execution.task_runs import TaskExecution
from prefect_nb.interfaces import Entry, RunQuery
from prefect_nb.model.runs import TaskRun, to_datetime
from prefect_nb.model.states import Crashed, Scheduled, State, StateDetails, StateType

logger = logging.getLogger("prefect_nb.task_worker")

_LOOK_SECONDS = 0.05
_REAP_SECONDS = 1.0


class PrefectDistributedFuture(PrefectFuture[Any]):
    """A task run that some task worker executes; it is followed through the history, from any process."""

    __slots__ = ("_home",)

    def __init__(self, task_run_id: UUID, home: Callable[[], Surroundings]) -> None:
        super().__init__(task_run_id)
        self._home = home

    @property
    def state(self) -> State[Any]:
        """The run's newest state."""
        return self._final or self._look()

    def done(self) -> bool:
        """Whether the run has ended."""
        return self._final is not None or self._look().is_final()

    def _look(self) -> State[Any]:
        home = self._home()
        run = home.store.task_run(self.task_run_id)
        if run is None:
            return Crashed(message=f"There is no task run {self.task_run_id} (any more).")
        state = run.state
        state.data = None
        if run.state_type is StateType.COMPLETED:
            why = f"The result of task run {run.name!r} was not kept. {run.result_note or ''}".strip()
            state.data = KeptResult(run.result, home.results) if run.result is not None else NotKept(why)
        if run.is_final and self._final is None:
            self._set_final(state)
        return state

    def _wait(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        woken = threading.Event()
        while not self.done():
            left = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - time.monotonic())
            if left <= 0:
                return False
            woken.wait(left)
        return True

    def add_done_callback(self, fn: Callable[[PrefectFuture[Any]], None]) -> None:
        """Call `fn(future)` when the run has ended; at once if it has. A thread watches for that."""
        watched = bool(self._callbacks)
        super().add_done_callback(fn)
        if not watched and not self.done():
            threading.Thread(target=self._wait, args=(None,), daemon=True).start()

    def __reduce__(self) -> Any:
        return type(self), (self.task_run_id, self._home)

    async def wait_async(self, timeout: float | None = None) -> None:
        """`wait`, on an event loop."""
        import asyncio

        await asyncio.to_thread(self._wait, timeout)

    async def result_async(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """`result`, on an event loop."""
        import asyncio

        return await asyncio.to_thread(self.result, timeout, raise_on_failure)


def defer(
    home: Surroundings, here: Callable[[], Surroundings], task: Any, parameters: dict[str, Any], wait_for: Any
) -> PrefectDistributedFuture:
    """Record a run of a task for a worker to take up; committed when this returns.

    Args:
        home: where.
        here: finds it again.
        task: the task.
        parameters: arguments by name; futures in them are waited for.
        wait_for: further runs to wait for.

    Raises:
        SerializationError: the arguments cannot be kept.
        UnfinishedRun, FailedRun and the like: a run that the arguments refer to did not complete.
    """
    sources = inputs_of(parameters, wait_for, None, None)
    for item, _ in inputs.find((parameters, wait_for)):
        if isinstance(item, PrefectFuture):
            item.wait()
    for item, allowed in inputs.find(wait_for):
        state = item.state if isinstance(item, PrefectFuture) else item
        if not allowed:
            state.result()
    arguments = {name: inputs.resolve(value) for name, value in parameters.items()}
    flow, outer = current_flow.get(), current_task.get()
    kept = home.results.put(
        {"parameters": secrets.sealed(home.cipher, arguments), "tags": sorted(current_tags())}, "pickle"
    )
    now = now_us()
    scheduled = Scheduled(to_datetime(now))
    scheduled.state_details.deferred = True
    scheduled.state_details.task_parameters_id = new_id()
    if outer is not None:
        sources["__parents__"] = [{"input_type": "task_run", "id": str(outer.task_run.id)}]
    elif flow is not None:
        sources["__parents__"] = [{"input_type": "flow_run", "id": str(flow.flow_run.id)}]
    id = new_id()
    run = TaskRun(
        id=id,
        name=f"{task.name}-{id.hex[-3:]}",
        task_key=task.task_key,
        dynamic_key=str(id),
        task_version=task.version,
        tags=tuple(sorted(task.tags | current_tags())),
        task_inputs=sources,
        retries=task.retries or 0,
        state_type=scheduled.type,
        state_name=scheduled.name,
        state_id=new_id(),
        state_us=now,
        state_details=StateDetails(
            deferred=True,
            scheduled_time=scheduled.state_details.scheduled_time,
            task_parameters_id=scheduled.state_details.task_parameters_id,
        ),
        created_us=now,
        expected_us=now,
        events=1,
        deferred=kept,
    )
    home.ledger.append(Entry(run, created(run, scheduled), None), None)
    home.ledger.commit()
    return PrefectDistributedFuture(id, here)


class TaskWorker:
    """Takes up deferred runs of some tasks and executes them in this process, several at once.

    Args:
        home: where they are recorded.
        tasks: which tasks; runs of others are left to others.
        limit: how many runs at once; None for any number.

    Raises:
        ConfigurationError: no task, or something else than a task, or no room for any run.
    """

    def __init__(self, home: Surroundings, tasks: Sequence[Any], limit: int | None = 10) -> None:
        if not tasks:
            raise ConfigurationError("A task worker needs at least one task: serve(my_task).")
        for task in tasks:
            if not hasattr(task, "task_key"):
                raise ConfigurationError(f"Only tasks can be served, not {task!r}. Decorate the function with @task.")
        if limit is not None and limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit}.")
        self.home = home
        self.tasks = list(tasks)
        self.limit = limit
        self.started = False
        self._by_key = {task.task_key: task for task in tasks}
        self._stop = threading.Event()
        self._running: dict[UUID, Future[None]] = {}

    def stop(self) -> None:
        """Take up no more runs; `start` returns when those that run have ended."""
        self._stop.set()

    def start(self, timeout: float | None = None) -> None:
        """Execute deferred runs until `stop`, or for `timeout` seconds. Blocks."""
        self._stop.clear()
        self.started = True
        deadline = None if timeout is None else time.monotonic() + timeout
        cursor, full, reaped = -1, False, time.monotonic()
        _ = self.home.owner_id  # registered before the first claim
        with ThreadPoolExecutor(self.limit or 1000, "prefect_nb-task-worker") as pool:
            try:
                while not self._stop.is_set() and (deadline is None or time.monotonic() < deadline):
                    newest = self.home.store.last_cursor()
                    if newest != cursor or full:
                        cursor = newest
                        full = not self._take_up(pool)
                    if time.monotonic() - reaped > _REAP_SECONDS:
                        reaped = time.monotonic()
                        self.home.reap()
                    self._stop.wait(_LOOK_SECONDS)
            finally:
                self.started = False

    def _take_up(self, pool: ThreadPoolExecutor) -> bool:
        """Claim what waits, as far as there is room; whether there was room for all of it."""
        self._running = {id: future for id, future in self._running.items() if not future.done()}
        for run in self._waiting():
            if self.limit is not None and len(self._running) >= self.limit:
                return False
            claimed = self.home.store.claim_task_run(run.id, self.home.owner_id, now_us())
            if claimed is not None:
                self._running[run.id] = pool.submit(self._execute_safely, claimed)
        return True

    def _waiting(self) -> Iterable[TaskRun]:
        for key in self._by_key:
            query = RunQuery(state_types=(StateType.SCHEDULED,), task_key=key, oldest_first=True, limit=1000)
            for run in self.home.store.task_runs(query):
                if run.deferred is not None and run.owner_id is None:
                    yield run

    def execute(self, run: TaskRun) -> State[Any]:
        """Execute a run that this process has claimed, on this thread; returns its final state."""
        task = self._by_key[run.task_key]
        assert run.deferred is not None
        logger.info("Task run %r begins.", run.name)
        kept = self.home.results.get(run.deferred)
        token = _tags.set(frozenset(kept["tags"]))
        try:
            execution = TaskExecution(
                self.home, task, secrets.unsealed(self.home.cipher, kept["parameters"]), scope=None, persist=True
            )
            execution.id, execution.run = run.id, run
            state: State[Any] = (
                portal.run_sync(drive.awaiting(execution)) if task.isasync else drive.blocking(execution)
            )
        finally:
            _tags.reset(token)
        self.home.ledger.commit()
        logger.info("Task run %r ended %s.", run.name, state.name)
        return state

    def _execute_safely(self, run: TaskRun) -> None:
        try:
            self.execute(run)
        except (MissingResult, ResultCorrupt, SerializationError) as error:
            self._refuse(run, f"Its arguments cannot be read: {error}")
        except BaseException as error:  # the run has it in its history; the worker goes on
            if not isinstance(error, Exception | PrefectException | KeyboardInterrupt | SystemExit):
                raise
            logger.exception("Task run %r ended with an error of the engine.", run.name)

    def _refuse(self, run: TaskRun, why: str) -> None:
        from prefect_nb.execution.recorder import moved

        logger.error("Task run %r: %s", run.name, why)
        moved(self.home.ledger, run, Crashed(message=why), None)
        self.home.ledger.commit()


def serve(home: Surroundings, tasks: Sequence[Any], limit: int | None = 10, timeout: float | None = None) -> None:
    """Execute deferred runs of these tasks until SIGTERM, Ctrl-C, or for `timeout` seconds; what runs comes to its end.

    Raises:
        ConfigurationError: as `TaskWorker`.
    """
    worker = TaskWorker(home, tasks, limit)
    if threading.current_thread() is not threading.main_thread():
        worker.start(timeout)
        return

    def stop(_signum: int, _frame: FrameType | None) -> None:
        worker.stop()

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        worker.start(timeout)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
