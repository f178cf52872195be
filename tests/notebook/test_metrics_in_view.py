"""Metrics and artifacts in the view: lines while the run lives, charts and numbers in what is saved."""

import itertools
import json
import math
import re
from html.parser import HTMLParser
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_nb.interfaces import Artifact, Entry, MetricPoint
from prefect_nb.model.events import Renamed
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.notebook.charts import HEIGHT, WIDTH, charts, thinned
from prefect_nb.notebook.html import LIMIT, run_html, run_text
from prefect_nb.notebook.screens import NotebookScreen
from prefect_nb.notebook.view import LiveView
from prefect_nb.service.metrics import Series

ROOT, OTHER = UUID(int=1), UUID(int=2)
START = 1_700_000_000_000_000
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\"'\u202e\x1b[31m"
NAMES = {ROOT: "otter"}


def flow(type_=StateType.RUNNING, id=ROOT, **more):
    run = FlowRun(id=id, name="otter", flow_name="etl", state_type=type_, state_name=type_.capitalize(), **more)
    return Entry(run, Renamed(run.id, START, run.name), None)


def task(number, name=None):
    run = TaskRun(
        id=UUID(int=1000 + number),
        name=name or f"train-{number}",
        flow_run_id=ROOT,
        state_type=StateType.RUNNING,
        state_name="Running",
    )
    return Entry(run, Renamed(run.id, START, run.name), None)


def points(values, name="loss", flow_run_id=ROOT, task_run=None):
    task_run_id = task_run.run.id if task_run else None
    return [MetricPoint(START + n, name, float(v), None, flow_run_id, task_run_id) for n, v in enumerate(values)]


def line(values, **more):
    series = Series()
    for point in points(values, **more):
        series.add(point)
    return series.line()


class Output:
    def __init__(self):
        self.bundles = []

    def show(self, bundle):
        self.bundles.append(bundle)
        return self

    def update(self, bundle, *, raw):
        self.bundles.append(bundle)


class Panel:
    model_id = "model"

    def __init__(self, data):
        self.sent = []
        self.data = data

    def __setattr__(self, name, value):
        if name == "data":
            self.sent.append(json.loads(value))
        super().__setattr__(name, value)

    def close(self):
        pass


class Stage:
    """A view with a fake clock, output and widget, told what happened."""

    def __init__(self, artifacts=lambda _: ()):
        self.time = 100.0
        self.output = Output()
        self.panel = None
        screen = NotebookScreen(True, show=self.output.show, open_panel=self.open_panel)
        self.view = LiveView(ROOT, screen, lambda: self.time, lambda: START, artifacts)
        self.view.start(ticking=False)

    def open_panel(self, data, place):
        self.panel = Panel(data)
        return self.panel

    def at(self, time):
        self.time = time
        self.view.tick()


def test_lines_grow_while_the_run_lives_and_stay_in_what_is_saved():
    stage = Stage()
    train = task(1)
    stage.view.committed([flow(), train])
    stage.view.measured(points([3, 2], task_run=train))
    stage.at(100.6)
    (metric,) = stage.panel.sent[-1]["metrics"]
    assert (metric["name"], metric["left_out"]) == ("loss", 0)
    (stroke,) = metric["strokes"]
    assert (stroke["label"], stroke["values"]) == ("train-1", ["2", "2", "3", "2"])
    assert stroke["points"] == "4,4 236,52"

    stage.view.measured(points([1], task_run=train))
    stage.at(100.7)
    assert stage.panel.sent[-1]["metrics"][0]["strokes"][0]["points"] == "4,4 120,28 236,52"

    stage.view.committed([flow(StateType.COMPLETED)])
    stage.view.finish()
    saved = stage.output.bundles[-1]
    assert set(saved) == {"text/html", "text/plain"}
    assert 'points="4,4 120,28 236,52"' in saved["text/html"]
    assert "loss (train-1): last 1, least 1, greatest 3, 3 values" in saved["text/plain"]


def test_it_draws_only_when_something_arrived_and_ten_times_a_second_at_most():
    stage = Stage()
    stage.view.committed([flow()])
    for step in range(200):
        if step < 100:
            stage.view.measured(points([step]))
        stage.at(100.5 + step / 100)
    # A second of points at ten a second, then a second of silence.
    assert 10 <= len(stage.panel.sent) <= 13


