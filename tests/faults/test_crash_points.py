"""The process dies between two steps of writing: each order of steps leaves a true history and whole files."""

import signal
from pathlib import Path

import pytest
from audit import audit
from harness import committed, executions, only_flow_run, opened, run, started

from prefect_nb.interfaces import RunQuery
from prefect_nb.model.states import StateType

COUNT = 12
TOTAL = sum(n * n for n in range(COUNT))
POINTS = [
    "before_commit:1",
    "before_commit:2",
    "before_commit:9",
    "after_commit:2",
    "after_commit:10",
    "before_temp_write:1",
    "before_temp_write:5",
    "after_temp_write:5",
    "after_fsync:5",
    "after_rename:5",
    "before_checkpoint:1",
]
RECOVERY_POINTS = ["before_claim_commit", "before_crash_commit", "before_commit:3", "after_commit:3", "after_rename:2"]


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_while_running_is_recovered_from(point: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = run("squares.py", home, "start", COUNT, PREFECT_NB_CRASH_AT=point)
    if point.startswith("before_checkpoint"):
        assert process._popen.returncode == 0, "so little is written that no checkpoint is due"
    else:
        assert process._popen.returncode == -signal.SIGKILL
    audit(home)
    _finish(home)


@pytest.mark.parametrize("point", RECOVERY_POINTS)
def test_a_crash_while_recovering_is_recovered_from(point: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    run("squares.py", home, "start", COUNT, PREFECT_NB_CRASH_AT="after_commit:12")
    with opened(home) as here:
        flow_run = only_flow_run(here)
    recovering = run("squares.py", home, "resume", flow_run.id, PREFECT_NB_CRASH_AT=point)
    assert recovering._popen.returncode == -signal.SIGKILL
    audit(home)
    _finish(home)


def _finish(home: Path) -> None:
    with opened(home) as here:
        here.reap()
        known = here.store.flow_runs(RunQuery())
    if not known or known[0].state_type is StateType.COMPLETED:
        return
    before = committed(home)
    with started("squares.py", home, "resume", known[0].id) as process:
        assert process.wait() == 0, process.errors
    assert int(process.output) == TOTAL
    again = {what.removeprefix("square ") for pid, what in executions(home) if pid == process.pid}
    assert again & before == set()
    audit(home)
