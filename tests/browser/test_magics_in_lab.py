"""The magics as a person uses them in a real JupyterLab: plan, detach, task cells as a graph."""

from pathlib import Path

import pytest
from lab import Lab
from playwright.sync_api import expect

LOAD = "%load_ext prefect_nb"
TASKS = """
import pathlib, time
from prefect_nb import task
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE

@task(cache_policy=INPUTS + TASK_SOURCE)
def clean(rows):
    return [row for row in rows if row]

@task
def gated(path):
    while not pathlib.Path(path).exists():
        time.sleep(0.02)
    return "open"
"""
CELLS = [
    "%%task load -> raw\nraw = [3, 0, 5]",
    "%%task clean(raw) -> tidy\ntidy = [row for row in raw if row]",
    "%%task total(tidy) -> amount\namount = sum(tidy)",
    "%%task longest(tidy) -> most\nmost = max(tidy)",
]
SECONDS = 30_000


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that the task `gated` waits for."""
    return tmp_path / "gate"


def test_task_cells_run_as_a_graph_and_are_drawn(lab: Lab):
    text = "from prefect_nb.notebook.graph_run import task_graph\nprint(task_graph())"
    lab.write_notebook("cells.ipynb", LOAD, *CELLS, "%flow run --name sums", "(amount, most)", "%flow graph", text)
    lab.open_notebook("cells.ipynb")

    # None of the task cells has run: they are read from the saved notebook.
    lab.run_cells(0, 5, 6, 7, 8)

    expect(lab.output(5)).to_contain_text("sums", timeout=SECONDS)
    for name in ("load", "clean", "total", "longest"):
        expect(lab.output(5)).to_contain_text(name)
    expect(lab.output(6)).to_contain_text("(8, 5)")
    expect(lab.output(7).locator("img").first).to_be_visible()
    expect(lab.output(8)).to_contain_text("✓ total <- ✓ clean")
    lab.output(7).scroll_into_view_if_needed()
    lab.screenshot("flow-graph")
    assert lab.errors == []


def test_the_plan_stands_under_the_cell_and_nothing_has_run(lab: Lab):
    body = "rows = clean([1, 0, 2])\nlen(rows)"
    lab.write_notebook(
        "plan.ipynb", LOAD, TASKS, f"%%flow sums --plan\n{body}", f"%%flow sums\n{body}", f"%%flow sums --plan\n{body}"
    )
    lab.open_notebook("plan.ipynb")

    lab.run_all_cells()

    expect(lab.output(2)).to_contain_text("▶ clean  runs", timeout=SECONDS)
    expect(lab.output(2)).not_to_contain_text("Completed")
    expect(lab.output(4)).to_contain_text("cached")
    lab.screenshot("flow-plan")
    assert lab.errors == []


def test_a_detached_cell_leaves_the_notebook_free_and_shows_itself_to_the_end(lab: Lab, gate: Path):
    lab.write_notebook(
        "detached.ipynb",
        LOAD,
        TASKS,
        f"%%flow training --detach -o run\nanswer = gated.submit({str(gate)!r})",
        "print('the notebook', 'answer' in globals(), run.wait(0))",
        "%flow queue",
        "print(run.wait(30), answer)",
    )
    lab.open_notebook("detached.ipynb")

    lab.run_cells(0, 1, 2, 3, 4)

    expect(lab.output(3)).to_contain_text("the notebook False False", timeout=SECONDS)
    expect(lab.output(4)).to_contain_text("training")
    expect(lab.output(2)).to_contain_text("runs beside the notebook")
    expect(lab.output(2).locator("[role=progressbar]")).to_be_visible(timeout=SECONDS)
    lab.screenshot("detached-running")

    gate.touch()
    expect(lab.output(2)).to_contain_text("training is Completed", timeout=SECONDS)
    expect(lab.output(2).locator("[role=progressbar]")).to_have_count(0)
    lab.run_cells(5)
    expect(lab.output(5)).to_contain_text("True open", timeout=SECONDS)
    lab.screenshot("detached-ended")
    assert lab.errors == []
