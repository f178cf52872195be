"""`%flow run` and `%flow graph`: the notebook's `%%task` cells as one flow run.

Values go from cell to cell as futures, so that cells that run side by side do not see each other's names. When a cell has
completed, and before any that needs it begins, what it made is put into the notebook.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect_nb.execution.context import tags as tagged
from prefect_nb.execution.definitions import task_key
from prefect_nb.execution.flow_runs import FlowExecution
from prefect_nb.execution.futures import PrefectFuture, as_completed
from prefect_nb.execution.visualizing import FlowGraph, VizTask
from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.states import GLYPHS, Completed, Failed, State
from prefect_nb.notebook.flow_cells import KIND, RUNNERS, CellFlowRun
from prefect_nb.notebook.listing import show
from prefect_nb.notebook.notebook_tasks import NotebookTasks
from prefect_nb.notebook.task_bodies import TaskBody, task_function
from prefect_nb.notebook.task_cells import TaskCell
from prefect_nb.notebook.tracebacks import shown_from_cell, shown_of_flow
from prefect_nb.service.forecasts import DEPENDS, Forecast, Plan, foresee
from prefect_nb.service.text import one_line
from prefect_nb.tasks import Task

_LOOKED_AT = 20
"""Newest runs of a task among which its last one in this notebook's flow is looked for."""
_ATTRIBUTE = "prefect_nb_flow_names"


def run_task_cells(
    name: str | None = None,
    *,
    only: Sequence[str] = (),
    start: Sequence[str] = (),
    runner: str = "threads",
    max_workers: int | None = None,
    tags: Iterable[str] = (),
    retries: int = 0,
    retry_delay: float = 0.0,
    timeout: float | None = None,
    log_prints: bool = False,
    out: str | None = None,
    shell: Any = None,
    names: Mapping[tuple[str, str], str] | None = None,
) -> CellFlowRun:
    """Run the notebook's `%%task` cells as one flow run.

    Args:
        name: of the flow; None: the notebook's.
        only: these cells and what they need; none: all.
        start: of those, these cells and what needs them; none: all.
        runner: "threads" or "processes".
        max_workers: how many cells at once.
        tags: of the flow run and its task runs.
        retries: further attempts of the whole, in which cached cells are not computed again.
        retry_delay: seconds before each.
        timeout: seconds an attempt may take.
        log_prints: write prints to the run's log.
        out: variable of the notebook that keeps the run, from its start.
        shell: the IPython shell; None: the one this runs in.
        names: what the magics are called in it, by kind and usual name.

    Raises:
        UsageError: before anything runs: the cells are in conflict, or need a name that there is not.
        Exception: what the first cell that failed raised.
    """
    found = NotebookTasks(_shell(shell), names or {})
    if name:
        _names_given(_shell(shell)).add(name)
    flow_run = _GraphRun(found, found.selected(only, start), out)
    flow: Flow[..., Any] = Flow(
        flow_run.body,
        name=name or found.name,
        version=flow_run.version,
        retries=retries,
        retry_delay_seconds=retry_delay,
        timeout_seconds=timeout,
        task_runner=RUNNERS[runner](max_workers),
        validate_parameters=False,
        log_prints=True if log_prints else None,
    )
    return flow_run.run(flow, tags)


def plan_task_cells(
    *,
    only: Sequence[str] = (),
    start: Sequence[str] = (),
    shell: Any = None,
    names: Mapping[tuple[str, str], str] | None = None,
) -> Plan:
    """What `run_task_cells` would do with each cell, and why; only their imports, functions and classes are executed.

    Raises:
        UsageError: they cannot be run.
    """
    found = NotebookTasks(_shell(shell), names or {})
    keys = found.selected(only, start)
    prepared, kept = _prepared(found, keys), dict[str, dict[str, Any]]()
    plan = Plan()
    for key in keys:
        one = prepared[key]
        unknown = [source for source in one.needs if source not in kept or source in one.waits_for]
        if unknown:
            words = " and ".join(f"`{source}`" for source in unknown)
            plan.append(Forecast(key, DEPENDS, f"decided when {words} {'has' if len(unknown) == 1 else 'have'} ended"))
            continue
        given = {name: kept[source].get(name) for name, source in one.takes.items()}
        forecast = foresee(one.task, {**one.inputs, **given})
        if forecast.value is not None:
            kept[key] = forecast.value["names"]
        plan.append(forecast)
    return plan


