"""The notebook cells that the tests of the live view share, and what they look for on the page."""

from pathlib import Path

from lab import Lab
from playwright.sync_api import Locator, expect

TASKS = """
import os, pathlib, time
from prefect_nb import flow, get_run_logger, task

@task
def load(n):
    get_run_logger().info("loading %s <b>rows</b>", n)
    return list(range(n))

@task
def gated(path, value=None):
    while not pathlib.Path(path).exists():
        time.sleep(0.02)
    return value

@task
def dies(path):
    while not pathlib.Path(path).exists():
        time.sleep(0.02)
    os._exit(9)

@task
def square(n):
    if n == 7:
        raise ValueError("seven is <b>odd</b>")
    return n * n

@task
def total(numbers, extra=None):
    return sum(numbers)

@flow
def report(numbers):
    return total(numbers)
"""

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark", "contrast": "JupyterLab Dark High Contrast"}


def story(gate: Path) -> str:
    """A flow cell: a load, a map of which one run fails, a sum, a child flow run, and a task that waits for the gate."""
    return f"""%%flow story
rows = load(12)
squares = square.map(rows)
squares.wait()
good = [future for future in squares if future.state.is_completed()]
summed = total.submit(good)
report(good)
opened = gated.submit({str(gate)!r}, summed)
opened.result()
squares = None  # a failure among the values that a cell assigns would be raised
"done"
"""


def panel_of(lab: Lab, cell: int) -> Locator:
    """The live panel in a cell's output."""
    return lab.output(cell).locator("section.pnb-panel")


def line(lab: Lab, cell: int, text: str) -> Locator:
    """The lines of the table with this text."""
    return panel_of(lab, cell).locator("tr[role=row]", has_text=text)


def show_theme(lab: Lab, theme: str) -> None:
    """Switch the page to one of JupyterLab's themes and wait until it is on and its splash is gone."""
    lab.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    expect(lab.page.locator(f"body[data-jp-theme-name='{theme}']")).to_have_count(1)
    expect(lab.page.locator("#jupyterlab-splash")).to_have_count(0)
