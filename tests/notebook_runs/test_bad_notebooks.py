"""What is no notebook, or cannot be run here, is refused with what is wrong and what to do; nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from nbformat import v4

from prefect_nb import Flow
from prefect_nb.bodies import document
from prefect_nb.exceptions import NotebookError, ParameterBindError


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "not JSON"),
        (b"print('hello')", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no notebook"),
        (b'{"a": 1}', "no notebook"),
        (b'{"nbformat": 5, "cells": []}', "format 5"),
        (b'{"nbformat": 4}', "no list of cells"),
        (b'{"nbformat": 4, "metadata": [], "cells": []}', "metadata is no object"),
        (b'{"nbformat": 4, "cells": [1]}', "cell 1 has no known type"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": 5}]}', "cell 1 has no source"),
        (b'{"nbformat": 3, "worksheets": 7}', "cannot? be read|no notebook"),
    ],
)
def test_files_that_are_no_notebooks(tmp_path: Path, history: Any, contents: bytes, said: str):
    path = tmp_path / "report.ipynb"
    path.write_bytes(contents)

    with pytest.raises(NotebookError, match=said):
        Flow.from_notebook(path)

    assert history.flow_runs() == []


def test_a_missing_file_names_the_nearest(write: Any, tmp_path: Path):
    write("x = 1", name="quarterly")

    with pytest.raises(NotebookError, match=r"did you mean 'quarterly\.ipynb'"):
        Flow.from_notebook(tmp_path / "quartrly.ipynb")
    with pytest.raises(NotebookError, match="is a folder"):
        Flow.from_notebook(tmp_path)
    with pytest.raises(NotebookError, match="no folder"):
        Flow.from_notebook(tmp_path / "nowhere" / "x.ipynb")


def test_a_file_too_large(write: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(document, "MAX_BYTES", 10)

    with pytest.raises(NotebookError, match="Clear its outputs"):
        Flow.from_notebook(write("x = 1"))


def test_an_unknown_kernel_lists_those_there_are_and_the_fix(write: Any):
    with pytest.raises(NotebookError, match=r"'elsewhere'.*python3.*ipykernel install --user --name elsewhere"):
        Flow.from_notebook(write("x = 1", kernel="elsewhere"))
    with pytest.raises(NotebookError, match="You ask for the kernel 'mine'"):
        Flow.from_notebook(write("x = 1"), kernel_name="mine")


def test_kernels_of_other_languages_are_refused(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "jupyter" / "kernels" / "bash"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": ["bash"], "display_name": "Bash", "language": "bash"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    with pytest.raises(NotebookError, match="runs bash"):
        Flow.from_notebook(write(("x=$(id)", "parameters"), kernel="bash"))


def test_a_parameters_cell_that_is_not_python(write: Any):
    with pytest.raises(ParameterBindError):
        Flow.from_notebook(write(("depth = = 1", "parameters")))


def test_an_old_notebook_is_read_too(tmp_path: Path):
    path = tmp_path / "old.ipynb"
    old = {
        "nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""},
        "worksheets": [{"cells": [
            {"cell_type": "code", "language": "python", "input": ["x = 1"], "outputs": [], "metadata": {}, "collapsed": False}
        ], "metadata": {}}],
    }  # fmt: skip
    path.write_text(json.dumps(old))

    assert [cell["source"] for cell in document.Document.read(path).notebook["cells"]] == ["x = 1"]


def test_cells_without_ids_of_their_own_get_stable_ones(tmp_path: Path):
    path = tmp_path / "old.ipynb"
    cells = [v4.new_code_cell("x = 1", id="same"), v4.new_code_cell("x = 2", id="same"), v4.new_code_cell("x = 3")]
    del cells[2]["id"]
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells}))

    ids = [[cell["id"] for cell in document.Document.read(path).notebook["cells"]] for _ in range(2)]

    assert ids[0] == ids[1] == ["same", "cell-1", "cell-2"]
