"""Going on with a notebook run behind the cells that need not run again: what is kept, where it begins, in which kernel.

A `Continuation` is made before the run is claimed, so that whatever is wrong with it is said before anything has happened.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from prefect_nb.bodies import cells as cell_reading
from prefect_nb.bodies.adopted import AdoptedKernel
from prefect_nb.bodies.cells import Cell, pending_cells
from prefect_nb.bodies.document import INJECTED, Document, Notebook, is_url
from prefect_nb.exceptions import NotebookError, NotResumable
from prefect_nb.execution import checkpoints, scripts
from prefect_nb.execution.checkpoints import Checkpoint
from prefect_nb.execution.scripts import Script, ScriptCell, digest_of
from prefect_nb.execution.shapes import Surroundings
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.name_flow import names_bound, names_read
from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import StateType

_LISTED = 5


class Continuation(msgspec.Struct):
    """How a notebook run goes on."""

    notebook: Notebook
    """Prepared; the cells that are kept have their outputs and are not pending."""
    cells: list[Cell]
    """All that the run executes, the kept ones included."""
    first: Cell
    """Where it goes on."""
    words: list[str]
    """What there is to say of it, a sentence each."""
    kernel: AdoptedKernel | None = None
    """The kept kernel it goes on in; None: a new one."""
    restores: bool = False
    """Whether kept variables are to be brought back in the new kernel."""
    kernel_name: str = ""


class Failure(msgspec.Struct, frozen=True):
    """Where a notebook run stopped, and what may be gone on with."""

    script: Script
    cell: ScriptCell
    """The first that did not complete."""
    checkpoint: Checkpoint | None


def failure_of(home: Surroundings, run: FlowRun) -> Failure | None:
    """Where a run stopped; None where that is not known, or no cell has completed."""
    script = scripts.read_script(home.path, run.id)
    if script is None:
        return None
    query = RunQuery(flow_run_id=run.id, kinds=("cell",), state_types=(StateType.COMPLETED,), limit=100_000)
    done = {cell_run.task_key.removeprefix("cell-") for cell_run in home.store.task_runs(query)}
    stopped = next((cell for cell in script.cells if cell.id not in done), None)
    if stopped is None or stopped is script.cells[0]:
        return None
    return Failure(script, stopped, checkpoints.read_checkpoint(scripts.folder_of(home.path, run.id)))


def plan(
    failure: Failure, run: FlowRun, prepared: Notebook, *, in_kept_kernel: bool, from_cell: str | None = None
) -> Continuation | None:
    """How a failed or crashed notebook run goes on.

    Args:
        failure: where it stopped.
        run: the run.
        prepared: its notebook as it is now, with the run's parameters.
        in_kept_kernel: whether its kernel was kept.
        from_cell: where to go on, the number of a cell or its id, whatever was edited; None: at the cell that failed.

    Returns:
        The continuation; None if nothing was kept: the notebook has to run from the top.

    Raises:
        NotResumable: cells that are to be kept were edited, there is no such cell, or a variable that is needed could not
            be kept. The message says what to do instead.
    """
    checkpoint = None if in_kept_kernel else failure.checkpoint
    if not in_kept_kernel and checkpoint is None:
        return None
    notebook, words = _chosen(failure.script, run, prepared)
    cells = pending_cells(notebook)
    if from_cell is not None:
        first = _asked_for(cells, from_cell, failure.cell)
    else:
        first = _beginning(failure, notebook, cells, checkpoint)
    if checkpoint is not None:
        if first.number > checkpoint.cell_number + 1:
            raise NotResumable(
                f"The variables were kept after cell {checkpoint.cell_number}, and the kernel is gone: the run can go on "
                f"from cell {checkpoint.cell_number + 1} or an earlier one, not from cell {first.number}."
            )
        _check_names(checkpoint, notebook, cells[first.number - 1 :])
    _keep(notebook, cells[: first.number - 1], run)
    return Continuation(
        notebook, cells, first, words, restores=checkpoint is not None, kernel_name=failure.script.kernel_name
    )


# Which notebook


def _chosen(script: Script, run: FlowRun, prepared: Notebook) -> tuple[Notebook, list[str]]:
    """The source or the executed notebook: the one that was edited since the run began, or later."""
    source, output = run.input_path or "", run.output_path or ""
    if is_url(output) or not output or not Path(output).is_file():
        return prepared, []
    try:
        executed = Document.read(output)
    except NotebookError:
        return prepared, []
    again = _prepared_again(executed, script, prepared)
    before = {cell.id: cell.digest for cell in script.cells}
    in_source, in_output = _digests(prepared) != before, _digests(again) != before
    if in_output and not (in_source and _modified(source) >= _modified(output)):
        return again, [f"The cells are those of the executed notebook, {output}, which was edited after the run."]
    return prepared, [f"The cells are those of {source}, which was edited after the run."] if in_source else []


def _prepared_again(executed: Document, script: Script, prepared: Notebook) -> Notebook:
    """The executed notebook as one to be executed: what the run did not execute stays so."""
    document = Document(executed.notebook, executed.path, injected=True)
    notebook = document.prepared({})
    notebook["metadata"]["papermill"] = prepared["metadata"]["papermill"]
    before = {cell.id for cell in script.cells}
    skipped = {
        cell["id"]
        for cell in prepared["cells"]
        if cell["cell_type"] == "code" and cell["metadata"]["papermill"]["status"] == "skipped"
    }
    given = next((cell for cell in prepared["cells"] if INJECTED in cell_reading.tags_of(cell)), None)
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        if given is not None and cell["id"] == given["id"]:
            cell["source"] = given["source"]  # the saved one may have its secrets masked
        if cell["id"] in skipped and cell["id"] not in before:
            cell["metadata"]["papermill"]["status"] = "skipped"
    return notebook


def _digests(notebook: Notebook) -> dict[str, str]:
    return {cell.id: digest_of(notebook["cells"][cell.index]["source"]) for cell in pending_cells(notebook)}


def _modified(path: str) -> float:
    try:
        return 0.0 if is_url(path) else Path(path).stat().st_mtime
    except OSError:
        return 0.0


# Which cell


def _beginning(failure: Failure, notebook: Notebook, cells: list[Cell], checkpoint: Checkpoint | None) -> Cell:
    """The cell that failed, or the one behind the checkpoint; those before it are what they were.

    Raises:
        NotResumable: they are not.
    """
    executed = failure.script.cells
    place = executed.index(failure.cell)
    if checkpoint is not None:
        place = min(place, 1 + next((n for n, cell in enumerate(executed) if cell.id == checkpoint.cell_id), place))
    changes = _changes(executed[:place], executed[place], notebook, cells)
    if changes:
        more = f" and {len(changes) - _LISTED} more" if len(changes) > _LISTED else ""
        raise NotResumable(
            f"Before the cell to go on with, {executed[place].number} ({executed[place].name!r}), the notebook was changed: "
            f"{'; '.join(changes[:_LISTED])}{more}. What those cells made before may not be what they make now. "
            f"--from-cell {_first_changed(executed[:place], notebook, cells)} runs from there in the same run; "
            f"--from-cell {executed[place].id} goes on all the same; --restart runs the notebook from the top."
        )
    return cells[place]


def _changes(kept: Sequence[ScriptCell], first: ScriptCell, notebook: Notebook, cells: Sequence[Cell]) -> list[str]:
    """How the cells up to the first to run differ from those executed, in words."""
    now = {cell.id: cell for cell in cells}
    changes = [f"cell {cell.number} ({cell.name!r}) is gone" for cell in (*kept, first) if cell.id not in now]
    changes += [
        f"cell {cell.number} ({cell.name!r}) was edited"
        for cell in kept
        if cell.id in now and digest_of(_source(notebook, now[cell.id])) != cell.digest
    ]
    before = {cell.id for cell in kept}
    for one in cells:
        if one.id == first.id:
            break
        if one.id not in before:
            changes.append(f"cell {one.number} ({one.name!r}) is new there")
    order = [cell.id for cell in cells if cell.id in before]
    if not changes and order != [cell.id for cell in kept]:
        changes.append("their order is another")
    return changes


def _first_changed(kept: Sequence[ScriptCell], notebook: Notebook, cells: Sequence[Cell]) -> int:
    for cell, before in zip(cells, kept, strict=False):
        if cell.id != before.id or digest_of(_source(notebook, cell)) != before.digest:
            return cell.number
    return min(len(kept) + 1, len(cells))


def _asked_for(cells: Sequence[Cell], text: str, stopped: ScriptCell) -> Cell:
    """The cell that somebody named.

    Raises:
        NotResumable: there is none, or cells before it have never run.
    """
    found = next((cell for cell in cells if cell.id == text), None)
    if found is None and text.isdecimal() and 1 <= int(text) <= len(cells):
        found = cells[int(text) - 1]
    if found is None:
        raise NotResumable(
            f"There is no cell {text!r} to go on from: name one of the {len(cells)} cells that are executed by its number, "
            "counted from 1, or by its id."
        )
    last = next((cell for cell in cells if cell.id == stopped.id), None)
    if found.number > (last.number if last is not None else stopped.number):
        raise NotResumable(
            f"The run stopped in cell {stopped.number} ({stopped.name!r}); it cannot go on behind it, from cell "
            f"{found.number}. To pass over the cell, tag it 'skip-execution'."
        )
    return found


def _source(notebook: Notebook, cell: Cell) -> str:
    source: str = notebook["cells"][cell.index]["source"]
    return source


# What is kept


def _keep(notebook: Notebook, kept: Sequence[Cell], run: FlowRun) -> None:
    """Give the kept cells what they showed; they are not pending any more."""
    shown: dict[str, dict[str, Any]] = {}
    try:
        if run.output_path and not is_url(run.output_path):
            shown = {cell["id"]: cell for cell in Document.read(run.output_path).notebook["cells"]}
    except NotebookError:
        pass  # nobody saved it, or it is gone: then there is nothing to show
    for cell in kept:
        content = notebook["cells"][cell.index]
        before = shown.get(cell.id, {})
        record = before.get("metadata", {}).get("papermill")
        if isinstance(record, dict):
            content["metadata"]["papermill"] = record
            content["outputs"] = before.get("outputs", [])
            content["execution_count"] = before.get("execution_count")
        if content["metadata"]["papermill"].get("status") != "skipped":
            content["metadata"]["papermill"].update(status="completed", exception=False)


def _check_names(checkpoint: Checkpoint, notebook: Notebook, rest: Sequence[Cell]) -> None:
    """See that no variable is missing that the remaining cells need.

    Raises:
        NotResumable: naming them, the cells that made them, and what can be done.
    """
    lost = {lost.name: lost for lost in checkpoint.lost}
    declared = list(checkpoints.statements_declaring(checkpoint))
    missing: list[str] = []
    bound: set[str] = set()
    for cell in rest:
        tree = checkpoints.read_cell(_source(notebook, cell))[1]
        for name in sorted(_reach(names_read(tree) - bound, declared)):
            if name in lost and name not in bound:
                missing.append(f"{lost[name]} - cell {cell.number} ({cell.name!r}) needs it")
                del lost[name]
        bound |= names_bound(tree)
    if missing:
        makers = [one.cell for one in checkpoint.lost if one.cell is not None and one.name not in lost]
        from_cell = f"--from-cell {min(makers)} makes it anew in this run" if makers else ""
        raise NotResumable(
            f"What was kept after cell {checkpoint.cell_number} is not enough to go on: {'; '.join(missing)}. "
            f"{from_cell}{', ' if from_cell else ''}--restart runs the notebook from the top."
        )


def _reach(names: frozenset[str] | set[str], declared: Sequence[tuple[tuple[str, ...], ast.Module]]) -> set[str]:
    """These names, and what the functions and classes among them read when they are used."""
    found, waiting = set[str](), set(names)
    while waiting:
        name = waiting.pop()
        found.add(name)
        for bound, tree in declared:
            if name in bound:
                waiting |= names_read(tree) - found
    return found
