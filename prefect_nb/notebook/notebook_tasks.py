"""The notebook's `%%task` cells, read and put into a graph, before any of them runs."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from IPython.core.error import UsageError

from prefect_nb.execution.definitions import name_like
from prefect_nb.flows import Flow
from prefect_nb.model.code_names import reads_of
from prefect_nb.notebook.cells import Cell
from prefect_nb.notebook.names import changed_in_place, declared, in_passing, names_of
from prefect_nb.notebook.notebook_cells import TaskSource, notebook_of
from prefect_nb.notebook.options import HelpAsked
from prefect_nb.notebook.parsers import task_parser
from prefect_nb.notebook.task_cells import CODE, TaskCell, read_heading
from prefect_nb.notebook.task_graph import TaskNode, build
from prefect_nb.service.text import did_you_mean
from prefect_nb.tasks import Task

_BUILTINS = frozenset(vars(builtins))
_DRAWING = frozenset({"matplotlib.pylab", "matplotlib.pyplot", "pylab", "seaborn"})


class NotebookTasks:
    """The `%%task` cells of the notebook a shell belongs to.

    Args:
        shell: the IPython shell.
        magics: what each magic is called in it, by kind and usual name; where it is missing, its usual name.

    Raises:
        UsageError: there is none, or some cannot be run together; the text names every reason there is.
    """

    def __init__(self, shell: Any, magics: Mapping[tuple[str, str], str]) -> None:
        self.shell = shell
        self.magic = "%" + magics.get(("line", "flow"), "flow")
        self._task_magic = magics.get(("cell", "task"), "task")
        self._namespace: dict[str, Any] = shell.user_ns
        self._notebook = notebook_of(shell, self._task_magic, magics.get(("cell", "flow"), "flow"))
        problems: list[str] = []
        read = []
        for source in self._notebook.tasks:
            try:
                cell = self._read(source)
            except UsageError as error:
                problems.append(f"{_title(source)}: {error}")
            except SyntaxError as error:
                problems.append(f"{_title(source)} is not Python: {error.msg} in line {error.lineno}.")
            else:
                if cell is not None:
                    read.append((source, cell))
        if not read and not problems:
            raise UsageError(
                f"There is no task cell in this notebook. `%%{self._task_magic} -h` tells how to write one."
            )
        made = frozenset(name for _, cell in read for name in cell.outputs)
        for _, cell in read:
            cell.hold_back(made - {*cell.outputs})
        self.graph = build([self._node(cell, source, made, read) for source, cell in read], self._notebook.plain)
        self.cells = dict(zip(self.graph.nodes, (cell for _, cell in read), strict=True))
        if problems or self.graph.conflicts:
            raise UsageError(_listed("The task cells cannot run together:", [*problems, *self.graph.conflicts]))

    @property
    def name(self) -> str:
        """What a flow of them is called: as the notebook's file."""
        path = self._notebook.path
        return name_like(path.stem) if path is not None and path.stem.strip() else "notebook"

    def selected(self, only: Iterable[str] = (), start: Iterable[str] = ()) -> list[str]:
        """The cells to run, each after all it needs.

        Args:
            only: these and what they need; none: all.
            start: of those, these and what needs them; none: all.

        Raises:
            UsageError: there is no such cell.
        """
        graph = self.graph
        for key in (*only, *start):
            if key not in graph.nodes:
                near = did_you_mean(key, graph.nodes)
                there_are = ", ".join(f"`{one}`" for one in graph.nodes)
                raise UsageError(f"There is no task cell {key!r}.{near} There are: {there_are}.")
        found = graph.with_needed(only) if only else {*graph.nodes}
        if start:
            found &= graph.with_dependents(start)
        return graph.order(found)

    def check(self, keys: Iterable[str]) -> None:
        """See that every name that these cells need is made by one of them or is in the notebook.

        Raises:
            UsageError: naming for each name that is not: the cell that needs it, and what to run first.
        """
        graph, chosen = self.graph, list(keys)
        declaring = [self.cells[key] for key in graph.with_declaring(chosen)]
        there = {name for cell in declaring for name in {*cell.declares} - cell.late}
        problems = []
        for key in chosen:
            given = {name for name, source in graph.sources[key].items() if source in chosen}
            missing = self.cells[key].missing({*self._namespace, *there, *given})
            problems += [f"{graph.title(key)} needs `{name}`, {self._remedy(key, name)}" for name in missing]
        if problems:
            raise UsageError(_listed("Nothing was run:", problems))

    def _remedy(self, key: str, name: str) -> str:
        graph = self.graph
        source = graph.sources[key].get(name)
        if source is not None:
            return f"which {graph.title(source)} makes. Run that first."
        number = graph.nodes[key].number
        cells = [cell.number for cell in self._notebook.plain if name in cell.gives]
        above = [cell for cell in cells if number is None or cell < number]
        if above:
            return f"which cell {above[-1]} makes. Run that first."
        near = did_you_mean(name, (one for one in self._namespace if not one.startswith("_")))
        return f"which no cell makes.{near}" if self._notebook.path else f"which is not defined.{near}"

    def draws(self, key: str) -> bool:
        """Whether a cell makes figures with pyplot, as far as can be seen: itself, or in functions of the notebook."""
        node, cell = self.graph.nodes[key], self.cells[key]
        values = [self._namespace.get(name) for name in {*node.reads, *cell.declares}]
        if any(isinstance(value, ModuleType) and value.__name__ in _DRAWING for value in values):
            return True
        return any(isinstance(node, ast.Attribute) and node.attr == "plot" for node in ast.walk(cell.cell.tree))

    # Reading

    def _read(self, source: TaskSource) -> TaskCell | None:
        """The cell; None for one that only asks for help or has nothing in it."""
        magic = f"%%{self._task_magic}"
        heading = read_heading(source.line)
        try:
            chosen = task_parser(magic).parse(heading.options)
        except HelpAsked:
            return None
        # What has been executed keeps the number of its execution in tracebacks.
        cell = source.cell or Cell(self.shell, f"{magic} {source.line}".rstrip(), source.body)
        return None if cell.is_empty else TaskCell(cell, heading, chosen)

    def _node(
        self, cell: TaskCell, source: TaskSource, made: frozenset[str], read: list[tuple[TaskSource, TaskCell]]
    ) -> TaskNode:
        through = self._through(cell, [other for _, other in read])
        reads = frozenset((cell.reads | {*through}) - (_BUILTINS - made))
        stated = frozenset(cell.heading.inputs or ())
        body = cell.cell.tree.body
        changes = {
            *(changed_in_place(body) & cell.reads),
            *({*(cell.heading.outputs or ())} & stated - names_of(body).bound),
        }
        return TaskNode(
            name=cell.name,
            number=source.number,
            reads=reads,
            gives=frozenset(cell.outputs),
            changes=frozenset(name for name in changes if not isinstance(self._namespace.get(name), CODE)),
            passing=in_passing(body) | {name for name in cell.outputs if name.startswith("_")},
            takes=stated,
            declares=cell.declares,
            late=cell.late,
            through=through,
        )

    def _through(self, cell: TaskCell, cells: list[TaskCell]) -> dict[str, str]:
        """What functions of the notebook read that the cell calls, and which function it is."""
        known = {
            name: names_of([statement]).needed | names_of([statement]).later
            for other in cells
            for statement in declared(other.cell.tree.body)
            for name in names_of([statement]).bound
        }
        own = cell.names.bound | {*cell.declares}
        found: dict[str, str] = {}
        waiting = [(name, name) for name in sorted(cell.reads)]
        seen = {name for name, _ in waiting}
        while waiting:
            name, first = waiting.pop(0)
            for read in sorted(known.get(name, ()) or self._read_by(self._namespace.get(name))):
                if read not in seen:
                    seen.add(read)
                    waiting.append((read, first))
                    if read not in own and read not in cell.reads:
                        found[read] = first
        return found

    def _read_by(self, value: Any) -> frozenset[str]:
        """The notebook's names that a function or class of the notebook reads when it is used."""
        found = set[str]()
        for function in _functions(value):
            if function.__globals__ is self._namespace:
                names, _ = reads_of(function)
                found.update(chain[0] for chain in names)
        return frozenset(found)


def _functions(value: Any) -> Iterator[FunctionType]:
    value = value.fn if isinstance(value, Task | Flow) else value
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, type):
        yield from (one for one in vars(value).values() if isinstance(one, FunctionType))


def _title(source: TaskSource) -> str:
    name = f"`{source.name or 'the task cell'}`"
    return name + (f" (cell {source.number})" if source.number is not None else "")


def _listed(first: str, lines: list[str]) -> str:
    return f"{first} {lines[0]}" if len(lines) == 1 else "\n".join([first, *(f"- {line}" for line in lines)])
