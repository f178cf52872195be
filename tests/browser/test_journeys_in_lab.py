"""What a person does with a `%%flow` cell in a real JupyterLab: options, Ctrl-C, the buttons of a row, colours."""

from pathlib import Path

import pytest
from lab import Lab
from playwright.sync_api import expect
from view_story import CONTRASTS, THEMES, line, panel_of, show_theme

LOAD = "%load_ext prefect_nb"
SECONDS = 30_000
TASKS = """
import asyncio, pathlib, time
from prefect_nb import get_run_logger, task
from prefect_nb.cache_policies import INPUTS

@task
def double(n):
    return 2 * n

@task
async def fetch(n):
    await asyncio.sleep(0)
    return n + 1

@task
def gated(path):
    get_run_logger().info("waiting for %s", pathlib.Path(path).name)
    while not pathlib.Path(path).exists():
        time.sleep(0.02)
    return "open"

@task
def careful(path):
    try:
        while True:
            time.sleep(0.02)
    finally:
        pathlib.Path(path).write_text("tidied up")

@task
def deaf(path):
    while not pathlib.Path(path).exists():
        try:
            time.sleep(0.02)
        except BaseException:
            pass

tried = set()

@task(task_run_name="{name}", retries=1, retry_delay_seconds=600)
def flaky(name):
    if name not in tried:
        tried.add(name)
        raise ConnectionError(f"no answer from {name}")
    return "answered"

@task(task_run_name="{name}")
def endless(name):
    while True:
        time.sleep(0.02)

@task(task_run_name="{name}", retries=1, retry_delay_seconds=600)
async def aflaky(name):
    return flaky.fn(name)

@task(task_run_name="{name}")
async def aendless(name):
    await asyncio.sleep(600)

@task
def broken(n):
    raise ValueError(f"no square of {n}")

@task(cache_policy=INPUTS, persist_result=True)
def cached(n):
    print("computed")
    return n
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that tasks wait for."""
    return tmp_path / "gate"


def test_options_awaiting_bodies_and_the_lines_of_errors(lab: Lab):
    lab.write_notebook(
        "options.ipynb",
        LOAD,
        TASKS + "df = [1, 2, 3, 4]\ntries = []",
        "%%flow totals -r 2 --timeout 10m -p n=3 -p df=@df -o run\n"
        "tries.append(n)\nif len(tries) < 3:\n    raise ConnectionError('not yet')\ndouble(n) * len(df)",
        "(run.flow_name, run.state.name, tries)",
        "%%flow later\nanswer = await fetch(41)\nanswer",
        "answer",
        "%%flow wrong\nfirst = double(1)\n\nsecond = first / 0\nthird = second",
        "%%flow wrong-later\nfirst = await fetch(1)\nsecond = first + 'two'",
    )
    lab.open_notebook("options.ipynb")

    lab.run_cells(*range(8))

    expect(lab.output(2)).to_contain_text("24", timeout=SECONDS)
    expect(lab.output(3)).to_contain_text("('totals', 'Completed', [3, 3, 3])")
    expect(lab.output(5)).to_contain_text("42")
    expect(lab.output(6)).to_contain_text("----> 4 second = first / 0")
    expect(lab.output(7)).to_contain_text("----> 3 second = first + 'two'")
    lab.output(6).scroll_into_view_if_needed()
    lab.screenshot("options-errors")
    for cell in (6, 7):  # the person's own lines, and none of what runs them
        expect(lab.output(cell)).not_to_contain_text("site-packages")
        expect(lab.output(cell)).not_to_contain_text("prefect_nb/")
    assert lab.errors == []


def test_the_stop_button_asks_kindly_once_and_then_does_not_wait(lab: Lab, gate: Path, tmp_path: Path):
    kind = tmp_path / "kind"
    lab.write_notebook(
        "stop.ipynb",
        LOAD,
        TASKS,
        f"%%flow kindly -o first\nheld = careful.submit({str(kind)!r})",
        f"%%flow stubborn -o second\nheld = deaf.submit({str(gate)!r})",
        "%%flow after\ndouble(21)",
        "(first.state.name, second.state.name)",
    )
    lab.open_notebook("stop.ipynb")
    lab.run_cells(0, 1)
    stop = lab.page.get_by_role("button", name="Interrupt the kernel")

    lab.start_cell(2)
    expect(line(lab, 2, "careful-")).to_be_visible(timeout=SECONDS)
    stop.click()
    expect(lab.output(2)).to_contain_text("is Cancelled: Interrupted from the keyboard.", timeout=SECONDS)
    assert kind.read_text() == "tidied up"
    expect(lab.cell(2).locator(".jp-InputPrompt")).to_have_text("[3]:")  # before that, the kernel drops what comes

    lab.start_cell(3)
    expect(line(lab, 3, "deaf-")).to_be_visible(timeout=SECONDS)
    stop.click()
    expect(panel_of(lab, 3)).to_contain_text("Cancelling", timeout=SECONDS)
    expect(panel_of(lab, 3)).to_contain_text("Another interrupt does not wait for that.")
    lab.screenshot("stop-asked-once")
    stop.click()
    expect(lab.output(3)).to_contain_text("is Cancelled: Interrupted from the keyboard.", timeout=4_000)
    expect(lab.cell(3).locator(".jp-InputPrompt")).to_have_text("[4]:")
    lab.screenshot("stop-asked-twice")
    assert not gate.exists()

    lab.run_cells(4, 5)
    expect(lab.output(4)).to_contain_text("42", timeout=SECONDS)
    expect(lab.output(5)).to_contain_text("('Cancelled', 'Cancelled')")
    gate.touch()
    assert lab.errors == []


