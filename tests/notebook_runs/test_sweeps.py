"""Sweeps: every point checked before any runs, each a child run, one table at the end that can be found again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from notebook_runs import read

from prefect_nb import Flow, flow, task
from prefect_nb.cli import main
from prefect_nb.exceptions import ConfigurationError, NotebookError, ParameterBindError, ParameterTypeError
from prefect_nb.home import Home
from prefect_nb.model.cli_values import parse_sweep
from prefect_nb.notebooks import Outputs, sweep
from prefect_nb.service import artifacts

TRAIN = [
    ("depth: int = 1\nlr: float = 1.0\nlabel = ''", "parameters"),
    "from prefect_nb import return_\nif depth == 5: raise ValueError('unlucky')\nreturn_(score=depth * lr, label=label)",
]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def test_a_flow_over_a_grid(history: Any):
    @task
    def fit(depth: int, lr: float) -> float:
        if depth == 5:
            raise ValueError("unlucky")
        return depth * lr

    @flow
    def train(depth: int, lr: float, rows: int) -> float:
        return fit(depth, lr)

    done = sweep(train, depth=[3, 5, 8], lr=[0.1, 0.01], rows=7, max_parallel=2, name="first", tags=["grid"])

    assert [point.parameters for point in done] == [{"depth": d, "lr": lr} for d in (3, 5, 8) for lr in (0.1, 0.01)]
    assert [point.state.name for point in done] == [
        "Completed",
        "Completed",
        "Failed",
        "Failed",
        "Completed",
        "Completed",
    ]
    assert [point.value for point in done] == [3 * 0.1, 3 * 0.01, None, None, 8 * 0.1, 8 * 0.01]
    assert len(done.failed) == 2
    assert all(point.seconds >= 0 for point in done)

    (parent,) = history.flow_runs(kinds=("sweep",))
    assert (parent.name, parent.flow_name, parent.state_type) == ("first", "train-sweep", "FAILED")
    assert parent.state_message == "2 of 6 points did not complete."
    assert parent.parameters == {"depth": [3, 5, 8], "lr": [0.1, 0.01], "rows": 7}
    children = [run for run in history.flow_runs() if run.parent_flow_run_id == parent.id]
    assert sorted(run.name for run in children) == sorted(point.label for point in done)
    assert all(run.tags == ("grid",) and run.parameters["rows"] == 7 for run in children)
    assert history.problems() == []


def test_the_table_can_be_seen_later(history: Any):
    @flow
    def train(depth: int) -> dict[str, int]:
        return {"square": depth**2}

    done = sweep(train, depth=range(1, 4))

    artifact = artifacts.latest("train-sweep")
    assert artifact is not None
    assert artifact.flow_run_id == done.flow_run.id
    columns, rows = artifacts.table_of(artifact.data)
    assert columns == ["depth", "state", "duration", "value"]
    assert [row[0] for row in rows] == [1, 2, 3]
    assert rows[1][3] == "{'square': 4}"
    shown = invoke("flow-run", "inspect", done.flow_run.name).output
    assert "train-sweep (table): 3 rows of 4 columns" in shown


def test_notebooks_over_a_grid(write: Any, history: Any):
    done = sweep(str(write(*TRAIN)), depth=[3, 5], lr=[0.5, 2], label="x")

    assert [point.state.name for point in done] == ["Completed", "Completed", "Failed", "Failed"]
    assert [point.value for point in done[:2]] == [Outputs(score=1.5, label="x"), Outputs(score=6.0, label="x")]
    rows = done.rows()
    assert (rows[0]["depth"], rows[0]["lr"], rows[0]["score"], rows[0]["label"]) == (3, 0.5, 1.5, "x")
    assert "unlucky" in rows[2]["error"]
    frame = done.to_frame()
    assert list(frame.columns)[:4] == ["depth", "lr", "state", "duration"]
    assert frame["score"].max() == 6.0
    outputs = {run.output_path for run in history.flow_runs(kinds=("notebook",))}
    assert len(outputs) == 4
    assert all(read(path).metadata.papermill for path in outputs)
    assert "✓ Completed" in done._repr_html_()
    assert "✗ Failed" in done._repr_html_()
    assert "unlucky" in repr(done)


def test_html_is_harmless():
    @flow
    def echo(text: str) -> str:
        return text

    shown = sweep(echo, text=["<script>alert(1)</script>"])._repr_html_()

    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_every_point_is_checked_before_any_runs(write: Any, history: Any):
    source = str(write(*TRAIN))

    with pytest.raises(ParameterTypeError) as caught:
        sweep(source, depth=[1, "deep"], lr=[1, "fast"])
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 2
    assert "lr: Input should be a number, not str 'fast' (at depth=1 lr=fast)" in lines[0]
    assert "depth: Input should be an integer" in lines[1]
    with pytest.raises(ParameterBindError, match="did you mean 'depth'"):
        sweep(source, dept=[1, 2])
    with pytest.raises(ConfigurationError, match="'lr' has no values"):
        sweep(source, depth=[1], lr=[])
    with pytest.raises(ConfigurationError, match="nothing to sweep over"):
        sweep(source, depth=1)
    with pytest.raises(ParameterBindError, match="'depth' is swept over and given as well"):
        sweep(source, depth=[1], fixed={"depth": 2})
    with pytest.raises(ConfigurationError, match="more than 10,000"):
        sweep(source, depth=range(200), lr=range(200))
    with pytest.raises(ConfigurationError, match="at least 1"):
        sweep(source, depth=[1, 2], max_parallel=0)
    with pytest.raises(ConfigurationError, match="names one file"):
        sweep(Flow.from_notebook(source, output_path="one.ipynb"), depth=[1, 2])
    assert history.flow_runs() == []


def test_no_more_at_once_than_asked_for():
    lock, now, most = threading.Lock(), 0, 0

    @flow
    def point(n: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1

    sweep(point, n=range(8), max_parallel=3)

    assert most == 3


def test_an_async_flow_can_be_swept():
    import asyncio

    @flow
    async def point(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1

    assert [one.value for one in sweep(point, n=[1, 2, 3])] == [2, 3, 4]


def test_what_a_flow_around_it_sees(history: Any):
    @flow
    def point(n: int) -> int:
        return n

    @flow
    def outer() -> list[int]:
        return [one.value for one in sweep(point, n=[1, 2])]

    assert outer() == [1, 2]
    (parent,) = history.flow_runs(kinds=("sweep",))
    assert parent.parent_flow_run_id is not None


def test_the_command(write: Any, tmp_path: Path):
    source = str(write(*TRAIN))

    result = invoke(
        "run", source, "--sweep", "depth=3,8", "lr=0.5,2", "-p", "label=a", "--max-parallel", "2", "--name", "grid"
    )

    assert result.exit_code == 0, result.output
    header, *rows = [line.split() for line in result.stdout.split("\n\n")[0].splitlines()]
    assert header == ["depth", "lr", "state", "duration", "score", "label"]
    assert [(row[0], row[1], row[3], row[-2]) for row in rows] == [
        ("3", "0.5", "Completed", "1.5"), ("3", "2", "Completed", "6"),
        ("8", "0.5", "Completed", "4"), ("8", "2", "Completed", "16"),
    ]  # fmt: skip
    assert "✓ Completed  flow report-sweep, run grid" in result.stdout
    assert result.stderr.count("point ") == 4


def test_the_command_for_programs_and_its_exit_code(write: Any):
    result = invoke("run", str(write(*TRAIN)), "--sweep", "depth=4..6", "--output", "json")

    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [point["parameters"] for point in document["points"]] == [{"depth": 4}, {"depth": 5}, {"depth": 6}]
    assert [point["state"]["name"] for point in document["points"]] == ["Completed", "Failed", "Completed"]
    assert document["points"][0]["returned"] == {"score": 4.0, "label": ""}
    assert document["points"][1]["returned"] is None
    assert "unlucky" in document["points"][1]["state"]["message"]
    assert document["flow_run"]["kind"] == "sweep"
    assert document["exit_code"] == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--sweep", "depth=1,deep"], "depth: Input should be an integer, not str 'deep' (at depth=deep)"),
        (["--sweep", "depth"], "Write --sweep depth=3,5,8"),
        (["--sweep", "depth="], "there is no value after the sign"),
        (["--sweep", "depth=1,2", "--sweep", "depth=3"], "swept over twice"),
        (["--sweep", "dept=1,2"], "did you mean 'depth'"),
        (["--sweep", "depth=1,2", "-p", "depth=3"], "swept over and given as well"),
        (["--sweep", "depth=1,2", "--to", "out.ipynb"], "names one executed notebook"),
        (["depth=3"], "Parameters are given as -p name=value"),
        (["other.ipynb"], "unexpected argument 'other.ipynb'"),
        (["--max-parallel", "2"], "there is no --sweep"),
        (["--timeout", "soon"], "'soon' is no length of time; write 30s, 10m or 1.5h"),
        (["--timeout", "0"], "no time at all"),
    ],
)
def test_bad_input_is_named_and_nothing_runs(write: Any, prefect_nb_home: Path, args: list[str], words: str):
    result = invoke("run", str(write(*TRAIN)), *args)

    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert not prefect_nb_home.exists()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("3,5,8", [3, 5, 8]),
        ("0.1, 1e-2", [0.1, 0.01]),
        ("a,b", ["a", "b"]),
        ("1..4", [1, 2, 3, 4]),
        ("2..-1", [2, 1, 0, -1]),
        ('["a,b", [1], null]', ["a,b", [1], None]),
        ("true", [True]),
    ],
)
def test_values_as_they_are_typed(text: str, values: list[Any]):
    assert parse_sweep(text) == values


def test_one_interrupt_ends_all_points_kindly(write: Any, tmp_path: Path):
    source = write(
        ("n = 0", "parameters"),
        f"import pathlib, time\npathlib.Path({str(tmp_path)!r}, f'begun-{{n}}').touch()\ntime.sleep(100)",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect_nb", "run", str(source), "--sweep", "n=1..4", "--max-parallel", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("begun-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    from prefect_nb.interfaces import RunQuery

    runs = Home.current().store.flow_runs(RunQuery())
    assert {(run.kind, run.state_name) for run in runs} == {("sweep", "Cancelled"), ("notebook", "Cancelled")}
    assert len(runs) == 3  # the sweep, and the two points that had begun
    artifact = artifacts.latest("report-sweep")
    assert artifact is not None
    assert [row["state"] for row in artifact.data] == ["Cancelled", "Cancelled", "NotRun", "NotRun"]


def test_a_point_whose_notebook_cannot_be_written_does_not_stop_the_others(write: Any, monkeypatch: pytest.MonkeyPatch):
    from prefect_nb.execution.notebook_runs import NotebookBody

    notebook = Flow.from_notebook(write(*TRAIN))
    written = NotebookBody.output_for

    def output_for(self: Any, run_name: str) -> Any:
        if "depth=3" in run_name:
            raise NotebookError("no room")
        return written(self, run_name)

    monkeypatch.setattr(NotebookBody, "output_for", output_for)

    done = sweep(notebook, depth=[3, 4])

    assert [point.state.name for point in done] == ["Failed", "Completed"]
    assert "no room" in done.rows()[0]["error"]
