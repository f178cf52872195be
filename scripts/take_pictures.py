"""Takes the README's pictures: a real JupyterLab in Chromium, in the light and the dark theme.

    .venv/bin/python scripts/take_pictures.py [names...]

Writes docs/pictures/NAME-light.png and NAME-dark.png. Needs what the tests need (see scripts/test.sh).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

from lab import Lab, start_jupyter_server  # noqa: E402
from playwright.sync_api import Locator, expect, sync_playwright  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
SECONDS = 60_000

TASKS = """
%load_ext prefect_nb
from prefect_nb import task, unmapped
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

@task(cache_policy=INPUTS + TASK_SOURCE)
def load():
    return load_breast_cancer(return_X_y=True, as_frame=True)

@task
def clean(data):
    rows, labels = data
    print(f"{len(rows)} rows, {rows.isna().sum().sum()} values missing")
    return rows.fillna(rows.median()), labels

@task(retries=1)
def train(depth, data):
    model = RandomForestClassifier(n_estimators=400, max_depth=depth, random_state=0)
    score = cross_val_score(model, *data).mean()
    print(f"depth {depth}: {score:.3f}")
    return score

@task
def choose(scores, depths):
    return max(zip(scores, depths))

@task
def ratio(data, by):
    rows, labels = data
    print("by", by)
    return (rows["mean area"] / rows[by]).mean()
"""
FLOW = """
%%flow screening --max-workers 2
depths = list(range(1, 9))
data = clean(load())
scores = train.map(depths, unmapped(data))
best = choose.submit(scores, depths)
"""
BROKEN = """
%%flow ratios
sizes = ["mean radius", "mean perimeter", "mean girth"]
data = clean(load())
found = ratio.map(unmapped(data), sizes)
best = choose.submit(found, sizes)
"""
CELLS = [
    "%load_ext prefect_nb\\nfrom sklearn.datasets import load_diabetes",
    "%%task read -> frame\\nframe = load_diabetes(as_frame=True).frame",
    "%%task split(frame) -> old, young\\nold = frame[frame.age > 0]\\nyoung = frame[frame.age <= 0]",
    "%%task model_old(old) -> slope_old\\nslope_old = old.bmi.cov(old.target) / old.bmi.var()",
    "%%task model_young(young) -> slope_young\\nslope_young = young.bmi.cov(young.target) / young.bmi.var()",
    "%%task compare(slope_old, slope_young) -> ratio\\nratio = slope_old / slope_young",
    "%flow run --name bmi-by-age",
]
FORGOTTEN = [
    "import pandas as pd\\nimport seabornn as sns",
    "# Totals\\ntotals = sales.groupby('region').sum()",
    "sales = pd.read_csv('sales.csv')",
    "%preflight",
]


def live(lab: Lab) -> Locator:
    """The view while a flow cell runs, an earlier run behind it."""
    lab.write_notebook("screening.ipynb", TASKS.strip(), FLOW.strip())
    lab.open_notebook("screening.ipynb")
    lab.run_cells(0, 1)
    expect(lab.output(1)).to_contain_text("11 task runs", timeout=SECONDS)
    lab.start_all_cells()
    expect(lab.output(1)).to_contain_text("3 Completed", timeout=SECONDS)
    return lab.cell(1)


def failure(lab: Lab) -> Locator:
    """A failed task run, opened."""
    lab.write_notebook("broken.ipynb", TASKS.strip(), BROKEN.strip())
    lab.open_notebook("broken.ipynb")
    lab.command("notebook:run-all-cells")
    expect(lab.output(1)).to_contain_text("Failed", timeout=SECONDS)
    return lab.output(1).locator(".jp-OutputArea-child").first


def graph(lab: Lab) -> Locator:
    """Task cells, run as a graph."""
    lab.write_notebook("cells.ipynb", *(cell.replace("\\n", "\n") for cell in CELLS))
    lab.open_notebook("cells.ipynb")
    lab.run_cells(0, 6)
    expect(lab.output(6)).to_contain_text("Completed", timeout=SECONDS)
    return lab.cell(6)


def preflight(lab: Lab) -> Locator:
    """What would fail, told before anything runs."""
    lab.write_notebook("sales.ipynb", *(cell.replace("\\n", "\n") for cell in ["%load_ext prefect_nb", *FORGOTTEN]))
    lab.open_notebook("sales.ipynb")
    lab.run_cells(0, 4)
    expect(lab.output(4)).to_contain_text("sales", timeout=SECONDS)
    return lab.cell(4)


STORIES = {"live": live, "graph": graph, "failure": failure, "preflight": preflight}


def show_theme(lab: Lab, theme: str) -> None:
    """Change JupyterLab's theme."""
    lab.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    expect(lab.page.locator(f"body[data-jp-theme-name='{theme}']")).to_have_count(1)
    expect(lab.page.locator("#jupyterlab-splash")).to_have_count(0)


def main(names: list[str]) -> None:
    """Take the pictures of these names, or all."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = start_jupyter_server(Path(folder))
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        try:
            for name in names or STORIES:
                context = browser.new_context(viewport={"width": 1100, "height": 900}, device_scale_factor=1.5)
                lab = Lab(context.new_page(), server, PICTURES)
                cell = STORIES[name](lab)
                lab.command("application:toggle-left-area")
                for short, theme in THEMES.items():
                    show_theme(lab, theme)
                    cell.scroll_into_view_if_needed()
                    cell.screenshot(path=PICTURES / f"{name}-{short}.png")
                show_theme(lab, THEMES["light"])
                context.close()
                server.shut_down_kernels()
        finally:
            browser.close()
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