def test_metrics_that_come_before_their_flow_run_is_known_are_shown():
    stage = Stage()
    stage.view.measured(points([1, 2], flow_run_id=OTHER))
    stage.view.measured(points([1], flow_run_id=UUID(int=99), name="of a stranger"))
    stage.view.committed([flow(), flow(id=OTHER, parent_flow_run_id=ROOT, root_flow_run_id=ROOT)])
    stage.at(101)
    assert [metric["name"] for metric in stage.panel.sent[-1]["metrics"]] == ["loss"]


def test_a_million_points_are_a_small_payload():
    series = Series()
    for n in range(1_000_000):
        series.add(MetricPoint(START, "loss", 500.0 if n == 654_321 else math.sin(n), n, ROOT))
    (chart,) = charts([series.line()], NAMES, 12, 8, 2000)
    assert len(chart.strokes[0].points) < 2000 * 8
    assert chart.strokes[0].values == ("-0.977352", "-1", "500", "1,000,000")
    assert ",4 " in chart.strokes[0].points  # the peak is at the top


def test_of_many_lines_those_that_moved_last_are_shown():
    lines = []
    for number in range(6):
        series = Series()
        series.add(MetricPoint(START + (number * 5) % 6, "loss", 1.0, None, ROOT, UUID(int=number)))
        lines.append(series.line())
    (chart,) = charts(lines, {UUID(int=n): f"run-{n}" for n in range(6)}, 5, 3, 100)
    assert [stroke.label for stroke in chart.strokes] == ["run-1", "run-2", "run-3"]
    assert chart.left_out == 3
    assert len({(stroke.color, stroke.dashes) for stroke in chart.strokes}) == 3


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(numbers, min_size=1, max_size=300), st.integers(4, 50))
def test_every_point_of_a_chart_is_inside_it(values, most):
    (chart,) = charts([line(values)], NAMES, 1, 1, most)
    for place in chart.strokes[0].points.split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


