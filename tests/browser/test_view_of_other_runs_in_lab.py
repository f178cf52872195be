"""`%runs NAME`: the view of a run of another process, live while it goes on."""

import os
import subprocess
import sys
from pathlib import Path

from lab import Lab
from playwright.sync_api import expect
from view_story import line, panel_of

SCRIPT = """
import pathlib, sys, time
from prefect_nb import flow, task

@task
def step(n):
    return n

@task
def waits(gate):
    while not pathlib.Path(gate).exists():
        time.sleep(0.02)

@flow(flow_run_name="far-away")
def elsewhere(gate):
    step.map(range(5)).wait()
    waits(gate)

elsewhere(sys.argv[1])
"""


def test_a_run_of_another_process_is_followed_to_its_end(lab: Lab, tmp_path: Path):
    gate, script = tmp_path / "gate", tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PREFECT_NB_HOME": str(lab.server.home)}
    other = subprocess.Popen([sys.executable, str(script), str(gate)], env=environment, cwd=tmp_path)
    try:
        wait = (
            "import time\nfrom prefect_nb.service import history\n"
            "while not any(run.name.startswith('waits-') for run in history.task_runs()): time.sleep(0.05)"
        )
        lab.write_notebook("other.ipynb", "%load_ext prefect_nb\n" + wait, "%runs far-away", "'free'")
        lab.open_notebook("other.ipynb")
        lab.start_all_cells()

        expect(line(lab, 1, "waits-")).to_be_visible(timeout=30_000)
        expect(line(lab, 1, "step × 5")).to_be_visible()
        expect(lab.output(2)).to_contain_text("'free'")  # the kernel is not kept waiting
        line(lab, 1, "step × 5").click()
        line(lab, 1, "step-").first.click()
        expect(panel_of(lab, 1).get_by_role("region", name="Details of step-")).to_contain_text("Nothing was logged")

        gate.touch()

        expect(panel_of(lab, 1)).to_have_count(0, timeout=30_000)
        expect(lab.output(1)).to_contain_text("Completed")
        assert other.wait(timeout=30) == 0
        assert "Completed" in str(lab.save("other.ipynb").cells[1].outputs)
        assert lab.errors == []
    finally:
        other.kill()
        other.wait()
