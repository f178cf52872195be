"""`@flow`: a function whose call is a recorded run that its task runs and sub-flow runs belong to."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload
from uuid import UUID

from msgspec.structs import replace

from prefect_nb.exceptions import ParameterTypeError
from prefect_nb.execution import inputs, loading, resuming, secrets, stopping
from prefect_nb.execution.again import Again
from prefect_nb.execution.context import FlowRunContext, current_flow, visualizing
from prefect_nb.execution.decorated import Decorated
from prefect_nb.execution.definitions import (
    FlowDefinition,
    checked_name,
    checked_template,
    file_version,
    flow_name,
    name_like,
    source_file,
    templated_name,
)
from prefect_nb.execution.flow_runs import FlowExecution
from prefect_nb.execution.repairing import Begun, Repairable
from prefect_nb.execution.scope import Scope
from prefect_nb.execution.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect_nb.execution.visualizing import FlowGraph
from prefect_nb.flows import driving
from prefect_nb.flows.beginning import new_run
from prefect_nb.home import Home
from prefect_nb.model.codec import jsonable
from prefect_nb.model.parameter_schema import ParameterSchema
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import State
from prefect_nb.settings import get_settings

P = ParamSpec("P")
R = TypeVar("R")


class Flow(Decorated, Repairable, FlowDefinition, Generic[P, R]):
    """A flow. Made by `@flow`; the arguments are those of `flow`."""

    kind = "function"
    word = "flow"
    HOOK_KINDS = ("completion", "failure", "running", "cancellation", "crashed")
    OPTIONS = (
        "name", "version", "flow_run_name", "retries", "retry_delay_seconds", "task_runner", "description",
        "timeout_seconds", "persist_result", "result_storage", "result_serializer", "cache_result_in_memory",
        "log_prints", "durable",
    )  # fmt: skip
    KEPT_BY_EMPTY = frozenset({"name", "version", "description"})

    def __init__(
        self,
        fn: Callable[P, R],
        name: str | None = None,
        version: str | None = None,
        flow_run_name: str | Callable[..., str] | None = None,
        retries: int | None = None,
        retry_delay_seconds: float | None = None,
        task_runner: TaskRunner | type[TaskRunner] | None = None,
        description: str | None = None,
        timeout_seconds: float | None = None,
        validate_parameters: bool = True,
        persist_result: bool | None = None,
        result_storage: Any = None,
        result_serializer: Any = None,
        cache_result_in_memory: bool = True,
        log_prints: bool | None = None,
        on_completion: list[Callable[..., Any]] | None = None,
        on_failure: list[Callable[..., Any]] | None = None,
        on_cancellation: list[Callable[..., Any]] | None = None,
        on_crashed: list[Callable[..., Any]] | None = None,
        on_running: list[Callable[..., Any]] | None = None,
        durable: bool = False,
    ) -> None:
        fn = self._take(fn)
        settings = get_settings()
        self.name = checked_name(name or flow_name(fn))
        self.version = version or file_version(fn)
        self.flow_run_name = checked_template("flow_run_name", flow_run_name)
        self.retries = settings.flow_default_retries if retries is None else retries
        self.retry_delay_seconds = float(
            settings.flow_default_retry_delay_seconds if retry_delay_seconds is None else retry_delay_seconds
        )
        if isinstance(task_runner, type):
            task_runner = task_runner()
        self.task_runner: TaskRunner = task_runner or ThreadPoolTaskRunner()
        self.description = description or inspect.getdoc(fn)
        self.timeout_seconds = float(timeout_seconds) if timeout_seconds else None
        self.should_validate_parameters = validate_parameters
        self.persist_result = persist_result
        if persist_result is None and (result_storage is not None or result_serializer is not None):
            self.persist_result = True
        self.result_storage = result_storage
        self.result_serializer = result_serializer
        self.cache_result_in_memory = cache_result_in_memory
        self.log_prints = log_prints
        self.durable = durable
        self._take_hooks(
            completion=on_completion,
            failure=on_failure,
            cancellation=on_cancellation,
            crashed=on_crashed,
            running=on_running,
        )
        self._look_like(fn)

    @cached_property
    def entrypoint(self) -> str | None:
        """`path/to/file.py:name`, where the flow can be loaded from again; None for code that is in no file."""
        path = source_file(self.fn)
        return f"{path}:{self.__qualname__}" if path is not None else None

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Parameters by name, checked and converted by the annotations.

        Raises:
            ParameterTypeError: naming each that does not fit.
            SignatureMismatchError: the flow has no parameter of that name.
        """
        from prefect_nb.model.parameters import validate

        self.signature.call_args(parameters)  # refuses unknown names
        return validate(self.signature, parameters)

    # Calling

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(self, *args: Any, return_state: bool, wait_for: Any = ..., **kwargs: Any) -> Any: ...

    def __call__(  # type: ignore[misc]
        self, *args: Any, return_state: bool = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> Any:
        """Run the flow on this thread (an async flow: give the coroutine that does) and return its value.

        Args:
            return_state: return the final `State` instead, and do not raise what the flow raised.
            wait_for: futures or states that must have completed first.
        """
        parameters = self.signature.bind(args, kwargs)
        if (drawing := visualizing.get()) is not None:
            return drawing.called(self, parameters, wait_for, "call")
        return self.start(parameters, return_state=return_state, wait_for=wait_for)

    def visualize(self, *args: P.args, **kwargs: P.kwargs) -> FlowGraph:
        """The graph of the tasks and sub-flows a call would run; in a notebook a picture. No task is run.

        The flow's own code is executed with stand-ins for what tasks return. Where it looks at such a value, give the
        task a `viz_return_value`. `graph.save("flow.svg")` writes a file, `print(graph)` shows it as text.

        Raises:
            Exception: what the flow's own code raises when it meets a stand-in; the message says what helps.
        """
        from prefect_nb.execution.visualizing import graph_of

        return graph_of(self, self.signature.bind(args, kwargs))

    def generate_mermaid_graph(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The same graph in Mermaid's language."""
        return self.visualize(*args, **kwargs).mermaid()

    def start(
        self,
        parameters: dict[str, Any],
        *,
        return_state: bool = False,
        wait_for: Iterable[Any] | None = None,
        on_start: Callable[[FlowExecution], None] | None = None,
        **run_fields: Any,
    ) -> Any:
        """Run the flow with bound parameters; `run_fields` are set on the new `FlowRun`."""
        home = Home.current()
        run, parent, dummy = new_run(self, home, run_fields)
        return self._run(home, run, parameters, parent, dummy, wait_for, return_state, on_start)

    def resume(
        self,
        flow_run_id: UUID,
        *,
        run_input: dict[str, Any] | None = None,
        return_state: bool = False,
        force: bool = False,
    ) -> Any:
        """Go on with a suspended, crashed or failed run of this flow: its parameters again, its kept task results reused.

        Args:
            flow_run_id: the run.
            run_input: the answer that a suspended run waits for, by field.
            return_state: return the final `State` instead, and do not raise what the flow raised.
            force: take the run over although its process still lives; that process can write nothing more of it.

        Raises:
            ObjectNotFound: no such run.
            NotResumable: it completed, or is still running.
            RecoveryLimit: it crashed too often without getting further; it is Failed now.
            Fenced: another process has taken it over just now.
            FlowPauseTimeout: it was suspended, and it is too late to go on; it is Failed now.
            RuntimeError: the answer does not fit; the run stays suspended.
        """
        home = Home.current()
        home.reap()
        run, previous = resuming.take_over(home, flow_run_id, force, run_input)
        parameters = {**self.signature.defaults, **self._loadable(home, run)}
        parent, stand_in = resuming.place_in_notebook(home, run)
        return self._run(home, run, parameters, parent, stand_in, None, return_state, None, previous=previous)

    def _go_on(self, begin: Callable[[Home], Begun], return_state: bool) -> Any:
        home = Home.current()
        home.reap()
        begun = begin(home)
        parameters = {**self.signature.defaults, **self._loadable(home, begun.run)}
        return self._run(home, begun.run, parameters, None, None, None, return_state, None, begun.previous, begun.again)

    def _loadable(self, home: Home, run: FlowRun) -> dict[str, Any]:
        recorded = secrets.all_parameters(home.cipher, run)
        return {name: value for name, value in recorded.items() if name in self.signature.names}

    def _run_name(self, execution: FlowExecution) -> str:
        """A name from the `flow_run_name` template or callable, which may look at `runtime.flow_run`; or two words."""
        parameters = execution.parameters
        if self.flow_run_name is None or execution.plan.invalid is not None or inputs.has_special(parameters):
            from coolname import generate_slug

            return generate_slug(2)
        token = current_flow.set(FlowRunContext(execution))
        try:
            return templated_name(self.flow_run_name, {"flow_name": self.name, **parameters}, "flow_run_name")
        finally:
            current_flow.reset(token)

    def _run(
        self,
        home: Home,
        run: FlowRun,
        parameters: dict[str, Any],
        parent: Scope | None,
        dummy: TaskRun | None,
        wait_for: Iterable[Any] | None,
        return_state: bool,
        on_start: Callable[[FlowExecution], None] | None,
        previous: dict[tuple[str, str], TaskRun] | None = None,
        again: Again | None = None,
    ) -> Any:
        done: State[Any] | None = None
        if parent is not None and dummy is not None:
            done = parent.finished_flows.get((dummy.task_key, dummy.dynamic_key))
            if found := resuming.sub_flow(home, parent, dummy):
                run, dummy, previous, done = found
        inherited = parent.persist if parent is not None else None
        persist = self.persist_result if self.persist_result is not None else inherited
        scope = Scope(
            run.id,
            durable=self.durable or (parent is not None and parent.durable),
            persist=persist,
            make_runner=self.task_runner.open,
            parent=parent if parent is not None and parent.flow_run_id is not None else None,
        )
        scope.previous = previous or {}
        scope.again = again or scope.again
        invalid: Exception | None = None
        given = parameters
        if self.should_validate_parameters and not inputs.has_special(parameters):
            try:
                parameters = self.validate_parameters(parameters)
            except ParameterTypeError as error:
                invalid = error
        if run.events == 0:
            hints = self.signature.hints()
            run = replace(run, **secrets.recorded_parameters(home.cipher, given, parameters, hints))
        scope.parameters = parameters
        execution = FlowExecution(
            home,
            self,
            run,
            parameters,
            scope,
            wait_for=inputs.listed(wait_for),
            parent=scope.parent,
            parent_task_run=dummy,
            invalid=invalid,
            persist=bool(persist) or scope.durable,
        )
        if not run.name:
            execution.run = replace(run, name=self._run_name(execution))
        if on_start is not None:
            on_start(execution)
        execution.state = done
        return driving.driven(home, execution, return_state)

    # Variants

    def with_options(self, **options: Any) -> Flow[P, R]:
        """A new flow with some options changed; the others, hooks included, stay. None as for tasks."""
        return self._changed(options)

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "validate_parameters": self.should_validate_parameters}

    def on_cancellation(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Call `fn(flow, run, state)` when a run was cancelled."""
        return self._add_hook("cancellation", fn)

    def on_crashed(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Call `fn(flow, run, state)` when a run was interrupted by the end of its process."""
        return self._add_hook("crashed", fn)

    @classmethod
    def from_source(cls, source: str | os.PathLike[str], entrypoint: str) -> Flow[..., Any]:
        """A flow of a folder: `Flow.from_source("jobs", "nightly.py:report")`, or a notebook, `"report.ipynb"`.

        Args:
            source: the folder.
            entrypoint: the file in it, and the flow's name there.

        Raises:
            ObjectNotFound, ScriptError, MissingFlowError, NotebookError: the message says what is missing or broken.
        """
        path, name = loading.in_folder(source, entrypoint)
        if path.suffix == ".ipynb":
            return cls.from_notebook(path)
        return cast("Flow[..., Any]", loading.load_flow(f"{path}:{name}" if name else str(path)))

    @property
    def parameters(self) -> ParameterSchema:
        """The JSON schema of its parameters, as servers and forms read it."""
        return ParameterSchema.of(self.signature)

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Parameters as JSON can hold them; what it cannot hold becomes a short text."""
        return {name: jsonable(value) for name, value in parameters.items()}

    @classmethod
    def from_notebook(cls, path: str | os.PathLike[str], **options: Any) -> NotebookFlow:
        """A flow whose body is a whole notebook; called with parameters, it executes the notebook's cells.

        The notebook is read now, and every run executes what was read. Its parameters are those that the cell tagged
        `parameters` assigns. It runs in a kernel of its own, in its own folder; each cell is a child run. The call
        returns what the notebook gave to `return_`; without one, the path of the executed notebook:
        `runs/<notebook>-<run name>.ipynb` beside the source.

        Args:
            path: the `.ipynb`, or a URL papermill can read; it is never modified.
            options: those of `flow`, and `kernel_name`, `output_path`, `cell_timeout_seconds`.

        Raises:
            NotebookError: there is no such file, it is no notebook, or its kernel is not installed.
            ParameterBindError: its parameters cell is not Python.
        """
        from prefect_nb.bodies.document import Document, is_url
        from prefect_nb.execution.notebook_runs import NotebookBody

        names = ("kernel_name", "output_path", "cell_timeout_seconds", "startup_timeout_seconds")
        own = {name: options.pop(name) for name in names if name in options}
        source = os.fspath(path)
        body = NotebookBody(Document.read(source if is_url(source) else Path(source)), **own)
        return NotebookFlow.of(body, **options)


class NotebookFlow(Flow[..., Any]):
    """A flow whose body is a notebook (`execution.notebook_runs.NotebookBody`). Made by `Flow.from_notebook`."""

    kind = "notebook"

    @classmethod
    def of(cls, body: Any, **options: Any) -> NotebookFlow:
        """The flow of a notebook body, named, versioned and described by its document."""
        document = body.document
        own = {"name": name_like(document.stem), "version": document.version, "description": document.title}
        return cls(body, **{**own, **options})

    @property
    def body(self) -> Any:
        """The notebook with what it needs to run."""
        return self.fn

    @cached_property
    def entrypoint(self) -> str | None:
        """The notebook's path."""
        return cast("str", self.body.document.path)

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Parameters by name, checked and converted as the notebook's parameters cell declares them.

        Raises:
            ParameterTypeError, ParameterBindError: naming each that does not fit.
        """
        return cast("dict[str, Any]", self.body.checked(parameters))

    def start(
        self,
        parameters: dict[str, Any],
        *,
        on_start: Callable[[FlowExecution], None] | None = None,
        **options: Any,
    ) -> Any:
        """Run the notebook with bound parameters, as `Flow.start`.

        Raises:
            ParameterTypeError, ParameterBindError, NotebookError: before there is a run.
        """
        if not inputs.has_special(parameters):
            parameters = self.body.checked(parameters)

        def named(execution: FlowExecution) -> None:
            # The run has its name by now, but is not recorded yet.
            if execution.run.output_path is None:
                execution.run = replace(execution.run, output_path=self.body.output_for(execution.run.name))
            if on_start is not None:
                on_start(execution)

        fields = {"input_path": self.body.document.path, "code_hash": self.body.document.version}
        return super().start(parameters, on_start=named, **{**fields, **options})


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(fn: None = None, /, **options: Any) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def flow(fn: Any = None, /, **options: Any) -> Any:
    """Make a function a flow.

    Called, it runs on the caller's thread and is recorded with every task run inside.

    Args:
        name: of the flow; default: the function's name with - for _.
        version: default: a hash of the file it is in.
        flow_run_name: template such as `"report-{date}"`, or a callable; default: two random words.
        retries, retry_delay_seconds: run the whole function again after an exception.
        task_runner: where submitted tasks run: `ThreadPoolTaskRunner()` (default), `ProcessPoolTaskRunner()`.
        description: default: the docstring.
        timeout_seconds: how long one attempt may take.
        validate_parameters: check and convert arguments by their annotations.
        persist_result: keep the result, and those of tasks that do not say otherwise.
        result_serializer: "pickle", "json", "compressed/pickle", ... or an instance.
        log_prints: write prints to the run's log; sub-flows and tasks inherit it.
        on_completion, on_failure, on_cancellation, on_crashed, on_running: hooks `(flow, run, state)`.
        durable: every task's result is on disk and its history committed before the next line runs, so that a crashed
            run resumes exactly where it was.
    """
    if fn is None:
        return partial(_make, options)
    return Flow(fn, **options)


def _make(options: dict[str, Any], fn: Callable[P, R]) -> Flow[P, R]:
    return Flow(fn, **options)


# Written `flow.from_source(...)` as often as `Flow.from_source(...)`.
flow.from_source = Flow.from_source  # type: ignore[attr-defined]
flow.from_notebook = Flow.from_notebook  # type: ignore[attr-defined]
flow.stop = stopping.stop  # type: ignore[attr-defined]
