"""`%%flow --plan`: a cell says what it would run, and runs nothing."""

import pytest
from kernels import Kernel

TASKS = """
from prefect_nb import task
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE
@task(cache_policy=INPUTS + TASK_SOURCE)
def prune(rows):
    print("cleaning")
    return [row for row in rows if row]
@task
def total(rows):
    return sum(rows)
"""
BODY = "rows = prune([1, 0, 2])\nprint('between')\nresult = total(rows)\nresult"


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    kernel.run(TASKS)
    return kernel


def test_the_plan_before_and_after_a_run(notebook):
    before = notebook.run(f"%%flow sums --plan\n{BODY}")
    ran = notebook.run(f"%%flow sums\n{BODY}")
    after = notebook.run(f"%%flow sums --plan\n{BODY}")

    assert before.stdout == ""
    assert before.displays == []
    assert before.value.splitlines()[:2] == [
        "▶ prune  runs     first run of this task",
        "? total  depends  on the result of prune",
    ]
    assert ran.value == "3"
    assert after.value.startswith("✓ prune  cached   same as 'prune-")
    assert "▶ total  runs" in after.value


def test_the_notebooks_names_stay_as_they_are(notebook):
    notebook.run("result = 'mine'\nrows = 'mine, too'")
    notebook.run(f"%%flow sums --plan -p extra=1\n{BODY}")

    assert notebook.run("result, rows, 'extra' in globals()").value == "('mine', 'mine, too', False)"


def test_a_cell_that_awaits(notebook):
    outcome = notebook.run("%%flow --plan\nimport asyncio\nawait asyncio.sleep(0)\ntotal([1])")

    assert outcome.value.startswith("▶ total  runs")


def test_with_the_cache_of_the_flow(notebook):
    notebook.run("%%flow --cache\ntotal([1, 2])")

    assert notebook.run("%%flow --cache --plan\ntotal([1, 2])").value.startswith("✓ total  cached")
    assert notebook.run("%%flow --plan\ntotal([1, 2])").value.startswith("▶ total  runs")
