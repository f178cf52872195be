"""A notebook file: read and checked before anything runs, and prepared for one run with its parameters.

A notebook is kept as the plain JSON it is. (`nbformat` is asked only where a file is older than format 4: importing it
costs more than starting a kernel does.)
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

from prefect_nb.bodies import module_sources
from prefect_nb.bodies.cells import is_runnable, source_of, tags_of
from prefect_nb.exceptions import NotebookError
from prefect_nb.model.notebook_parameters import (
    NotebookParameter,
    check_parameters,
    injected_source,
    override_source,
    read_parameters,
    recorded_values,
)

Notebook = dict[str, Any]

MAX_BYTES = 100 * 1024 * 1024
PARAMETERS = "parameters"
INJECTED = "injected-parameters"
_ERROR_MARKER = "papermill-error-cell-tag"
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_CELL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Document:
    """A notebook as it was read; runs work on copies of it.

    Args:
        notebook: its JSON, format 4.
        path: where it came from: an absolute path or a URL.
        injected: the parameters are in it already (papermill has put them there).
    """

    def __init__(self, notebook: Notebook, path: str, *, injected: bool = False) -> None:
        self.notebook = _completed(notebook)
        self.path = path
        self.version = hashlib.md5(
            json.dumps([[cell["cell_type"], cell["source"]] for cell in notebook["cells"]]).encode(),
            usedforsecurity=False,
        ).hexdigest()
        self.injected = injected

    @classmethod
    def read(cls, path: str | Path) -> Document:
        """Read a notebook from a file, or from a URL that papermill has a handler for (`s3://`, `gs://`, ...).

        Raises:
            NotebookError: it is missing, unreadable, too large (100 MB), or no notebook.
        """
        if is_url(path):
            return cls(_parsed(_fetched(str(path)), str(path)), str(path))
        file = Path(path).expanduser().absolute()
        return cls(_parsed(_contents(file), str(path)), str(file))

    @cached_property
    def parameters(self) -> list[NotebookParameter] | None:
        """What its parameters cell declares; None for a notebook without one.

        Raises:
            ParameterBindError: the cell is not Python.
        """
        declaring = (PARAMETERS, INJECTED) if self.injected else (PARAMETERS,)
        cells = [cell for tag in declaring if (cell := _tagged(self.notebook, tag)) is not None]
        if not cells:
            return None
        return read_parameters(
            "\n".join(cell["source"] for cell in cells), partial(module_sources.source_of, folder=self.folder)
        )

    @property
    def stem(self) -> str:
        """Its name without folder and extension."""
        return Path(self.path.rstrip("/").rpartition("/")[2] if is_url(self.path) else self.path).stem or "notebook"

    @property
    def folder(self) -> Path:
        """Where its cells run: the folder it is in; for a URL the current one."""
        return Path.cwd() if is_url(self.path) else Path(self.path).parent

    @property
    def title(self) -> str | None:
        """Its first heading."""
        for cell in self.notebook["cells"]:
            if cell["cell_type"] == "markdown" and (
                found := re.search(r"^#+[ \t]+(\S.*)$", cell["source"], re.MULTILINE)
            ):
                return found[1].strip()
        return None

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values for its parameters, checked and coerced as `model.notebook_parameters.check_parameters` does."""
        return check_parameters(self.parameters, values)

    def prepared(self, values: Mapping[str, Any]) -> Notebook:
        """A copy to be executed: parameters in place, old outputs gone, papermill's metadata begun.

        Two conventions meet here. Papermill's readers expect a cell tagged `injected-parameters` after the one tagged
        `parameters`, whose source stays what the author wrote; but papermill only assigns there, so that what the
        parameters cell derived from its defaults (`b = a * 10`) keeps the old values. Ours therefore holds the whole
        parameters cell with the given values in place of the defaults, and is run *instead of* it: derived values
        follow, an expensive or failing default is not evaluated, the document shows both, and running it again from
        the top, or through papermill, means the same.
        """
        notebook = copy.deepcopy(self.notebook)
        cells = [cell for cell in notebook["cells"] if _ERROR_MARKER not in tags_of(cell)]
        if not self.injected:
            cells = _injected(cells, values, self.parameters)
        for cell in cells:
            if cell["cell_type"] == "code":
                cell["outputs"] = []
                cell["execution_count"] = None
                superseded = cell["metadata"].pop("prefect_nb_superseded", False)
                status = "pending" if is_runnable(cell) and not superseded else "skipped"
                cell["metadata"]["papermill"] = {
                    "exception": None, "start_time": None, "end_time": None, "duration": None, "status": status,
                }  # fmt: skip
        notebook["cells"] = cells
        notebook["metadata"].pop("widgets", None)
        before = notebook["metadata"].get("papermill") if self.injected else None
        notebook["metadata"]["papermill"] = {
            "default_parameters": {}, "environment_variables": {}, "parameters": recorded_values(self.parameters, values), "version": _papermill(),
            **(before or {}), "input_path": self.path, "output_path": None,
            "start_time": None, "end_time": None, "duration": None, "exception": None,
        }  # fmt: skip
        return notebook


def is_url(path: str | Path) -> bool:
    """Whether this is a place papermill reads from and writes to, rather than a local file."""
    return isinstance(path, str) and _URL.match(path) is not None