@given(st.lists(numbers, min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_keeps_ends_and_extremes(values, most):
    whole = list(enumerate(values))
    kept = thinned(whole, most)
    assert len(kept) <= most
    assert (kept[0], kept[-1]) == (whole[0], whole[-1])
    assert kept == sorted(kept)
    assert (min(v for _, v in kept), max(v for _, v in kept)) == (min(values), max(values))


# -- what is saved


class Page(HTMLParser):
    """Balanced tags, and every tag and attribute seen."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "img":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "svg" in self.open:
            raise AssertionError(f"a word in a chart, which would be left behind without it: {data!r}")
        self.texts.append(data)


def saved(metrics=(), artifacts=(), tasks=()):
    html = run_html(
        flow(StateType.COMPLETED).run,
        [entry.run for entry in tasks],
        now_us=START,
        metrics=metrics,
        artifacts=artifacts,
    )
    assert len(html.encode()) <= LIMIT
    return html


def artifact(**more):
    return Artifact(id=UUID(int=5), **more)


def test_nothing_reported_changes_nothing():
    assert "Metrics" not in saved()
    assert "Artifacts" not in saved()


def test_the_saved_chart_takes_its_colours_from_the_page_and_its_numbers_stand_beside_it():
    page = Page(saved([line([3, 1, 2]), line([1, 5], name="score")]))
    assert page.tags.count("polyline") == 2
    assert dict(page.attributes)["stroke"] == "currentColor"
    assert [value for name, value in page.attributes if name == "aria-label"] == [
        "loss: steps 0 to 2, values 1 to 3",
        "score: steps 0 to 1, values 1 to 5",
    ]
    text = " ".join(page.texts)
    assert "loss" in text
    assert re.search(r"otter 2 1 3 3\b", text)


def test_whatever_is_reported_the_saved_picture_is_small_and_harmless():
    tasks = [task(n, HOSTILE * 9) for n in range(30)]
    lines = [
        line([math.sin(step * n) * 1e300 for step in range(500)], name=f"{HOSTILE}{n}", task_run=entry)
        for n, entry in itertools.product(range(20), tasks)
    ]
    made = [
        artifact(key=HOSTILE, type="markdown", data=HOSTILE * 1000, description=HOSTILE * 1000),
        artifact(
            type="table", data=json.dumps([{HOSTILE * 50: HOSTILE * 50, **{str(n): n for n in range(100)}}] * 500)
        ),
        artifact(type="table", data="no table"),
        artifact(type="image", data=f"https://x/{HOSTILE}"),
        artifact(type="image", data="data:image/png;base64," + "A" * 100_000),
        artifact(type="image", data="data:image/svg+xml;base64,AAAA"),
        artifact(type="image", data="javascript:alert(1)"),
        artifact(type="rich", data={"text/html": HOSTILE}, key=HOSTILE),
        artifact(type=HOSTILE, data={"a": HOSTILE}),
        artifact(type="progress", data=None),
        artifact(type="progress", data=40.0),
    ]
    page = Page(saved(lines, made, tasks))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {"svg", "progress"} <= set(page.tags)
    text = run_text(flow().run, [], now_us=START, metrics=lines, artifacts=made)
    assert len(text.splitlines()) < 50
    assert "\x1b" not in text


@pytest.mark.parametrize("source", ["https://x/y.png", "data:image/png;base64,AAAA"])
def test_an_image_is_shown(source):
    page = Page(saved(artifacts=[artifact(type="image", data=source, description="a cat")]))
    assert dict(page.attributes)["src"] == source
    assert dict(page.attributes)["alt"] == "a cat"


def test_a_rich_object_is_named_with_how_to_see_it():
    text = "".join(Page(saved(artifacts=[artifact(type="rich", key="plot", data={"image/png": "AAAA"})])).texts)
    assert "image/png · display(Artifact.get('plot'))" in text


def test_artifacts_appear_in_the_live_view_and_move():
    made = []
    stage = Stage(lambda ids: [*made] if ids == [ROOT] else [])
    stage.view.committed([flow()])
    stage.at(100.6)
    assert stage.panel.sent[-1]["artifacts"] == []
    made.append(artifact(key="p", type="progress", data=10.0, description="d"))
    stage.at(101.7)
    assert stage.panel.sent[-1]["artifacts"] == [
        {"key": "p", "type": "progress", "about": "d · 10 %", "progress": 10.0}
    ]
    made[0] = artifact(key="p", type="progress", data=60.0, description="d")
    stage.view.committed([flow(StateType.COMPLETED)])
    stage.view.finish()
    assert '<progress max="100" value="60">' in stage.output.bundles[-1]["text/html"]


def test_a_history_that_cannot_be_read_costs_only_the_artifacts():
    def broken(ids):
        raise OSError("no disk")

    stage = Stage(broken)
    stage.view.committed([flow(StateType.COMPLETED)])
    stage.at(101)
    stage.view.finish()
    assert "Completed" in stage.output.bundles[-1]["text/html"]


def test_in_a_notebook(kernel):
    kernel.run("%load_ext prefect_nb")
    cell = """%%flow training -o done
from prefect_nb import log_metric, task
from prefect_nb.artifacts import create_markdown_artifact

@task
def train(rate):
    for step in range(5):
        log_metric("loss", rate / (step + 1), step=step)
    create_markdown_artifact("all *done*", key=f"report-{rate}")

train.map([1, 2]).wait()
log_metric("score", 0.5)
"""
    html = kernel.run(cell).html
    page = Page(html)
    assert [value for name, value in page.attributes if name == "aria-label"] == [
        "loss: steps 0 to 4, values 0.2 to 2",
        "score: steps 0 to 0, values 0.5 to 0.5",
    ]
    assert "report-1" in html
    assert len(html.encode()) <= LIMIT
    (run,) = re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]+){4}", kernel.run("str(done.id)").value)
    assert kernel.run(f"%runs {run}").html.count("<polyline") == html.count("<polyline") == 5
    looked_at = kernel.run("from prefect_nb.artifacts import Artifact\nArtifact.get('report-2')")
    assert looked_at.value.startswith("ArtifactResponse(")
