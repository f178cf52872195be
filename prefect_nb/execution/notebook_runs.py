"""One run of a whole notebook: what a notebook flow's body does, and its cells as child runs.

The body's thread only waits. The cells are executed by a loop on a thread of its own, which no cancel or timeout can
hit between two lines; they reach the body's thread, which tells the loop to stop and waits until the kernel is gone.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from prefect_nb.bodies import cell_tags, kernels, parking, saving
from prefect_nb.bodies.attending import Attendant
from prefect_nb.bodies.cell_loop import TIMEOUT_GRACE, CellLoop, Stop
from prefect_nb.bodies.cells import Cell, End, How, pending_cells
from prefect_nb.bodies.document import Document, Notebook
from prefect_nb.exceptions import KernelDied, NotebookError, PrefectException
from prefect_nb.execution import attachment, attending, block_documents, cell_pauses, logs, notebook_returns, scripts
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.context import current_flow
from prefect_nb.execution.flow_runs import CANCEL_GRACE_SECONDS, FlowExecution
from prefect_nb.execution.going_on import Continuation
from prefect_nb.execution.ids import new_id
from prefect_nb.execution.recorder import created, moved
from prefect_nb.execution.timeouts import BodyTimedOut
from prefect_nb.interfaces import Entry
from prefect_nb.model.notebook_literals import secret_variable
from prefect_nb.model.notebook_parameters import NotebookParameter
from prefect_nb.model.runs import TaskRun, to_datetime
from prefect_nb.model.states import (
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Retrying,
    Running,
    State,
)

# Only what has used prefect_nb has anything to finish.
_CLOSING = """import sys
if "prefect_nb.home" in sys.modules:
    from prefect_nb.notebook.attach import finish
    finish()
"""
_EVERYTHING = "parameters"


class SourceDefault(str):
    """The source of a parameter's default that only the kernel can evaluate; it stands for "not given"."""

    __slots__ = ()


class SecretText(str):
    """The annotation of a parameter whose value is kept secret; in the notebook it is pydantic's `SecretStr`."""

    __slots__ = ()


