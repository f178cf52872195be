"""`%%flow`: a cell whose body runs as a flow run, on the main thread, in the notebook's namespace."""

from __future__ import annotations

import hashlib
import inspect
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import PrefectException
from prefect_nb.execution import inputs
from prefect_nb.execution.context import tags
from prefect_nb.execution.flow_runs import FlowExecution
from prefect_nb.execution.futures import PrefectFuture, PrefectFutureList, wait
from prefect_nb.execution.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from prefect_nb.flows import Flow
from prefect_nb.model.redaction import redact
from prefect_nb.model.states import State
from prefect_nb.notebook.cells import Cell
from prefect_nb.notebook.detached import DetachedRun, queue_of
from prefect_nb.notebook.listing import picture_of
from prefect_nb.notebook.options import Reference
from prefect_nb.notebook.tracebacks import shown_of_flow

DEFAULT_NAME = "cell-flow"
KIND = "cell-flow"
_LONGEST_SOURCE = 100_000
RUNNERS = {"threads": ThreadPoolTaskRunner, "processes": ProcessPoolTaskRunner}


class CellFlowRun:
    """What `%%flow -o NAME` leaves in the variable: the flow run of that cell."""

    def __init__(self, execution: FlowExecution) -> None:
        self._execution = execution

    @property
    def id(self) -> UUID:
        """The flow run's id."""
        return self._execution.run.id

    @property
    def name(self) -> str:
        """The flow run's name."""
        return self._execution.run.name

    @property
    def flow_name(self) -> str:
        """The flow's name."""
        return self._execution.run.flow_name

    @property
    def state(self) -> State[Any] | None:
        """The flow run's final state."""
        return self._execution.state

    def result(self, raise_on_failure: bool = True) -> Any:
        """The value of the cell's last expression; of a run that did not complete, its exception, raised or returned."""
        assert self.state is not None
        return settled(self.state.result(raise_on_failure=raise_on_failure))

    def why(self) -> Any:
        """Why each of its task runs was computed, or was not."""
        from prefect_nb.service.why import why

        return why(self.id)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return picture_of(self._execution.run)

    def __repr__(self) -> str:
        state = self.state.name if self.state is not None else "Pending"
        return f"{type(self).__name__}(name={self.name!r}, id={str(self.id)!r}, state={state!r})"


