"""`prefect-nb run`, `flow-run resume`, `kernel`: a notebook that fails, is corrected, and goes on - from a terminal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_nb.bodies import memory, parking
from prefect_nb.service import parked


@pytest.fixture(autouse=True)
def keeping(monkeypatch: pytest.MonkeyPatch, prefect_nb_home: Path) -> Iterator[None]:
    monkeypatch.setenv("PREFECT_NB_NOTEBOOK_KEPT_KERNELS", "2")
    yield
    for one in parking.parked_kernels(prefect_nb_home):
        parking.drop(prefect_nb_home, one)


def write(folder: Path, *sources: str) -> Path:
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
        for n, source in enumerate(sources)
    ]
    path = folder / "report.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    return path


def prefect_nb(*args: str) -> subprocess.CompletedProcess[str]:
    """Each command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "prefect_nb", *args],
        capture_output=True,
        text=True,
        timeout=90,
        env=os.environ.copy(),
        check=False,
    )


def printed(path: str | None, index: int) -> str:
    assert path is not None
    return "".join("".join(output["text"]) for output in json.loads(Path(path).read_text())["cells"][index]["outputs"])


def test_fail_correct_go_on(folder: Path, invoke: Any, ask: Any):
    path = write(folder, "x = [1]", "x.append(2)\nx.sum()", "print(x)")
    ran = prefect_nb("run", str(path), "--name", "nightly", "--to", "out.ipynb")
    assert ran.returncode == 1
    (one,) = parked.kept_kernels()
    until = f"{parked.kept_until(one):%H:%M}"
    assert f"kept until {until}; correct cell 2 and go on from there: prefect-nb flow-run resume nightly" in ran.stdout
    assert f"kept until {until}" in invoke("flow-run", "inspect", "nightly").output
    listed = invoke("kernel", "ls").output
    assert "nightly" in listed
    assert "2 x.append(2)" in listed
    (document,) = ask("kernel", "ls")
    assert document["pid"] == one.kernel_pid
    assert document["memory_bytes"] > 1_000_000
    write(folder, "x = [1]", "print(sum(x))", "print(x)")

    resumed = prefect_nb("flow-run", "resume", "nightly")

    assert resumed.returncode == 0, resumed.stderr
    assert "memory still holds changes made by the failed cell" in resumed.stdout
    assert "1 of 3 cells is kept" in resumed.stdout
    assert str(path) in resumed.stdout
    assert printed(str(folder / "out.ipynb"), 2) == "[1, 2]\n"
    assert "No kernel is kept" in invoke("kernel", "ls").output
    found = memory.process(one.kernel_pid)
    assert found is None or found.is_zombie
    assert [run["state"]["name"] for run in ask("flow-run", "inspect", "nightly")["task_runs"]] == ["Completed"] * 3


def test_refused_before_anything_runs(folder: Path):
    write(folder, "x = 1", "1 / 0", "print(x)")
    prefect_nb("run", "report.ipynb", "--name", "nightly", "-q")
    write(folder, "x = 2", "pass", "print(x)")

    refused = prefect_nb("flow-run", "resume", "nightly")
    assert refused.returncode == 2
    assert "cell 1 ('x = 1') was edited" in refused.stderr
    assert len(parked.kept_kernels()) == 1

    both = prefect_nb("flow-run", "resume", "nightly", "--restart", "--from-cell", "1")
    assert (both.returncode, "not both" in both.stderr) == (2, True)
    again = prefect_nb("flow-run", "resume", "nightly", "--restart", "--output", "json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["flow_run"]["state"]["name"] == "Completed"
    assert "from the top" in again.stderr
    assert parked.kept_kernels() == []


def test_no_kernel_is_kept_unless_wanted(folder: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch):
    write(folder, "1 / 0")
    assert "kept until" not in prefect_nb("run", "report.ipynb", "--no-keep-kernel").stdout
    assert parked.kept_kernels() == []
    monkeypatch.delenv("PREFECT_NB_NOTEBOOK_KEPT_KERNELS")
    monkeypatch.setenv("CI", "true")
    prefect_nb("run", "report.ipynb", "--name", "unkept")
    assert parked.kept_kernels() == []
    prefect_nb("run", "report.ipynb", "--name", "kept", "--keep-kernel")
    assert [one.run_name for one in parked.kept_kernels()] == ["kept"]
    assert invoke("kernel", "drop", "unkept").exit_code == 2
    assert invoke("kernel", "drop").exit_code == 2
    assert "Ended the kernel of kept" in invoke("kernel", "drop", "kept").output
    assert parked.kept_kernels() == []
    assert "No kernel is kept" in invoke("kernel", "drop", "--all").output


def test_of_a_python_flow_there_is_no_kernel(folder: Path, invoke: Any):
    refused = invoke("run", "flows.py:work", "--keep-kernel")
    assert refused.exit_code == 2
    assert "--keep-kernel can be given for a notebook only" in refused.output
    assert invoke("run", "flows.py:failing", "--name", "broken").exit_code == 1
    refused = invoke("flow-run", "resume", "broken", "--from-cell", "1")
    assert refused.exit_code == 2
    assert "no notebook run" in refused.output


def test_doctor_ends_a_kernel_that_nobody_sees_to(folder: Path, invoke: Any, prefect_nb_home: Path):
    write(folder, "1 / 0")
    prefect_nb("run", "report.ipynb", "-q")
    (one,) = parked.kept_kernels()
    os.kill(one.kernel_pid, signal.SIGSTOP)  # as stuck as can be: it cannot notice that its keeper is gone
    os.kill(one.keeper_pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while memory.is_alive(one.keeper_pid, one.keeper_started) and time.monotonic() < deadline:
        time.sleep(0.01)

    looked = invoke("doctor")

    assert "was stuck, and nobody saw to it" in looked.output
    assert parked.kept_kernels() == []
    found = memory.process(one.kernel_pid)
    assert found is None or found.is_zombie
    assert invoke("doctor").exit_code == 0


def test_resume_magic(folder: Path, prefect_nb_home: Path, capsys: pytest.CaptureFixture[str]):
    from IPython.core.error import UsageError

    from prefect_nb.notebook.resume_magic import run_resume

    with pytest.raises(UsageError, match="No notebook run has failed"):
        run_resume("%resume", "")
    write(folder, "x = 1", "1 / 0", "print(x)")
    prefect_nb("run", "report.ipynb", "--name", "nightly", "-q")
    write(folder, "x = 1", "pass", "print(x)")
    with pytest.raises(UsageError, match="no flow run"):
        run_resume("%resume", "nigtly")
    with pytest.raises(UsageError, match="did you mean --from-cell"):
        run_resume("%resume", "--from-cel 1")

    run_resume("%resume", "")

    out = capsys.readouterr().out
    assert "1 of 3 cells is kept" in out
    assert "Completed  flow run nightly" in out
    run_resume("%resume", "-h")
    assert "--from-cell CELL" in capsys.readouterr().out
