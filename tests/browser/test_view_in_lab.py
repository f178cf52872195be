"""The view under a flow cell in a real JupyterLab: it moves while the cell is busy, and ends as a picture that is saved."""

from pathlib import Path

import pytest
from lab import Lab
from playwright.sync_api import expect
from view_story import TASKS, THEMES, line, panel_of, show_theme, story

SAVED_BYTES = 20_000


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that the task `gated` waits for."""
    return tmp_path / "gate"


def test_the_view_lives_while_the_cell_is_busy_and_is_saved_as_a_picture(lab: Lab, gate: Path):
    lab.write_notebook("story.ipynb", "%load_ext prefect_nb", TASKS, story(gate), "'over'")
    lab.open_notebook("story.ipynb")
    lab.start_all_cells()
    panel = panel_of(lab, 2)

    # The table: a mapped task is one line with counts, a child flow run one with its task runs below.
    expect(panel.get_by_role("progressbar")).to_have_attribute("aria-valuetext", "15 of 16 task runs done, 1 failed")
    expect(panel.get_by_role("treegrid", name="Task runs")).to_be_visible()
    squares = line(lab, 2, "square × 12")
    expect(squares).to_have_count(1)
    expect(squares.get_by_role("img", name="1 Failed")).to_be_visible()
    expect(squares.get_by_role("img", name="11 Completed")).to_be_visible()
    expect(line(lab, 2, "report / ")).to_have_attribute("aria-level", "1")
    expect(panel.locator("tr[aria-level='2']", has_text="total-")).to_have_count(1)
    line(lab, 2, "report / ").click()
    expect(panel.locator("tr[aria-level='2']", has_text="total-")).to_have_count(0)

    # It opens: the runs of the map, then what is known of one of them.
    squares.click()
    expect(line(lab, 2, "square-")).to_have_count(12)
    broken = panel.locator("tr[data-state=FAILED]", has_text="square-")
    expect(broken).to_contain_text("seven is <b>odd</b>")
    broken.click()
    details = panel.get_by_role("region", name="Details of square-")
    expect(details).to_contain_text('raise ValueError("seven is <b>odd</b>")')
    expect(details).to_contain_text("In [2], line 24, in square")
    details.locator("summary").click()
    expect(details.locator("pre")).to_contain_text("Traceback (most recent call last)")
    line(lab, 2, "load-").click()
    expect(panel.get_by_role("log", name="Log").first).to_contain_text("loading 12 <b>rows</b>")
    for name, theme in THEMES.items():
        show_theme(lab, theme)
        panel.scroll_into_view_if_needed()
        lab.screenshot(f"busy-{name}")

    # The graph.
    panel.get_by_role("button", name="Graph").click()
    expect(panel.locator("svg .pnb-box")).to_have_count(5)
    assert panel.locator("svg .pnb-edges path").count() >= 2
    for name, theme in THEMES.items():
        show_theme(lab, theme)
        panel.scroll_into_view_if_needed()
        lab.screenshot(f"graph-{name}")
    show_theme(lab, THEMES["light"])
    panel.locator(".pnb-box", has_text="square").click()
    expect(squares).to_be_focused()

    gate.touch()

    expect(lab.output(3)).to_contain_text("'over'", timeout=30_000)
    expect(panel).to_have_count(0)
    for name, theme in THEMES.items():
        show_theme(lab, theme)
        lab.output(2).scroll_into_view_if_needed()
        lab.screenshot(f"done-{name}")
    show_theme(lab, THEMES["light"])
    (picture,) = [one.data for one in lab.save("story.ipynb").cells[2].outputs if "text/html" in one.get("data", {})]
    assert set(picture) == {"text/html", "text/plain"}
    assert sum(len(text.encode()) for text in picture.values()) < SAVED_BYTES
    assert "Completed" in picture["text/html"]
    assert "In [2], line 24, in square: raise ValueError" in picture["text/html"]
    assert "loading 12 &lt;b&gt;rows&lt;/b&gt;" in picture["text/html"]

    # An untrusted notebook, and a page that has never seen the kernel, show the picture all the same.
    lab.open_notebook("story.ipynb")
    expect(lab.output(2)).to_contain_text("Failed: square-")
    graph = lab.output(2).locator("img[alt='Graph of the tasks']")
    expect(graph).to_be_visible()
    assert graph.evaluate("image => image.complete && image.naturalWidth > 100")
    assert lab.errors == []


def test_the_keyboard_is_enough(lab: Lab, gate: Path):
    lab.write_notebook("keys.ipynb", "%load_ext prefect_nb", TASKS, story(gate), "'over'")
    lab.open_notebook("keys.ipynb")
    lab.start_all_cells()
    panel, keyboard = panel_of(lab, 2), lab.page.keyboard
    expect(line(lab, 2, "gated-")).to_be_visible(timeout=30_000)

    # The tab order: the panel's buttons, the current row, its buttons; no other row.
    panel.get_by_role("button", name="Table").focus()
    keyboard.press("Tab")
    keyboard.press("Tab")
    expect(line(lab, 2, "load-")).to_be_focused()
    assert panel.locator("tr[tabindex='0']").count() == 1

    keyboard.press("ArrowDown")
    expect(line(lab, 2, "square × 12")).to_be_focused()
    keyboard.press("ArrowRight")
    expect(line(lab, 2, "square × 12")).to_have_attribute("aria-expanded", "true")
    keyboard.press("ArrowDown")
    expect(line(lab, 2, "square-").first).to_be_focused()
    keyboard.press("Enter")
    expect(panel.get_by_role("region", name="Details of square-")).to_be_visible()
    keyboard.press("Enter")
    expect(panel.get_by_role("region", name="Details of square-")).to_have_count(0)
    keyboard.press("ArrowLeft")
    expect(line(lab, 2, "square × 12")).to_be_focused()
    keyboard.press("End")
    gated = line(lab, 2, "gated-")
    expect(gated).to_be_focused()
    keyboard.press("Tab")
    for name in ("Retry", "Skip", "Cancel"):
        button = gated.get_by_role("button", name=f"{name} gated-")
        expect(button).to_be_focused()
        assert button.evaluate("b => b.getBoundingClientRect().height >= 24 && b.offsetWidth >= 24")
        keyboard.press("Tab")

    # JupyterLab's own shortcuts stay away: R would make the cell a raw one, C copy it.
    line(lab, 2, "load-").focus()
    keyboard.press("r")
    assert lab.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.type)") == (
        ["code"] * 4
    )
    keyboard.press("Escape")
    assert lab.page.evaluate("() => document.activeElement === jupyterapp.shell.currentWidget.content.widgets[2].node")

    # C on the row cancels what runs there, and the answer is said.
    gated.focus()
    keyboard.press("c")
    expect(lab.output(2)).to_contain_text("Cancelled", timeout=30_000)
    assert lab.errors == []


def test_the_buttons_work_while_the_cell_is_busy(lab: Lab, gate: Path):
    cell = f"%%flow controlled\nfirst = gated.submit({str(gate)!r})\nfirst.wait()\nquick = load(3)\n'done'"
    lab.write_notebook("buttons.ipynb", "%load_ext prefect_nb", TASKS, cell, cell, "'over'")
    lab.open_notebook("buttons.ipynb")
    lab.start_all_cells()
    panel = panel_of(lab, 2)
    expect(line(lab, 2, "gated-")).to_be_visible(timeout=30_000)

    panel.get_by_role("button", name="Pause").click()
    expect(panel.locator(".pnb-head-actions .pnb-said")).not_to_be_empty()
    gate.touch()  # the pause takes effect before the next task run
    expect(panel.get_by_role("button", name="Resume")).to_be_visible(timeout=20_000)
    lab.screenshot("paused-light")
    panel.get_by_role("button", name="Resume").click()
    expect(lab.output(2)).to_contain_text("Completed", timeout=20_000)
    expect(lab.output(4)).to_contain_text("over", timeout=20_000)

    gate.unlink()
    lab.start_all_cells()
    panel = panel_of(lab, 2)
    expect(line(lab, 2, "gated-")).to_be_visible(timeout=30_000)
    panel.get_by_role("button", name="Cancel", exact=True).click()
    expect(lab.output(2)).to_contain_text("Cancelled", timeout=20_000)
    assert lab.errors == []


def test_a_page_that_is_loaded_again_while_the_cell_is_busy(lab: Lab, gate: Path):
    lab.write_notebook("again.ipynb", "%load_ext prefect_nb", TASKS, f"%%flow again\ngated({str(gate)!r})", "'over'")
    lab.open_notebook("again.ipynb")
    lab.start_all_cells()
    expect(line(lab, 2, "gated-")).to_be_visible(timeout=30_000)
    lab.save("again.ipynb")

    lab.page.reload()
    lab.page.locator(".jp-NotebookPanel:visible").wait_for()
    output = lab.output(2)
    expect(output).to_contain_text("%runs")  # what was saved says how to see more
    lab.screenshot("loaded-again-busy")
    gate.touch()

    # The kernel answers again, and the panel moves in.
    expect(panel_of(lab, 2)).to_contain_text("Completed", timeout=30_000)
    expect(line(lab, 2, "gated-")).to_be_visible()
    expect(lab.page.locator(".jp-NotebookPanel:visible")).not_to_contain_text("model not found")
    lab.screenshot("loaded-again-done")

    # Another process, or a notebook whose kernel is gone, has the saved line and no dead widget.
    lab.server.shut_down_kernels()
    lab.open_notebook("again.ipynb")
    expect(output).to_contain_text("Starting flow run")
    expect(lab.page.locator(".jp-NotebookPanel:visible")).not_to_contain_text("widget")


def test_a_kernel_that_is_gone(lab: Lab, gate: Path):
    lab.write_notebook("gone.ipynb", "%load_ext prefect_nb", TASKS, f"%%flow gone\ndies({str(gate)!r})", "'over'")
    lab.open_notebook("gone.ipynb")
    lab.start_all_cells()
    panel = panel_of(lab, 2)
    expect(line(lab, 2, "dies-")).to_be_visible(timeout=30_000)

    gate.touch()

    expect(panel).to_contain_text("The kernel is gone", timeout=20_000)
    cancel = panel.get_by_role("button", name="Cancel", exact=True)
    expect(cancel).to_have_attribute("aria-disabled", "true")
    expect(cancel).to_have_attribute(
        "title", "The kernel is gone. In a new one, %runs shows this run and what can be done with it."
    )
    lab.screenshot("gone-light")
    lab.page.evaluate(
        "() => jupyterapp.shell.currentWidget.content.widgets[3].model.sharedModel.setSource("
        "'%load_ext prefect_nb\\n%runs --flow gone')"
    )
    lab.page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 3; }")
    lab.command("notebook:run-cell")
    expect(lab.output(3)).to_contain_text("Crashed", timeout=30_000)


def test_a_failed_flow_is_shown_as_text_and_stops_run_all(lab: Lab):
    cell = "%%flow broken\nload(1)\nsquare(7)"
    lab.write_notebook("failing.ipynb", "%load_ext prefect_nb", TASKS, cell, "print('not reached')")
    lab.open_notebook("failing.ipynb")

    lab.start_all_cells()

    expect(lab.output(2)).to_contain_text("Failed", timeout=30_000)
    expect(lab.output(2)).to_contain_text("seven is <b>odd</b>")
    expect(lab.output(2).locator("b", has_text="odd")).to_have_count(0)
    expect(lab.output(3)).not_to_contain_text("not reached")
    lab.screenshot("failed-light")
    assert lab.errors == []
