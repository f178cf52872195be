"""`prefect-nb task-run cancel | skip | retry`, and `flow-run pause` of a notebook between two cells."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from processes import command

from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.events import StateRecorded
from prefect_nb.model.runs import FlowRun, TaskRun

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}

FLOWS = """
import time
from pathlib import Path
from prefect_nb import flow, task

@task
def stuck():
    with open("begun", "a") as file:
        file.write(".")
    while not Path("open").exists():
        time.sleep(0.01)
    return "done"

@task
def after(value):
    return value

@flow
def work():
    future = stuck.submit()
    print("waiting", flush=True)
    future.wait()
    then = after.submit(future)
    then.wait()
    print("went on with", future.state.name, then.state.name, flush=True)

@task
def failing():
    raise ValueError("broken")

@flow
def broken():
    failing.submit().wait()
    print("waiting", flush=True)
    while not Path("open").exists():
        time.sleep(0.01)
"""


@pytest.fixture
def folder(folder: Path) -> Path:
    (folder / "flows.py").write_text(FLOWS)
    return folder


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (answer := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
    return answer


def flow_run() -> FlowRun:
    return eventually(lambda: Home.current().store.flow_runs(RunQuery()))[-1]


def task_run(name: str = "stuck", state: str = "Running") -> TaskRun:
    def found() -> list[TaskRun]:
        runs = Home.current().store.task_runs(RunQuery(limit=100))
        return [run for run in runs if run.name.startswith(name) and run.state_name == state]

    return eventually(found)[0]


def begun(folder: Path) -> int:
    return len((folder / "begun").read_text()) if (folder / "begun").exists() else 0


@pytest.mark.parametrize(
    ("wish", "says", "ends"),
    [
        ("cancel", "is being cancelled", "went on with Cancelled NotReady"),
        ("skip", "is being skipped", "went on with Skipped Completed"),
    ],
)
def test_a_task_run_of_another_process_is_stopped(
    wish: str, says: str, ends: str, folder: Path, start: Any, invoke: Any
) -> None:
    process = start("run", "flows.py:work")
    run = task_run()
    result = invoke("task-run", wish, run.name)
    assert result.exit_code == 0, result.output
    assert says in result.output
    output, _ = process.communicate(timeout=60)
    assert ends in output
    stopped = Home.current().store.task_run(run.id)
    assert stopped is not None
    assert stopped.state_message == f"{'Cancelled' if wish == 'cancel' else 'Skipped'} from the command line."


def test_a_stuck_attempt_is_begun_anew(folder: Path, start: Any, invoke: Any) -> None:
    process = start("run", "flows.py:work")
    run = task_run()
    eventually(lambda: begun(folder) == 1)
    result = invoke("task-run", "retry", str(run.id)[:-4], "--output", "json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["task_run_id"], answer["ok"]) == (str(run.id), True)
    assert "is stopped and begun anew" in answer["message"]
    eventually(lambda: begun(folder) == 2)
    (folder / "open").touch()
    output, _ = process.communicate(timeout=60)
    assert "went on with Completed Completed" in output

    result = invoke("task-run", "cancel", run.name)
    assert result.exit_code == 1
    assert "has ended already: it is Completed" in result.stderr


def test_what_has_failed_is_not_retried_alone(folder: Path, start: Any, invoke: Any) -> None:
    process = start("run", "flows.py:broken")
    run = task_run("failing", "Failed")
    result = invoke("task-run", "retry", run.name)
    assert result.exit_code == 1
    assert "What depends on it has heard so. Once the flow run has ended" in result.stderr
    (folder / "open").touch()
    process.communicate(timeout=60)
    result = invoke("task-run", "retry", run.name)
    assert result.exit_code == 1
    assert f"prefect-nb flow-run retry {flow_run().name}" in result.stderr


def test_an_unknown_task_run_is_a_clear_error(folder: Path, invoke: Any) -> None:
    result = invoke("task-run", "cancel", "nobody")
    assert result.exit_code == 2
    assert "There is no task run" in result.output
    assert invoke("task-run", "skip").exit_code == 2


# A notebook


@pytest.fixture
def notebook(folder: Path) -> Path:
    """Three cells; the second waits for a file, and calls a task that waits for another."""
    sources = [
        "import time\nfrom pathlib import Path\nfrom prefect_nb import task\nprint('waiting', flush=True)",
        "Path('second').touch()\nwhile not Path('open').exists():\n    time.sleep(0.01)",
        "@task\ndef stuck():\n    Path('third').touch()\n    time.sleep(100)\nvalue = stuck()\nassert value is None",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = folder / "three.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
    return path


def running(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command("run", "three.ipynb"), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_notebook_is_paused_between_two_cells_and_a_task_in_a_cell_skipped(
    notebook: Path, folder: Path, invoke: Any
) -> None:
    process = running(folder)
    try:
        eventually((folder / "second").exists)
        run = flow_run()
        result = invoke("flow-run", "pause", run.name, "--wait", "0")
        assert "asked to pause" in result.output
        eventually(lambda: Home.current().store.request_outcome(1) == "taken")
        (folder / "open").touch()
        eventually(lambda: flow_run().state_name == "Paused")
        assert not (folder / "third").exists()
        result = invoke("flow-run", "resume", run.name)
        assert result.exit_code == 0, result.output
        eventually((folder / "third").exists)
        stuck = task_run()
        result = invoke("task-run", "skip", stuck.name)
        assert result.exit_code == 0, result.output
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.communicate()
    events = Home.current().store.events(run.id)
    states = [event.name for event in events if isinstance(event, StateRecorded)]
    assert states == ["Running", "Paused", "Running", "Completed"]
    skipped = Home.current().store.task_run(stuck.id)
    assert skipped is not None
    assert (skipped.state_name, skipped.state_message) == ("Skipped", "Skipped from the command line.")


def test_a_paused_notebook_is_cancelled(notebook: Path, folder: Path, invoke: Any) -> None:
    process = running(folder)
    try:
        eventually((folder / "second").exists)
        run = flow_run()
        invoke("flow-run", "pause", run.name, "--wait", "0")
        eventually(lambda: Home.current().store.request_outcome(1) == "taken")
        (folder / "open").touch()
        eventually(lambda: flow_run().state_name == "Paused")
        result = invoke("flow-run", "suspend", run.name)
        assert result.exit_code != 0
        result = invoke("flow-run", "cancel", run.name, "--wait", "30")
        assert result.exit_code == 0, result.output
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert flow_run().state_name == "Cancelled"
    assert not (folder / "third").exists()
    cells = [
        cell for cell in Home.current().store.task_runs(RunQuery(limit=10, oldest_first=True)) if cell.kind == "cell"
    ]
    assert [cell.state_name for cell in cells] == ["Completed", "Completed", "NotRun"]
    result = invoke("task-run", "cancel", str(cells[0].id))
    assert result.exit_code == 1
    assert "is a cell of a notebook run" in result.stderr
