"""Sweeps: one flow or notebook run for every combination of some parameters' values, and one table of what came out.

The sweep is a flow run itself; each point is a child flow run of it. A point that fails does not stop the others.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, cast

import msgspec

from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import (
    ConfigurationError,
    NotebookError,
    ParameterBindError,
    ParameterTypeError,
    RunCancelled,
)
from prefect_nb.execution.context import tags as tagged
from prefect_nb.execution.flow_runs import FlowExecution
from prefect_nb.flows import Flow, NotebookFlow
from prefect_nb.model.cli_values import parse_parameters, parse_sweep
from prefect_nb.model.codec import jsonable
from prefect_nb.model.notebook_outputs import Outputs, shown
from prefect_nb.model.notebook_types import as_text
from prefect_nb.model.redaction import masked, redact_values
from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import Cancelled, Completed, Failed, State
from prefect_nb.service import artifacts, running
from prefect_nb.service.documents import Document, run_document
from prefect_nb.service.sweep_tables import html_table, text_table
from prefect_nb.service.text import elapsed, one_line, plural

MOST_POINTS = 10_000
_LONGEST_NAME = 100
_POLL = 0.2
_NO_VALUE: Any = object()


class Point(msgspec.Struct, kw_only=True):
    """One combination of values, and what its run came to."""

    parameters: dict[str, Any]
    """The values that differ from point to point."""
    state: State[Any]
    flow_run: FlowRun | None = None
    """The run of this point; None where it did not begin."""
    value: Any = None
    """What it returned; None where it did not complete."""

    @property
    def label(self) -> str:
        """`depth=3 lr=0.1`."""
        return label_of(self.parameters)

    @property
    def seconds(self) -> float | None:
        """How long its run took; None where it did not begin."""
        run = self.flow_run
        if run is None or run.start_us is None or run.end_us is None:
            return None
        return (run.end_us - run.start_us) / 1e6

    @property
    def problem(self) -> str:
        """What went wrong: the exception, or what the state says."""
        error = self.state.data
        if isinstance(error, NotebookError):
            return str(error)
        return describe(error) if isinstance(error, Exception) else self.state.message or ""

    def row(self) -> dict[str, Any]:
        """The point as a row of the table: parameters, state, duration, and what was returned or went wrong."""
        duration = elapsed(self.flow_run, 0) if self.flow_run is not None and self.flow_run.end_us else ""
        row: dict[str, Any] = {name: _plain(value) for name, value in self.parameters.items()}
        return {**row, "state": self.state.name, "duration": duration, **self._outcome()}

    def _outcome(self) -> dict[str, Any]:
        if not self.state.is_completed():
            return {"error": one_line(self.problem, 300)}
        if isinstance(self.value, Outputs):
            return {name: _plain(value) for name, value in self.value.items()}
        if isinstance(self.value, Path) and self.flow_run is not None and self.flow_run.kind == "notebook":
            return {"notebook": str(self.value)}
        return {} if self.value is None else {"value": _plain(self.value)}

    def document(self) -> Document:
        """The point for programs: `parameters`, `state`, `duration` (seconds), `returned`, `flow_run`."""
        returned = None
        if self.state.is_completed():
            named = isinstance(self.value, Outputs)
            returned = {name: _plain(one) for name, one in self.value.items()} if named else _plain(self.value)
        return {
            "parameters": {name: _plain(value) for name, value in self.parameters.items()},
            "state": {"type": self.state.type.value, "name": self.state.name, "message": self.state.message},
            "duration": self.seconds,
            "returned": returned,
            "flow_run": None if self.flow_run is None else run_document(self.flow_run),
        }


class Sweep(Sequence[Point]):
    """What a sweep came to: its points in order, shown as a table."""

    def __init__(self, points: Sequence[Point], flow_run: FlowRun) -> None:
        self.points = list(points)
        self.flow_run = flow_run

    def __getitem__(self, index: Any) -> Any:
        return self.points[index]

    def __len__(self) -> int:
        return len(self.points)

    @property
    def failed(self) -> list[Point]:
        """The points that did not complete."""
        return [point for point in self.points if not point.state.is_completed()]

    def rows(self) -> list[dict[str, Any]]:
        """The table, a dict for each point."""
        return [point.row() for point in self.points]

    def to_frame(self) -> Any:
        """The table as a pandas DataFrame, with the parameters and values themselves and the durations in seconds."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    **point.parameters, "state": point.state.name, "duration": point.seconds,
                    **(point.value if isinstance(point.value, Outputs) else {"value": point.value}),
                }
                for point in self.points
            ]
        )  # fmt: skip

    def __repr__(self) -> str:
        return text_table(self.rows())

    def _repr_html_(self) -> str:
        return html_table(self.rows(), [point.state.type for point in self.points], self.flow_run)