def task_graph(
    *,
    only: Sequence[str] = (),
    start: Sequence[str] = (),
    shell: Any = None,
    names: Mapping[tuple[str, str], str] | None = None,
) -> FlowGraph:
    """The notebook's `%%task` cells as a graph, each with the state of its newest run.

    Raises:
        UsageError: they are in conflict.
    """
    found = NotebookTasks(_shell(shell), names or {})
    keys = found.selected(only, start)
    Home.current().ledger.commit()
    own = {found.name, *_names_given(_shell(shell))}
    nodes: dict[str, VizTask] = {}
    for key in keys:
        before = [nodes[source] for source in found.graph.needs(key) if source in nodes]
        nodes[key] = VizTask(f"{_glyph(found, key, own)} {key}", before)
    return FlowGraph(found.name, list(nodes.values()))


def _names_given(shell: Any) -> set[str]:
    """The names that this kernel has run the notebook's task cells under."""
    found: set[str] | None = getattr(shell, _ATTRIBUTE, None)
    if found is None:
        found = set()
        setattr(shell, _ATTRIBUTE, found)
    return found


def _glyph(found: NotebookTasks, key: str, own: set[str]) -> str:
    """The state of the cell's newest run, alone or in a flow run of one of the notebook's own names."""
    if found.cells[key].cell.is_async:

        async def anything() -> None: ...

    else:

        def anything() -> None: ...  # type: ignore[misc]

    store = Home.current().store
    known = task_key(task_function(TaskBody(anything, (), False, True), key, ()))
    for run in store.task_runs(RunQuery(task_key=known, limit=_LOOKED_AT)):
        flow_run = store.flow_run(run.flow_run_id) if run.flow_run_id is not None else None
        if flow_run is None or flow_run.flow_name in own or flow_run.kind != KIND:
            return GLYPHS[run.state_type]
    return "·"


def _shell(shell: Any) -> Any:
    from IPython.core.getipython import get_ipython

    return shell if shell is not None else get_ipython()


# What is run


class _Prepared:
    """A cell that is about to run: its task, and where its values come from."""

    def __init__(self, found: NotebookTasks, key: str, chosen: Sequence[str]) -> None:
        graph, self.cell = found.graph, found.cells[key]
        sources = {name: source for name, source in graph.sources[key].items() if source in chosen}
        given = {name: source for name, source in sources.items() if name in found.cells[source].outputs}
        names = self.cell.inputs({*given}, {*sources})
        self.task: Task[..., Any] = self.cell.task(names, key, found.draws(key))
        self.takes = {name: source for name, source in given.items() if name in names}
        """From which cell it takes which input."""
        self.waits_for = {source for name, source in sources.items() if name not in self.takes}
        """Cells whose names it finds in the notebook when it runs."""
        self.follows = {source for source in graph.after[key] if source in chosen}
        namespace = self.cell.cell.shell.user_ns
        self.inputs = {name: namespace[name] for name in names if name not in self.takes}
        """What it takes from the notebook, as it is before anything runs."""

    @property
    def needs(self) -> list[str]:
        """The cells that must have completed."""
        return list(dict.fromkeys([*self.takes.values(), *sorted(self.waits_for)]))


def _prepared(found: NotebookTasks, keys: Sequence[str]) -> dict[str, _Prepared]:
    """The cells of these keys, compiled; their imports, functions and classes have been executed."""
    found.check(keys)
    needed = found.graph.with_declaring(keys)
    for key in found.cells:
        if key in needed:
            try:
                found.cells[key].declare()
            except BaseException as error:
                error.add_note(f"This is an import, function or class in task cell {found.graph.title(key)}.")
                raise shown_from_cell(error, found.shell)  # noqa: B904 - it is the same error
    return {key: _Prepared(found, key, keys) for key in keys}


class Output(PrefectFuture[Any]):
    """One name that a task cell makes, as a future of its own; it is there when the notebook has it."""

    __slots__ = ()


class _CellRun:
    """One cell of the flow run, submitted."""

    def __init__(self, key: str, cell: TaskCell, future: PrefectFuture[Any], names: Iterable[str]) -> None:
        self.key = key
        self.cell = cell
        self.outputs = {name: Output(future.task_run_id) for name in names}
        self.done = Output(future.task_run_id)
        """In the state of the task run."""
        self.over = Output(future.task_run_id)
        """Completed, whatever became of it."""
        self.made: dict[str, Any] = {}
        self.shown: dict[str, Any] | None = None
        future.add_done_callback(self._ended)

    def _ended(self, future: PrefectFuture[Any]) -> None:
        state = future.state
        if state.is_completed():
            try:
                kept = future.result()
                self.cell.conclude(kept)
                self.made, self.shown = kept["names"], kept["shown"]
                self._check()
            except Exception as error:  # what it made cannot be used: for those that need it, it failed
                state = Failed(message=f"{type(error).__name__}: {error}", data=error)
        for name, output in self.outputs.items():
            output._set_final(Completed(data=self.made[name]) if state.is_completed() else state)
        self.done._set_final(state)
        self.over._set_final(Completed())

    def _check(self) -> None:
        for name in self.outputs:
            if name not in self.made:
                raise NameError(f"task cell {self.key!r} has not assigned {name!r} this time, which other cells need")


