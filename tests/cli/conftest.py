"""`prefect-nb`, in this process for tables and messages, in one of its own for journeys."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from processes import command

FLOWS = """
import time
from prefect_nb import flow, get_run_logger, task

@task
def double(x):
    get_run_logger().info("doubling %s", x)
    return 2 * x

@task(persist_result=True)
def once(x):
    print("computed", flush=True)
    return x

@flow
def work(count: int = 3, name: str = "Ada"):
    print("hello", name, flush=True)
    return [double(i) for i in range(count)]

@task(cache_key_fn=lambda *_: "known", persist_result=True)
def known(x):
    return x

@flow
def family():
    known(1)
    known(1)
    return work()

@flow
def failing():
    raise ValueError("the pipe is broken")

@flow
def long(seconds: float = 100):
    once(1)
    print("waiting", flush=True)
    time.sleep(seconds)

@flow
async def awaiting():
    return double(1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `flows.py` is; the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flows.py").write_text(FLOWS)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Run a command in this process."""

    def invoke(*args: str) -> Result:
        from prefect_nb.cli import main

        return CliRunner().invoke(main, args)

    return invoke


@pytest.fixture
def ask(invoke) -> Callable[..., Any]:
    """Run a command in this process with `--output json`; what it says."""

    def ask(*args: str) -> Any:
        result = invoke(*args, "--output", "json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return ask


@pytest.fixture
def shell(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in a process of its own, to its end."""

    def shell(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*args), cwd=folder, capture_output=True, text=True, check=False, timeout=100)

    return shell


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command in a process of its own and come back when its flow has printed "waiting"."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*args), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if "waiting" in line:
                return process
        raise AssertionError(process.communicate())

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
