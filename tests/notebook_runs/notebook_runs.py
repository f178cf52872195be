"""Reading executed notebooks."""

from pathlib import Path
from typing import Any

import nbformat


def read(path: Path | str | None) -> Any:
    """An executed notebook, found valid."""
    assert path is not None
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def statuses(path: Path | str | None) -> list[str]:
    """papermill's status of each code cell."""
    return [cell.metadata.papermill.status for cell in read(path).cells if cell.cell_type == "code"]


def text_of(cell: Any) -> str:
    """What a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")
