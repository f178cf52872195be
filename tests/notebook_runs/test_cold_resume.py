"""A notebook whose kernel is gone goes on behind the last cell after which its variables were kept."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from notebook_runs import read, statuses, text_of

from prefect_nb import Flow
from prefect_nb.exceptions import NotResumable
from prefect_nb.execution import checkpoints, scripts
from prefect_nb.home import Home
from prefect_nb.model.runs import FlowRun
from prefect_nb.service import control, run_logs

KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(autouse=True)
def after_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no test needs a slow cell."""
    monkeypatch.setenv("PREFECT_NB_NOTEBOOK_CHECKPOINT_SECONDS", "0.000001")
    monkeypatch.setattr("prefect_nb.execution.attending._SHARE", 0)


def edit(path: Path, index: int, source: str) -> None:
    document = json.loads(path.read_text())
    document["cells"][index]["source"] = source
    path.write_text(json.dumps(document))


def stopped(path: Path, history: Any, **parameters: Any) -> FlowRun:
    state = Flow.from_notebook(path)(return_state=True, **parameters)
    assert state.is_crashed() or state.is_failed()
    return history.only_run()


def checkpoint_of(run: FlowRun) -> checkpoints.Checkpoint:
    found = checkpoints.read_checkpoint(scripts.folder_of(Home.current().path, run.id))
    assert found is not None
    return found


def test_the_run_goes_on_behind_the_checkpoint(write: Any, history: Any, tmp_path: Path):
    calls = tmp_path / "calls"
    note = f"open({str(calls)!r}, 'a').write"
    source = write(
        f"import math\nnumbers = list(range(5))\nwrite = lambda text: {note}(text)\nwrite('1')",
        "class Point:\n    def __init__(self, x): self.x = x\n    def __eq__(self, other): return self.x == other.x\n"
        "def half(n):\n    return n / divisor\ndivisor = 2\npoints = [Point(n) for n in numbers]\nalias = points\nwrite('2')",
        KILL,
        "assert all(isinstance(p, Point) for p in points) and alias is points\n"
        "print(half(numbers[-1]), math.floor(2.5), points[3].x)",
    )
    run = stopped(source, history)
    cells = history.task_runs("cell")
    assert calls.read_text() == "12"
    assert [lost.name for lost in checkpoint_of(run).lost] == []
    edit(source, 2, "numbers.append(9)")
    told: list[str] = []

    finished = control.resume(run, tell=told.append)

    assert finished.run.state_name == "Completed", finished.run.state_message
    assert calls.read_text() == "12", "what was kept did not run again"
    assert text_of(read(finished.run.output_path).cells[3]) == "4.5 2 3\n"
    assert history.task_runs("cell")[:2] == cells[:2]
    assert [one.run_count for one in history.task_runs("cell")] == [1, 1, 2, 1]
    assert "The kernel is gone. 2 of 4 cells are kept" in told[-1]
    assert not scripts.folder_of(Home.current().path, run.id).exists()
    assert history.problems() == []


def test_cells_since_the_checkpoint_run_again(write: Any, history: Any, monkeypatch: Any, tmp_path: Path):
    monkeypatch.setenv("PREFECT_NB_NOTEBOOK_CHECKPOINT_SECONDS", "0.5")
    calls = tmp_path / "calls"
    note = f"open({str(calls)!r}, 'a').write"
    source = write(
        f"import time\n{note}('1')",
        f"time.sleep(0.6); slow = [1]; {note}('2')",
        f"quick = slow + [2]; {note}('3')",
        KILL,
        "print(slow, quick)",
    )
    run = stopped(source, history)
    assert checkpoint_of(run).cell_number == 2
    edit(source, 3, "pass")

    finished = control.resume(run)

    assert calls.read_text() == "1233"
    assert text_of(read(finished.run.output_path).cells[4]) == "[1] [1, 2]\n"
    assert statuses(finished.run.output_path) == ["completed"] * 5