# Each task has two runs: one is acted on with the mouse, one with a letter.
CONTROLLED = {
    "called": """
futures = [flaky.submit("flaky-1"), flaky.submit("flaky-2")]
futures += [endless.submit(name) for name in ("dull-1", "dull-2", "odd-1", "odd-2")]
for future in futures:
    future.wait()
states = [future.state for future in futures]""",
    "awaiting": """
calls = [aflaky(name, return_state=True) for name in ("flaky-1", "flaky-2")]
calls += [aendless(name, return_state=True) for name in ("dull-1", "dull-2", "odd-1", "odd-2")]
states = await asyncio.gather(*calls)""",
}
ASKED = [  # the button, its letter, on which rows, what is answered, what becomes of them
    ("Retry", "r", "flaky", "Waits no longer: its next attempt begins.", "Completed"),
    ("Skip", "s", "dull", "Is being skipped.", "Skipped"),
    ("Cancel", "c", "odd", "Is being cancelled.", "Cancelled"),
]
OUTCOME = "ended = [state.name for state in states]\nfutures = calls = states = future = None\ndouble(21)"


@pytest.mark.parametrize("body", CONTROLLED)
def test_rows_are_retried_skipped_and_cancelled_while_the_cell_is_busy(lab: Lab, body: str):
    lab.write_notebook("rows.ipynb", LOAD, TASKS, f"%%flow rows{CONTROLLED[body]}\n{OUTCOME}", "ended")
    lab.open_notebook("rows.ipynb")
    lab.start_all_cells()
    expect(line(lab, 2, "endless × 4")).to_be_visible(timeout=SECONDS)
    for group in ("endless × 4", "flaky × 2"):
        line(lab, 2, group).click()
    rows = {name: line(lab, 2, name) for name in ("flaky-1", "flaky-2", "dull-1", "dull-2", "odd-1", "odd-2")}
    for name in ("flaky-1", "flaky-2"):
        expect(rows[name]).to_contain_text("AwaitingRetry", timeout=SECONDS)
    lab.screenshot(f"rows-{body}-busy")

    for word, letter, name, answer, ends in ASKED:
        clicked, pressed = rows[f"{name}-1"], rows[f"{name}-2"]
        clicked.hover()
        clicked.get_by_role("button", name=f"{word} {name}-1").click()
        expect(clicked.locator(".pnb-said")).to_have_text(answer)
        if word == "Skip" and body == "called":
            for theme in ("light", "dark"):
                show_theme(lab, THEMES[theme])
                lab.screenshot(f"rows-{body}-answered-{theme}")
        pressed.focus()
        lab.page.keyboard.press(letter)
        if name != "odd":  # with the last one the cell ends
            expect(pressed).to_contain_text(ends, timeout=SECONDS)
            expect(clicked).to_contain_text(ends, timeout=SECONDS)

    expect(lab.output(3)).to_contain_text(
        "['Completed', 'Completed', 'Skipped', 'Skipped', 'Cancelled', 'Cancelled']", timeout=SECONDS
    )
    expect(lab.output(2)).to_contain_text("42")  # it went on
    lab.output(2).scroll_into_view_if_needed()
    lab.screenshot(f"rows-{body}-done")
    assert lab.errors == []


LOOKS = """%%flow looks
cached(1); cached(1)
futures = [broken.submit(1), flaky.submit("flaky"), gated.submit(GATE), *double.map(range(20))]
futures += [double.submit(futures[2])]
for future in futures[3:-1]: future.wait()
futures[2].wait()
futures = future = None
broken(2)"""


