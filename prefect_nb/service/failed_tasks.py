"""A failed task run, to be looked at by hand: its inputs under their own names, its body as a cell."""

import ast
import builtins
import pickle
from collections.abc import Mapping
from typing import Any

import msgspec

from prefect_nb.exceptions import ConfigurationError, MissingResult, ObjectNotFound
from prefect_nb.execution import failures
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.name_flow import names_read
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.service import history
from prefect_nb.service.text import did_you_mean, one_line

_LISTED = 10
_RECENT = 200


class LoadedTask(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a failed task run."""

    run: TaskRun
    flow_run: FlowRun | None
    inputs: dict[str, Any]
    """Its arguments by name, as they were when it had failed."""
    missing: dict[str, str]
    """The arguments that are not kept, and why."""
    source: str | None
    """The task's source, with its decorator."""
    function: str
    """The name of its function."""

    def cell(self, known: Mapping[str, Any] | None = None) -> str:
        """The body as the source of a cell, whose variables are the inputs.

        Where the function returns from its middle, the cell is the function and a call of it.

        Args:
            known: the variables there are; what the body reads besides is named in a comment.
        """
        of = f", flow run {one_line(self.flow_run.name, 60)}" if self.flow_run is not None else ""
        lines = [
            f"# Task run {one_line(self.run.name, 60)}{of}: {self.run.state_name}",
            f"# {one_line(self.run.state_message or '', 200)}",
        ]
        lines += [f"# {name} is not here: {one_line(why, 150)}." for name, why in self.missing.items()]
        if self.source is None:
            return "\n".join([*lines, "# Its source is not known."]) + "\n"
        body = _unrolled(self.source) or _called(self.source, self.function)
        if known is not None:
            others = sorted(_reads(body) - set(known) - set(self.inputs) - set(self.missing))
            if others:
                lines.append(f"# It also reads {', '.join(others)}: not defined here.")
        return "\n".join([*lines, body])


def load_task(what: str) -> LoadedTask:
    """The inputs and the source of a failed task run.

    Args:
        what: `run/task` (a flow run and one of its tasks), a task run's name or id, a flow run of which one task failed, or
            a task's name, meaning its newest run that failed.

    Raises:
        ObjectNotFound: there is no such run, or none of its tasks failed.
        ConfigurationError: several fit; the message lists them.
        MissingResult: its inputs were not kept; the message says when they are.
    """
    run = _find(what)
    home = history.settled_home()
    kept = failures.load(home.results, run.id)
    if kept is None:
        reason = "it has not failed" if run.state_type is not StateType.FAILED else "they were not kept"
        raise MissingResult(
            f"There are no inputs of task run {run.name!r}: {reason}. They are kept of tasks that fail in a notebook, in a "
            "notebook run, or where results are kept (persist_result=True)."
        )
    inputs, missing = {}, dict(kept.missing)
    for name, blob in kept.values.items():
        try:
            inputs[name] = pickle.loads(blob)
        except Exception as error:  # whatever the classes of the values raise
            missing[name] = f"it cannot be read here ({type(error).__name__}: {error})"
    flow_run = home.store.flow_run(run.flow_run_id) if run.flow_run_id is not None else None
    return LoadedTask(
        run=run, flow_run=flow_run, inputs=inputs, missing=missing, source=kept.source, function=kept.function
    )


def _find(what: str) -> TaskRun:
    flow_text, slash, task_text = what.rpartition("/")
    if slash:
        return _of_flow_run(history.find_flow_run(flow_text), task_text)
    found = history.settled_home().store.resolve_run(what)
    if any(isinstance(run, FlowRun) for run in found) and not any(isinstance(run, TaskRun) for run in found):
        return _of_flow_run(history.find_flow_run(what), "")
    query = RunQuery(name_contains=what, kinds=("task",), state_types=(StateType.FAILED,), limit=_RECENT)
    of_task = [run for run in history.settled_home().store.task_runs(query) if run.name.rpartition("-")[0] == what]
    return of_task[0] if of_task and not found else history.find_task_run(what)


def _of_flow_run(flow_run: FlowRun, task: str) -> TaskRun:
    """The failed task run of that name or task name; with "" the only one that failed."""
    ids = (flow_run.id, *(child.id for child in history.descendants(flow_run.id)))
    runs = [run for id in ids for run in history.all_task_runs(id, kinds=("task",))]
    failed = [run for run in runs if run.state_type is StateType.FAILED]
    fitting = [run for run in failed if not task or run.name == task or str(run.id).startswith(task)]
    fitting = fitting or [run for run in failed if run.name.rpartition("-")[0] == task]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        near = did_you_mean(task, [run.name for run in failed]) if task else ""
        which = f"no failed task {one_line(task)!r}" if task else "no failed task"
        raise ObjectNotFound(f"Flow run {flow_run.name!r} has {which}.{near}")
    names = ", ".join(f"{history.handle_of(flow_run)}/{one_line(run.name, 60)}" for run in fitting[:_LISTED])
    more = f" and {len(fitting) - _LISTED} more" if len(fitting) > _LISTED else ""
    raise ConfigurationError(f"{len(fitting)} tasks of flow run {flow_run.name!r} failed; name one: {names}{more}.")


def _unrolled(source: str) -> str | None:
    """The function's body as top-level code; None where that would not mean the same."""
    function = _function(source)
    if function is None or isinstance(function, ast.AsyncFunctionDef):
        return None
    body = function.body
    leaving = [node for node in _own_nodes(function) if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom)]
    last = body[-1]
    if any(node is not last for node in leaving) or any(
        isinstance(node, ast.Nonlocal) for node in _own_nodes(function)
    ):
        return None
    if function.lineno == body[0].lineno:
        return None
    lines = source.splitlines()
    first = _end_of_heading(function)
    indent = body[0].col_offset
    kept = [line[indent:] if not line[:indent].strip() else line for line in lines[first : function.end_lineno]]
    if isinstance(last, ast.Return):
        place = last.lineno - first - 1
        kept[place] = kept[place].replace("return", "", 1).lstrip() if last.value is not None else "pass"
    text = "\n".join(kept).strip("\n")
    try:
        ast.parse(text)
    except SyntaxError:
        return None
    return text + "\n"


def _end_of_heading(function: ast.FunctionDef) -> int:
    """The number of lines up to the first of the body that is worth having: the docstring is left out."""
    first = function.body[0]
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    if is_text and len(function.body) > 1:
        return first.end_lineno or first.lineno
    return first.lineno - 1


def _called(source: str, name: str) -> str:
    function = _function(source)
    if function is None:
        return source
    lines = source.splitlines()[function.lineno - 1 :]
    arguments = function.args
    given = [arg.arg for arg in (*arguments.posonlyargs, *arguments.args)]
    call = [*given, *([f"*{arguments.vararg.arg}"] if arguments.vararg else [])]
    call += [f"{arg.arg}={arg.arg}" for arg in arguments.kwonlyargs]
    call += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    awaited = "await " if isinstance(function, ast.AsyncFunctionDef) else ""
    return "\n".join([*lines, "", f"{awaited}{name}({', '.join(call)})"]) + "\n"


def _function(source: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    return next((node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)), None)


def _own_nodes(function: ast.AST) -> list[ast.AST]:
    """What is in a function and not in one inside it."""
    found: list[ast.AST] = []
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return found


def _reads(source: str) -> set[str]:
    try:
        return set(names_read(ast.parse(source))) - set(dir(builtins))
    except SyntaxError:
        return set()
