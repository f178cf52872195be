"""Hostile texts in a real JupyterLab: in the live panel, in the saved picture - trusted or not - and in nbconvert's page."""

import contextlib
import sqlite3
import sys
from pathlib import Path

import nbformat
import pytest
from lab import Lab
from playwright.sync_api import Dialog, expect
from view_story import line, panel_of

TASKS = """
import pathlib, time
from prefect_nb import get_run_logger, tags, task
from prefect_nb.artifacts import create_markdown_artifact, create_table_artifact
from prefect_nb.notebook import view_details

view_details.SOURCES.append(lambda run: [
    {"kind": "html", "html": "<table><tr><td colspan=2>kept</td></tr></table>" + "".join(TEXTS)},
    {"kind": "image", "src": "javascript:window.pnbHit=1", "alt": TEXTS[0]},
    {"kind": "text", "text": "".join(TEXTS)},
])

def body(text, breaks):
    get_run_logger().info("%s", text)
    if breaks:
        raise ValueError(text)
    return text

@task
def gated(path):
    while not pathlib.Path(path).exists():
        time.sleep(0.02)
"""

FLOW = """%%flow hostile
futures = []
for number, text in enumerate(TEXTS):
    name = "".join(char for char in text if char.isprintable())[:200]
    with tags(name):
        futures.append(task(name=name, task_run_name=name)(body).submit(text, number % 5 == 0))
create_markdown_artifact("".join(TEXTS[:30]), key="hostile", description="".join(TEXTS[:30]))
create_table_artifact([{TEXTS[0]: TEXTS[1]}], key="rows")
for future in futures:
    future.wait()
gated.submit(GATE).wait()
futures = future = None
raise ValueError("".join(TEXTS[:30]))"""

HARM = """
(root) => {
  const found = [];
  for (const node of (root ?? document).querySelectorAll("*")) {
    for (const { name, value } of node.attributes) {
      if (/^on/i.test(name) || /^\\s*javascript:/i.test(value)) found.push(`${node.tagName} ${name}=${value}`);
    }
    if (/^(script|iframe|object|embed|link|base|meta)$/i.test(node.tagName)) found.push(node.tagName);
  }
  return found;
}
"""


@pytest.fixture
def texts() -> list[str]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "notebook"))
    try:
        from hostile_texts import hostile_texts
    finally:
        sys.path.pop(0)
    return [text.encode("utf-8", "replace").decode() for text in hostile_texts()]


def flow_runs(lab: Lab) -> int:
    """How many flow runs there are in the history."""
    (path,) = [path for path in lab.server.home.rglob("*.db") if path.name != "logs.db"]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (number,) = connection.execute("SELECT count(*) FROM flow_run").fetchone()
    return int(number)


def test_nothing_in_a_run_acts_in_the_page(lab: Lab, texts: list[str], tmp_path: Path):
    gate = tmp_path / "gate"
    dialogs: list[str] = []

    def take(dialog: Dialog) -> None:
        if dialog.type != "beforeunload":  # that one is JupyterLab's own
            dialogs.append(dialog.message)
        dialog.accept()

    lab.page.on("dialog", take)
    names = f"GATE = {str(gate)!r}\nTEXTS = {texts!r}"
    lab.write_notebook("hostile.ipynb", "%load_ext prefect_nb", names + TASKS, FLOW)
    lab.open_notebook("hostile.ipynb")
    lab.start_all_cells()
    panel = panel_of(lab, 2)
    expect(line(lab, 2, "gated-")).to_be_visible(timeout=60_000)
    panel.locator("tr[aria-level='1']", has_text="× 300").click()
    broken = panel.locator("tr[aria-level='2'][data-state=FAILED]")
    expect(panel).to_contain_text("<script>window.pnbHit=1</script>")
    broken.first.click()
    details = panel.locator(".pnb-inside").first
    expect(details.locator("td", has_text="kept")).to_have_attribute("colspan", "2", timeout=20_000)
    expect(details).to_contain_text("ValueError")
    assert details.locator("img").count() == 0
    assert panel.evaluate(HARM) == []
    lab.screenshot("hostile-busy")

    gate.touch()

    expect(panel).to_have_count(0, timeout=30_000)
    expect(lab.output(2)).to_contain_text("Failed")
    picture = lab.output(2).locator(".jp-RenderedHTML").first
    assert picture.evaluate(HARM) == []
    notebook = lab.save("hostile.ipynb")
    before = flow_runs(lab)

    # Untrusted: somebody else's notebook. Opening it shows the same picture, and runs nothing.
    notebook.metadata["changed"] = True
    nbformat.write(notebook, lab.server.root / "untrusted.ipynb")
    lab.open_notebook("untrusted.ipynb")
    expect(lab.output(2)).to_contain_text("Failed")
    assert lab.output(2).locator(".jp-mod-trusted").count() == 0
    assert lab.output(2).locator(".jp-RenderedHTML").first.evaluate(HARM) == []
    assert lab.page.evaluate("() => window.pnbHit") is None

    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    lab.page.goto("about:blank")
    lab.page.set_content(f"<!doctype html><body>{page}")
    outputs = lab.page.locator(".jp-RenderedHTMLCommon, .output_html").last
    expect(outputs).to_contain_text("Failed")
    assert outputs.evaluate(HARM) == []
    assert lab.page.evaluate("() => window.pnbHit") is None
    assert dialogs == []
    assert flow_runs(lab) == before
