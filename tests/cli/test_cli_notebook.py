"""`prefect-nb run` on a notebook: cells as they end, the executed notebook, exit codes."""

import json
import re
from pathlib import Path

import nbformat
import pytest

CELLS = [
    ("n: int = 2  # how many", ["parameters"]),
    ("from prefect_nb import task\n@task\ndef double(x): return 2 * x\nprint(double(n))", []),
    ("if n == 13: raise ValueError('unlucky')", []),
    ("import time, pathlib\nif n == 99:\n    pathlib.Path('here').touch(); time.sleep(100)", []),
]


@pytest.fixture
def notebook(folder: Path) -> Path:
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": tags} if tags else {}) for source, tags in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "report.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_a_notebook_is_run(shell, ask, notebook: Path):
    before = notebook.read_bytes()

    result = shell("run", "report.ipynb", "-p", "n=21", "--to", "out.ipynb", "--name", "first")

    assert result.returncode == 0, result.stderr
    assert "✓ Completed  flow report, run first" in result.stdout
    assert f"notebook  {notebook.parent / 'out.ipynb'}" in result.stdout
    assert re.search(r"^✓ Completed  cell 2 of \d+ · .+ \(.+ m?s\)$", result.stderr, re.MULTILINE)
    executed = nbformat.read(notebook.parent / "out.ipynb", as_version=4)
    assert any("42" in json.dumps(cell.get("outputs", [])) for cell in executed.cells)
    assert notebook.read_bytes() == before
    run = ask("flow-run", "inspect", "first")
    assert run["kind"] == "notebook"
    assert {task["kind"] for task in run["task_runs"]} == {"cell", "task"}


def test_a_failed_cell_is_named(shell, notebook: Path):
    result = shell("run", "report.ipynb", "-p", "n=13")

    assert result.returncode == 1
    assert "1 Failed" in result.stdout
    assert "1 NotRun" in result.stdout
    assert "ValueError: unlucky" in result.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-p", "m=3"], "unexpected keyword argument 'm'"),
        (["-p", "n=many"], "n: Input should be an integer"),
        (["--kernel", "no-such-kernel"], "'no-such-kernel', which is not installed"),
    ],
)
def test_bad_input_says_what_is_wrong_and_writes_nothing(invoke, notebook: Path, prefect_nb_home: Path, args, words):
    result = invoke("run", "report.ipynb", *args)

    assert result.exit_code == 2
    assert words in result.stderr
    assert not prefect_nb_home.exists()
    assert {path.name for path in notebook.parent.iterdir()} == {"flows.py", "report.ipynb"}


def test_a_folder_that_is_not_there_is_named(invoke, notebook: Path, prefect_nb_home: Path):
    result = invoke("run", "report.ipynb", "--to", "no/such/folder/out.ipynb")

    assert result.exit_code == 2
    assert f"there is no folder {notebook.parent / 'no' / 'such' / 'folder'}" in result.stderr
    assert not prefect_nb_home.exists()
    assert not (notebook.parent / "no").exists()


def test_no_notebook_at_all(invoke, folder: Path, prefect_nb_home: Path):
    (folder / "text.ipynb").write_text("not JSON")

    result = invoke("run", "text.ipynb")

    assert result.exit_code == 2
    assert "is no notebook" in result.stderr
    assert not prefect_nb_home.exists()


def test_the_source_is_never_replaced(invoke, ask, notebook: Path):
    result = invoke("run", "report.ipynb", "--to", "report.ipynb")

    assert result.exit_code == 2
    assert "would replace its source" in result.stderr
    assert ask("flow-run", "ls") == []
