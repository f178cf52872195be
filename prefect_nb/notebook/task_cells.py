"""`%%task`: a cell whose body is a task, cached by its code and by the values it takes from the notebook."""

from __future__ import annotations

import ast
import builtins
import re
import types
from argparse import Namespace
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any, NamedTuple

from IPython.core.error import UsageError

from prefect_nb.exceptions import RunCancelled
from prefect_nb.execution.clock import now_us
from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.model.code_fingerprints import code_parts
from prefect_nb.model.fingerprints import Part
from prefect_nb.model.policies import INPUTS, NO_CACHE, CachePolicy
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import GLYPHS, State
from prefect_nb.notebook.cells import Cell
from prefect_nb.notebook.listing import show
from prefect_nb.notebook.names import Names, declared, names_of, sources_declared, split_declarations
from prefect_nb.notebook.task_bodies import VALUE, TaskBody, task_function
from prefect_nb.notebook.tracebacks import shown_as, shown_from_cell
from prefect_nb.service.text import ago, did_you_mean, duration_text, one_line
from prefect_nb.tasks import Task

DEFAULT_NAME = "cell-task"

# The function a cell is compiled to has one name for all cells: renaming a task does not change what it computes.
_FUNCTION = "cell"
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
CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type, Task, Flow)
"""Values that are read as code and not as data: they count by what they do, and are no inputs."""