class _GraphRun:
    """One run of task cells as a flow."""

    def __init__(self, found: NotebookTasks, keys: Sequence[str], out: str | None) -> None:
        self._found = found
        self._keys = keys
        self._out = out
        self._prepared = _prepared(found, keys)
        self._execution: FlowExecution | None = None
        texts = "\0".join(found.cells[key].cell.text for key in keys)
        self.version = hashlib.sha256(texts.encode()).hexdigest()[:16]

    def run(self, flow: Flow[..., Any], tags: Iterable[str]) -> CellFlowRun:
        """Run the flow that has `body`."""
        try:
            with tagged(*tags):
                flow.start({}, on_start=self._started, kind=KIND, entrypoint=None)
        except BaseException as error:
            raise self._presented(error)  # noqa: B904 - it is the same error
        assert self._execution is not None
        return CellFlowRun(self._execution)

    def body(self) -> None:
        """Submit every cell, wait for all of them, and show what they have to show."""
        runs: dict[str, _CellRun] = {}
        for key in self._keys:
            runs[key] = self._submit(key, runs)
        by_future: dict[PrefectFuture[Any], _CellRun] = {run.done: run for run in runs.values()}
        for future in as_completed(by_future):
            run = by_future[future]
            if run.shown is not None:
                show(run.shown)
            self._warn_of_changes(run)
        self._raise_first(runs)

    def _submit(self, key: str, runs: Mapping[str, _CellRun]) -> _CellRun:
        one = self._prepared[key]
        wanted = {name for other in self._prepared.values() for name, source in other.takes.items() if source == key}
        values: dict[str, Any] = {name: runs[source].outputs[name] for name, source in one.takes.items()}
        before = [
            *(runs[source].done for source in sorted(one.waits_for)),
            *(runs[source].over for source in one.follows),
        ]
        future = one.task.submit(**one.inputs, **values, wait_for=before or None)
        return _CellRun(key, one.cell, future, sorted(wanted))

    def _warn_of_changes(self, run: _CellRun) -> None:
        """Say it where a cell has changed in place what others use, too: who saw what was chance."""
        for name in sorted({*run.made} - {*run.cell.outputs}):
            others = [key for key, one in self._prepared.items() if key != run.key and name in one.task.signature.names]
            if others:
                listed = ", ".join(f"`{key}`" for key in others)
                print(  # noqa: T201
                    f"Task cell `{run.key}` has changed `{name}` in place, which {listed} may have seen before or after. "
                    f"State that it goes on with it: %%task {run.cell.name}({name}) -> {name}",
                    file=sys.stderr,
                )

    def _raise_first(self, runs: Mapping[str, _CellRun]) -> None:
        """Raise what went wrong in the first cell that failed, and tell of the others."""
        title = self._found.graph.title
        broken = {key: run.done.state for key, run in runs.items() if not run.done.state.is_completed()}
        if not broken:
            return
        waiting = [key for key, state in broken.items() if state.name == "NotReady"]
        ended = [key for key in broken if key not in waiting] or waiting
        error = broken[ended[0]].exception()
        words = [f"This is what became of task cell {title(ended[0])}: it is {broken[ended[0]].name}."]
        words += [
            f"{title(key)} is {broken[key].name}, too: {one_line(_message(broken[key]), 200)}" for key in ended[1:]
        ]
        if waiting and waiting is not ended:
            words.append(f"Not run, as they need what failed: {', '.join(map(title, waiting))}.")
        note = "\n".join(words)
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise error

    def _started(self, execution: FlowExecution) -> None:
        self._execution = execution
        if self._out is not None:
            self._found.shell.user_ns[self._out] = CellFlowRun(execution)

    def _presented(self, error: BaseException) -> BaseException:
        return shown_of_flow(error, self._execution, self._found.shell)


def _message(state: State[Any]) -> str:
    return state.message or ""
