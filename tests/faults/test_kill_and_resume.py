"""A process is killed at any moment: its history is true, and a resume does not do again what was committed."""

import random
import signal
import time
from pathlib import Path

import pytest
from audit import audit
from harness import committed, executions, flow_runs, only_flow_run, opened, started, states, task_runs, wait_until

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


@pytest.mark.parametrize("steps", [0, 3, 6, 7, 9, 12])
def test_sub_flows_go_on_where_they_were(steps: int, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "nested", PREFECT_NB_CRASH_AT=f"after_rename:{steps + 1}") as process:
        assert process.wait() == -signal.SIGKILL
    with opened(home) as here:
        here.reap()
        (root,) = [flow_run for flow_run in flow_runs(here) if flow_run.parent_flow_run_id is None]
        done = {(run.flow_run_id, run.dynamic_key) for run in task_runs(here) if run.result is not None}
        assert all(flow_run.is_final for flow_run in flow_runs(here))
    audit(home)
    before = executions(home)

    with started("stories.py", home, "nested", "resume", root.id) as process:
        assert process.wait() == 0, process.errors
    assert process.output == "[15, 100, 75]\n"
    ran = [what for _, what in executions(home)]
    # Only what was under way when the process died may run twice.
    assert len(ran) == 13 + (len(before) - len(done))
    assert set(ran) == {*map(str, range(6)), "100", *map(str, range(10, 16))}
    with opened(home) as here:
        assert states(flow_runs(here)) == {"Completed": 3}
        assert states(task_runs(here)) == {"Completed": 13 + 2}
        assert {flow_run.root_flow_run_id for flow_run in flow_runs(here)} == {None, root.id}
    audit(home)
