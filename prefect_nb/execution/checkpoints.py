"""The variables of a notebook run, kept after slow cells, so that a run whose kernel is gone goes on behind them.

Here is what is known of them; `execution.variables` keeps them and brings them back, in the kernel. What cells declare -
imports, functions, classes - is written down as source and executed again: that costs nothing, and functions find the
notebook's names as before. Other values are pickled, each for itself; those that cannot be, or are too large, are listed
with the reason. Names of one object stay names of one object; an object that is part of two others is not shared any more.

Values are kept by their content in a result store of the run's own, below `<home>/notebook_runs/<flow run>/`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from prefect_nb.execution.scripts import read
from prefect_nb.model.runs import ResultReference

MANIFEST = "checkpoint.json"
VALUES = "values"


class ExecutedCell(msgspec.Struct, frozen=True):
    """A cell that has completed, as the kernel is told of it."""

    id: str
    number: int
    name: str
    source: str


class Lost(msgspec.Struct, frozen=True):
    """A variable that could not be kept."""

    name: str
    type: str
    reason: str
    cell: int | None
    """The number of the cell that made it, where that can be seen."""

    def __str__(self) -> str:
        made = f", made by cell {self.cell}" if self.cell is not None else ""
        return f"{self.name} ({self.type}{made}): {self.reason}"


class Kept(msgspec.Struct, frozen=True):
    """Variables whose values are pickled in one file: each value's names."""

    result: ResultReference
    names: list[list[str]]


class Declared(msgspec.Struct, frozen=True):
    """A statement that is executed again."""

    cell: int
    source: str
    names: tuple[str, ...]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What was kept after a cell, and what was not."""

    cell_id: str
    cell_number: int
    at_us: int
    kept: list[Kept]
    lost: list[Lost]
    declared: list[Declared]
    modules: dict[str, str]
    """Names of modules that no import statement explains."""
    makers: dict[str, int]
    """The number of the cell that last bound a name."""
    folder: str
    """The current one."""
    size: int
    seconds: float

    @property
    def names(self) -> set[str]:
        """The names that a resume brings back."""
        values = {name for kept in self.kept for names in kept.names for name in names}
        return {*values, *self.modules, *(name for declared in self.declared for name in declared.names)}


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in a run's folder; None for none."""
    found: Checkpoint | None = read(folder / MANIFEST, Checkpoint)
    return found


def take_code(folder: Path, cells: Sequence[ExecutedCell], largest: int, seconds: float) -> str:
    """Code that has the kernel keep its variables.

    Args:
        folder: the run's.
        cells: those that completed since the last checkpoint.
        largest: bytes that all values together may have.
        seconds: how long it may take; what is not kept by then is listed as lost.
    """
    told = msgspec.json.encode(cells).decode()
    call = f"take({str(folder)!r}, {told!r}, {largest}, {seconds})"
    return _apart(f"from prefect_nb.execution.variables import take\n{call}")


def restore_code(folder: Path) -> str:
    """Code that has a fresh kernel bring back what was kept."""
    return _apart(f"from prefect_nb.execution.variables import restore\nrestore({str(folder)!r})")


def _apart(source: str) -> str:
    return f"exec({source!r}, {{}})"


# Reading cells


def read_cell(source: str) -> tuple[str, ast.Module]:
    """A cell as Python, and its tree.

    Magics and shell commands are calls; a cell magic is taken for its body. What is no Python is empty.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        text = TransformerManager().transform_cell(source)  # type: ignore[no-untyped-call]
        tree = ast.parse(text)
        match tree.body:
            case [ast.Expr(ast.Call(func=ast.Attribute(attr="run_cell_magic"), args=[_, _, ast.Constant(str(body))]))]:
                return read_cell(body)
    except (SyntaxError, ValueError):
        return "", ast.Module([], [])
    return text, tree


def statements_declaring(checkpoint: Checkpoint) -> Iterator[tuple[tuple[str, ...], ast.Module]]:
    """What a resume declares again: the names, and the statement."""
    for one in checkpoint.declared:
        yield one.names, ast.parse(one.source)
