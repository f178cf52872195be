"""`%%task`: a cell whose body is a task, cached by its code and by the values it takes from the notebook."""

from __future__ import annotations

import ast
import builtins
import re
import sys
import types
from argparse import Namespace
from collections.abc import Callable
from typing import Any, NamedTuple

from IPython.core.error import UsageError

from prefect_nb.exceptions import RunCancelled
from prefect_nb.execution.clock import now_us
from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.model.code_fingerprints import code_parts
from prefect_nb.model.fingerprints import Part, Unhashable, hash_value
from prefect_nb.model.policies import INPUTS, NO_CACHE, CachePolicy
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import GLYPHS, State
from prefect_nb.notebook.cells import Cell
from prefect_nb.notebook.listing import show
from prefect_nb.notebook.names import Names, declared, names_of, split_declarations
from prefect_nb.notebook.tracebacks import shown_as, shown_from_cell
from prefect_nb.service.text import ago, did_you_mean, duration_text, one_line
from prefect_nb.tasks import Task

DEFAULT_NAME = "cell-task"

# The function a cell is compiled to has one name for all cells: renaming a task does not change what it computes.
_FUNCTION = "cell"
_VALUE = "__value__"
_LOCALS = "__locals__"

_HEADING = re.compile(
    r"""
    (?P<name> "[^"]*" | '[^']*' | [^\s(>-](?:[^\s(>-]|-(?!>))* )?
    \s* (?: \( (?P<inputs> [^)]* ) \) )?
    \s* (?: -> \s* (?P<outputs> \w+ (?: \s*,\s*\w+ )* ) )?
    (?P<rest> (?:\s.*)? )
    """,
    re.VERBOSE,
)
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type, Task, Flow)


class Heading(NamedTuple):
    """The first line of a `%%task` cell, taken apart: `clean(raw) -> tidy -r 2`."""

    name: str | None
    inputs: tuple[str, ...] | None
    outputs: tuple[str, ...] | None
    options: str


def read_heading(line: str) -> Heading:
    """Take the first line apart.

    Raises:
        UsageError: an input or output is no name.
    """
    found = _HEADING.fullmatch(line.strip())
    if found is None:
        return Heading(None, None, None, line)
    name = (found["name"] or "").strip("'\"") or None
    return Heading(name, _list_of_names(found["inputs"]), _list_of_names(found["outputs"]), found["rest"])


def _list_of_names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if not name.isidentifier():
            raise UsageError(f"%%task: {name!r} is no name of a variable; write %%task clean(raw) -> tidy.")
    return names


