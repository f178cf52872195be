"""`%%flow --detach`: the cell returns at once, runs beside the notebook, and its queue can be seen and edited."""

import re
from pathlib import Path

import pytest
from kernels import Kernel, Outcome

TASKS = """
import pathlib, time
from prefect_nb import task
from prefect_nb.notebook.detached import queue_of
queue = queue_of(get_ipython())

def wait_for(path):
    while not pathlib.Path(path).exists():
        time.sleep(0.01)

@task
def gated(path, value):
    wait_for(path)
    return value
"""


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    kernel.run(TASKS)
    return kernel


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file that `gated` waits for."""
    return tmp_path / "gate"


def detach(notebook: Kernel, options: str, body: str) -> tuple[str, Outcome]:
    request = notebook.start(f"%%flow {options} --detach\n{body}", watched=True)
    return request, notebook.end_of(request)


def ends_with(word: str):
    return lambda outcome: any(word in bundle["text/plain"] for bundle in outcome.displays)


def test_the_cell_returns_at_once_and_its_names_arrive_when_it_has_ended(notebook, gate):
    request, begun = detach(notebook, "training -o run", f"model = gated.submit({str(gate)!r}, 42)\nmodel")

    assert begun.status == "ok"
    assert notebook.run("'model' in globals(), run.wait(0), run.status in ('queued', 'running')").value == (
        "(False, False, True)"
    )

    gate.touch()
    assert notebook.run("run.result(30), model, run.state.name").value == "(42, 42, 'Completed')"
    ended = notebook.later(request, begun, ends_with("training is Completed"))
    assert ends_with("gated-")(ended), "the view of the flow run is under the cell it was started from"


def test_one_runs_after_the_other_and_sees_what_it_made(notebook, gate):
    detach(notebook, "first -o one", f"a = gated({str(gate)!r}, 1)")
    _, second = detach(notebook, "second -o two", "b = a + 1")

    assert "second is queued, 1 before it" in second.displays[0]["text/plain"]
    shown = notebook.run("%flow queue").displays[0]["text/plain"]
    assert re.search(r"^\d+ +1 +◷ Queued +second", shown, re.MULTILINE)

    gate.touch()
    notebook.run("assert two.wait(30)")
    assert notebook.run("(a, b)").value == "(1, 2)"


def test_what_the_notebook_changes_meanwhile_stays_its_own(notebook, gate):
    notebook.run("data = [1]\nkept = 'old'")
    request, begun = detach(
        notebook, "slow -o run", f"data_then = data\ngated({str(gate)!r}, 0)\nkept = 'of the run'\nnew = data"
    )
    notebook.run("import time\nwhile run.execution is None: time.sleep(0.01)")
    notebook.run("data = [2]\nkept = 'of the notebook'")

    gate.touch()

    assert notebook.run("run.result(30)\nnew, kept, run.names['kept']").value == (
        "([1], 'of the notebook', 'of the run')"
    )
    ended = notebook.later(request, begun, ends_with("slow is Completed"))
    assert any("has changed `kept` meanwhile" in bundle["text/plain"] for bundle in ended.displays)


def test_an_item_is_taken_from_the_queue_and_a_running_one_cancelled(notebook, gate):
    detach(notebook, "runs -o one", f"gated({str(gate)!r}, 1)")
    request, queued = detach(notebook, "waits -o two", "b = 1")
    notebook.run("import time\nwhile one.execution is None: time.sleep(0.01)")

    notebook.run("%flow cancel waits")
    assert notebook.run("two.status, 'b' in globals()").value == "('removed', False)"
    notebook.later(request, queued, ends_with("was taken from the queue"))
    notebook.run("%flow cancel runs")
    assert notebook.run("one.wait(30), one.state.name").value == "(True, 'Cancelled')"
    assert "InvalidMove" in notebook.run("two.result()", fails=True).ename


def test_the_order_is_changed(notebook, gate):
    detach(notebook, "runs -o one", f"order = []\ngated({str(gate)!r}, 1)")
    detach(notebook, "b -o two", "order.append('b')")
    detach(notebook, "c -o three", "order.append('c')")

    notebook.run("%flow move c 1")
    gate.touch()

    assert notebook.run("assert two.wait(30) and three.wait(30)\norder").value == "['c', 'b']"
    assert "No detached cell 'c'" in notebook.run("%flow move c 1", fails=True).stderr


def test_the_same_cell_is_not_started_twice(notebook, gate):
    body = f"gated({str(gate)!r}, 1)"
    detach(notebook, "same -o one", body)
    _, again = detach(notebook, "same -o one", body)

    assert "already" in again.stdout
    assert "--restart" in again.stdout
    detach(notebook, "same --restart -o other", body)
    gate.touch()
    assert notebook.run("assert other.wait(30)\nother.state.name").value == "'Completed'"


def test_an_error_is_shown_under_its_cell_with_its_line(notebook):
    request, begun = detach(notebook, "breaks -o run", "x = 1\nx / 0")

    ended = notebook.later(request, begun, lambda outcome: outcome.ename != "")

    assert ended.ename == "ZeroDivisionError"
    assert "x / 0" in ended.traceback
    assert notebook.run("run.state.name, x").value == "('Failed', 1)"
    assert notebook.run("run.result()", fails=True).ename == "ZeroDivisionError"


def test_a_cell_that_awaits(notebook):
    _, begun = detach(notebook, "awaits -o run", "import asyncio\nawait asyncio.sleep(0.01)\n'awaited'")

    assert begun.status == "ok"
    assert notebook.run("run.result(30)").value == "'awaited'"


def test_where_nobody_watches_the_cell_runs_at_once(notebook):
    outcome = notebook.run("%%flow headless --detach\ny = 2\ny")

    assert "nobody watches" in outcome.stdout
    assert outcome.value == "2"


def test_wait_and_clear(notebook, gate):
    detach(notebook, "runs -o one", f"gated({str(gate)!r}, 1)")
    detach(notebook, "waits -o two", "b = 1")

    notebook.run("%flow clear")
    gate.touch()
    notebook.run("%flow wait")

    assert notebook.run("one.status, two.status").value == "('ended', 'removed')"
    assert "No detached cell 'nightly'" in notebook.run("%flow cancel nightly", fails=True).stderr
