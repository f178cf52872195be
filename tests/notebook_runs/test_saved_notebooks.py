"""The executed notebook: where it goes, valid at every moment, and never over its source."""

import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from notebook_runs import read, text_of

from prefect_nb import Flow
from prefect_nb.bodies import saving
from prefect_nb.exceptions import NotebookError
from prefect_nb.home import Home


def test_it_goes_beside_the_source_which_stays_as_it_was(write: Any, history: Any, tmp_path: Path):
    source = write("print('hello')", "from pathlib import Path; print(Path.cwd())")
    before = source.read_bytes()

    output = Flow.from_notebook(source, flow_run_name="first/one")()

    assert output == tmp_path / "runs" / "report-first-one.ipynb"
    assert source.read_bytes() == before
    assert text_of(read(output).cells[1]) == f"{tmp_path}\n"
    assert read(output).metadata.prefect_nb.flow_run_id == str(history.only_run().id)
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(output.stat().st_mode) == 0o666 & ~umask


def test_a_name_that_is_taken_is_not_overwritten(tmp_path: Path, write: Any):
    document = Flow.from_notebook(write("x = 1")).body.document
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "report-a.ipynb").touch()

    assert saving.default_output(document, "a") == str(tmp_path / "runs" / "report-a-2.ipynb")


@pytest.mark.parametrize("output", ["report.ipynb", "link.ipynb", "runs", "report.ipynb/x.ipynb"])
def test_places_where_it_cannot_go(write: Any, history: Any, tmp_path: Path, output: str):
    source = write("x = 1")
    (tmp_path / "link.ipynb").symlink_to(source)
    (tmp_path / "runs").mkdir()

    with pytest.raises(NotebookError, match=r"executed notebook"):
        Flow.from_notebook(source, output_path=tmp_path / output)()

    assert history.flow_runs() == []


def test_readers_see_a_whole_notebook_at_every_moment(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saving, "AFTER_CELL_SECONDS", 0)
    monkeypatch.setattr(saving, "_SHARE", 0)
    output = tmp_path / "out.ipynb"
    flow = Flow.from_notebook(write(*(f"print('x' * {n}000)" for n in range(40))), output_path=output)
    done = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not done.is_set():
            if output.exists():
                notebook = nbformat.read(output, as_version=4)
                seen.append(sum(cell.metadata.papermill.status == "completed" for cell in notebook.cells))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        flow()
    finally:
        done.set()
        reader.join()

    assert seen == sorted(seen)
    assert len(set(seen)) > 3


def test_few_writes_for_many_quick_cells(write: Any, monkeypatch: pytest.MonkeyPatch):
    writes: list[int] = []
    real = saving.write_atomically
    monkeypatch.setattr(saving, "write_atomically", lambda path, data: (writes.append(len(data)), real(path, data)))

    Flow.from_notebook(write(*(f"x = {n}" for n in range(20))))()

    assert 2 <= len(writes) <= 4


def test_what_a_notebook_without_end_prints_is_capped(write: Any):
    code = "for n in range(120_000): print('line', n)"

    output = Flow.from_notebook(write(code, "print('on')"))()

    first, second = read(output).cells
    assert len(text_of(first)) < 1_100_000
    assert "more characters of output were left out" in text_of(first)
    assert text_of(second) == "on\n"


def test_what_a_cell_prints_late_is_filed_under_it(write: Any):
    code = """
import asyncio
go = asyncio.Event()

async def late():
    await go.wait()
    print("late")

task = asyncio.create_task(late())
"""

    output = Flow.from_notebook(write(code, "go.set(); await task; print('second')"))()

    assert [text_of(cell) for cell in read(output).cells] == ["late\n", "second\n"]


def test_displays_widgets_and_surrogates(write: Any):
    output = Flow.from_notebook(
        write(
            "from IPython.display import display, HTML\nhandle = display(HTML('<b>one</b>'), display_id=True)",
            "handle.update(HTML('<b>two</b>'))",
            "display(HTML('\\udc80'))",
            "import ipywidgets; ipywidgets.IntSlider(3)",
            "1 + 1",
        )
    )()

    notebook = read(output)
    assert notebook.cells[0].outputs[0].data["text/html"] == "<b>two</b>"
    assert notebook.cells[3].outputs[0].output_type in ("display_data", "execute_result")
    (state,) = notebook.metadata.widgets.values()
    assert "IntSliderModel" in {model["model_name"] for model in state["state"].values()}
    assert (notebook.cells[4].execution_count, notebook.cells[4].outputs[0].data["text/plain"]) == (5, "2")


def test_nothing_is_left_behind(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scratch = tmp_path / "t"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    code = "import subprocess, sys\nchild = subprocess.Popen(['sleep', '60'])\nprint(child.pid)"

    output = Flow.from_notebook(write(code))()

    assert list(scratch.iterdir()) == []
    pid = int(text_of(read(output).cells[0]))
    deadline = time.monotonic() + 10  # it has been killed; dying takes it a moment
    while is_alive(pid):
        assert time.monotonic() < deadline
    Home.current().close()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