class CellSource(CachePolicy):
    """The part of a key that stands for a cell's code: its body, the helpers it reaches, the globals it reads."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def parts(self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any]) -> list[Part]:  # noqa: ARG002
        """A part for each thing the body depends on besides its inputs."""
        return code_parts(self.fn)


class TaskCell:
    """One execution of a `%%task` cell.

    Args:
        cell: the body.
        heading: name, inputs and outputs as far as they are stated.
        options: the parsed options of the magic.

    Raises:
        UsageError: the cell needs a variable that the notebook does not have, or its heading does not fit its body.
    """

    def __init__(self, cell: Cell, heading: Heading, options: Namespace) -> None:
        self._cell = cell
        self._options = options
        self._name = heading.name or DEFAULT_NAME
        self._namespace: dict[str, Any] = cell.shell.user_ns
        declarations, self._body = split_declarations(cell.tree.body)
        # They run in the notebook, so that a class is one class and a helper a helper, whether or not the body runs.
        cell.execute(declarations, self._namespace, self._namespace)
        names = names_of(self._body)
        self._inputs = self._inputs_of(names, heading.inputs)
        own = {name for statement in declared(self._body) for name in names_of([statement]).bound}
        self._outputs = self._outputs_of(names.bound - own, heading.outputs)
        self._source = self._compiled()
        """The cell as a function, to be read."""
        self._function = _as_cell(self._source)
        """The same, to be called."""

    def _inputs_of(self, names: Names, stated: tuple[str, ...] | None) -> tuple[str, ...]:
        namespace = self._namespace
        known = {*namespace, *vars(builtins)}
        missing = sorted(({*stated} if stated is not None else names.needed - names.bound) - known)
        if missing:
            near = did_you_mean(missing[0], (name for name in namespace if not name.startswith("_")))
            words = " and ".join(f"`{name}`" for name in missing)
            is_are = "is" if len(missing) == 1 else "are"
            raise UsageError(
                f"%%task {self._name} needs {words}, which {is_are} not defined.{near} "
                f"Run the cell that makes {'it' if len(missing) == 1 else 'them'} first."
            )
        if stated is not None:
            unstated = sorted((names.needed & names.bound & {*namespace}) - {*stated})
            if unstated:
                raise UsageError(
                    f"%%task {self._name}: the cell reads `{unstated[0]}` before it assigns it; "
                    "name it among the inputs."
                )
            return stated
        read = {*names.needed, *(names.later - names.bound)}
        return tuple(sorted(name for name in read if name in namespace and not isinstance(namespace[name], _CODE)))

    def _outputs_of(self, bound: frozenset[str], stated: tuple[str, ...] | None) -> tuple[str, ...]:
        for name in stated or ():
            if name not in bound:
                near = did_you_mean(name, bound)
                raise UsageError(f"%%task {self._name}: the cell does not assign `{name}`.{near}")
        return tuple(sorted(bound)) if stated is None else stated

    # The function

    def _compiled(self) -> Callable[..., Any]:
        body = [*self._body]
        last = body[-1] if body else None
        if isinstance(last, ast.Expr):
            body[-1] = ast.copy_location(ast.Assign([ast.Name(_VALUE, ast.Store())], last.value), last)
        body += ast.parse(f"{_LOCALS} = locals()\nreturn {_LOCALS}").body
        parameters = ast.arguments([], [ast.arg(name) for name in self._inputs], None, [], [], None, [])
        make = ast.AsyncFunctionDef if self._cell.is_async else ast.FunctionDef
        definition = make(name=_FUNCTION, args=parameters, body=body, decorator_list=[], lineno=1, col_offset=0)
        made: dict[str, Any] = {}
        self._cell.execute([ast.fix_missing_locations(definition)], self._namespace, made)
        function: Callable[..., Any] = made[_FUNCTION]
        function.__prefect_nb_source__ = ast.unparse(definition)  # type: ignore[attr-defined]
        return function

    def _wrapped(self) -> Callable[..., Any]:
        """The function as the task calls it: parameters in, what is kept of the cell out."""
        function = self._function
        if self._cell.is_async:

            async def awaited(**inputs: Any) -> Any:
                before = self._digests(inputs)
                return self._kept(await function(**inputs), inputs, before)

            fn: Callable[..., Any] = awaited
        else:

            def called(**inputs: Any) -> Any:
                before = self._digests(inputs)
                return self._kept(function(**inputs), inputs, before)

            fn = called
        fn.__signature__ = _signature(self._inputs)  # type: ignore[attr-defined]
        fn.__name__ = fn.__qualname__ = self._name
        fn.__module__ = "__main__"
        fn.__doc__ = None
        return fn

    def _digests(self, inputs: dict[str, Any]) -> dict[str, str]:
        if not self._options.cache:
            return {}
        try:
            return {name: hash_value(value) for name, value in inputs.items()}
        except Unhashable:
            return {}

    def _kept(self, found: dict[str, Any], inputs: dict[str, Any], before: dict[str, str]) -> dict[str, Any]:
        """The outputs and what the cell shows, as they are kept; an input changed in place is an output, too."""
        if self._options.cache:
            _show_figures()
        names = {name: found[name] for name in self._outputs if name in found}
        after = self._digests(inputs) if before else {}
        for name, value in inputs.items():
            if before.get(name) != after.get(name):
                names.setdefault(name, value)
        shown: dict[str, Any] | None = None
        if not self._cell.is_silent and found.get(_VALUE) is not None:
            shown, _ = self._cell.shell.display_formatter.format(found[_VALUE])
        return {"names": names, "shown": shown}

    # The run

    def run(self) -> Any:
        """Run the cell. Where the body awaits: the coroutine that does."""
        options = self._options
        task: Task[..., Any] = Task(
            self._wrapped(),
            name=self._name,
            tags=options.tags,
            retries=options.retries,
            retry_delay_seconds=options.retry_delay,
            timeout_seconds=options.timeout,
            cache_policy=INPUTS + CellSource(self._source) if options.cache else NO_CACHE,
            persist_result=options.cache,
            log_prints=True if options.log_prints else None,
        )
        task.on_completion(self._ended)
        task.on_failure(self._ended)
        inputs = {name: self._namespace[name] for name in self._inputs}
        if self._cell.is_async:
            return self._await_run(task, inputs)
        try:
            self._finish(task(**inputs))
        except BaseException as error:
            raise self._shown(error)  # noqa: B904 - it is the same error
        return None

    async def _await_run(self, task: Any, inputs: dict[str, Any]) -> None:
        try:
            self._finish(await task(**inputs))
        except BaseException as error:
            raise self._shown(error)  # noqa: B904

    def _finish(self, kept: dict[str, Any]) -> None:
        self._namespace.update(kept["names"])
        self._cell.execute([*declared(self._body)], self._namespace, self._namespace)
        if kept["shown"] is not None:
            show(kept["shown"])

    def _ended(self, task: Any, run: TaskRun, state: State[Any]) -> None:  # noqa: ARG002 - a hook
        print(outcome_line(self._name, run, now_us()))  # noqa: T201 - it is the cell's output

    def _shown(self, error: BaseException) -> BaseException:
        if isinstance(error, KeyboardInterrupt | RunCancelled):
            return shown_as(error, f"⊘ {self._name} · interrupted")
        return shown_from_cell(error, self._cell.shell)


def outcome_line(name: str, run: TaskRun, now: int) -> str:
    """What became of a task cell, on one line: `✓ clean · 1.2 s`."""
    words = [f"{GLYPHS[run.state_type]} {one_line(name)}"]
    if run.state_name == "Cached":
        entry = Home.current().cache_entry(run.cache_key) if run.cache_key is not None else None
        when = f", {ago(entry.created_us, now)}" if entry is not None else ""
        words.append(f"cached (same code, same inputs{when})")
        return " · ".join(words)
    if run.state_name not in ("Completed", "Failed"):
        words.append(run.state_name)
    if run.run_count > 1:
        words.append(f"{run.run_count} attempts")
    if run.start_us is not None:
        words.append(duration_text((run.end_us or now) - run.start_us))
    if run.result_note:
        words.append(one_line(run.result_note, 200))
    return " · ".join(words)


def _show_figures() -> None:
    """Show the open figures now, while the body's output is listened to, and not only when the cell has ended."""
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    pyplot = sys.modules.get("matplotlib.pyplot")
    if inline is not None and pyplot is not None and pyplot.get_fignums():
        inline.flush_figures()


def _as_cell(function: Any) -> Any:
    """The function, called in tracebacks what a cell is called, so that they show the cell's lines around the error."""
    called = types.FunctionType(function.__code__.replace(co_name="<module>"), function.__globals__)
    called.__doc__ = None
    return called


def _signature(names: tuple[str, ...]) -> Any:
    import inspect

    return inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names])