class Plan(msgspec.Struct, frozen=True):
    """A sweep whose points have all been checked."""

    flow: Any
    points: list[dict[str, Any]]
    """The values that differ, for each point."""
    fixed: dict[str, Any]
    """The values that are the same for all."""
    grid: dict[str, list[Any]]
    options: running.RunOptions
    max_parallel: int


OnPoint = Callable[[int, Point], None]


def sweep(
    target: Flow[..., Any] | str | os.PathLike[str],
    /,
    *,
    max_parallel: int | None = None,
    name: str | None = None,
    tags: Iterable[str] = (),
    fixed: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> Sweep:
    """Run a flow or a notebook once for every combination of values.

        sweep(train, depth=[3, 5, 8], lr=[0.1, 0.01], rows=1000)
        sweep("train.ipynb", depth=range(3, 9), fixed={"columns": ["a", "b"]})

    Everything is checked before anything runs. A point that fails does not stop the others; nothing is raised for it.
    The table of results is also kept as an artifact of the sweep's own flow run.

    Args:
        target: a flow, a notebook's path, or an entrypoint such as "flows.py:train".
        max_parallel: how many points run at once; default: as many as there are processors, at most 4.
        name: of the sweep's flow run; default: two words.
        tags: of all runs.
        fixed: parameters that are the same for all points; for lists, which would be swept over otherwise.
        parameters: a list, tuple, range or set of values is swept over; any other value is the same for all points.

    Raises:
        ParameterBindError, ParameterTypeError: points that do not fit, all of them named.
        ConfigurationError: there is nothing to sweep over, or too much.
        ObjectNotFound, NotebookError, ...: there is no such flow.
        KeyboardInterrupt: somebody interrupted it; the points that ran are Cancelled.
    """
    grid = {key: list(value) for key, value in parameters.items() if isinstance(value, list | tuple | range | set)}
    same = {key: value for key, value in parameters.items() if key not in grid}
    options = running.RunOptions(name=name, tags=tuple(tags))
    flow = target if isinstance(target, Flow) else running.loaded(os.fspath(target), options)
    return run(plan(flow, grid, {**same, **(fixed or {})}, options, max_parallel))


def prepare(
    target: str,
    sweeps: Sequence[str],
    texts: Sequence[str],
    options: running.RunOptions,
    max_parallel: int | None = None,
) -> Plan:
    """A sweep as typed on a command line.

    Args:
        target: a notebook's path, or an entrypoint.
        sweeps: `name=value,value`.
        texts: `name=value`, the same for all points.
        options: for each run; the name is the sweep's.
        max_parallel: how many points run at once.

    Raises: as `sweep`.
    """
    if options.output_path is not None:
        raise ConfigurationError("--to names one executed notebook, and a sweep makes many; they go to runs/.")
    flow = running.loaded(target, options)
    hints = flow.signature.hints()
    grid: dict[str, list[Any]] = {}
    for text in sweeps:
        name, sign, values = text.partition("=")
        if not sign or not name.isidentifier():
            raise ParameterBindError(f"{text!r} is not of the form name=value,value. Write --sweep depth=3,5,8.")
        if name in grid:
            raise ParameterBindError(f"{text!r}: the parameter '{name}' is swept over twice.")
        try:
            grid[name] = parse_sweep(values, hints.get(name))
        except ValueError as error:
            raise ParameterBindError(f"--sweep {name}: {error}") from None
    try:
        fixed = parse_parameters(texts, hints)
    except ValueError as error:
        raise ParameterBindError(f"{error} Parameters are given as -p name=value.") from None
    return plan(flow, grid, fixed, options, max_parallel)


def plan(
    flow: Flow[..., Any],
    grid: Mapping[str, Sequence[Any]],
    fixed: Mapping[str, Any],
    options: running.RunOptions,
    max_parallel: int | None = None,
) -> Plan:
    """A sweep, all points checked. Raises as `sweep`."""
    if not grid or not all(grid.values()):
        empty = [name for name, values in grid.items() if not values]
        what = f"{', '.join(map(repr, empty))} has no values." if empty else "no parameter has several values."
        raise ConfigurationError(f"There is nothing to sweep over: {what} Write sweep(flow, depth=[3, 5, 8]).")
    both = [name for name in grid if name in fixed]
    if both:
        raise ParameterBindError(f"{', '.join(map(repr, both))} is swept over and given as well; keep one.")
    if max_parallel is not None and max_parallel < 1:
        raise ConfigurationError(f"max_parallel must be at least 1, not {max_parallel}.")
    count = 1
    for values in grid.values():
        count *= len(values)
    if count > MOST_POINTS:
        raise ConfigurationError(f"The sweep has {count:,} points, more than {MOST_POINTS:,}. Sweep in parts.")
    if isinstance(flow, NotebookFlow):
        if flow.body.has_one_output:
            raise ConfigurationError("The notebook's output_path names one file, and a sweep makes many. Leave it out.")
        flow = _without_kept_kernels(flow)
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    _check(flow, points, fixed)
    at_once = max_parallel or min(4, os.cpu_count() or 1)
    return Plan(flow, points, dict(fixed), {name: list(v) for name, v in grid.items()}, options, min(at_once, count))


def _without_kept_kernels(flow: NotebookFlow) -> NotebookFlow:
    """The flow, leaving no kernels behind where points fail."""
    clone = cast("NotebookFlow", flow.with_options())
    clone.fn = copy.copy(clone.fn)
    clone.body.keep_kernel = False
    return clone


def _check(flow: Flow[..., Any], points: Sequence[Mapping[str, Any]], fixed: Mapping[str, Any]) -> None:
    problems: dict[str, str] = {}
    for point in points:
        try:
            flow.validate_parameters(flow.signature.bind_names({**fixed, **point}))
        except ParameterTypeError as error:
            for line in str(error).splitlines()[1:] or [str(error)]:
                problems.setdefault(line.removeprefix(" - "), label_of(point))
    if problems:
        lines = "\n".join(f" - {line} (at {label})" for line, label in problems.items())
        raise ParameterTypeError(f"Points of the sweep have invalid parameters:\n{lines}")


def run(plan: Plan, on_point: OnPoint | None = None) -> Sweep:
    """Run a sweep to its end.

    Args:
        plan: what to run.
        on_point: told of each point as it ends, with its number from 1; on this thread.

    Raises:
        KeyboardInterrupt, CancelledRun: it was interrupted or cancelled; the points that ran are Cancelled.
    """
    sweeping = _Sweeping(plan, on_point or (lambda _number, _point: None))
    executions: list[FlowExecution] = []
    flow: Flow[..., Any] = Flow(
        sweeping.body(), name=f"{plan.flow.name}-sweep", version=plan.flow.version, validate_parameters=False
    )
    named = {} if plan.options.name is None else {"name": plan.options.name}
    with tagged(*plan.options.tags):
        flow.start(
            {**plan.fixed, **plan.grid},
            return_state=True, on_start=executions.append, kind="sweep", entrypoint=None, **named,
        )  # fmt: skip
    return Sweep(sweeping.results(), executions[0].run)


class _Sweeping:
    def __init__(self, plan: Plan, on_point: OnPoint) -> None:
        self._plan = plan
        self._on_point = on_point
        self._points: dict[int, Point] = {}

    def body(self) -> Callable[..., State[Any]]:
        """The function of the sweep's own flow."""

        def run_points(**_parameters: Any) -> State[Any]:
            try:
                self._run_all()
            finally:
                self._keep_table()
            failed = sum(not point.state.is_completed() for point in self._points.values())
            if failed:
                return Failed(message=f"{failed} of {plural(len(self._points), 'point')} did not complete.")
            return Completed(message=f"{plural(len(self._points), 'point')} completed.")

        names = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in (*self._plan.fixed, *self._plan.grid)
        ]
        run_points.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
        return run_points

    def results(self) -> list[Point]:
        """The points in order; those that did not run are NotRun."""
        not_run = Cancelled(name="NotRun", message="The sweep ended before this point.")
        return [
            self._points.get(number) or Point(parameters=parameters, state=not_run)
            for number, parameters in enumerate(self._plan.points, 1)
        ]

    def _run_all(self) -> None:
        pool = ThreadPoolExecutor(self._plan.max_parallel, thread_name_prefix="prefect_nb-sweep")
        pending: dict[Future[Point], int] = {}
        try:
            for number, parameters in enumerate(self._plan.points, 1):
                pending[pool.submit(contextvars.copy_context().run, self._run_one, parameters)] = number
            while pending:
                # In short waits: an exception set on a thread is raised only when it runs.
                done, _ = wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=pending.__getitem__):
                    number = pending.pop(future)
                    self._points[number] = point = future.result()
                    self._on_point(number, point)
        finally:
            # An interrupt has reached the runs of the points by itself; what has not begun does not.
            pool.shutdown(wait=True, cancel_futures=True)
            for future, number in pending.items():
                if future.done() and not future.cancelled():
                    self._points[number] = future.result()

    def _run_one(self, parameters: dict[str, Any]) -> Point:
        flow = self._plan.flow
        executions: list[FlowExecution] = []
        try:
            bound = flow.signature.bind_names({**self._plan.fixed, **parameters})
            name = one_line(label_of(parameters), _LONGEST_NAME)
            state = flow.start(bound, return_state=True, on_start=executions.append, name=name)
            if inspect.iscoroutine(state):
                state = asyncio.run(state)
        except RunCancelled as error:
            state = Cancelled(message=str(error) or None)
        except Exception as error:  # before there was a run; what a run raises is in its state
            state = Failed(message=f"{type(error).__name__}: {error}", data=error)
        run = executions[0].run if executions else None
        value = _NO_VALUE
        if state.is_completed():
            try:
                value = state.value()
            except Exception as error:  # of the store, or of whatever the value is made of
                state = Failed(message=f"Its value cannot be read: {type(error).__name__}: {error}", data=error)
        return Point(parameters=parameters, state=state, flow_run=run, value=None if value is _NO_VALUE else value)

    def _keep_table(self) -> None:
        rows = [point.row() for point in self.results()]
        key = re.sub(r"[^a-z0-9]+", "-", f"{self._plan.flow.name}-sweep".lower()).strip("-")
        artifacts.create("table", jsonable(redact_values(rows), limit=artifacts.LIMIT), key, "Results of the sweep")


def label_of(parameters: Mapping[str, Any]) -> str:
    """`depth=3 lr=0.1`."""
    return " ".join(f"{name}={_plain(value)}" for name, value in parameters.items())


def _plain(value: Any) -> Any:
    """A value for a table: numbers, text and truth values as they are, everything else in a few words."""
    value = as_text(masked(value))
    return value if value is None or isinstance(value, bool | int | float | str) else shown(value)


__all__ = ["OnPoint", "Plan", "Point", "Sweep", "label_of", "plan", "prepare", "run", "sweep"]
