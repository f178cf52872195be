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

# Texts whose contrast with what is behind them is too low: 4.5 for words, 3 for glyphs, whose word stands beside them.
# The browser itself mixes the colours, on a canvas of one pixel.
CONTRASTS = r"""
(root) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const paint = (color, alpha) => {
    canvas.globalAlpha = alpha;
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return luminance(canvas.getImageData(0, 0, 1, 1).data);
  };
  const found = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const node = walker.currentNode.parentElement;
    const box = node.getBoundingClientRect();
    if (!text || !node.checkVisibility({ opacityProperty: true }) || box.width <= 1) continue;
    const above = [];
    for (let one = node; one; one = one.parentElement) above.unshift(one);
    let opacity = 1;
    let ground = paint("white", 1);
    for (const one of above) {
      const style = getComputedStyle(one);
      opacity *= Number(style.opacity);
      ground = paint(style.backgroundColor, opacity);
    }
    const style = getComputedStyle(node);
    const card = node.namespaceURI.endsWith("svg") && node.closest("g")?.querySelector(".pnb-card");
    if (card) ground = paint(getComputedStyle(card).fill, 1);
    const ink = paint(node.namespaceURI.endsWith("svg") ? style.fill : style.color, opacity);
    const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    const least = /^[^\p{L}\p{N}]{1,2}$/u.test(text) ? 3 : 4.5;
    if (contrast < least) found.push(`${text.slice(0, 40)} (${node.className || node.tagName}): ${contrast.toFixed(2)}`);
  }
  return found;
}
"""


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
