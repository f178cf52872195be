"""What a person does with whole notebooks in a real JupyterLab: checking, tagging, comparing, mending and going on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from lab import JupyterServer, Lab
from playwright.sync_api import expect
from view_story import CONTRASTS, THEMES, show_theme

EXAMPLES = Path(__file__).parents[2] / "example_notebooks"
LOAD = "%load_ext prefect_nb"
SECONDS = 30_000


def command(server: JupyterServer, *arguments: str) -> subprocess.Popen[str]:
    """Begin `prefect-nb ...` in a terminal beside the Lab, in its folder and with its history."""
    environment = {**os.environ, "PREFECT_NB_HOME": str(server.home), "PREFECT_NB_NOTEBOOK_KEPT_KERNELS": "2"}
    return subprocess.Popen(
        [sys.executable, "-m", "prefect_nb", *arguments],
        env=environment,
        cwd=server.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], returncode: int = 0) -> str:
    """What a command has printed, once it has ended as expected."""
    out, errors = process.communicate(timeout=60)
    assert process.returncode == returncode, out + errors
    return out + errors


def look(lab: Lab, cell: int, name: str) -> None:
    """Pictures of a cell's output in both themes, its text readable in each."""
    for theme in ("light", "dark"):
        show_theme(lab, THEMES[theme])
        lab.cell(cell).scroll_into_view_if_needed()
        lab.screenshot(f"{name}-{theme}")
        assert lab.output(cell).evaluate(CONTRASTS) == [], theme
    show_theme(lab, THEMES["light"])


def test_preflight_finds_the_name_whose_cell_was_deleted(lab: Lab):
    lab.write_notebook(
        "sales.ipynb",
        LOAD,
        "import json\nsales = [3, 5]",
        "total = sum(sales)\njson.dumps(total)",
        "%preflight",
        "open('sales-of-june.csv')",
    )
    lab.open_notebook("sales.ipynb")
    lab.run_cells(0, 1, 2)

    lab.cell(1).locator(".jp-InputPrompt").click()
    lab.command("notebook:delete-cell")
    lab.command("docmanager:save")
    lab.run_cells(2)

    report = lab.output(2)
    expect(report).to_contain_text("3 errors", timeout=SECONDS)
    expect(report.get_by_role("row", name="sales is used")).to_contain_text("a cell that is gone")
    expect(report).to_contain_text("sales-of-june.csv")
    look(lab, 2, "preflight")
    assert lab.errors == []


def test_a_tag_of_the_property_inspector_and_two_runs_compared(lab: Lab):
    lab.write_notebook(
        "report.ipynb",
        "full: bool = False\nyears: int = 3",
        "count = 10 if full else 4\nprint('rows:', count)",
        "print('all of', count, 'rows')",
        "import pandas as pd\npd.DataFrame({'year': range(years), 'sum': [count * n for n in range(years)]})",
    )
    lab.open_notebook("report.ipynb")
    lab.page.get_by_role("tab", name="Property Inspector").click()
    lab.page.get_by_text("Common Tools").click()
    for cell, tag in ((0, "parameters"), (2, "skip-if:not full and years < 5")):
        lab.cell(cell).locator(".jp-InputPrompt").click()
        add = lab.page.locator(".jp-CellTags-Add")
        add.click()
        lab.page.keyboard.type(tag)
        lab.page.keyboard.press("Enter")
        expect(lab.page.locator(".jp-CellTags-Applied", has_text=tag)).to_be_visible()
    lab.screenshot("tags")
    tags = [cell.metadata.get("tags") for cell in lab.save("report.ipynb").cells]
    assert tags == [["parameters"], None, ["skip-if:not full and years < 5"], None]

    runs = [
        command(lab.server, "run", "report.ipynb", "--name", name, "-p", f"full={full}", "--to", f"{name}.ipynb")
        for name, full in (("monday", "false"), ("tuesday", "true"))
    ]
    lab.write_notebook("desk.ipynb", LOAD, "%diff monday tuesday", "%runs monday")
    lab.turn_to("desk.ipynb")
    said = [finished(run) for run in runs]
    assert "Completed" in said[0]
    skipped, shown = (
        nbformat.read(lab.server.root / f"{name}.ipynb", as_version=4).cells[-2].outputs
        for name in ("monday", "tuesday")
    )
    assert "all of 10 rows" in str(shown)
    assert "all of" not in str(skipped)

    lab.run_cells(0, 1, 2)

    expect(lab.output(1)).to_contain_text("full", timeout=SECONDS)
    expect(lab.output(1)).to_contain_text("rows: 10")
    look(lab, 1, "diff")
    expect(lab.output(2)).to_contain_text("Skipped")
    lab.screenshot("runs-of-another-process")
    assert lab.errors == []


