"""What a notebook run executes, written down as it begins: by that one sees later which cells were edited since.

It is in `<home>/notebook_runs/<flow run>/`, beside what was kept of the notebook's variables (`execution.checkpoints`),
until the run completes.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.bodies.cells import Cell
from prefect_nb.bodies.document import Notebook

FOLDER = "notebook_runs"
_SCRIPT = "script.json"
_FORGOTTEN_SECONDS = 7 * 24 * 3600.0


class ScriptCell(msgspec.Struct, frozen=True):
    """A cell that the run executes; `number` counts them from 1."""

    id: str
    number: int
    name: str
    digest: str
    """Of its source."""


class Script(msgspec.Struct, frozen=True):
    """The cells of a run, in order."""

    cells: list[ScriptCell]
    kernel_name: str


def folder_of(home: Path, flow_run_id: UUID) -> Path:
    """Where there is what belongs to a notebook run."""
    return home / FOLDER / str(flow_run_id)


def digest_of(source: str) -> str:
    """A cell's source, as something to compare."""
    return hashlib.sha256(source.strip().encode("utf-8", "surrogatepass")).hexdigest()[:32]


def write_script(home: Path, flow_run_id: UUID, notebook: Notebook, cells: Iterable[Cell], kernel_name: str) -> None:
    """Write down what a run is about to execute.

    Raises:
        OSError: it cannot be written.
    """
    listed = [
        ScriptCell(cell.id, cell.number, cell.name, digest_of(notebook["cells"][cell.index]["source"]))
        for cell in cells
    ]
    write_private(folder_of(home, flow_run_id) / _SCRIPT, msgspec.json.encode(Script(listed, kernel_name)))


def read_script(home: Path, flow_run_id: UUID) -> Script | None:
    """What a run executed; None where nothing was written down."""
    found: Script | None = read(folder_of(home, flow_run_id) / _SCRIPT, Script)
    return found


def forget(home: Path, flow_run_id: UUID) -> None:
    """Remove what there is of a run that needs it no more, and of runs that nobody went on with for a week."""
    shutil.rmtree(folder_of(home, flow_run_id), ignore_errors=True)
    now = time.time()
    for folder in (home / FOLDER).glob("*"):
        try:
            newest = max(entry.stat().st_mtime for entry in (folder, *folder.iterdir()))
        except OSError:
            continue
        if now - newest > _FORGOTTEN_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def write_private(path: Path, data: bytes) -> None:
    """Put a file in place whole, for this user only."""
    private_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def private_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for this user only."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def read(path: Path, kind: Any) -> Any:
    """What a file says; None where it is gone or says nothing of that kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
