"""Where papermill's and nbclient's records lie or break, those of a notebook run do not."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbformat.sign import NotebookNotary
from notebook_runs import read, statuses, text_of

from prefect_nb import Flow
from prefect_nb.exceptions import NotebookError


def execute(source: Path, output: Path, **options: Any) -> Any:
    return papermill.execute_notebook(source, output, engine_name="prefect_nb", progress_bar=False, **options)


def is_trusted(path: Path | str | None) -> bool:
    """As a Jupyter server asks when it opens a notebook."""
    return bool(NotebookNotary().check_signature(nbformat.read(str(path), as_version=4)))


# States and places of cells


def test_an_announced_error_is_no_failed_cell_although_papermill_raises(write: Any, history: Any, tmp_path: Path):
    output = tmp_path / "out.ipynb"

    with pytest.raises(papermill.PapermillExecutionError, match="announced"):
        execute(write(("raise ValueError('announced')", "raises-exception"), "print('on')"), output)

    assert history.only_run().state_name == "Completed"
    assert history.cell_states() == ["Completed", "Completed"]
    assert text_of(read(output).cells[-1]) == "on\n"


@pytest.mark.parametrize(("code", "error"), [("0", NotebookError), ("1", papermill.PapermillExecutionError)])
def test_leaving_the_notebook_is_an_error_of_papermill_too(
    write: Any, history: Any, tmp_path: Path, code: str, error: type[Exception]
):
    output = tmp_path / "out.ipynb"

    with pytest.raises(error):
        execute(write(f"import sys; sys.exit({code})", "print('never')"), output)

    assert statuses(output) == ["failed", "pending"]
    assert history.cell_states() == ["Failed", "NotRun"]


def test_papermills_error_banners_move_no_cell_of_ours(write: Any, history: Any, tmp_path: Path):
    """They are put before the cells and shift their places; cells are known by their ids."""
    output = tmp_path / "out.ipynb"
    with pytest.raises(papermill.PapermillExecutionError):
        execute(write("x = 1", "1 / 0", "y = 1"), output)
    with_banners = read(output)
    assert [cell.cell_type for cell in with_banners.cells] == ["markdown", "code", "markdown", "code", "code"]
    failed = next(run for run in history.task_runs("cell") if run.state_name == "Failed")
    (place,) = [n for n, cell in enumerate(with_banners.cells) if f"cell-{cell.id}" == failed.task_key]
    assert with_banners.cells[place].source == "1 / 0"

    state = Flow.from_notebook(output)(return_state=True)

    assert "Cell 2 of 3 ('1 / 0') failed" in state.message
    again = history.flow_runs(limit=1)[0]
    assert [cell.source for cell in read(again.output_path).cells] == ["x = 1", "1 / 0", "y = 1"]
    assert {run.task_key for run in history.task_runs("cell")} == {"cell-c0", "cell-c1", "cell-c2"}


def test_what_a_magic_refuses_is_in_the_runs_message(write: Any, history: Any):
    """A UsageError is an error whose only text is on stderr."""
    state = Flow.from_notebook(write("%load_ext prefect_nb", "%%flow --retires 3\nx = 1"))(return_state=True)

    assert "UsageError: %%flow: unknown option --retires; did you mean --retries?" in state.message
    output = read(history.only_run().output_path)
    assert "unknown option --retires" in text_of(output.cells[1])
    assert statuses(history.only_run().output_path) == ["completed", "failed"]


# Surroundings


def test_the_kernel_knows_its_parent_and_its_notebook(write: Any, monkeypatch: pytest.MonkeyPatch):
    """Variables of the Jupyter server above this process are not those of the kernel."""
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setenv("JPY_SESSION_NAME", "/elsewhere/other.ipynb")
    source = write("import os\nprint(os.environ.get('JPY_PARENT_PID'), os.getppid(), os.environ['JPY_SESSION_NAME'])")

    (cell,) = read(Flow.from_notebook(source)()).cells

    # What the cells start has another parent than the kernel.
    assert text_of(cell).split() == ["None", str(os.getpid()), str(source)]


def test_nothing_of_the_kernels_own_words_is_in_the_notebook(write: Any, history: Any):
    """ipykernel warns of its transport, and frozen modules of the debugger, on stderr."""
    output = Flow.from_notebook(write("print('only this')", "import sys; print('and this', file=sys.stderr)"))()

    assert [text_of(cell) for cell in read(output).cells] == ["only this\n", "and this\n"]


def test_what_a_task_prints_after_the_last_cell_is_in_the_notebook(write: Any, history: Any):
    """The end of the last cell is not the end of what it started."""
    late = (
        "import threading\nfrom prefect_nb import task\ngate = threading.Event()\n"
        "@task\ndef late():\n    gate.wait(20)\n    print('late')\nrunning = late.submit()"
    )

    output = Flow.from_notebook(write(late, "threading.Timer(0.3, gate.set).start()\nprint('the last cell')"))()

    assert [text_of(cell) for cell in read(output).cells] == ["late\n", "the last cell\n"]
    assert [run.state_name for run in history.task_runs("task")] == ["Completed"]


def test_a_flood_is_cut_off_and_the_notebook_goes_on(write: Any, history: Any):
    code = "for n in range(4):\n    print('x' * (1 << 26))\nfor n in range(200_000):\n    print('line', n)"

    output = Flow.from_notebook(write(code, "print('on')"))()

    assert output.stat().st_size < 1_200_000
    first, second = read(output).cells
    assert "more characters of output were left out" in text_of(first)
    assert text_of(second) == "on\n"
    assert history.cell_states() == ["Completed", "Completed"]


# Trust


def test_an_executed_notebook_is_trusted_by_the_users_jupyter(write: Any, history: Any):
    source = write(
        "from IPython.display import HTML\nHTML('<b onclick=\"1\">x</b>')", "import ipywidgets as w\nw.Label('é')"
    )

    output = Flow.from_notebook(source)()

    assert is_trusted(output)
    assert not is_trusted(source)


def test_also_one_that_failed_and_one_with_parameters_and_none_that_was_edited(write: Any, history: Any):
    flow = Flow.from_notebook(write(("depth = 1", "parameters"), "print(depth)", "1 / 0"))
    flow(depth=2, return_state=True)
    output = Path(str(history.only_run().output_path))
    assert is_trusted(output)

    output.write_text(output.read_text().replace("ZeroDivisionError", "<script>"))

    assert not is_trusted(output)


@pytest.mark.parametrize("broken", ["a file in its place", "a damaged database"])
def test_a_notebook_that_cannot_be_signed_is_written_all_the_same(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
):
    place = tmp_path / "jupyter-data"
    if broken == "a file in its place":
        place.write_text("no folder")
    else:
        place.mkdir()
        (place / "nbsignatures.db").write_bytes(b"no database" * 1000)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(place))

    output = Flow.from_notebook(write("print('on')"))()

    assert text_of(read(output).cells[0]) == "on\n"
    if place.is_dir():
        shutil.rmtree(place)


# Secrets


def test_values_that_a_verbose_traceback_shows_are_masked(write: Any, history: Any):
    """IPython prints the variables of each frame under `%xmode Verbose`."""
    secret = "correct-horse-battery-staple"
    source = write(
        ("from pydantic import SecretStr\ntoken: SecretStr = SecretStr('')", "parameters"),
        "%xmode Verbose\nplain = token.get_secret_value()\ndef use(value):\n    return value / 0",
        "use(plain)",
    )

    state = Flow.from_notebook(source)(token=secret, return_state=True)

    document = Path(str(history.only_run().output_path)).read_text()
    shown = "".join(read(history.only_run().output_path).cells[-1].outputs[-1].traceback)
    assert re.search(r"use\(value='\*{8}'\)", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    assert secret not in document
    assert secret not in state.message


# From the command line


def test_a_run_that_is_interrupted_while_its_kernel_starts_leaves_nothing(write: Any, history: Any, tmp_path: Path):
    source = write("import time; time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect_nb", "run", str(source), "-q"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 30
    while not history.flow_runs() and time.monotonic() < deadline:
        time.sleep(0.01)

    process.send_signal(2)
    process.communicate(timeout=30)

    run = history.only_run()
    assert run.state_name in ("Cancelled", "Crashed")
    assert all(state in ("NotRun", "Cancelled") for state in history.cell_states())
