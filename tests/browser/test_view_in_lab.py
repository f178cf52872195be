"""The view under a flow cell in a real JupyterLab: it moves while the cell is busy, and ends as a picture that is saved."""

from pathlib import Path

import pytest
from lab import Lab
from playwright.sync_api import Locator, expect

TASKS = """
import pathlib, time
from prefect_nb import task

@task
def quick(n):
    return n

@task
def gated(path):
    while not pathlib.Path(path).exists():
        time.sleep(0.02)
    return "open"

@task
def fails():
    raise ValueError("<b>no & no</b>")
"""

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark", "contrast": "JupyterLab Dark High Contrast"}


def panel_of(lab: Lab, cell: int) -> Locator:
    """The live panel in a cell's output."""
    return lab.output(cell).locator("[role=progressbar]")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that the task `gated` waits for."""
    return tmp_path / "gate"


def show_theme(lab: Lab, theme: str) -> None:
    """Switch the page to one of JupyterLab's themes and wait until it is on and its splash is gone."""
    lab.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    expect(lab.page.locator(f"body[data-jp-theme-name='{theme}']")).to_have_count(1)
    expect(lab.page.locator("#jupyterlab-splash")).to_have_count(0)


def test_the_view_moves_while_the_cell_is_busy_and_is_saved_as_a_picture(lab: Lab, gate: Path):
    flow_cell = f"%%flow busy\nanswer = gated.submit({str(gate)!r})\nquick.map(range(3))\nanswer"
    lab.write_notebook("busy.ipynb", "%load_ext prefect_nb", TASKS, flow_cell, "answer")
    lab.open_notebook("busy.ipynb")

    lab.start_all_cells()

    expect(panel_of(lab, 2)).to_have_attribute("aria-valuenow", "3", timeout=30_000)
    running = lab.output(2)
    expect(running).to_contain_text("Running")
    expect(running).to_contain_text("gated")
    for name, theme in THEMES.items():
        show_theme(lab, theme)
        lab.screenshot(f"busy-{name}")

    gate.touch()

    expect(lab.output(3)).to_contain_text("'open'", timeout=30_000)
    expect(panel_of(lab, 2)).to_have_count(0)
    for name, theme in THEMES.items():
        show_theme(lab, theme)
        lab.screenshot(f"done-{name}")
    show_theme(lab, THEMES["light"])
    saved = lab.save("busy.ipynb").cells[2].outputs
    kinds = {kind for output in saved for kind in output.get("data", {})}
    pictures = [output.data["text/html"] for output in saved if "text/html" in output.get("data", {})]
    assert not any("widget" in kind for kind in kinds)
    assert len(pictures) == 1
    assert "Completed" in pictures[0]
    assert len(pictures[0].encode()) <= 20_000
    assert lab.errors == []


def test_a_failed_flow_is_shown_as_text_and_stops_run_all(lab: Lab):
    lab.write_notebook(
        "failing.ipynb", "%load_ext prefect_nb", TASKS, "%%flow broken\nquick(1)\nfails()", "print('not reached')"
    )
    lab.open_notebook("failing.ipynb")

    lab.start_all_cells()

    expect(lab.output(2)).to_contain_text("Failed", timeout=30_000)
    expect(lab.output(2)).to_contain_text("<b>no & no</b>")
    expect(lab.output(2).locator("b", has_text="no & no")).to_have_count(0)
    expect(lab.output(3)).not_to_contain_text("not reached")
    lab.screenshot("failed-light")
    assert lab.errors == []


def test_the_picture_is_there_after_the_page_is_loaded_again(lab: Lab, gate: Path):
    gate.touch()
    lab.write_notebook("again.ipynb", "%load_ext prefect_nb", TASKS, f"%%flow once\ngated({str(gate)!r})")
    lab.open_notebook("again.ipynb")
    lab.run_all_cells()
    expect(lab.output(2)).to_contain_text("Completed", timeout=30_000)
    lab.save("again.ipynb")

    lab.open_notebook("again.ipynb")

    expect(lab.output(2)).to_contain_text("Completed")
    expect(lab.output(2)).to_contain_text("gated")
