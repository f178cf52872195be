"""`diff_runs` on real runs of small notebooks and flows."""

import json
import re
from pathlib import Path
from uuid import uuid4

import nbformat
import pytest

from prefect_nb import flow, log_metric, task
from prefect_nb.exceptions import ObjectNotFound
from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.model.runs import FlowRun
from prefect_nb.notebook.diff_magic import LIMIT, diff_text
from prefect_nb.service.diff import RunDiff, Timing, diff_runs
from prefect_nb.service.diff.page import diff_page, diff_part

PICTURE = """
import base64, struct, zlib
def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
rows = b"".join(b"\\0" + b"".join(bytes([255, 0, 0] if x < depth else [0, 0, 255]) for x in range(10)) for y in range(10))
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))
png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
from IPython.display import Image, display
display(Image(png))
"""
CELLS = (
    ("depth: int = 3", "parameters"),
    "from prefect_nb import task, log_metric\n@task\ndef train(depth):\n    log_metric('loss', 1 / depth)\n    return 1 / depth\nloss = train(depth)",
    "print('depth', depth)\nprint('loss', loss)",
    "import pandas as pd\npd.DataFrame({'model': ['tree', 'forest'], 'loss': [loss, 0.25]})",
    PICTURE,
    "object()",
)


def ran(path: Path, name: str, **parameters: object) -> FlowRun:
    made = Flow.from_notebook(path, output_path=path.with_name(f"{name}.ipynb"))
    state = made(**parameters, return_state=True)
    assert state.is_completed(), state.message
    Home.current().ledger.commit()
    found = Home.current().store.flow_run(state.state_details.flow_run_id)
    assert found is not None
    return found


@pytest.fixture
def runs(write) -> tuple[FlowRun, FlowRun]:
    path = write(*CELLS)
    first = ran(path, "first")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].source = "print('depth', depth)\nprint('the loss', loss)"
    del notebook.cells[5]
    nbformat.write(notebook, path)
    return first, ran(path, "second", depth=5)


def test_a_changed_parameter_and_a_changed_cell(runs: tuple[FlowRun, FlowRun], tmp_path: Path):
    diff = diff_runs(runs[0], str(runs[1].id))

    assert not diff.is_same
    assert [(c.name, c.before, c.after) for c in diff.parameters] == [("depth", "3", "5")]
    assert [c.name for c in diff.facts] == ["version"]
    assert [(c.before, c.after) for c in diff.cells] == [(3, 3), (4, 4), (5, 5), (6, None)]
    printed, table, picture, gone = diff.cells
    assert printed.source == (" print('depth', depth)", "-print('loss', loss)", "+print('the loss', loss)")
    assert [output.kind for output in printed.outputs] == ["text"]
    assert table.source == ()
    [output] = table.outputs
    assert [(c.column, c.cells) for c in output.table.columns] == [("loss", 1)]
    assert output.table.columns[0].examples == (("0", "0.333333", "0.20"),)
    [output] = picture.outputs
    assert output.image.sizes == ("10x10", "10x10")
    assert output.image.share == pytest.approx(0.2)
    assert gone.source == ("-object()",)
    assert [(c.name, c.before, c.after) for c in diff.metrics] == [("loss (train)", "0.333333333", "0.2")]
    assert diff.tasks == ()
    assert diff.notes == ()

    text = diff_text(diff)
    assert "depth: 3 → 5" in text
    assert "      -print('loss', loss)" in text
    assert "loss [0]: 0.333333 → 0.20" in text
    assert "1 fact, 1 parameter, 4 cells, 1 metric differ" in text
    document = json.loads(json.dumps(diff.document(), default=str))
    assert document["same"] is False
    assert "before" not in document["cells"][2]["outputs"][0]["image"]

    page = diff_page(diff)
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    part = diff_part(diff, LIMIT)
    assert len(part.encode()) < LIMIT
    assert "<img" not in part
    assert "<style" not in part
    assert len(diff_part(diff, 1200).encode()) < 1200


def test_the_same_twice(write):
    path = write(*CELLS)
    diff = diff_runs(ran(path, "first"), ran(path, "second"))
    assert diff.is_same, diff
    assert "No difference" in diff_text(diff)


def test_a_tolerance(write):
    path = write(("x: float = 1.0", "parameters"), "print('x is', x)")
    one, other = ran(path, "one"), ran(path, "other", x=1.001)
    assert [output.summary for output in diff_runs(one, other).cells[0].outputs] == ["1 number, by up to 0.001 (0.1 %)"]
    assert diff_runs(one, other, rtol=0.01).cells == ()
    assert diff_runs(one, other, atol=0.01).cells == ()
    with pytest.raises(ValueError, match="0 or more"):
        diff_runs(one, other, rtol=-1)


