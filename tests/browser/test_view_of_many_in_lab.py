"""Thousands of task runs in a real JupyterLab: the page stays responsive, and what is saved stays small."""

from lab import Lab
from playwright.sync_api import expect
from view_story import line, panel_of

TASKS = """
import time
from prefect_nb import task

@task
def square(n):
    end = time.thread_time() + 0.002
    while time.thread_time() < end:
        pass
    if n % 1000 == 999:
        raise ValueError(f"no square of {n}")
    return n * n
"""

# Between two frames, and from an input event to the frame after it.
WATCH = """
() => {
  window.pnbFrames = [];
  let last = performance.now();
  const tick = (now) => { window.pnbFrames.push(now - last); last = now; window.pnbTimer = requestAnimationFrame(tick); };
  window.pnbTimer = requestAnimationFrame(tick);
}
"""
RESPONSE = """
() => new Promise((resolve) => {
  const began = performance.now();
  setTimeout(() => requestAnimationFrame(() => resolve(performance.now() - began)), 0);
})
"""


def test_five_thousand_runs_leave_the_page_responsive_and_the_notebook_small(lab: Lab):
    flow = "%%flow many --max-workers 8\nsquares = square.map(range(5000))\nsquares.wait()\nsquares = None"
    lab.write_notebook("many.ipynb", "%load_ext prefect_nb", TASKS, flow, "'over'")
    lab.open_notebook("many.ipynb")
    lab.start_all_cells()
    panel = panel_of(lab, 2)
    squares = line(lab, 2, "square × ")
    expect(squares).to_be_visible(timeout=30_000)
    lab.screenshot("many-busy")
    squares.click()
    expect(line(lab, 2, "square-").nth(100)).to_be_attached(timeout=20_000)  # more than what is sent unasked
    expect(line(lab, 2, "more")).to_have_count(1)
    lab.page.evaluate(WATCH)
    responses = [lab.page.evaluate(RESPONSE) for _ in range(20)]
    before = panel.get_by_role("progressbar").get_attribute("aria-valuenow")
    lab.page.wait_for_function(
        "([node, before]) => node.getAttribute('aria-valuenow') !== before",
        arg=[panel.get_by_role("progressbar").element_handle(), before],
    )
    expect(squares).to_contain_text("left", timeout=20_000)  # an estimate, from the pace so far
    assert panel.locator("tr").count() < 250

    expect(lab.output(3)).to_contain_text("'over'", timeout=90_000)
    frames = lab.page.evaluate("() => { cancelAnimationFrame(window.pnbTimer); return window.pnbFrames; }")
    frames.sort()
    assert max(responses) < 200
    assert frames[len(frames) * 99 // 100] < 200
    lab.screenshot("many-done")
    (picture,) = [one.data for one in lab.save("many.ipynb").cells[2].outputs if "text/html" in one.get("data", {})]
    assert sum(len(text.encode()) for text in picture.values()) < 20_000
    assert "5,000 task runs" in picture["text/html"]
    assert "no square of" in picture["text/html"]
    assert lab.errors == []