def test_text_is_readable_in_every_theme_and_nothing_depends_on_colour_or_motion(lab: Lab, gate: Path):
    lab.write_notebook("looks.ipynb", LOAD, TASKS + f"GATE = {str(gate)!r}", LOOKS)
    lab.open_notebook("looks.ipynb")
    lab.start_all_cells()
    panel = panel_of(lab, 2)
    expect(line(lab, 2, "flaky")).to_contain_text("AwaitingRetry", timeout=SECONDS)
    for name in ("broken-", "gated-", "double × 21"):
        line(lab, 2, name).click()
    expect(panel.get_by_role("region", name="Details of broken-")).to_contain_text("ValueError")
    expect(panel.get_by_role("log").last).to_contain_text("waiting for gate")
    line(lab, 2, "flaky").focus()

    for name, theme in THEMES.items():
        show_theme(lab, theme)
        lab.screenshot(f"looks-{name}")
        assert panel.evaluate(CONTRASTS) == [], name
        panel.get_by_role("button", name="Graph").click()
        assert panel.evaluate(CONTRASTS) == [], name
        panel.get_by_role("button", name="Table").click()

    show_theme(lab, THEMES["light"])
    lab.page.emulate_media(forced_colors="active", reduced_motion="reduce")
    lab.screenshot("looks-forced-colors")
    assert panel.locator(".pnb-part").first.evaluate("part => getComputedStyle(part).transitionDuration") == "0s"
    panel.get_by_role("button", name="Graph").click()
    lab.screenshot("looks-forced-colors-graph")
    lab.page.emulate_media(forced_colors="none", reduced_motion="no-preference")

    gate.touch()
    lab.page.keyboard.press("Escape")
    panel.get_by_role("button", name="Table").click()
    line(lab, 2, "flaky").focus()
    lab.page.keyboard.press("r")
    expect(panel).to_have_count(0, timeout=SECONDS)
    picture = lab.output(2).locator(".jp-RenderedHTML").first
    for name, theme in THEMES.items():
        show_theme(lab, theme)
        picture.scroll_into_view_if_needed()
        lab.screenshot(f"looks-done-{name}")
        assert picture.evaluate(CONTRASTS) == [], name
    assert lab.errors == []


CHATTY = """
from IPython.display import HTML, display

@task(task_run_name="{name}")
def tell(name, path):
    print(name, "begins")
    display(HTML(f"<i>figure of {name}</i>"))
    while not pathlib.Path(path).exists():
        time.sleep(0.02)
    print(name, "ends")
"""


def test_what_tasks_print_stands_under_their_rows_and_stays(lab: Lab, gate: Path):
    cell = f"%%flow talk\nprint('the flow speaks')\ntell.map(['north', 'south'], {str(gate)!r}).wait()"
    lab.write_notebook("talk.ipynb", LOAD, TASKS + CHATTY, cell)
    lab.open_notebook("talk.ipynb")
    lab.start_all_cells()
    line(lab, 2, "tell × 2").click(timeout=SECONDS)
    line(lab, 2, "south").click()
    south = panel_of(lab, 2).get_by_role("region", name="Details of south")
    expect(south).to_contain_text("south begins")
    expect(south.locator("i")).to_have_text("figure of south")
    expect(south).not_to_contain_text("north")
    expect(line(lab, 2, "north")).to_contain_text("north begins")  # its newest line, beside it while it runs
    expect(lab.output(2).locator("pre", has_text="the flow speaks")).to_be_visible()
    expect(lab.output(2).locator("i", has_text="figure of north")).to_be_visible()  # displays are under the cell, too
    expect(lab.output(2).locator("pre", has_text="begins")).to_have_count(1)  # prints are not
    lab.output(2).scroll_into_view_if_needed()
    lab.screenshot("outputs-busy")

    gate.touch()

    expect(panel_of(lab, 2)).to_have_count(0, timeout=SECONDS)
    expect(lab.output(2)).to_contain_text("north ends")
    lab.screenshot("outputs-done")
    saved = str(lab.save("talk.ipynb").cells[2].outputs)
    for text in ("the flow speaks", "north begins", "south ends", "<i>figure of north</i>"):
        assert text in saved

    gate.unlink()
    lab.start_cell(2)
    expect(line(lab, 2, "tell × 2")).to_be_visible(timeout=SECONDS)
    lab.save("talk.ipynb")
    lab.page.reload()
    lab.page.locator(".jp-NotebookPanel:visible").wait_for()
    expect(lab.output(2)).to_contain_text("%runs")
    gate.touch()
    expect(panel_of(lab, 2)).to_contain_text("Completed", timeout=SECONDS)
    line(lab, 2, "tell × 2").click()
    line(lab, 2, "south").click()
    expect(south).to_contain_text("south begins")
    expect(south).to_contain_text("south ends")
    lab.screenshot("outputs-after-reload")
    assert lab.errors == []