def test_when_the_whole_process_was_killed(write: Any, history: Any, tmp_path: Path):
    marker = tmp_path / "marker"
    wait = f"import pathlib, time\nif not pathlib.Path({str(marker)!r}).exists():\n    time.sleep(60)"
    source = write("import os\nx = {'a': os.getpid()}\nprint('kept output')", wait, "print(x['a'] != os.getpid())")
    program = (
        "from prefect_nb.execution import attending; attending._SHARE = 0\n"
        f"from prefect_nb import Flow; Flow.from_notebook({str(source)!r})()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ.copy())
    deadline = time.monotonic() + 30
    while "Running" not in history.cell_states()[1:2] and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    Home.current().reap()
    marker.touch()

    finished = control.resume(history.only_run())

    assert finished.run.state_name == "Completed"
    notebook = read(finished.run.output_path)
    assert text_of(notebook.cells[0]) == "kept output\n"
    assert text_of(notebook.cells[2]) == "True\n"
    assert [one.run_count for one in history.task_runs("cell")] == [1, 2, 1]


def test_what_could_not_be_kept_is_listed_and_refused_where_it_is_needed(write: Any, history: Any, tmp_path: Path):
    source = write(
        f"import sqlite3, threading\nconnection = sqlite3.connect({str(tmp_path / 'x.db')!r})\n"
        f"log = open({str(tmp_path / 'log')!r}, 'w')\nnumbers = (n for n in range(3))\nlock = threading.Lock()\nplain = 1",
        "def ask():\n    return connection.execute('select 1').fetchone()",
        KILL,
        "print(ask(), plain)",
    )
    run = stopped(source, history)
    lost = {one.name: one for one in checkpoint_of(run).lost}
    assert lost.keys() == {"connection", "log", "numbers", "lock"}
    assert lost["connection"].reason == "an open connection"
    assert lost["log"].reason == "an open file"
    assert "generator" in lost["numbers"].reason
    assert lost["lock"].cell == 1
    lines = [line.message for line in run_logs.logs(run, 0) if "variables were not kept" in line.message]
    assert len(lines) == 1, "each is named once"
    assert "connection (sqlite3.Connection, made by cell 1): an open connection" in lines[0]
    edit(source, 2, "pass")

    with pytest.raises(
        NotResumable, match=r"connection \(.*Connection, made by cell 1\): an open connection"
    ) as refused:
        control.resume(run)
    assert "cell 4 ('print(ask(), plain)') needs it" in str(refused.value)
    assert "--from-cell 1 makes it anew" in str(refused.value)
    assert "--restart" in str(refused.value)
    assert history.only_run().state_name == "Crashed", "nothing has run"
    finished = control.resume(run, from_cell="1")
    assert finished.run.state_name == "Completed", finished.run.state_message
    assert text_of(read(finished.run.output_path).cells[3]) == "(1,) 1\n"


def test_what_is_not_needed_is_only_named(write: Any, history: Any, tmp_path: Path):
    source = write(f"log = open({str(tmp_path / 'log')!r}, 'w')\nx = 1", KILL, "log = []\nlog.append(x)\nprint(log)")
    run = stopped(source, history)
    edit(source, 1, "pass")
    told: list[str] = []

    finished = control.resume(run, tell=told.append)

    assert text_of(read(finished.run.output_path).cells[2]) == "[1]\n"
    assert "Not kept, and not needed: log (" in told[-1]


def test_an_edited_cell_before_the_checkpoint(write: Any, history: Any):
    source = write("x = 1", "y = 2", KILL, "print(x, y)")
    run = stopped(source, history)
    edit(source, 2, "pass")
    edit(source, 0, "x = 10")

    with pytest.raises(NotResumable, match=r"cell 1 \('x = 1'\) was edited"):
        control.resume(run)

    assert text_of(read(control.resume(run, from_cell="1").run.output_path).cells[3]) == "10 2\n"


def test_too_large_values_are_not_kept(write: Any, history: Any, monkeypatch: Any):
    monkeypatch.setenv("PREFECT_NB_NOTEBOOK_CHECKPOINT_MAX_BYTES", "100000")
    source = write(
        "import numpy as np\nbig = np.zeros(10**6)\ntext = ['a' * 99] * 2\nlarge = [bytes([n % 9]) * 5000 for n in range(40)]",
        KILL,
        "x = 1",
    )
    run = stopped(source, history)

    lost = {one.name: one.reason for one in checkpoint_of(run).lost}
    assert lost.keys() == {"big", "large"}
    assert "too large: 7.6 MiB, with 97.7 KiB for all" in lost["big"]
    assert "too large" in lost["large"]
    assert checkpoint_of(run).size < 100_000


def test_what_the_data_stack_makes_comes_back(write: Any, history: Any):
    source = write(
        "import numpy as np, pandas as pd\nfrom prefect_nb import task\nfrom functools import partial",
        "frame = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})\narray = np.arange(6).reshape(2, 3)\n"
        "doubled = partial(np.multiply, 2)\nsquare = lambda n: n ** 2\nkinds = frame.dtypes",
        "@task\ndef total(values):\n    return int(values.sum())\nBIG = 5\ndef scaled(n=BIG):\n    return square(n)",
        KILL,
        "print(frame.a.sum(), array.shape, doubled(4), total(array), scaled(), list(kinds.index))",
    )
    run = stopped(source, history)
    assert checkpoint_of(run).lost == []
    edit(source, 3, "pass")

    finished = control.resume(run)

    assert finished.run.state_name == "Completed", finished.run.state_message
    assert text_of(read(finished.run.output_path).cells[4]) == "3 (2, 3) 8 15 25 ['a', 'b']\n"
    (made,) = history.task_runs("task")
    assert made.state_name == "Completed"


def test_parameters_hold(write: Any, history: Any):
    source = write(("depth = 1", "parameters"), "twice = depth * 2", KILL, "print(depth, twice)")
    run = stopped(source, history, depth=4)
    edit(source, 2, "pass")

    finished = control.resume(run)

    assert text_of(read(finished.run.output_path).cells[-1]) == "4 8\n"


def test_a_checkpoint_that_was_damaged_stops_the_run_before_any_cell(write: Any, history: Any):
    source = write("x = [1]", KILL, "print(x)")
    run = stopped(source, history)
    for file in (scripts.folder_of(Home.current().path, run.id) / checkpoints.VALUES).glob("??/*"):
        file.unlink()
    edit(source, 1, "pass")

    finished = control.resume(run)

    assert finished.run.state_name == "Failed"
    assert "No cell was executed" in (finished.run.state_message or "")
    assert "x could not be restored" in (finished.run.state_message or "")
    assert [one.run_count for one in history.task_runs("cell")] == [1, 1, 0]
    assert control.resume(finished.run, restart=True).run.state_name == "Completed"


def test_unchanged_values_are_written_once(write: Any, history: Any):
    source = write("big = bytes(range(256)) * 8000", "y = 1", "z = 2", KILL)
    run = stopped(source, history)

    files = [file.stat().st_size for file in (scripts.folder_of(Home.current().path, run.id) / "values").glob("??/*")]
    assert sorted(size > 2_000_000 for size in files) == [False, True]
    assert checkpoint_of(run).cell_number == 3


def test_a_fast_notebook_keeps_nothing(write: Any, history: Any, monkeypatch: Any):
    monkeypatch.delenv("PREFECT_NB_NOTEBOOK_CHECKPOINT_SECONDS")
    run = stopped(write("x = 1", KILL), history)

    assert checkpoints.read_checkpoint(scripts.folder_of(Home.current().path, run.id)) is None


def test_a_value_that_takes_too_long_to_keep_is_given_up(write: Any, history: Any, monkeypatch: Any):
    monkeypatch.setattr("prefect_nb.execution.attending._LEAST_SECONDS", 0.5)
    slow = "import time\nclass Slow:\n    def __reduce__(self):\n        time.sleep(30)\n        return (Slow, ())\nit = Slow()"
    started = time.monotonic()

    run = stopped(write(slow, KILL), history)

    assert time.monotonic() - started < 15
    assert any("not kept: it would have taken longer than" in line.message for line in run_logs.logs(run, 0))
