"""Small notebooks, and the history of what ran."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import FlowRun, TaskRun

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("x = 1", ("y = 2", "tag"), name="report")`: a notebook of code cells, some with tags; Markdown by `# `."""

    def write(*sources: str | tuple[str, ...], name: str = "report", kernel: str = "python3") -> Path:
        notebook = v4.new_notebook(
            metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
        )
        for number, (source, *tags) in enumerate([s] if isinstance(s, str) else s for s in sources):
            make = v4.new_markdown_cell if source.startswith("# ") else v4.new_code_cell
            cell = make(source, metadata={"tags": tags} if tags else {})
            cell.id = f"c{number}"
            notebook.cells.append(cell)
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    return write


class History:
    """What the home has recorded."""

    def flow_runs(self, **query: Any) -> list[FlowRun]:
        return Home.current().store.flow_runs(RunQuery(**query))

    def only_run(self) -> FlowRun:
        (run,) = self.flow_runs(kinds=("notebook",))
        return run

    def task_runs(self, *kinds: str) -> list[TaskRun]:
        runs = Home.current().store.task_runs(RunQuery(limit=1000, oldest_first=True))
        return [run for run in runs if run.kind in kinds]

    def cell_states(self) -> list[str]:
        return [run.state_name for run in self.task_runs("cell")]

    def problems(self) -> list[Any]:
        return Home.current().store.check()


@pytest.fixture
def history() -> History:
    return History()