def test_a_notebook_that_is_gone(write):
    path = write("print(1)")
    one, other = ran(path, "one"), ran(path, "other")
    assert one.output_path is not None
    Path(one.output_path).unlink()
    diff = diff_runs(one, other)
    assert diff.cells == ()
    assert "cannot be compared" in diff.notes[0]


def test_a_run_that_fails_now(write):
    path = write(("n: int = 1", "parameters"), "print(1 / n)", "x = 2")
    one = ran(path, "one")
    state = Flow.from_notebook(path, output_path=path.with_name("two.ipynb"))(n=0, return_state=True)
    Home.current().ledger.commit()
    diff = diff_runs(one, str(state.state_details.flow_run_id))
    facts = {c.name: (c.before, c.after) for c in diff.facts}
    assert facts["state"] == ("Completed", "Failed")
    assert "ZeroDivisionError" in str(facts["message"][1])
    assert [(o.kind, o.summary) for c in diff.cells for o in c.outputs] == [("error", "it fails now")]
    assert ("Completed", "NotRun") in [(c.before, c.after) for c in diff.tasks]


# Flows of Python


@task
def half(x):
    log_metric("halves", x / 2)
    return x / 2


@task
def extra():
    return 1


@flow(persist_result=True)
def work(x: float, more: bool = False):
    if more:
        extra()
    return {"half": half(x), "name": "work", "list": [1, 2, x]}


def of(state) -> str:
    Home.current().ledger.commit()
    return str(state.state_details.flow_run_id)


def test_flows_have_everything_but_cells():
    one, other = of(work(4.0, return_state=True)), of(work(6.0, more=True, return_state=True))
    diff = diff_runs(one, other)
    assert {c.name: (c.before, c.after) for c in diff.parameters} == {"x": ("4.0", "6.0"), "more": ("False", "True")}
    assert [(c.name, c.before, c.after) for c in diff.results] == [("half", "2", "3"), ("list", "2: 4", "6")]
    assert [(c.name, c.before, c.after) for c in diff.metrics] == [("halves (half)", "2", "3")]
    assert [(c.name, c.before, c.after) for c in diff.tasks] == [("extra", None, "Completed")]
    assert (diff.cells, diff.notes) == ((), ())
    assert diff_runs(one, one).is_same


def test_a_cached_task_is_told_but_is_no_difference():
    @task(cache_key_fn=lambda *_: "known", persist_result=True)
    def known():
        return 1

    @flow
    def caching():
        return known()

    one, other = of(caching(return_state=True)), of(caching(return_state=True))
    diff = diff_runs(one, other)
    assert diff.is_same
    assert [(c.name, c.before, c.after) for c in diff.cached] == [("known", "Completed", "Cached")]


def test_runs_of_different_flows():
    @flow
    def other():
        pass

    diff = diff_runs(of(work(1.0, return_state=True)), of(other(return_state=True)))
    assert "different flows" in diff.notes[0]
    assert [(c.before, c.after) for c in diff.facts if c.name == "flow"] == [("work", "other")]


def test_no_such_run():
    with pytest.raises(ObjectNotFound, match="no flow run"):
        diff_runs("none-such", "nor-this")


def test_lengths_of_time_in_words():
    assert Timing("train", 1_000_000, 3_200_000).words == "1.0 s → 3.2 s (3.2 times as long)"
    assert Timing("train", 3_000_000, 1_000_000).words == "3.0 s → 1.0 s (3 times as fast)"


def test_only_what_is_more_than_noise_is_a_timing(monkeypatch: pytest.MonkeyPatch):
    from prefect_nb.service.diff import comparing as service

    lengths = iter([10_000_000, 12_000_000, 100_000, 500_000, 1_000_000, 2_000_000])
    monkeypatch.setattr(service, "_took", lambda run: next(lengths))
    comparison = service._Comparison.__new__(service._Comparison)
    run = FlowRun(id=uuid4(), name="r")
    comparison._runs = (run, run)
    comparison._below = ({"a": run, "b": run}, {"a": run, "b": run})
    assert [one.name for one in comparison._timings()] == ["b"]


def test_hostile_names_and_texts_do_no_harm(write):
    path = write("print('<script>alert(1)</script>', 1)", name="evil")
    one = ran(path, "one")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = "print('<script>alert(2)</script>\\x1b]0;title\\x07', '\\u202e')"
    nbformat.write(notebook, path)
    diff: RunDiff = diff_runs(one, ran(path, "two"))
    for page in (diff_page(diff), diff_part(diff, LIMIT)):
        assert "<script" not in page
        assert "\u202e" not in page
    assert "\x1b" not in diff_text(diff)