@pytest.fixture
def kept_kernels(jupyter_server: JupyterServer) -> Iterator[None]:
    """At the end every kernel that was kept ends."""
    yield
    finished(command(jupyter_server, "kernel", "drop", "--all"))


NIGHTLY = [
    "import os\nfrom prefect_nb import task\nloaded = [3, 5, 0]\nstarted = os.getpid()",
    "@task\ndef share(total, parts):\n    whole = total + 1\n    return [whole / part for part in parts]",
    "shares = share(14, loaded)",
    "print(shares, started == os.getpid())",
]


@pytest.mark.usefixtures("kept_kernels")
def test_a_failed_run_is_looked_into_mended_and_gone_on_with(lab: Lab):
    lab.write_notebook("nightly.ipynb", *NIGHTLY)
    failing = command(lab.server, "run", "nightly.ipynb", "--name", "night", "--to", "out.ipynb")
    lab.write_notebook("desk.ipynb", LOAD, "%load_task night/share", "%resume night", "%runs night")
    lab.open_notebook("desk.ipynb")
    assert "flow-run resume night" in finished(failing, returncode=1)

    lab.run_cells(0, 1)
    scratch = lab.cell(2)
    expect(scratch.locator(".cm-content")).to_contain_text("whole = total + 1", timeout=SECONDS)
    expect(scratch.locator(".cm-content")).to_contain_text("ZeroDivisionError")
    expect(lab.output(1)).to_contain_text("total, parts")
    lab.screenshot("load-task")
    lab.run_cells(2)
    expect(lab.output(2)).to_contain_text("ZeroDivisionError", timeout=SECONDS)
    lab.screenshot("load-task-ran")

    # Mended as a person does it, in the notebook itself.
    lab.turn_to("nightly.ipynb")
    lab.cell(2).locator(".cm-content").click()
    lab.page.keyboard.press("Control+a")
    lab.page.keyboard.insert_text("shares = share(14, [part for part in loaded if part])")
    lab.save("nightly.ipynb")
    lab.turn_to("desk.ipynb")
    lab.run_cells(3, 4)

    expect(lab.output(3)).to_contain_text("Completed", timeout=SECONDS)
    expect(lab.output(4)).to_contain_text("Completed")
    lab.screenshot("resume")
    executed = nbformat.read(lab.server.root / "out.ipynb", as_version=4)
    assert "[5.0, 3.0] True" in str(executed.cells[-1].outputs)
    assert lab.errors == []


def test_an_example_that_people_open_first_runs_from_top_to_bottom(lab: Lab):
    name = "breast_cancer_screening.ipynb"
    shutil.copy(EXAMPLES / name, lab.server.root / name)
    lab.open_notebook(name)
    lab.command("notebook:clear-all-cell-outputs")

    lab.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:restart-run-all'); }")
    lab.page.get_by_role("button", name="Confirm Kernel Restart").click()

    code = [
        number
        for number, cell in enumerate(json.loads((EXAMPLES / name).read_text())["cells"])
        if cell["cell_type"] == "code"
    ]
    expect(lab.cell(code[-1]).locator(".jp-InputPrompt")).to_have_text(f"[{len(code)}]:", timeout=90_000)
    for place, number in (("top", 5), ("middle", 15), ("graph", 17), ("run", 19), ("bottom", code[-1])):
        lab.cell(number).scroll_into_view_if_needed()
        lab.screenshot(f"example-{place}")
    notebook = lab.save(name)
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == list(
        range(1, len(code) + 1)
    )
    assert not [out for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "error"]
    assert lab.errors == []
