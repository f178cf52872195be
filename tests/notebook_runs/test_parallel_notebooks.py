"""Notebook runs side by side: none takes another's name, folder, ports or parameters."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from notebook_runs import read

from prefect_nb import Flow
from prefect_nb.bodies.document import Document
from prefect_nb.bodies.saving import default_output
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery

CELLS = [
    ("n = 0", "parameters"),
    "import os, pathlib\nfrom prefect_nb import return_, task\n@task\ndef double(x): return 2 * x",
    "pathlib.Path(f'made-by-{n}').touch()\nreturn_([n, double(n), os.getcwd(), os.getpid()])",
]


def test_eight_at_once_in_one_process(write: Any, history: Any, tmp_path: Path):
    here = Path.cwd()
    notebook = Flow.from_notebook(write(*CELLS))

    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda n: notebook.start({"n": n}, name="the same name"), range(8)))

    assert [(value[0], value[1]) for value in values] == [(n, 2 * n) for n in range(8)]
    assert {value[2] for value in values} == {str(tmp_path)}
    assert len({value[3] for value in values}) == 8
    assert Path.cwd() == here
    assert sorted(path.name for path in tmp_path.glob("made-by-*")) == [f"made-by-{n}" for n in range(8)]
    runs = history.flow_runs(kinds=("notebook",))
    assert len({run.output_path for run in runs}) == 8
    for run in runs:
        (n,) = [cell.source for cell in read(run.output_path).cells if cell.source.startswith("# Parameters")] or [""]
        assert f"n = {run.parameters['n']}" in n or run.parameters["n"] == 0
    assert {run.state_name for run in history.task_runs("task")} == {"Completed"}
    by_flow = {run.id: run.parameters["n"] for run in runs}
    assert sorted(by_flow[run.flow_run_id] for run in history.task_runs("task")) == list(range(8))
    assert history.problems() == []


def test_notebooks_of_different_folders_run_where_they_are(write: Any, tmp_path: Path):
    folders = [tmp_path / name for name in ("one", "two", "three")]
    notebooks = []
    for folder in folders:
        folder.mkdir()
        path = write(*CELLS)
        notebooks.append(Flow.from_notebook(path.rename(folder / path.name)))

    with ThreadPoolExecutor(3) as pool:
        values = list(pool.map(lambda notebook: notebook(n=1), notebooks))

    assert [value[2] for value in values] == [str(folder) for folder in folders]


def test_several_processes_at_once(write: Any, tmp_path: Path):
    source = write(*CELLS)

    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "prefect_nb", "run", str(source), "-p", f"n={n}", "--name", "same", "-q"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        )
        for n in range(4)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in processes]

    assert [process.returncode for process in processes] == [0] * 4, said
    runs = Home.current().store.flow_runs(RunQuery(kinds=("notebook",)))
    assert len({run.output_path for run in runs}) == 4
    assert {run.parameters["n"] for run in runs} == set(range(4))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(
        Path(str(run.output_path)).name for run in runs
    )


def test_a_name_is_given_to_one_run_only(write: Any):
    document = Document.read(write("x = 1"))
    gate = threading.Barrier(8)

    def choose(_: int) -> str:
        gate.wait()
        return default_output(document, "same")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(choose, range(8)))) == 8
