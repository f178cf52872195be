"""Which names each cell of a notebook defines and uses, and which of them are not there when they are used.

Nothing is executed: the cells' trees are read into events (a name is read, bound, called, deleted), and these are played
in the order in which Restart & Run All would run the cells. A function's events are played where it is called, so that
one that reads a name of a later cell is found. What stands in a branch may not run: it binds all the same, and what is
wrong there is not `sure`. Loops are taken to turn at least once.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from prefect_nb.model.name_events import Code, Event, Reading

Why = Literal["later", "deleted", "handler", "task", "nowhere"]

_IPYTHON = frozenset({"display", "get_ipython", "In", "Out", "exit", "quit", "open"})
_MODULE = frozenset({"__name__", "__doc__", "__builtins__", "__builtin__", "__loader__", "__package__", "__spec__"})
_BUILTINS = (frozenset(dir(builtins)) | _IPYTHON | _MODULE) - {"__file__"}
_HISTORY = re.compile(r"_{1,3}|_\d+|_i{1,3}|_i\d+|_[iod]h|__vsc_ipynb_file__|__session__")


class CellCode(NamedTuple):
    """A cell as it is read here."""

    number: int
    """Of the cells that are executed, from 1."""
    tree: ast.Module | None
    """None: it runs no Python of the notebook."""
    given: tuple[str, ...] = ()
    """Names that are bound before it runs."""
    reads: tuple[str, ...] = ()
    """Names its heading reads."""
    results: tuple[str, ...] = ()
    """Names that are bound when it has run."""
    outputs: tuple[str, ...] | None = None
    """The only names it leaves behind, besides its declarations; None: all it binds."""
    is_sure: bool = True
    """Whether it is executed in any case, and an error in it ends the run."""
    is_dynamic: bool = False
    """It may bind names that cannot be read from it."""


class Problem(NamedTuple):
    """A name that is not there when it is used."""

    name: str
    cell: int
    line: int
    why: Why
    is_sure: bool
    """Whether using it fails in any case, if the line is reached."""
    place: int | None = None
    """The cell that defines it later, or that deleted it."""
    through: str | None = None
    """The function called on that line which reads it; None: the line reads it itself."""
    read_at: tuple[int, int] | None = None
    """Cell and line where that function does."""
    cells: tuple[int, ...] = ()
    """Further cells in which it is missing."""
    is_guess: bool = False
    """Something before it may have bound names that cannot be read."""


def is_known(name: str) -> bool:
    """Whether every notebook has the name: Python's builtins and IPython's own."""
    return name in _BUILTINS or _HISTORY.fullmatch(name) is not None


def names_bound(tree: ast.Module) -> frozenset[str]:
    """The names a cell binds in the notebook, perhaps."""
    return frozenset(event.name for event in Reading().events_of(tree) if event.kind == "bind")


def names_read(tree: ast.Module) -> frozenset[str]:
    """The names a cell takes from the notebook: it, or a function defined in it, reads them before it binds them."""
    reading = Reading()
    events = reading.events_of(tree)
    bound: set[str] = set()
    found: set[str] = set()
    for event in events:
        if event.kind == "read" and event.name not in bound:
            found.add(event.name)
        elif event.kind == "bind" and event.sure:
            bound.add(event.name)
    everywhere = {event.name for event in events if event.kind == "bind"}
    found |= {e.name for code in reading.codes for e in code.events if e.kind == "read"} - everywhere
    return frozenset(name for name in found if not is_known(name))


def missing_names(cells: Sequence[CellCode], given: Iterable[str] = ()) -> list[Problem]:
    """The names that are not there when a cell uses them, if the cells run in this order in a fresh kernel.

    Args:
        cells: in their order.
        given: names that are there from the beginning.
    """
    return _Play(cells, given).problems()


class _Play:
    """The cells' events, played."""

    def __init__(self, cells: Sequence[CellCode], given: Iterable[str]) -> None:
        self._cells = cells
        self._defined: dict[str, Code | None] = dict.fromkeys(given)
        self._lost: dict[str, tuple[Why, int]] = {}
        self._guess = False
        self._problems: dict[str, list[Problem]] = {}
        self._kept: list[tuple[str, bool, Code | None]] = []
        self._readings = {cell.number: Reading(cell.number) for cell in cells}
        self._events = {
            cell.number: self._readings[cell.number].events_of(cell.tree) if cell.tree is not None else []
            for cell in cells
        }
        codes = [code for reading in self._readings.values() for code in reading.codes]
        self._codes = codes
        self._global_in_functions = {e.name for code in codes for e in code.events if e.kind == "bind"}
        self._places: dict[str, list[int]] = {}
        for cell in cells:
            for name in self._left_by(cell):
                self._places.setdefault(name, []).append(cell.number)

    def problems(self) -> list[Problem]:
        for cell in self._cells:
            self._run_cell(cell)
        self._check_uncalled()
        found = [_joined(problems) for problems in self._problems.values()]
        return sorted(found, key=lambda problem: (problem.cell, problem.line, problem.name))

    def _left_by(self, cell: CellCode) -> Iterator[str]:
        bound = [event.name for event in self._events[cell.number] if event.kind == "bind"]
        yield from (*cell.given, *cell.results, *bound)

    def _run_cell(self, cell: CellCode) -> None:
        for name in cell.given:
            self._bind(name, None)
        for name in cell.reads:
            self._read(name, cell.number, 1, cell.is_sure, None)
        before = dict(self._defined)
        events = self._events[cell.number]
        self._play(events, cell.number, None, cell.is_sure, set())
        if cell.outputs is not None:
            kept = {*cell.outputs, *before, *_declared(cell.tree)}
            for name in [name for name in self._defined if name not in kept]:
                del self._defined[name]
                self._lost[name] = ("task", cell.number)
        for name in cell.results:
            self._bind(name, None)
        self._guess = self._guess or cell.is_dynamic

    def _play(self, events: Iterable[Event], cell: int, line: int | None, sure: bool, active: set[int]) -> None:
        """Play events; `line` is that of the call which runs them, None for the cell's own."""
        for event in events:
            at = event.line if line is None else line
            match event.kind:
                case "read":
                    self._read(event.name, cell, at, sure and event.sure, event if line is not None else None)
                case "call":
                    self._call(event, cell, at, sure and event.sure, active)
                case "bind":
                    code = self._defined.get(event.alias) if event.alias is not None else event.code
                    self._bind(event.name, code)
                case "delete":
                    if sure and event.sure:
                        self._forget(event.name, "deleted", cell)
                case "enter":
                    self._kept.append((event.name, event.name in self._defined, self._defined.get(event.name)))
                    self._bind(event.name, None)
                case "leave":
                    self._leave(cell)
                case "dynamic":
                    self._guess = True

    def _call(self, event: Event, cell: int, line: int, sure: bool, active: set[int]) -> None:
        code = event.code or self._defined.get(event.name)
        if code is None or id(code) in active:
            return
        active.add(id(code))
        # A generator runs when it is consumed, a coroutine when it is awaited.
        self._play(code.events, cell, line, sure and (not code.is_lazy or event.awaited), active)
        active.discard(id(code))

    def _bind(self, name: str, code: Code | None) -> None:
        self._defined[name] = code
        self._lost.pop(name, None)

    def _forget(self, name: str, why: Why, cell: int) -> None:
        if self._defined.pop(name, self) is not self:
            self._lost[name] = (why, cell)

    def _leave(self, cell: int) -> None:
        name, was_there, code = self._kept.pop()
        if was_there:
            self._defined[name] = code
        else:
            self._forget(name, "handler", cell)

    def _read(self, name: str, cell: int, line: int, sure: bool, inside: Event | None) -> None:
        if name in self._defined or is_known(name):
            return
        if name in self._global_in_functions and name not in self._lost:
            return  # some call that cannot be seen may have bound it
        why, place = self._lost.get(name, (None, None))
        if why is None:
            places = self._places.get(name, [])
            place = next((number for number in places if number >= cell), None)
            why = "nowhere" if place is None else "later"
        through, read_at = (None, None) if inside is None else (inside.within, (inside.cell, inside.line))
        problem = Problem(name, cell, line, why, sure, place, through, read_at, is_guess=self._guess)
        self._problems.setdefault(name, []).append(problem)

    def _check_uncalled(self) -> None:
        """What functions read that nobody was seen to call, and that is nowhere."""
        if self._guess:
            return
        known = {*self._places, *self._global_in_functions, *self._defined, *self._lost, *self._problems}
        for code in self._codes:
            for event in code.events:
                if event.kind == "read" and event.name not in known and not is_known(event.name):
                    problem = Problem(event.name, event.cell, event.line, "nowhere", is_sure=False)
                    self._problems.setdefault(event.name, []).append(problem)


def _joined(problems: list[Problem]) -> Problem:
    """One problem for all of a name: the first that is sure, or else the first."""
    first = next((problem for problem in problems if problem.is_sure), problems[0])
    others = sorted({problem.cell for problem in problems} - {first.cell})
    return first._replace(cells=tuple(others))


def _declared(tree: ast.Module | None) -> set[str]:
    """The imports, functions and classes at a cell's top level."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    body: list[ast.stmt] = [
        statement for statement in (tree.body if tree is not None else []) if isinstance(statement, kinds)
    ]
    return {event.name for event in Reading().events_of(ast.Module(body, [])) if event.kind == "bind"}
