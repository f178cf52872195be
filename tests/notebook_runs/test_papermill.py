"""Papermill with our engine: its own conventions, our cell states, our history."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import papermill
import pytest
from notebook_runs import read, statuses, text_of

from prefect_nb.exceptions import KernelDied

PARAMETERS = ("depth = 1", "parameters")


def execute(source: Path, output: Path, **options: Any) -> Any:
    return papermill.execute_notebook(source, output, engine_name="prefect_nb", progress_bar=False, **options)


def test_it_executes_what_papermill_has_prepared(write: Any, history: Any, tmp_path: Path):
    output = tmp_path / "out.ipynb"

    notebook = execute(
        write(PARAMETERS, "from prefect_nb import task\nprint(task(lambda: depth)())"), output, parameters={"depth": 5}
    )

    assert text_of(notebook.cells[-1]) == text_of(read(output).cells[-1]) == "5\n"
    assert [cell.metadata.tags for cell in read(output).cells] == [["parameters"], ["injected-parameters"], []]
    run = history.only_run()
    assert (run.parameters, run.output_path, run.state_name) == ({"depth": 5}, str(output), "Completed")
    assert history.cell_states() == ["Completed"] * 3
    (task,) = history.task_runs("task")
    assert task.parent_id == history.task_runs("cell")[-1].id


def test_a_failing_cell_is_papermills_error_and_later_cells_are_not_completed(write: Any, history: Any, tmp_path: Path):
    output = tmp_path / "out.ipynb"

    with pytest.raises(papermill.PapermillExecutionError, match="division"):
        execute(write("1 / 0", "print('never')"), output)

    assert statuses(output) == ["failed", "pending"]
    assert history.cell_states() == ["Failed", "NotRun"]


def test_a_dead_kernel_is_an_error_and_no_cell_is_completed(write: Any, history: Any, tmp_path: Path):
    output = tmp_path / "out.ipynb"

    with pytest.raises(KernelDied):
        execute(write("import os; os._exit(0)", "print('never')"), output)

    assert statuses(output) == ["failed", "pending"]
    assert history.only_run().state_name == "Crashed"


def test_the_command_line(write: Any, tmp_path: Path):
    source = write(PARAMETERS, "print(depth)")
    command = [
        sys.executable,
        "-m",
        "papermill",
        source.name,
        "out.ipynb",
        "--engine",
        "prefect_nb",
        "-p",
        "depth",
        "3",
    ]

    subprocess.run(command, cwd=tmp_path, env=os.environ.copy(), check=True, capture_output=True, timeout=60)

    assert text_of(read(tmp_path / "out.ipynb").cells[-1]) == "3\n"
