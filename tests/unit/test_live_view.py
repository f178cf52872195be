"""The live view: what it remembers, how often it draws, and what it leaves behind, with fake screens and in a kernel."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from uuid import UUID

import pytest
from jupyter_client.manager import start_new_kernel

import prefect_nb
from prefect_nb.interfaces import Entry
from prefect_nb.model.events import Renamed
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.notebook.screens import WIDGET, NotebookScreen, script
from prefect_nb.notebook.view import LiveView, make_view
from prefect_nb.notebook.view_board import PREVIEW, ROWS, Board
from prefect_nb.notebook.view_payload import payload

ROOT = UUID(int=1)
START = 1_700_000_000_000_000
COMPLETED, FAILED, RUNNING, PENDING = (
    StateType.COMPLETED,
    StateType.FAILED,
    StateType.RUNNING,
    StateType.PENDING,
)


def entry(run):
    return Entry(run, Renamed(run.id, START, run.name), None)


def flow(type_=RUNNING, id=ROOT, **changes):
    return entry(
        FlowRun(id=id, name="otter", flow_name="etl", state_type=type_, state_name=type_.capitalize(), **changes)
    )


def task(number, type_=RUNNING, flow_run_id=ROOT, **changes):
    return entry(
        TaskRun(
            id=UUID(int=1000 + number),
            name=f"task-{number}",
            flow_run_id=flow_run_id,
            state_type=type_,
            **{"state_name": type_.capitalize(), **changes},
        )
    )


def names(runs):
    return [run.name for run in runs]


def shown(board):
    """The runs that are shown, over all groups."""
    return [run for group in board.picture(START).groups for run in group.rows]


class TestBoard:
    def test_only_the_flow_run_and_what_is_below_it(self):
        board = Board(ROOT)
        child, grandchild, stranger = UUID(int=2), UUID(int=3), UUID(int=4)
        board.absorb([task(0, flow_run_id=child), flow(), task(1), task(2, flow_run_id=None)])
        board.absorb([flow(id=child, root_flow_run_id=ROOT, parent_flow_run_id=ROOT), task(3, flow_run_id=child)])
        board.absorb([flow(id=grandchild, parent_flow_run_id=child), task(4, flow_run_id=grandchild)])
        board.absorb([flow(id=stranger, root_flow_run_id=stranger), task(5, flow_run_id=stranger)])
        board.absorb([flow(id=UUID(int=5), parent_flow_run_id=stranger, root_flow_run_id=stranger)])
        picture = board.picture(START)
        assert picture.flow_run.id == ROOT
        assert [run.id for run in picture.children] == [child, grandchild]
        assert names(picture.task_runs) == ["task-1", "task-3", "task-4"]

    def test_the_newest_snapshot_of_each_run_counts(self):
        board = Board(ROOT)
        board.absorb([flow(), task(1, PENDING), task(2, PENDING)])
        board.absorb([task(2), task(1), task(2, COMPLETED), task(1, COMPLETED, state_name="Cached")])
        picture = board.picture(START)
        assert names(shown(board)) == ["task-1", "task-2"]
        assert list(picture.counts) == [(COMPLETED, "Cached", 1), (COMPLETED, "Completed", 1)]

    def test_of_many_the_running_the_failed_and_the_newest_are_listed(self):
        board = Board(ROOT)
        board.absorb([flow(), *(task(n, PENDING, task_key="t") for n in range(5000))])
        board.absorb([task(n, COMPLETED) for n in range(3000)])
        board.absorb([task(7, FAILED), task(9, FAILED), task(3000), task(3001), task(42, COMPLETED)])
        assert len(shown(board)) == PREVIEW
        board.want([0])
        rows = names(shown(board))
        assert len(rows) == ROWS
        assert rows[:6] == ["task-3000", "task-3001", "task-9", "task-7", "task-42", "task-2999"]

    def test_running_and_failed_do_not_crowd_each_other_out(self):
        board = Board(ROOT)
        board.absorb([flow(), *(task(n, FAILED, task_key="t") for n in range(1000))])
        board.absorb([task(n, task_key="t") for n in range(1000, 2000)])
        board.want([0])
        rows = shown(board)
        assert [sum(run.state_type is type_ for run in rows) for type_ in (RUNNING, FAILED)] == [100, 100]

    def test_a_run_taken_up_again_leaves_its_place(self):
        board = Board(ROOT)
        board.absorb([flow(), *(task(n, COMPLETED, task_key="t") for n in range(300)), task(5, FAILED), task(5)])
        assert names(shown(board))[0] == "task-5"
        assert names(shown(board)).count("task-5") == 1
        assert list(board.picture(START).counts) == [(RUNNING, "Running", 1), (COMPLETED, "Completed", 299)]

    @pytest.mark.parametrize(
        ("type_", "settled"), [(RUNNING, False), (COMPLETED, True), (FAILED, True), (StateType.PAUSED, True)]
    )
    def test_settled_while_nothing_more_is_to_come(self, type_, settled):
        board = Board(ROOT)
        board.absorb([flow(COMPLETED), flow(type_)])
        assert board.settled.is_set() is settled


class Output:
    """A fake output area: what was displayed, then every replacement."""

    def __init__(self, broken=False):
        self.bundles = []
        self.broken = broken

    def show(self, bundle):
        self.bundles.append(bundle)
        return self

    def update(self, bundle, *, raw):
        assert raw
        if self.broken:
            raise OSError("the kernel is shutting down")
        self.bundles.append(bundle)


class FakePanel:
    model_id = "model"

    def __init__(self, data):
        self.sent = []
        self.data = data
        self.closed_after = None

    def __setattr__(self, name, value):
        if name == "data":
            self.sent.append(json.loads(value))
        super().__setattr__(name, value)

    def close(self):
        self.closed_after = len(self.output.bundles)


class Stage:
    """A view with a fake clock and a fake output."""

    def __init__(self, widgets=True, open_panel=None, viewed=False):
        self.time = 100.0
        self.output = Output()
        self.panels = []
        opener = open_panel or self.open_panel
        screen = NotebookScreen(widgets, show=self.output.show, open_panel=opener, viewed=viewed)
        self.view = LiveView(ROOT, screen, clock=lambda: self.time, now_us=lambda: START + int(self.time * 1e6))

    def open_panel(self, data, place):
        self.panels.append(FakePanel(data))
        self.panels[-1].place = place
        self.panels[-1].output = self.output
        return self.panels[-1]

    def at(self, time, *entries):
        self.time = time
        self.view.committed(entries)
        self.view.tick()


def test_a_short_run_shows_one_line_and_then_its_picture():
    stage = Stage()
    stage.view.start(ticking=False)
    stage.at(100.49, flow(), task(1))
    stage.at(100.499, task(1, COMPLETED), flow(COMPLETED))
    stage.view.finish()
    line, picture = stage.output.bundles
    assert line["text/html"].count("<p") == 1
    assert "Completed" in picture["text/html"]
    assert set(picture) == {"text/html", "text/plain"}
    assert stage.panels == []


def test_a_longer_run_gets_one_widget_fed_at_most_ten_times_a_second():
    stage = Stage()
    stage.view.start(ticking=False)
    for step in range(300):
        stage.at(100 + step / 100, flow(), task(step, COMPLETED))
    (panel,) = stage.panels
    assert 23 <= len(panel.sent) <= 26
    assert panel.sent[0]["total"] == 51
    assert panel.sent[-1]["total"] > 290
    (start,) = stage.output.bundles
    assert set(start) == {"text/html", "text/plain"}
    assert f'data-pnb-place="{panel.place}"' in start["text/html"]


def test_where_a_widget_must_be_displayed_it_is():
    stage = Stage(viewed=True)
    stage.view.start(ticking=False)
    stage.at(101, flow(), task(1))
    stage.at(102, flow(COMPLETED))
    stage.view.finish()
    assert [WIDGET in bundle for bundle in stage.output.bundles] == [False, True, False]
    assert {"text/html", "text/plain"} < set(stage.output.bundles[1])
    assert "data-pnb-place" not in "".join(bundle["text/html"] for bundle in stage.output.bundles)


def test_without_changes_durations_move_once_a_second():
    stage = Stage()
    stage.view.start(ticking=False)
    stage.at(100.5, flow(start_us=START + 100_000_000))
    for tenth in range(1, 31):
        stage.at(100.5 + tenth / 10)
    assert [picture["took"] for picture in stage.panels[0].sent] == ["500 ms", "1.5 s", "2.5 s", "3.5 s"]


def test_the_end_replaces_everything_and_leaves_the_panel_right():
    stage = Stage()
    stage.view.start(ticking=False)
    stage.at(101, flow(), task(1))
    stage.view.committed([task(1, FAILED, state_message="boom"), flow(FAILED, state_message="1 failed")])
    stage.view.finish()
    last = stage.output.bundles[-1]
    assert set(last) == {"text/html", "text/plain"}
    assert "✗</span>\N{NO-BREAK SPACE}Failed" in last["text/html"]
    assert "boom" in last["text/plain"]
    assert "data-pnb-place" not in last["text/html"]
    assert stage.panels[0].sent[-1]["state"] == ["FAILED", "Failed"]
    assert len(stage.output.bundles) == 2
    stage.at(200, task(2))
    stage.view.finish()
    assert len(stage.output.bundles) == 2


def test_without_widgets_the_html_is_replaced_every_two_seconds():
    stage = Stage(widgets=False)
    stage.view.start(ticking=False)
    for step in range(60):
        stage.at(100 + step / 10, flow(), task(step))
    assert stage.panels == []
    assert len(stage.output.bundles) == 1 + 3
    assert all(set(bundle) == {"text/html", "text/plain"} for bundle in stage.output.bundles)


def test_when_the_widget_cannot_be_made_html_takes_its_place():
    def missing(data, place):
        raise ImportError("no anywidget")

    stage = Stage(open_panel=missing)
    stage.view.start(ticking=False)
    for step in range(60):
        stage.at(100 + step / 10, flow(), task(step))
    stage.view.committed([flow(COMPLETED)])
    stage.view.finish()
    assert len(stage.output.bundles) == 1 + 3 + 1
    assert not any(WIDGET in bundle for bundle in stage.output.bundles)


def test_when_the_widget_breaks_midway_html_takes_its_place():
    stage = Stage()
    stage.view.start(ticking=False)
    stage.at(101, flow(), task(1))
    stage.panels[0].sent = None  # the next feed raises
    stage.at(102, task(2))
    assert stage.panels[0].closed_after is not None
    assert "task-2" in stage.output.bundles[-1]["text/plain"]
    assert WIDGET not in stage.output.bundles[-1]


def test_a_view_that_cannot_draw_harms_nobody_and_still_tries_the_end():
    stage = Stage(widgets=False)
    stage.view.start(ticking=False)
    stage.output.broken = True
    stage.at(101, flow(), task(1))
    stage.at(105, task(2))
    stage.output.broken = False
    stage.at(110, task(3), flow(COMPLETED))
    stage.view.finish()
    assert len(stage.output.bundles) == 2
    assert "task-3" in stage.output.bundles[-1]["text/plain"]

    stage.output.broken = True
    again = LiveView(ROOT, NotebookScreen(False, show=stage.output.show))
    again.committed([flow(COMPLETED)])
    again.start()
    again.finish()


def test_the_end_waits_for_the_last_commit_to_be_published():
    stage = Stage(widgets=False)
    stage.view.start(ticking=False)
    stage.view.committed([flow()])
    ending = threading.Thread(target=stage.view.finish)
    ending.start()
    stage.view.committed([flow(COMPLETED)])
    ending.join(timeout=10)
    assert "Completed" in stage.output.bundles[-1]["text/plain"]


def test_the_ticker_thread_ends_with_the_view():
    stage = Stage()
    stage.view.committed([flow(COMPLETED)])
    stage.view.start()
    (ticker,) = [thread for thread in threading.enumerate() if thread.name == "prefect_nb-view"]
    assert ticker.daemon
    stage.view.finish()
    ticker.join(timeout=10)
    assert not ticker.is_alive()


def test_the_payload_is_small_and_clean():
    board = Board(ROOT)
    hostile = "<b>\x1b[31m\u202e\ud800" + "x" * 100_000
    board.absorb([flow(state_message=hostile), *(task(n, state_message=hostile) for n in range(5000))])
    data = payload(board.picture(START))
    assert len(data) < 100_000
    picture = json.loads(data)
    assert len(picture["items"]) == ROWS
    assert picture["more"] == 4800
    assert picture["counted"] == "0 of 5,000 task runs done"
    assert picture["message"].startswith("<b>\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}xx")


def test_the_script_makes_text_only():
    static = Path(prefect_nb.__file__).parent / "notebook" / "static"
    text = script().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    for dangerous in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "eval(",
        "Function(",
        ".onclick",
        "http",
        "srcdoc",
    ):
        assert dangerous not in text
    assert "prefers-reduced-motion" in (static / "view.css").read_text()


def test_no_view_outside_ipython():
    code = "import uuid; from prefect_nb.notebook.view import make_view; print(make_view(uuid.uuid4()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=True)
    assert done.stdout == "None\n"
    assert make_view(ROOT) is None


# What the kernel and the terminal below run: a flow run of fake entries.
STORY = """
import time
from uuid import UUID
from prefect_nb.interfaces import Entry
from prefect_nb.model.events import Renamed
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.notebook.view import make_view

