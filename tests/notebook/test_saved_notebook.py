"""What a notebook that ran without anybody watching holds afterwards: pictures that need nothing to be seen."""

import json
import subprocess
import sys

import nbformat
import pytest

CELLS = [
    "%load_ext prefect_nb\nfrom prefect_nb import flow, task",
    "@task\ndef clean(x):\n    print(f'cleaning {x}\\n', end='')\n    return x * 2\n\n@flow\ndef plain():\n    return clean(1)",
    "%%flow nightly -p n=3\nparts = clean.map(range(n))\nsum(parts.result())",
    "plain()",
    "%%task count(parts) -> total\ntotal = len(parts)\ntotal",
    "%%flow awaiting\nimport asyncio\nawait asyncio.sleep(0)\nclean(5)",
    "print(parts, total)",
]


# In a process of its own, as a scheduler would do it.
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

notebook = nbformat.read(sys.argv[1], as_version=4)
client = NotebookClient(notebook, config=Config(KernelManager={"transport": "ipc"}), timeout=60)
try:
    client.execute()
finally:
    nbformat.write(notebook, sys.argv[1])
"""


def execute(cells, folder, environment):
    """The notebook after its execution, and what that wrote to stderr."""
    path = folder / "saved.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(path)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return nbformat.read(path, as_version=4), done


@pytest.fixture(scope="module")
def saved(kernel_environment, tmp_path_factory):
    notebook, done = execute(CELLS, tmp_path_factory.mktemp("saved"), kernel_environment)
    assert done.returncode == 0, done.stderr
    return notebook


def outputs(notebook, index, kind):
    return [output for output in notebook.cells[index].outputs if output.output_type == kind]


@pytest.mark.parametrize(("index", "name", "value"), [(2, "nightly", "6"), (3, "plain", "2"), (5, "awaiting", "10")])
def test_the_final_picture_is_there_as_html_and_as_text(saved, index, name, value):
    (picture,) = outputs(saved, index, "display_data")

    assert sorted(picture.data) == ["text/html", "text/plain"]
    assert picture.data["text/plain"].startswith(f"✓ Completed  flow '{name}'")
    assert name in picture.data["text/html"]
    assert "Completed" in picture.data["text/html"]
    assert "<script" not in picture.data["text/html"]
    assert [output.data["text/plain"] for output in outputs(saved, index, "execute_result")] == [value]


def test_prints_of_the_tasks_are_in_their_cell(saved):
    (stream,) = outputs(saved, 2, "stream")

    assert sorted(stream.text.splitlines()) == ["cleaning 0", "cleaning 1", "cleaning 2"]


def test_the_next_cells_had_plain_values(saved):
    assert outputs(saved, 6, "stream")[0].text == "[0, 2, 4] 3\n"


def test_nothing_needs_a_widget(saved):
    assert "widgets" not in saved.metadata
    assert "application/vnd.jupyter.widget" not in json.dumps(saved)


def test_nothing_is_red(saved):
    assert [output for cell in saved.cells for output in cell.outputs if output.get("name") == "stderr"] == []


def test_a_failing_flow_cell_stops_the_notebook(kernel_environment, tmp_path):
    cells = [CELLS[0], "%%flow broken\nx = 1\n1 / 0", "print('never')"]

    notebook, done = execute(cells, tmp_path, kernel_environment)

    (picture,) = outputs(notebook, 1, "display_data")
    (error,) = outputs(notebook, 1, "error")
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert picture.data["text/plain"].startswith("✗ Failed  flow 'broken'")
    assert error.ename == "ZeroDivisionError"
    assert notebook.cells[2].outputs == []
