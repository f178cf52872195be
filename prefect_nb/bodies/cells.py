"""The cells of a notebook that a run executes, and how each, and the whole, can end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from prefect_nb.bodies.cell_tags import PLAIN, Rules, rules_of

MAX_NAME = 60
_HEADING = re.compile(r"^#+[ \t]+(\S.*)$", re.MULTILINE)
_DECORATION = re.compile(r"^[#%!\s=*\-_~]+|[\s=*\-_~]+$")

How = Literal["completed", "ended", "failed", "timed-out", "crashed", "stopped"]
"""`ended`: the notebook was over before its last cell because it said so (`flow.stop`)."""


class Cell(msgspec.Struct, frozen=True):
    """A code cell to be executed. `index` counts all cells of the executed notebook, from 0; `number` these, from 1."""

    index: int
    number: int
    id: str
    name: str
    rules: Rules = PLAIN


class End(msgspec.Struct, frozen=True):
    """How a cell ended, or the whole notebook; `cell` is then the one that ended it early."""

    how: How
    message: str | None = None
    cell: Cell | None = None
    is_last: bool = False
    """Whether another attempt at the cell would make no sense."""


class Watcher(Protocol):
    """Who is told of the cells, on the loop's thread."""

    def between(self, following: Cell) -> End | None:
        """No cell runs, and this one is the next. May wait; what is returned ends the notebook instead."""
        ...

    def starting(self, cell: Cell) -> Mapping[str, Any]:
        """The cell is about to run; what is returned goes with the request as metadata."""
        ...

    def ended(self, cell: Cell, end: End) -> None:
        """The cell has run."""
        ...

    def retrying(self, cell: Cell, end: End, delay: float) -> None:
        """An attempt at the cell has ended badly; after `delay` seconds, `starting` is called again."""
        ...

    def skipped(self, cell: Cell, why: str) -> None:
        """The cell is passed over, as one of its tags says."""
        ...


def source_of(cell: Mapping[str, Any]) -> str:
    """A cell's source as one string."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def tags_of(cell: Mapping[str, Any]) -> list[str]:
    """A cell's tags."""
    tags = cell.get("metadata", {}).get("tags")
    return tags if isinstance(tags, list) else []


def is_runnable(cell: Mapping[str, Any]) -> bool:
    """Whether a cell is executed: code that is not blank and not tagged `skip-execution`."""
    return cell["cell_type"] == "code" and bool(cell["source"].strip()) and "skip-execution" not in tags_of(cell)


def pending_cells(notebook: Mapping[str, Any]) -> list[Cell]:
    """The cells of a prepared notebook that are to be executed, in order."""
    cells: list[Cell] = []
    before: Mapping[str, Any] | None = None
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code" and cell["metadata"]["papermill"]["status"] == "pending":
            cells.append(Cell(index, len(cells) + 1, cell["id"], cell_name(cell, before), rules_of(cell)))
        before = cell
    return cells


def cell_name(cell: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """What to call a cell: its `name` metadata, "Parameters", the heading right before it, or its first telling line."""
    named = cell["metadata"].get("name")
    if isinstance(named, str) and named.strip():
        return _clipped(named.strip())
    if {"parameters", "injected-parameters"}.intersection(tags_of(cell)):
        return "Parameters"
    if before is not None and before["cell_type"] == "markdown":
        headings = _HEADING.findall(before["source"])
        if headings:
            return _clipped(headings[-1].strip())
    lines = [line.strip() for line in cell["source"].splitlines()]
    telling = [line for line in lines if _DECORATION.sub("", line)]
    first = next((line for line in telling if not line.startswith(("%%", "@"))), telling[0] if telling else "cell")
    return _clipped(_DECORATION.sub("", first) if first.startswith("#") else first)


def _clipped(text: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1].rstrip() + "…"