def entry(cls, number, type_, **more):
    run = cls(id=UUID(int=number), name=f"run-{number}", state_type=type_, state_name=type_.capitalize(), **more)
    return Entry(run, Renamed(run.id, 0, run.name), None)

def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

view = make_view(UUID(int=1))
view.start()
view.committed([entry(FlowRun, 1, StateType.RUNNING, flow_name="etl")])
view.committed([entry(TaskRun, n, StateType.RUNNING, flow_run_id=UUID(int=1)) for n in range(2, 5)])
"""
ENDING = """
view.committed([entry(FlowRun, 1, StateType.COMPLETED, flow_name="etl")])
view.finish()
"""


def _environment():
    return {**os.environ, "PYTHONPATH": str(Path(prefect_nb.__file__).parents[1])}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    private = tmp_path_factory.mktemp("ipython")
    manager, client = start_new_kernel(
        startup_timeout=60, env={**_environment(), "IPYTHONDIR": str(private)}, stderr=subprocess.DEVNULL
    )
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_cell(client, code, allow_stdin):
    messages = []
    reply = client.execute_interactive(code, allow_stdin=allow_stdin, output_hook=messages.append, timeout=60)
    assert reply["content"]["status"] == "ok", reply["content"]
    shown = [m for m in messages if m["msg_type"] in ("display_data", "update_display_data")]
    assert [m["msg_type"] for m in shown] == ["display_data"] + ["update_display_data"] * (len(shown) - 1)
    assert len({m["content"]["transient"]["display_id"] for m in shown}) == 1
    assert not [m for m in messages if m["msg_type"] in ("stream", "error")]
    return [m["content"]["data"] for m in shown], [m for m in messages if m["msg_type"].startswith("comm_")]


def test_in_a_kernel_with_somebody_there_the_widget_lives_while_the_cell_is_busy(kernel):
    code = (
        STORY
        + "until(lambda: view._screen._panel is not None)\n"
        + "view.committed([entry(TaskRun, 2, StateType.COMPLETED, flow_run_id=UUID(int=1))])\n"
        + "until(lambda: b'1 of 3' in view._screen._panel.data)\n"
        + ENDING
    )
    bundles, comms = run_cell(kernel, code, allow_stdin=True)
    assert [set(bundle) for bundle in bundles] == [{"text/html", "text/plain"}] * 2
    assert "Completed" in bundles[1]["text/html"]
    opened = [m["content"]["data"]["state"] for m in comms if m["msg_type"] == "comm_open"]
    (place,) = [state["place"] for state in opened if "place" in state]
    assert f'data-pnb-place="{place}"' in bundles[0]["text/html"]
    fed = [bytes(b) for m in comms if m["msg_type"] == "comm_msg" for b in m["buffers"]]
    assert any(json.loads(data)["counted"] == "1 of 3 task runs done" for data in fed)
    assert json.loads(fed[-1])["state"] == ["COMPLETED", "Completed"]


def test_in_a_kernel_run_by_a_program_html_is_updated_and_no_widget_is_made(kernel):
    bundles, comms = run_cell(kernel, STORY + "until(lambda: view._drawn_version > 0)\n" + ENDING, allow_stdin=False)
    assert len(bundles) == 3
    assert all(set(bundle) == {"text/html", "text/plain"} for bundle in bundles)
    assert comms == []


def test_what_the_ticker_shows_belongs_to_the_cell_that_started_the_run(kernel):
    (line,), _ = run_cell(kernel, STORY, allow_stdin=True)
    assert WIDGET not in line
    later = []
    # Only messages of its own cell reach the hook.
    kernel.execute_interactive(
        "until(lambda: view._screen._panel is not None)", allow_stdin=True, output_hook=later.append, timeout=60
    )
    assert {message["msg_type"] for message in later} == {"status", "execute_input"}
    kernel.execute_interactive(ENDING, output_hook=later.append, timeout=60)
    (picture,) = [message["content"] for message in later if message["msg_type"] == "update_display_data"]
    assert "Completed" in picture["data"]["text/plain"]


def test_the_widgets_of_a_kernel_do_not_pile_up(kernel):
    code = STORY + "until(lambda: view._screen._panel is not None)\n" + ENDING
    run_cell(
        kernel, "import prefect_nb.notebook.screens as screens; screens.KEPT = 1; print(end='')" + "\n" + code, True
    )
    opened, closed = set(), set()
    for _ in range(3):
        _, comms = run_cell(kernel, code, allow_stdin=True)
        opened |= {message["content"]["comm_id"] for message in comms if message["msg_type"] == "comm_open"}
        closed |= {message["content"]["comm_id"] for message in comms if message["msg_type"] == "comm_close"}
    assert len(opened - closed) == 2  # a panel and its layout


def test_in_a_terminal_one_block_of_text_is_printed_at_the_end(tmp_path):
    script = STORY + "print('working')\n" + ENDING
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", script],
        capture_output=True,
        text=True,
        env={**_environment(), "IPYTHONDIR": str(tmp_path)},
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["working", "✓ Completed  flow 'etl', run 'run-1'"]
    assert len(lines) == 2 + 1 + 3
