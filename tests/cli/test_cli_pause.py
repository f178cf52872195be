"""`prefect-nb flow-run pause | suspend | resume --input`."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import FlowRun

FLOWS = """
import time
from prefect_nb import flow, pause_flow_run, suspend_flow_run, task
from prefect_nb.input import RunInput

class Approval(RunInput):
    approved: bool
    reviewer: str
    stars: int = 3

@task(persist_result=True)
def step(number):
    return number

@flow
def review(kind: str = "pause"):
    print("waiting", flush=True)
    form = Approval.with_initial_data("Please look at *it*.", reviewer="Ada")
    answer = (pause_flow_run if kind == "pause" else suspend_flow_run)(wait_for_input=form)
    print(f"{answer.reviewer} says {answer.approved}, {answer.stars}", flush=True)
    return answer.stars

@flow
def steps():
    print("waiting", flush=True)
    for number in range(200):
        step(number)
        time.sleep(0.05)
"""


@pytest.fixture
def folder(folder: Path) -> Path:
    (folder / "flows.py").write_text(FLOWS)
    return folder


def only_run(state: str | None = None) -> FlowRun:
    store, deadline = Home.current().store, time.monotonic() + 30
    while True:
        runs = store.flow_runs(RunQuery())
        if runs and state in (None, runs[0].state_name):
            return runs[0]
        assert time.monotonic() < deadline, runs
        time.sleep(0.01)


def test_a_run_is_suspended_and_resumed_with_an_answer(folder: Path, invoke: Any) -> None:
    result = invoke("run", "flows.py:review", "-p", "kind=suspend")
    assert result.exit_code == 3
    assert "‖ Suspended" in result.output
    run = only_run()
    assert f"prefect-nb flow-run resume {run.name}" in result.output

    result = invoke("flow-run", "resume", run.name, "--input", "stars=5")
    assert result.exit_code == 2
    assert "'approved' is a required property" in result.output
    result = invoke("flow-run", "resume", run.name, "--input", "approved=maybe")
    assert result.exit_code == 2
    assert "'maybe' is not of type 'boolean'" in result.output
    result = invoke("flow-run", "resume", run.name, "--input", "approved")
    assert result.exit_code == 2
    assert "name=value" in result.output
    assert only_run().state_name == "Suspended"

    result = invoke("flow-run", "resume", run.name, "--input", "approved=true", "--input", "reviewer=5")
    assert result.exit_code == 0, result.output
    assert "5 says True, 3" in result.output
    assert only_run().state_name == "Completed"


def test_a_paused_run_goes_on_in_its_own_process(folder: Path, start: Any, invoke: Any) -> None:
    process = start("run", "flows.py:review")
    run = only_run("Paused")
    result = invoke("flow-run", "resume", str(run.id), "--input", "approved=false", "--output", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["id"] == str(run.id)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Ada says False, 3" in output


def test_fields_that_are_not_given_are_asked_for_in_a_terminal(
    folder: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect_nb.cli import answers
    from prefect_nb.service import control

    invoke("run", "flows.py:review", "-p", "kind=suspend", "--quiet")
    form = control.form_of(only_run())
    terminal = io.StringIO("\nperhaps\n7\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    assert answers.ask(form, ["approved=true"]) == {"approved": True, "reviewer": "Ada", "stars": "perhaps"}
    said = capsys.readouterr().out
    assert "Please look at *it*." in said
    assert "Reviewer [Ada]" in said
    assert "Approved" not in said
    assert answers.ask(None, []) is None


def test_an_answer_nobody_waits_for(folder: Path, invoke: Any) -> None:
    invoke("run", "flows.py:review", "-p", "kind=nothing", "-q")
    result = invoke("flow-run", "resume", only_run().name, "--input", "approved=true")
    assert result.exit_code == 0
    result = invoke("flow-run", "resume", only_run().name, "--input", "approved=true")
    assert result.exit_code == 2
    assert "waits for no answer" in result.output


@pytest.mark.parametrize(("kind", "state"), [("pause", "Paused"), ("suspend", "Suspended")])
def test_a_running_flow_is_held_before_its_next_task(
    folder: Path, start: Any, invoke: Any, kind: str, state: str
) -> None:
    process = start("run", "flows.py:steps", "-q")
    run = only_run("Running")
    result = invoke("flow-run", kind, str(run.id), "--wait", "30")
    assert result.exit_code == 0, result.output
    assert f"‖ {state}" in result.output
    result = invoke("flow-run", kind, str(run.id))
    assert result.exit_code == 2
    assert "already" in result.output
    if kind == "suspend":
        process.communicate(timeout=60)
        assert process.returncode == 3
        assert invoke("flow-run", "cancel", str(run.id)).exit_code == 0
        assert only_run().state_name == "Cancelled"
        return
    assert invoke("flow-run", "resume", str(run.id)).exit_code == 0
    only_run("Running")
    assert invoke("flow-run", "cancel", str(run.id)).exit_code == 0
    process.communicate(timeout=60)
