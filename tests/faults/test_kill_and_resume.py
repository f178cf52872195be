"""A process is killed at any moment: its history is true, and a resume does not do again what was committed."""

import random
import time
from pathlib import Path

import pytest
from audit import audit
from harness import committed, executions, only_flow_run, opened, started, states, task_runs, wait_until

from prefect_nb.model.states import StateType

COUNT = 90
TOTAL = sum(n * n for n in range(COUNT))


@pytest.mark.parametrize("seed", range(10))
def test_a_durable_flow_killed_anywhere_is_resumed_without_doing_anything_committed_again(
    seed: int, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    chance = random.Random(seed)
    lines, pause = chance.randrange(COUNT - 10), chance.uniform(0, 0.01)
    with started("squares.py", home, "start", COUNT) as process:
        wait_until(lambda: len(executions(home)) >= lines or process.ended(), f"{lines} tasks")
        time.sleep(pause)
        process.kill()
    before = committed(home)
    with opened(home) as here:
        began = time.monotonic()
        here.reap()
        flow_run = only_flow_run(here)
        assert time.monotonic() - began < 1
        assert flow_run.state_type is StateType.CRASHED
        assert all(task_run.is_final for task_run in task_runs(here))
    audit(home)

    with started("squares.py", home, "resume", flow_run.id) as process:
        assert process.wait() == 0, process.errors
    assert int(process.output) == TOTAL
    again = {what.removeprefix("square ") for pid, what in executions(home) if pid == process.pid}
    assert again & before == set()
    assert again | before == {str(n) for n in range(COUNT)}
    with opened(home) as here:
        assert only_flow_run(here).state_type is StateType.COMPLETED
        assert states(task_runs(here)) == {"Completed": COUNT}
    audit(home)