class NotebookBody:
    """The function of a notebook flow: called with parameters inside a flow run, it executes the notebook.

    Args:
        document: the notebook.
        kernel_name: the kernel to use instead of the one the notebook names.
        output_path: where the executed notebook goes; None: `saving.default_output`.
        save: whether the executed notebook is written at all.
        folder: where the cells run; None: the folder the notebook is in.
        cell_timeout_seconds: how long each cell may take.
        startup_timeout_seconds: how long the kernel may take to answer.
        executed: is given the executed notebook at the end, however it ended.

    Raises:
        NotebookError: its kernel is not installed, or does not run Python; or a cell has a tag that cannot be understood.
    """

    def __init__(
        self,
        document: Document,
        *,
        kernel_name: str | None = None,
        output_path: str | os.PathLike[str] | None = None,
        save: bool = True,
        folder: Path | None = None,
        cell_timeout_seconds: float | None = None,
        startup_timeout_seconds: float = kernels.STARTUP_SECONDS,
        executed: Callable[[Notebook], None] | None = None,
    ) -> None:
        if cell_timeout_seconds is not None and cell_timeout_seconds <= 0:
            raise ValueError(f"cell_timeout_seconds must be more than 0, not {cell_timeout_seconds}.")
        cell_tags.check(document.notebook)
        self.document = document
        self.kernel_name = kernels.choose_kernel(document.notebook, kernel_name)
        self.save = save
        self.folder = folder or document.folder
        self.cell_timeout_seconds = cell_timeout_seconds
        self.startup_timeout_seconds = startup_timeout_seconds
        self._output_path = None if output_path is None else os.fspath(output_path)
        self._executed = executed
        self.keep_kernel: bool | None = None
        """Whether the kernel is kept when a cell fails, to go on in; None: as the settings say."""
        self.continuation: Continuation | None = None
        """How the next run, a resumed one, goes on; None: from the top."""
        self.__name__ = self.__qualname__ = document.stem
        self.__doc__ = _docstring(document)
        self.__signature__ = _signature(document.parameters)

    @property
    def has_one_output(self) -> bool:
        """Whether every run writes its executed notebook to the same place."""
        return self.save and self._output_path is not None

    def output_for(self, run_name: str) -> str | None:
        """Where the run of this name writes its notebook, checked.

        Raises:
            NotebookError: nothing can be written there, or it is the source.
        """
        if not self.save:
            return None
        path = self._output_path or saving.default_output(self.document, run_name)
        return saving.check_output(self.document, path)

    def checked(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters by name, checked and coerced; those left to an expression in the notebook are left out.

        Raises:
            ParameterBindError, ParameterTypeError: as `model.notebook_parameters.check_parameters`.
        """
        free = self.document.parameters is None
        values = {name: _plain(value) for name, value in parameters.items() if type(value) is not SourceDefault}
        given = self.document.check(values.get(_EVERYTHING, {}) if free else self._given(values))
        return {_EVERYTHING: given} if free else {**values, **given}

    def __call__(self, **parameters: Any) -> State[Any] | Path | None:
        """Execute the notebook as the flow run this is called in.

        Returns what the notebook gave to `return_`; without one, where the executed notebook is.

        Raises:
            NotebookError: a cell failed, or the executed notebook cannot be written.
        """
        context = current_flow.get()
        assert context is not None
        execution: FlowExecution = context.execution
        notebook = self.continuation.notebook if self.continuation is not None else self.prepared(parameters)
        if parameters and self.document.parameters is None and not self.document.injected:
            logs.flow_run_logger(execution.run, execution.flow).warning(
                "The notebook has no cell tagged 'parameters'; %s set at its top.", ", ".join(parameters)
            )
        end = self._execute(execution, notebook)
        if self._executed is not None:
            self._executed(notebook)
        message = end.message or ""
        match end.how:
            case "failed":
                raise NotebookError(message)
            case "timed-out":
                return Failed(name="TimedOut", message=message, data=NotebookError(message))
            case "crashed":
                return Crashed(message=message, data=KernelDied(message))
        output = execution.run.output_path
        path = None if output is None else Path(output)
        returned = notebook_returns.collect(execution, notebook)
        if end.how == "ended":
            return Completed(message=message or None, data=path if returned is None else returned)
        return path if returned is None else Completed(data=returned)

    def prepared(self, parameters: Mapping[str, Any]) -> Notebook:
        """The notebook to be executed with these parameters, which were checked."""
        return self.document.prepared(self._given(parameters))

    def _given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that differ from the declared defaults: only they need to be put into the notebook."""
        literals = {p.name: p.default for p in self.document.parameters or () if p.is_literal}
        return {
            name: value
            for name, value in values.items()
            if type(value) is not SourceDefault and not (name in literals and _same(value, literals[name]))
        }

    def _execute(self, execution: FlowExecution, notebook: Notebook) -> End:
        run = execution.run
        notebook["metadata"]["papermill"]["output_path"] = run.output_path
        notebook["metadata"]["prefect_nb"] = {"flow_run_id": str(run.id), "flow_run_name": run.name}
        going_on, self.continuation = self.continuation, None  # another attempt begins at the top
        cells = pending_cells(notebook) if going_on is None else going_on.cells
        block_documents.learn_all(execution.home)
        runs = CellRuns(execution, cells if going_on is None else cells[going_on.first.number - 1 :])
        kernel = self._kernel(execution, going_on)
        loop = CellLoop(
            notebook, cells, kernel, saving.Saver(notebook, run.output_path), runs,
            cell_timeout=self.cell_timeout_seconds, closing=_CLOSING,
            attendant=self._attendant(execution, notebook, cells, going_on),
        )  # fmt: skip
        end = End("crashed")
        try:
            end = _run_apart(loop, self._timed_out(execution))
        finally:
            if kernel.was_killed or end.how == "crashed":
                # The kernel was an owner of its own: what it left open is settled before the run itself ends.
                _settle(execution)
            runs.close()
        if end.how in ("completed", "ended"):
            scripts.forget(execution.home.path, run.id)
        return end

    def _kernel(self, execution: FlowExecution, going_on: Continuation | None) -> kernels.Kernel:
        """The kept kernel, or a new one."""
        environment = _environment(execution, self.document)
        if going_on is not None and going_on.kernel is not None:
            going_on.kernel.environment = {attachment.VARIABLE: environment[attachment.VARIABLE]}
            return going_on.kernel
        kept = parking.parked_kernel(execution.home.path, execution.run.id)
        if kept is not None:
            parking.drop(execution.home.path, kept)
        name = self.kernel_name if going_on is None else going_on.kernel_name
        return kernels.Kernel(name, self.folder, environment, self.startup_timeout_seconds)

    def _attendant(
        self, execution: FlowExecution, notebook: Notebook, cells: list[Cell], going_on: Continuation | None
    ) -> Attendant:
        if self.document.injected:
            return Attendant()  # papermill's run, which is not resumed
        home, run = execution.home, execution.run
        try:
            scripts.write_script(home.path, run.id, notebook, cells, self.kernel_name)
        except OSError as error:
            logs.flow_run_logger(run, execution.flow).warning("The run cannot be resumed at a cell: %s", error)
            return Attendant()
        bounds = attending.bounds_of(home.settings, self.keep_kernel)
        return attending.RunAttendant(execution, bounds, restores=going_on is not None and going_on.restores)

    def _timed_out(self, execution: FlowExecution) -> str:
        return f"The run exceeded its timeout of {execution.flow.timeout_seconds} second(s)."


class CellRuns:
    """A notebook run's cells as task runs of kind "cell"; tells the history what the loop tells it.

    All are created Pending when the run starts, so that "cell k of n" is known; what never ran ends Cancelled/"NotRun".
    A second attempt, and a resumed run, go on with the rows of the first.
    """

    def __init__(self, execution: FlowExecution, cells: Iterable[Cell]) -> None:
        self._execution = execution
        self._home = execution.home
        self._ledger = execution.ledger
        self._scope = execution.scope
        self._flow_run_id = execution.run.id
        self._ended: End | None = None
        self._retried: set[str] = set()
        self._runs = {cell.id: self._created(cell) for cell in cells}

    def _created(self, cell: Cell) -> TaskRun:
        key = f"cell-{cell.id}"
        before = self._scope.previous.pop((key, "0"), None)
        if before is not None:
            return self._moved(before, Pending(), taken_over=True)
        now = now_us()
        run = TaskRun(
            id=new_id(), kind="cell", name=cell.name, flow_run_id=self._flow_run_id, task_key=key, dynamic_key="0",
            cell_index=cell.index, retries=cell.rules.retries, retry_delays=cell.rules.delays, state_id=new_id(), state_us=now, created_us=now, expected_us=now, events=1,
        )  # fmt: skip
        self._ledger.append(Entry(run, created(run, Pending()), self._flow_run_id), self._flow_run_id)
        return run

    def between(self, following: Cell) -> End | None:  # noqa: ARG002 - whichever it is
        """Pause the run here if that was asked for; how the notebook ends if nobody resumes it."""
        return cell_pauses.between(self._execution)

    def starting(self, cell: Cell) -> dict[str, Any]:
        """The cell runs; its run goes along with the request, so that tasks in the kernel know where they are."""
        running = Retrying() if cell.id in self._retried else Running()
        run = self._runs[cell.id] = self._moved(self._runs[cell.id], running)
        caller = TaskRun(
            id=run.id, kind=run.kind, name=run.name, flow_run_id=run.flow_run_id, task_key=run.task_key,
            dynamic_key=run.dynamic_key, cell_index=run.cell_index,
        )  # fmt: skip
        return {attachment.CELL: to_builtins(caller)}

    def retrying(self, cell: Cell, end: End, delay: float) -> None:
        """An attempt has failed; the next comes after the delay."""
        self._retried.add(cell.id)
        block_documents.learn_all(self._home)
        if delay > 0:
            at = to_datetime(now_us() + int(delay * 1e6))
            self._runs[cell.id] = self._moved(self._runs[cell.id], AwaitingRetry(at, message=end.message))

    def skipped(self, cell: Cell, why: str) -> None:
        """The cell is passed over."""
        self._runs[cell.id] = self._moved(self._runs[cell.id], Completed(name="Skipped", message=why))

    def ended(self, cell: Cell, end: End) -> None:
        """The cell has run."""
        self._runs[cell.id] = self._moved(self._runs[cell.id], _STATES[end.how](end.message))
        if end.how != "completed":
            self._ended = end
        # What was saved in the kernel is to be masked in the saved notebook.
        block_documents.learn_all(self._home)

    def close(self) -> None:
        """Nothing more runs."""
        why = "The notebook ended before this cell."
        for id, run in self._runs.items():
            if not run.is_final:
                state: State[Any] = Cancelled(name="NotRun", message=why)
                self._runs[id] = run = self._moved(run, state)
            self._scope.previous[(run.task_key, run.dynamic_key)] = run

    def _moved(self, run: TaskRun, state: State[Any], *, taken_over: bool = False) -> TaskRun:
        after = moved(self._ledger, run, state, self._flow_run_id, taken_over=taken_over)
        assert isinstance(after, TaskRun)
        return after


_STATES: dict[How, Callable[[str | None], State[Any]]] = {
    "completed": lambda message: Completed(message=message),
    "ended": lambda message: Completed(message=message),
    "failed": lambda message: Failed(message=message),
    "timed-out": lambda message: Failed(name="TimedOut", message=message),
    "crashed": lambda message: Crashed(message=message),
    "stopped": lambda message: Cancelled(message=message),
}


def _run_apart(loop: CellLoop, timeout_message: str) -> End:
    """Run the loop on a thread of its own. What interrupts this one stops the loop and is raised when it has ended."""
    done = threading.Event()
    ended: list[End] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            ended.append(loop.run())
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="prefect_nb-cells", daemon=True).start()
    interruption: BaseException | None = None
    while not done.is_set():
        try:
            # In short waits: an exception set on a thread is raised only when it runs.
            while not done.wait(0.2):
                pass
        except BaseException as error:
            loop.stop(_stop_for(error, timeout_message, again=interruption is not None))
            interruption = interruption or error
    if interruption is not None:
        raise interruption
    if raised:
        raise raised[0]
    return ended[0]


