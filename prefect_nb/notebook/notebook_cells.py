"""The cells of the notebook this kernel belongs to: as they were saved, and as they have been executed since."""

from __future__ import annotations

import ast
import os
import re
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from IPython.core.error import UsageError

from prefect_nb.exceptions import NotebookError
from prefect_nb.notebook.cells import Cell
from prefect_nb.notebook.names import names_of
from prefect_nb.notebook.task_graph import PlainNode

_ATTRIBUTE = "prefect_nb_task_cells"
_MAGIC = re.compile(r"%%(\w+)[ \t]*(.*)")
_PYTHON_CELLS = frozenset({"capture", "prun", "time"})
"""Cell magics of IPython whose cell is Python that runs in the notebook."""


@dataclass(frozen=True)
class TaskSource:
    """A `%%task` cell as text."""

    line: str
    """What follows the magic on the first line."""
    body: str
    id: str | None = None
    """The cell's, where the front end says."""
    number: int | None = None
    """Which of the cells that a run of the notebook executes it is, from 1; None for one that is not in the file."""
    cell: Cell | None = None
    """The body as it was compiled when it was executed."""
    executed_ns: int = 0
    """When it was executed, in nanoseconds since the epoch."""

    @property
    def name(self) -> str:
        """By which a cell without an id is known again."""
        return self.line.split("(")[0].split("->")[0].split(" -")[0].strip()


@dataclass(frozen=True)
class Notebook:
    """What is known of a notebook's cells, in its order."""

    path: Path | None
    tasks: list[TaskSource]
    plain: list[PlainNode]


def remember(shell: Any, line: str, body: str, cell: Cell) -> None:
    """Remember a `%%task` cell that is being executed, in place of what it was before."""
    found = TaskSource(line.strip(), body, _cell_id(shell), None, cell, time.time_ns())
    executed = _executed(shell)
    for place, before in enumerate(executed):
        if before.id == found.id and (found.id is not None or before.name == found.name):
            executed[place] = found
            return
    executed.append(found)


def forget(shell: Any) -> None:
    """Forget all `%%task` cells that were executed."""
    _executed(shell).clear()


def notebook_of(shell: Any, task_magic: str, flow_magic: str) -> Notebook:
    """The notebook's cells: those of the file where it is known, with what has been executed since it was saved.

    Args:
        shell: the IPython shell.
        task_magic: what `%%task` is called in it.
        flow_magic: what `%%flow` is called.

    Raises:
        UsageError: the file cannot be read.
    """
    path = notebook_path(shell)
    if path is None:
        return Notebook(None, list(_executed(shell)), [])
    saved_ns = path.stat().st_mtime_ns
    cells = _saved_cells(path)
    tasks = [task for task in (_task_of(cell, task_magic) for cell in cells) if task is not None]
    merged = _merged(tasks, cells, _executed(shell), saved_ns)
    numbers = {task.number for task in merged}
    others = [cell for cell in cells if cell.number not in numbers]
    return Notebook(path, merged, [PlainNode(one.number, _given(shell, one.source, flow_magic)) for one in others])


def notebook_path(shell: Any) -> Path | None:
    """Where the notebook is saved; None where nobody says, or it is not there any more."""
    named = shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    if not isinstance(named, str) or not named.endswith(".ipynb"):
        return None
    # Older servers give the path from their own folder; the kernel was started in the notebook's.
    found = (path for path in (Path(named), Path.cwd() / Path(named).name) if path.is_file())
    return next(found, None)


# The file


@dataclass(frozen=True)
class _Saved:
    id: str
    number: int
    source: str


def _saved_cells(path: Path) -> list[_Saved]:
    from prefect_nb.bodies.cells import is_runnable
    from prefect_nb.bodies.document import Document

    try:
        cells = [cell for cell in Document.read(path).notebook["cells"] if is_runnable(cell)]
    except NotebookError as error:
        raise UsageError(f"The notebook's cells cannot be read: {error}") from None
    return [_Saved(str(cell.get("id")), number, cell["source"]) for number, cell in enumerate(cells, 1)]


def _task_of(cell: _Saved, task_magic: str) -> TaskSource | None:
    magic, line, body = _taken_apart(cell.source)
    return TaskSource(line, body, cell.id, cell.number) if magic == task_magic else None


def _taken_apart(source: str) -> tuple[str, str, str]:
    """The cell magic, the rest of its line, and what is below; comments above it go below it, as when it is executed."""
    lines = source.splitlines(keepends=True)
    place = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
    found = _MAGIC.match(lines[place]) if place is not None else None
    if found is None or place is None:
        return "", "", source
    body = "".join([*lines[:place], *lines[place + 1 :]])
    return found[1], found[2].strip(), body if body.endswith("\n") else f"{body}\n"


def _given(shell: Any, source: str, flow_magic: str) -> frozenset[str]:
    """The names that a plain cell leaves in the notebook."""
    magic, _, body = _taken_apart(source)
    if magic and magic != flow_magic and magic not in _PYTHON_CELLS:
        return frozenset()
    try:
        return names_of(ast.parse(shell.transform_cell(body)).body).bound
    except (SyntaxError, ValueError):  # it would not run
        return frozenset()


# Both


def _merged(
    tasks: Sequence[TaskSource], cells: Sequence[_Saved], executed: Sequence[TaskSource], saved_ns: int
) -> list[TaskSource]:
    """Saved and executed task cells as one list, in the notebook's order: of each cell what is newer."""
    found = {task.number: task for task in tasks}
    left = list(tasks)
    added: list[TaskSource] = []
    known = {one.id for one in executed}
    for one in executed:
        is_newer = one.executed_ns > saved_ns
        match = next(_matches(one, left, known), None)
        became = next((cell for cell in cells if cell.id == one.id), None)
        if match is not None:
            left.remove(match)
            if is_newer or (one.line, one.body) == (match.line, match.body):
                found[match.number] = replace(one, number=match.number)
        elif is_newer and became is not None:
            found[became.number] = replace(one, number=became.number)
        elif is_newer or one.id is None:
            added.append(one)
        # else: it was saved without it: the cell is gone, or is no task any more
    return [*(found[number] for number in sorted(found)), *added]  # type: ignore[type-var]


def _matches(one: TaskSource, saved: Sequence[TaskSource], known: Container[str | None]) -> Iterator[TaskSource]:
    """The saved cells that an executed one may be, the likeliest first: not every front end gives a cell its saved id."""
    yield from (task for task in saved if task.id == one.id)
    others = [task for task in saved if task.id not in known]
    yield from (task for task in others if (task.line, task.body) == (one.line, one.body))
    named = [task for task in others if task.name == one.name]
    if one.name and len(named) == 1:
        yield named[0]


def _cell_id(shell: Any) -> str | None:
    info = getattr(getattr(shell.displayhook, "exec_result", None), "info", None)
    found = getattr(info, "cell_id", None)
    if found is None and getattr(shell, "kernel", None) is not None:
        found = shell.kernel.get_parent("shell").get("metadata", {}).get("cellId")
    return found if isinstance(found, str) else None


def _executed(shell: Any) -> list[TaskSource]:
    # Kept with the shell: a reload of this module must not lose them.
    found: list[TaskSource] | None = getattr(shell, _ATTRIBUTE, None)
    if found is None:
        found = []
        setattr(shell, _ATTRIBUTE, found)
    return found
