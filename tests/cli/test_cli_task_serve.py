"""`prefect-nb task serve`."""

import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from processes import command

from prefect_nb.cli import main
from prefect_nb.futures import PrefectDistributedFuture

TASKS = """
from prefect_nb import flow, task

@task
def double(x):
    return 2 * x

@task
def triple(x):
    return 3 * x

@flow
def ask(x: int):
    return [str(double.delay(x).task_run_id), str(triple.delay(x).task_run_id)]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    file = tmp_path / "delayed_work.py"
    file.write_text(TASKS)
    return file


def test_every_task_of_a_file_is_served_until_sigterm(tasks: Path):
    from uuid import UUID

    from prefect_nb.execution.loading import load_flow
    from prefect_nb.home import Home

    ids = load_flow(f"{tasks}:ask")(7)
    worker = subprocess.Popen([*command(), "task", "serve", str(tasks)], stdout=subprocess.PIPE, text=True)
    try:
        futures = [PrefectDistributedFuture(UUID(id), Home.current) for id in ids]
        assert [future.result(timeout=60) for future in futures] == [14, 21]
        worker.send_signal(signal.SIGTERM)
        out, _ = worker.communicate(timeout=30)
    finally:
        worker.kill()
    assert worker.returncode == 0
    assert "Serving 'double', 'triple'" in out


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [
        ("nowhere.py:x", "There is no file"),
        ("{file}:duoble", "Did you mean 'double'"),
        ("{file}:ask", "has no task 'ask'"),
        ("what is this", "does not say where"),
    ],
)
def test_bad_entrypoints_are_named(tasks: Path, entrypoint: str, words: str):
    result = CliRunner().invoke(main, ["task", "serve", entrypoint.format(file=tasks)])
    assert result.exit_code != 0
    assert words in result.output
