"""Metrics and artifacts under a flow cell in a real JupyterLab: live lines, and charts in what is saved."""

from pathlib import Path

from lab import Lab
from playwright.sync_api import expect

TASKS = """
import math, pathlib, time
from prefect_nb import log_metric, log_metrics, task
from prefect_nb.artifacts import (
    create_image_artifact, create_markdown_artifact, create_progress_artifact, create_table_artifact,
)

@task
def train(rate, gate):
    for step in range(120):
        log_metrics({"loss": math.exp(-step * rate / 40) + math.sin(step) / 20, "score": step * rate}, step=step)
    while not pathlib.Path(gate).exists():
        time.sleep(0.02)
    log_metric("loss", 5, step=125)
"""

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark", "contrast": "JupyterLab Dark High Contrast"}


def show_theme(lab: Lab, theme: str) -> None:
    lab.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    expect(lab.page.locator(f"body[data-jp-theme-name='{theme}']")).to_have_count(1)
    expect(lab.page.locator("#jupyterlab-splash")).to_have_count(0)


def test_lines_are_drawn_while_the_cell_is_busy_and_saved_as_charts(lab: Lab, tmp_path: Path):
    gate = tmp_path / "gate"
    cell = f"""%%flow training
create_markdown_artifact("the **plan** <b>x</b>", key="plan", description="what we try")
create_table_artifact([{{"rate": 1, "score": 0.5}}, {{"rate": 2, "score": 0.7}}], key="scores")
create_progress_artifact(40, key="progress")
create_image_artifact({PIXEL!r}, key="pixel", description="one pixel")
train.map([1, 2, 3], gate={str(gate)!r}).wait()"""
    lab.write_notebook("training.ipynb", "%load_ext prefect_nb", TASKS, cell, "print('all done')")
    lab.open_notebook("training.ipynb")

    lab.start_all_cells()

    charts = lab.output(2).locator("section svg.pnb-chart")
    expect(charts).to_have_count(2, timeout=30_000)
    expect(charts.first.locator("polyline")).to_have_count(3)
    expect(charts.first.locator("title")).to_contain_text("loss: steps 0 to 119")
    expect(lab.output(2).get_by_role("region", name="Artifacts")).to_contain_text("plan")
    for name, theme in THEMES.items():
        show_theme(lab, theme)
        lab.output(2).get_by_role("region", name="Artifacts").scroll_into_view_if_needed()
        lab.screenshot(f"metrics-busy-{name}")

    gate.touch()

    expect(lab.output(3)).to_contain_text("all done", timeout=30_000)
    expect(charts).to_have_count(0)
    saved_charts = lab.output(2).locator("svg[role=img]")
    expect(saved_charts).to_have_count(2)
    expect(saved_charts.first).to_have_attribute("aria-label", "loss: steps 0 to 125, values -0.0493642 to 5")
    for name, theme in THEMES.items():
        show_theme(lab, theme)
        lab.output(3).scroll_into_view_if_needed()
        lab.screenshot(f"metrics-done-{name}")
    show_theme(lab, THEMES["light"])
    (html,) = [out.data["text/html"] for out in lab.save("training.ipynb").cells[2].outputs if "data" in out]
    assert len(html.encode()) <= 20_000
    assert "<script" not in html
    assert lab.errors == []