def _stop_for(error: BaseException, timeout_message: str, *, again: bool) -> Stop:
    if isinstance(error, BodyTimedOut):
        return Stop("timed-out", timeout_message, TIMEOUT_GRACE)
    return Stop("stopped", str(error) or "Interrupted.", 0.0 if again else CANCEL_GRACE_SECONDS)


def _settle(execution: FlowExecution) -> None:
    try:
        execution.home.reap()
    except PrefectException as error:
        logs.flow_run_logger(execution.run, execution.flow).warning("The kernel's runs were not settled: %s", error)


def _environment(execution: FlowExecution, document: Document) -> dict[str, str]:
    """The kernel's environment: this process's, and which run it belongs to."""
    run, scope = execution.run, execution.scope
    belonging = attachment.Attachment(
        run.id,
        run.epoch,
        durable=scope.durable,
        persist=scope.persist,
        depth=scope.depth - 1,
        again=run.epoch > 1 or run.run_count > 1,
        named=scope.again.named if scope.again is not None else None,
    )
    environment = {
        **os.environ,
        attachment.VARIABLE: attachment.encode(belonging),
        "PREFECT_NB_HOME": str(execution.home.path),
        "JPY_SESSION_NAME": document.path,
    }
    given = execution.parameters
    for parameter in document.parameters or ():
        if parameter.is_secret and type(given.get(parameter.name)) is str:
            environment[secret_variable(parameter.name)] = given[parameter.name]
    # Of whoever started this process; the kernel's parent is this one, as the kernel is told when it starts.
    environment.pop("JPY_PARENT_PID", None)
    return environment


def _plain(value: Any) -> Any:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and repr(value) == repr(default))


def _signature(parameters: list[NotebookParameter] | None) -> inspect.Signature:
    if parameters is None:
        return inspect.Signature([inspect.Parameter(_EVERYTHING, inspect.Parameter.VAR_KEYWORD)])
    return inspect.Signature([_parameter(parameter) for parameter in parameters])


def _parameter(parameter: NotebookParameter) -> inspect.Parameter:
    kind = SecretText if parameter.is_secret else parameter.kind
    default: Any = inspect.Parameter.empty
    if parameter.default_source is not None:
        default = parameter.default if parameter.is_literal else SourceDefault(parameter.default_source)
    return inspect.Parameter(
        parameter.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=inspect.Parameter.empty if kind is None else kind,
    )


def _docstring(document: Document) -> str:
    """The notebook's title, and the comments on its parameters as descriptions."""
    lines = [document.title or document.stem]
    helps = [(parameter.name, parameter.help) for parameter in document.parameters or () if parameter.help]
    if helps:
        lines += ["", "Args:", *(f"    {name}: {text}" for name, text in helps)]
    return "\n".join(lines)
