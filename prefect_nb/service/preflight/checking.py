"""Would Restart & Run All pass? Checks a notebook in seconds, without executing anything of it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect_nb.bodies.cell_tags import rules_of
from prefect_nb.bodies.document import Document
from prefect_nb.service.preflight.cells import CheckedCell, checked_cells
from prefect_nb.service.preflight.code import code_findings
from prefect_nb.service.preflight.findings import Finding, Report, ordered
from prefect_nb.service.preflight.kernel import check_kernel
from prefect_nb.service.preflight.names import Live, name_findings
from prefect_nb.service.preflight.parameters import check_given

__all__ = ["Finding", "Live", "Report", "preflight"]


def preflight(
    path: str | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    texts: Sequence[str] = (),
    kernel_name: str | None = None,
    live: Live | None = None,
) -> Report:
    """Check whether a notebook would run from top to bottom in a fresh kernel. Nothing of it is executed.

    Args:
        path: the notebook.
        parameters: values for its parameters.
        texts: the same as `name=value`, as typed on a command line.
        kernel_name: the kernel to check for instead of the one the notebook names.
        live: what the notebook's running kernel has in it, to say where a missing name came from.

    Raises:
        NotebookError: there is no such notebook, or it is damaged.
        ParameterBindError: a text is no `name=value`.
    """
    document = Document.read(path)
    cells = checked_cells(document.notebook) if _is_python(document.notebook) else []
    given = check_given(document, cells, parameters or {}, texts)
    folder = document.folder
    kernel = check_kernel(document.notebook, kernel_name, folder, cells)
    findings = [
        *kernel.findings,
        *_syntax(cells, kernel.readable),
        *given.findings,
        *name_findings(cells, given.names, given.at_start, live),
        *code_findings(cells, folder, given.values),
        *_tags(cells),
        *_order(cells),
    ]
    return Report(
        path=document.path, cells=len(cells), kernel=kernel.name, python=kernel.python, findings=ordered(findings)
    )


def _is_python(notebook: Mapping[str, Any]) -> bool:
    metadata = notebook["metadata"]
    said = (metadata.get("kernelspec") or {}).get("language") or (metadata.get("language_info") or {}).get("name")
    return said is None or str(said).lower() in ("python", "ipython")


def _syntax(cells: Sequence[CheckedCell], readable: frozenset[int]) -> list[Finding]:
    found = []
    for cell in cells:
        if cell.error is None:
            continue
        words = re.sub(r"\s*\(<.*\)$", "", cell.error.msg or "it is not Python")
        line = cell.error.text.strip() if cell.error.text else ""
        quoted = f": `{line[:60]}`" if line else ""
        if cell.number in readable:
            note = f"The kernel's Python can read this cell, this one cannot ({words}): its names were not checked"
            found.append(cell.finding("info", "syntax", note, None, cell.error.lineno))
        else:
            found.append(cell.finding("error", "syntax", f"Not valid Python: {words}{quoted}", None, cell.error.lineno))
    return found


def _tags(cells: Sequence[CheckedCell]) -> list[Finding]:
    """What is wrong with the tags that say how a cell is run."""
    found = []
    for cell in cells:
        try:
            rules_of({"metadata": cell.metadata})
        except ValueError as error:
            found.append(cell.finding("error", "cell-tag", f"The cell {error}"))
    return found


def _order(cells: Sequence[CheckedCell]) -> list[Finding]:
    """What the saved execution counts say of how the notebook was run last."""
    counts = [cell.execution_count for cell in cells]
    done = [count for count in counts if isinstance(count, int)]
    if not done:
        return []
    found = []
    never = [cell.number for cell, count in zip(cells, counts, strict=True) if not isinstance(count, int)]
    if never:
        shown = ", ".join(map(str, never[:8])) + (", ..." if len(never) > 8 else "")
        message = f"Not executed when the notebook was saved: cell{'s' * (len(never) > 1)} {shown}"
        found.append(Finding(level="info", rule="order", message=message))
    if done != sorted(done):
        shown = " ".join(f"[{count}]" for count in done[:12])
        message = f"The cells were last executed in another order: {shown}"
        fix = "Restart & Run All shows whether the order matters."
        found.append(Finding(level="info", rule="order", message=message, fix=fix))
    return found