def _injected(
    cells: list[dict[str, Any]], values: Mapping[str, Any], parameters: list[NotebookParameter] | None
) -> list[dict[str, Any]]:
    declared = next((cell for cell in cells if PARAMETERS in tags_of(cell)), None)
    if declared is not None:
        # What an earlier run injected is a trace of that run: this one starts from the declared defaults.
        cells = [cell for cell in cells if INJECTED not in tags_of(cell)]
    if not values:
        return cells
    if declared is None:
        old = next((number for number, cell in enumerate(cells) if INJECTED in tags_of(cell)), None)
        new = _new_cell(injected_source(values))
        return [new, *cells] if old is None else [*cells[:old], new, *cells[old + 1 :]]
    declared["metadata"]["prefect_nb_superseded"] = True
    after = next(number for number, cell in enumerate(cells) if cell is declared) + 1
    source = "# Parameters\n" + override_source(declared["source"], values, parameters)
    return [*cells[:after], _new_cell(source), *cells[after:]]


def _new_cell(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code", "execution_count": None, "id": INJECTED, "metadata": {"tags": [INJECTED]},
        "outputs": [], "source": source,
    }  # fmt: skip


def _tagged(notebook: Notebook, tag: str) -> dict[str, Any] | None:
    return next((c for c in notebook["cells"] if c["cell_type"] == "code" and tag in tags_of(c)), None)


def _papermill() -> str:
    from importlib.metadata import version

    return version("papermill")


def _contents(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise NotebookError(
                f"{file} is larger than {MAX_BYTES // 1024**2} MB. Clear its outputs (Edit > Clear Outputs of All Cells) "
                "and save it."
            )
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotebookError(f"There is no notebook {file}{_nearest(file)}") from None
    except IsADirectoryError:
        raise NotebookError(f"{file} is a folder; name the notebook inside it.") from None
    except (OSError, ValueError) as error:
        raise NotebookError(f"The notebook {str(file)!a} cannot be read: {error}") from None


def _nearest(file: Path) -> str:
    try:
        names = [other.name for other in file.parent.iterdir() if other.suffix == ".ipynb"]
    except OSError:
        return f": there is no folder {file.parent}."
    near = difflib.get_close_matches(file.name, names, n=1)
    return f": did you mean '{near[0]}'?" if near else "."


def _fetched(url: str) -> bytes:
    from papermill.iorw import papermill_io

    try:
        text: str = papermill_io.read(url)
    except Exception as error:  # each handler has errors of its own
        raise NotebookError(f"The notebook {url} cannot be read: {error}") from error
    return text.encode()


def _parsed(data: bytes, path: str) -> Notebook:
    try:
        notebook: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"{path} is no notebook: it is not JSON ({error}).") from None
    if not isinstance(notebook, dict) or type(notebook.get("nbformat")) is not int:
        raise NotebookError(f"{path} is JSON, but no notebook: it says no 'nbformat'.")
    if notebook["nbformat"] < 4:
        notebook = _upgraded(notebook, path)
    if notebook["nbformat"] > 4:
        raise NotebookError(
            f"{path} is in notebook format {notebook['nbformat']}; only formats up to 4 are known here."
        )
    problem = _problem(notebook)
    if problem:
        raise NotebookError(f"{path} is a damaged notebook: {problem}.")
    return cast("Notebook", notebook)


def _upgraded(notebook: Notebook, path: str) -> Notebook:
    import warnings

    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            upgraded = nbformat.reads(json.dumps(notebook), as_version=4)  # type: ignore[no-untyped-call]
            found: Notebook = json.loads(nbformat.writes(upgraded))  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a malformed file makes it raise
        raise NotebookError(f"{path} is no notebook that can be read: {error}") from None
    return found


def _problem(notebook: Notebook) -> str | None:
    """What keeps a notebook from being executed; None for nothing."""
    if not isinstance(notebook.get("cells"), list):
        return "it has no list of cells"
    if not isinstance(notebook.get("metadata", {}), dict):
        return "its metadata is no object"
    for number, cell in enumerate(notebook["cells"], 1):
        if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
            return f"cell {number} has no known type"
        source = cell.get("source")
        if not isinstance(source, str) and not (
            isinstance(source, list) and all(isinstance(line, str) for line in source)
        ):
            return f"cell {number} has no source"
        if not isinstance(cell.get("metadata", {}), dict):
            return f"the metadata of cell {number} is no object"
    return None


def _completed(notebook: Notebook) -> Notebook:
    """The notebook with what later formats ask for: every cell has an id of its own, stable from run to run."""
    notebook.setdefault("metadata", {})
    notebook["nbformat"] = 4
    notebook["nbformat_minor"] = max(5, notebook.get("nbformat_minor") or 0)
    taken: set[str] = set()
    for number, cell in enumerate(notebook["cells"]):
        cell["source"] = source_of(cell)
        cell.setdefault("metadata", {})
        id = cell.get("id")
        if not isinstance(id, str) or not _CELL_ID.fullmatch(id) or id in taken:
            cell["id"] = id = f"cell-{number}" if f"cell-{number}" not in taken else f"cell-{number}-{len(taken)}"
        taken.add(id)
    return notebook