class FlowCell:
    """One execution of a `%%flow` cell.

    Args:
        cell: the body.
        options: the parsed options of the magic.
    """

    def __init__(self, cell: Cell, options: Namespace) -> None:
        self._cell = cell
        self._options = options
        self._namespace: dict[str, Any] = cell.shell.user_ns
        self._execution: FlowExecution | None = None
        self._detached: DetachedRun | None = None
        self._parameters = {
            name: value.look_up(self._namespace) if isinstance(value, Reference) else value
            for name, value in options.parameters
        }

    def run(self) -> Any:
        """Run the cell; returns the value to display. Where the body awaits: the coroutine that does."""
        if self._cell.is_async:
            return self._await_run()
        try:
            with tags(*self._options.tags):
                value = self._start(self._body)
        except BaseException as error:
            raise self._shown(error)  # noqa: B904 - it is the same error
        finally:
            self._settle()
        return self._displayed(value)

    def plan(self) -> Any:
        """What the cell would run and what it would take from the cache; where the body awaits, awaitable.

        The code between the tasks is executed, on a copy of the notebook's names, and what it prints is not shown.
        """
        from IPython.utils.capture import capture_output

        from prefect_nb.service.planning import planned

        names = {**self._namespace, **self._parameters}
        body = self._cell.await_run if self._cell.is_async else self._cell.run
        with capture_output():
            persist = True if self._options.cache else None
            found = planned(
                lambda: body(names), self._cell.is_async, self._parameters, persist, across_runs=self._options.cache
            )
        return _at_once(found) if self._cell.is_async else found

    def detach(self, is_watched: bool) -> Any:
        """Put the cell into the queue of detached runs; returns at once.

        Args:
            is_watched: whether somebody sits at the front end. If not, whoever executes the notebook would take it for
                done and end the kernel: then the cell runs here, as without `--detach`, and this returns its value.
        """
        if not is_watched:
            print("--detach: nobody watches this notebook, so its cells wait for this one.")  # noqa: T201
            return self.run()
        self._enqueue()
        return _at_once() if self._cell.is_async else None

    def _enqueue(self) -> None:
        shell, queue = self._cell.shell, queue_of(self._cell.shell)
        running = queue.same(self._cell.text)
        if running is not None and not self._options.restart:
            print(  # noqa: T201
                f"This cell is {running.status} already, as number {running.number} of the queue (%flow queue); "
                "--restart begins anew."
            )
            item = running
        else:
            if running is not None:
                queue.cancel(running)
            name = self._options.name or DEFAULT_NAME
            item = queue.add(
                lambda number: DetachedRun(
                    number, name, self._cell.text, self._run_detached, self._cell.assigned, shell
                )
            )
        if self._options.out is not None:
            self._namespace[self._options.out] = item

    def _run_detached(self, detached: DetachedRun, namespace: dict[str, Any]) -> Any:
        self._detached, self._namespace = detached, namespace
        return self.run()

    async def _await_run(self) -> Any:
        try:
            with tags(*self._options.tags):
                value = await self._start(self._awaited_body)
        except BaseException as error:
            raise self._shown(error)  # noqa: B904
        finally:
            self._settle()
        return self._displayed(value)

    # The body

    def _body(self, **parameters: Any) -> Any:
        self._namespace.update(parameters)
        value = self._cell.run(self._namespace)
        if not inputs.has_special(value):
            results = self._futures()
            wait(results.values())
            _raise_first(results)
        return value

    async def _awaited_body(self, **parameters: Any) -> Any:
        import asyncio

        self._namespace.update(parameters)
        value = await self._cell.await_run(self._namespace)
        if not inputs.has_special(value):
            results = self._futures()
            await asyncio.to_thread(wait, results.values())
            _raise_first(results)
        return value

    def _futures(self) -> dict[str, PrefectFuture[Any]]:
        """The futures that the cell's names hold, by where they are: the names are what the cell has to show for itself."""
        found: dict[str, PrefectFuture[Any]] = {}
        for name in self._cell.assigned:
            futures = [
                item
                for item, allowed in inputs.find(self._namespace.get(name))
                if isinstance(item, PrefectFuture) and not allowed
            ]
            for number, future in enumerate(futures):
                found[name if len(futures) == 1 else f"{name}, number {number}"] = future
        return found

    # Around it

    def _start(self, body: Callable[..., Any]) -> Any:
        options, fn = self._options, _with_parameters(body, self._parameters)
        flow: Flow[..., Any] = Flow(
            fn,
            name=options.name or DEFAULT_NAME,
            version=hashlib.sha256(self._cell.text.encode()).hexdigest()[:16],
            retries=options.retries,
            retry_delay_seconds=options.retry_delay,
            timeout_seconds=options.timeout,
            task_runner=RUNNERS[options.runner](options.max_workers),
            validate_parameters=False,
            persist_result=True if options.cache else None,
            log_prints=True if options.log_prints else None,
            durable=options.durable,
        )
        return flow.start(
            self._parameters,
            on_start=self._started,
            kind=KIND,
            entrypoint=None,
            execution_count=self._cell.execution_count,
            cell_source=redact(self._cell.source[:_LONGEST_SOURCE]),
        )

    def _started(self, execution: FlowExecution) -> None:
        self._execution = execution
        execution.scope.across_runs = self._options.cache
        if self._detached is not None:
            self._detached.execution = execution
        elif self._options.out is not None:
            self._namespace[self._options.out] = CellFlowRun(execution)

    def _settle(self) -> None:
        for name in self._cell.assigned:
            if name in self._namespace:
                self._namespace[name] = settled(self._namespace[name])

    def _displayed(self, value: Any) -> Any:
        return None if self._cell.is_silent else settled(value)

    def _shown(self, error: BaseException) -> BaseException:
        return shown_of_flow(error, self._execution, self._cell.shell)


async def _at_once(value: Any = None) -> Any:
    """For a cell that awaits and has nothing to wait for."""
    return value


def _with_parameters(body: Callable[..., Any], parameters: Iterable[str]) -> Callable[..., Any]:
    """A function of exactly these parameters around the body, in the body's colour."""
    if inspect.iscoroutinefunction(body):

        async def awaited(**values: Any) -> Any:
            return await body(**values)

        fn: Callable[..., Any] = awaited
    else:

        def called(**values: Any) -> Any:
            return body(**values)

        fn = called
    names = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in parameters]
    fn.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    return fn


def _raise_first(results: dict[str, PrefectFuture[Any]]) -> None:
    """Raise what went wrong in the first of the results that did not complete; what failed itself goes first."""
    broken = {place: future for place, future in results.items() if not future.state.is_completed()}
    for place, future in sorted(broken.items(), key=lambda item: not item[1].state.is_failed()):
        error = future.state.exception()
        note = f"This is what became of `{place}`; its task run is {future.state.name}."
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise error


def settled(value: Any) -> Any:
    """`value` with the futures and states in it, at any depth, replaced by their values; those that did not complete stay."""
    return inputs.replace(value, _is_settled, _value_of) if inputs.has_special(value) else value


def _is_settled(item: Any) -> bool:
    if isinstance(item, PrefectFutureList):
        return True
    state = item.state if isinstance(item, PrefectFuture) else item
    return isinstance(state, State) and state.is_completed()


def _value_of(item: Any) -> Any:
    if isinstance(item, PrefectFutureList):
        return [settled(future) for future in item]
    try:
        return settled(item.result())
    except PrefectException:  # the result was not kept, or is damaged: whoever asks the future will be told
        return item