class Heading(NamedTuple):
    """The first line of a `%%task` cell, taken apart: `clean(raw) -> tidy -r 2`; `-> None` states that it has no outputs."""

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
    outputs = _list_of_names(found["outputs"])
    return Heading(name, _list_of_names(found["inputs"]), () if outputs == ("None",) else outputs, found["rest"])


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
    """A `%%task` cell: what it reads and makes, and the task it is.

    Args:
        cell: the body.
        heading: name, inputs and outputs as far as they are stated.
        options: the parsed options of the magic.

    Raises:
        UsageError: it does not assign an output that is stated.
    """

    def __init__(self, cell: Cell, heading: Heading, options: Namespace) -> None:
        self.cell = cell
        self.heading = heading
        self.options = options
        self.name = heading.name or DEFAULT_NAME
        self.declares = sources_declared(cell.tree.body)
        """The imports, functions and classes in it, with their source."""
        self._namespace: dict[str, Any] = cell.shell.user_ns
        self._early, self._body = split_declarations(cell.tree.body)
        self.outputs = self._outputs_of(heading.outputs)

    @cached_property
    def names(self) -> Names:
        """What the body does with names; what stands above it, and is run before it, not included."""
        return names_of(self._body)

    @property
    def late(self) -> frozenset[str]:
        """The imports, functions and classes that are there only when the body has run."""
        return frozenset(sources_declared(self._body))

    @property
    def reads(self) -> frozenset[str]:
        """The names it reads that it has not made itself, and those its functions read."""
        above = names_of(self._early)
        body = self.names
        read = above.needed | above.later | body.needed | (body.later - body.bound)
        return frozenset({*(read - {*self.declares}), *(self.heading.inputs or ())})

    def hold_back(self, made: AbstractSet[str]) -> None:
        """Leave what it begins with to the body from the first declaration on that needs one of these names."""
        for place, statement in enumerate(self._early):
            if names_of([statement]).needed & made:
                self._early, self._body = self._early[:place], [*self._early[place:], *self._body]
                self.__dict__.pop("names", None)
                return

    def missing(self, known: AbstractSet[str]) -> list[str]:
        """The names it cannot run without and that are not known."""
        stated = self.heading.inputs
        needed = {*stated} if stated is not None else self.names.needed - self.names.bound
        return sorted({*needed, *names_of(self._early).needed} - known - {*vars(builtins)} - {*self.declares})

    def declare(self) -> None:
        """Run the imports, functions and classes it begins with.

        They run in the notebook, so that a class is one class and a helper a helper, whether or not the body runs.
        """
        self.cell.execute(self._early, self._namespace, self._namespace)

    def conclude(self, kept: dict[str, Any]) -> None:
        """Put into the notebook what the body has made."""
        self._namespace.update(kept["names"])
        self.cell.execute([*declared(self._body)], self._namespace, self._namespace)

    def inputs(self, given: AbstractSet[str] = frozenset(), coming: AbstractSet[str] = frozenset()) -> tuple[str, ...]:
        """The names whose values the body is called with.

        Args:
            given: names that it gets from elsewhere than the notebook.
            coming: names that the notebook will have when it runs.

        Raises:
            UsageError: it needs a variable that there is not, or the inputs stated are not all it needs.
        """
        namespace, names, stated = self._namespace, self.names, self.heading.inputs
        missing = self.missing({*namespace, *given, *coming})
        if missing:
            near = did_you_mean(missing[0], (name for name in namespace if not name.startswith("_")))
            words = " and ".join(f"`{name}`" for name in missing)
            is_are = "is" if len(missing) == 1 else "are"
            raise UsageError(
                f"%%task {self.name} needs {words}, which {is_are} not defined.{near} "
                f"Run the cell that makes {'it' if len(missing) == 1 else 'them'} first."
            )
        if stated is not None:
            unstated = sorted((names.needed & names.bound & {*namespace, *given}) - {*stated})
            if unstated:
                raise UsageError(
                    f"%%task {self.name}: the cell reads `{unstated[0]}` before it assigns it; "
                    "name it among the inputs."
                )
            return stated
        read = {*names.needed, *(names.later - names.bound)}
        values = {name for name in read if name in namespace and not isinstance(namespace[name], CODE)}
        return tuple(sorted(values | (read & given)))

    def _outputs_of(self, stated: tuple[str, ...] | None) -> tuple[str, ...]:
        made = self.names.bound - self.late
        for name in stated or ():
            if name not in made and name not in self.names.needed:
                near = did_you_mean(name, made)
                raise UsageError(f"%%task {self.name}: the cell does not assign `{name}`.{near}")
        return tuple(sorted(made)) if stated is None else stated

    def _compiled(self, inputs: tuple[str, ...]) -> Callable[..., Any]:
        body = [*self._body]
        last = body[-1] if body else None
        if isinstance(last, ast.Expr):
            body[-1] = ast.copy_location(ast.Assign([ast.Name(VALUE, ast.Store())], last.value), last)
        body += ast.parse(f"{_LOCALS} = locals()\nreturn {_LOCALS}").body
        parameters = ast.arguments([], [ast.arg(name) for name in inputs], None, [], [], None, [])
        make = ast.AsyncFunctionDef if self.cell.is_async else ast.FunctionDef
        definition = make(name=_FUNCTION, args=parameters, body=body, decorator_list=[], lineno=1, col_offset=0)
        made: dict[str, Any] = {}
        self.cell.execute([ast.fix_missing_locations(definition)], self._namespace, made)
        function: Callable[..., Any] = made[_FUNCTION]
        function.__prefect_nb_source__ = ast.unparse(definition)  # type: ignore[attr-defined]
        return function

    def task(self, inputs: tuple[str, ...], name: str | None = None, draws: bool | None = None) -> Task[..., Any]:
        """The task that the cell is, of these inputs; what it begins with must have been run.

        Args:
            inputs: as `inputs` gives them.
            name: of the task; None: the cell's.
            draws: of a cell that may run beside others: whether it makes figures with pyplot.
        """
        options, source = self.options, self._compiled(inputs)
        body = TaskBody(source, self.outputs, options.cache, self.cell.is_silent, draws)
        return Task(
            task_function(body, name or self.name, inputs),
            name=name or self.name,
            tags=options.tags,
            retries=options.retries,
            retry_delay_seconds=options.retry_delay,
            timeout_seconds=options.timeout,
            cache_policy=INPUTS + CellSource(source) if options.cache else NO_CACHE,
            persist_result=options.cache,
            log_prints=True if options.log_prints else None,
        )

    # Alone

    def run(self) -> Any:
        """Run the cell. Where the body awaits: the coroutine that does.

        Raises:
            UsageError: it needs a variable that the notebook does not have, or its first line does not fit its body.
        """
        self.declare()
        names = self.inputs()
        task = self.task(names)
        task.on_completion(self._ended)
        task.on_failure(self._ended)
        inputs = {name: self._namespace[name] for name in names}
        if self.cell.is_async:
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
        self.conclude(kept)
        if kept["shown"] is not None:
            show(kept["shown"])

    def _ended(self, task: Any, run: TaskRun, state: State[Any]) -> None:  # noqa: ARG002 - a hook
        print(outcome_line(self.name, run, now_us()))  # noqa: T201 - it is the cell's output

    def _shown(self, error: BaseException) -> BaseException:
        # CancelledError: of a cell that awaits, the kernel cancels the asyncio task.
        if isinstance(error, KeyboardInterrupt | RunCancelled) or type(error).__name__ == "CancelledError":
            return shown_as(error, f"⊘ {self.name} · interrupted")
        return shown_from_cell(error, self.cell.shell)


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
