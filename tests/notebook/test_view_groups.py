"""What the view makes of runs: groups and their counts, the graph, what is left, and payloads that stay small."""

import json
import time
from uuid import UUID

import pytest
from msgspec.structs import replace

from prefect_nb.interfaces import Entry
from prefect_nb.model.events import Renamed
from prefect_nb.model.runs import FlowRun, ResultReference, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.notebook.html import mimebundle_of
from prefect_nb.notebook.picture import left_text
from prefect_nb.notebook.view_board import PREVIEW, ROWS, Board
from prefect_nb.notebook.view_graph import HEIGHT, graph_of
from prefect_nb.notebook.view_payload import PayloadWriter, payload

START = 1_700_000_000_000_000
SECOND = 1_000_000
ROOT, CHILD = UUID(int=1), UUID(int=2)
COMPLETED, FAILED, RUNNING, PENDING = StateType.COMPLETED, StateType.FAILED, StateType.RUNNING, StateType.PENDING


def flow(type_=RUNNING, id=ROOT, **more):
    values = {"name": "otter", "flow_name": "etl", "start_us": START, "state_name": type_.capitalize()}
    return FlowRun(id=id, state_type=type_, **values | more)


def task(number, of, type_=PENDING, sources=(), **more):
    values = {
        "id": UUID(int=1000 + number),
        "name": f"{of}-{number}",
        "task_key": f"{of}-0123abcd",
        "flow_run_id": ROOT,
        "state_type": type_,
        "state_name": type_.capitalize(),
        "start_us": None if type_ is PENDING else START,
        "state_us": START,
        "end_us": START + SECOND if type_ in (COMPLETED, FAILED) else None,
        "task_inputs": {"x": [{"input_type": "task_run", "id": str(UUID(int=1000 + one))} for one in sources]}
        if sources
        else {},
    }
    return TaskRun(**values | more)


def board_of(*runs):
    board = Board(ROOT)
    board.put([flow(), *runs])
    return board


def sent(board, now_us=START, **known):
    return json.loads(payload(replace(board.picture(now_us), **known)))


def test_the_runs_of_a_mapped_task_are_one_group_with_counts():
    board = board_of(task(0, "load", COMPLETED), *(task(n, "square") for n in range(1, 101)))
    board.put(
        [*(task(n, "square", COMPLETED) for n in range(1, 51)), task(51, "square", FAILED), task(52, "square", RUNNING)]
    )
    load, squares = sent(board)["items"]
    assert (load["kind"], load["row"][3]) == ("task", "load-0")
    assert (squares["kind"], squares["name"], squares["total"]) == ("map", "square", 100)
    assert squares["state"] == ["RUNNING", "Running"]
    assert squares["counts"] == [
        ["FAILED", 1, "Failed"],
        ["RUNNING", 1, "Running"],
        ["PENDING", 48, "Pending"],
        ["COMPLETED", 50, "Completed"],
    ]
    assert [row[1] for row in squares["rows"][:2]] == ["RUNNING", "FAILED"]
    assert len(squares["rows"]) == PREVIEW
    board.want([1])
    assert len(sent(board)["items"][1]["rows"]) == 100


def test_what_is_sent_does_not_grow_with_the_number_of_runs():
    board = board_of(*(task(n, "square") for n in range(20_000)))
    board.want([0])
    data = payload(board.picture(START))
    assert len(data) < 30_000
    assert len(json.loads(data)["items"][0]["rows"]) == ROWS
    many = board_of(*(task(n, f"task{n}") for n in range(3000)), task(5, "task5", RUNNING))
    data = payload(many.picture(START))
    assert len(data) < 80_000
    shown = json.loads(data)
    assert (len(shown["items"]), shown["more"], shown["graph"]) == (ROWS, 2800, None)
    assert shown["items"][0]["row"][3] == "task5-5"


def test_a_drawing_costs_what_changed_and_not_what_there_is():
    """A thousand times as many runs may not make a drawing ten times as slow."""

    def cost(runs):
        board, writer = board_of(*(task(n, "square", COMPLETED) for n in range(runs))), PayloadWriter()
        writer.write(board.picture(START))
        best = float("inf")
        for round_ in range(20):
            board.absorb([Entry(run := task(round_, "square", FAILED), Renamed(run.id, START, run.name), None)])
            began = time.perf_counter()
            writer.write(board.picture(START + round_ * 2 * SECOND))
            best = min(best, time.perf_counter() - began)
        return best

    assert cost(20_000) < 10 * cost(20)


def test_rows_of_a_large_group_hold_still_for_a_second_and_show_their_new_states():
    board = board_of(*(task(n, "square") for n in range(1000)))
    names = [row[3] for row in sent(board)["items"][0]["rows"]]
    board.put([task(n, "square", RUNNING) for n in range(500)])
    board.put([task(999, "square", COMPLETED)])
    rows = sent(board, START + SECOND // 2)["items"][0]["rows"]
    assert [row[3] for row in rows] == names
    assert rows[0][1] == "COMPLETED"
    assert sent(board, START + SECOND)["items"][0]["rows"][0][3] == "square-0"


def test_a_child_flow_run_is_a_group_with_its_own_runs_below_it():
    stand_in = task(7, "subflow", kind="subflow", name="inner")
    child = flow(id=CHILD, parent_flow_run_id=ROOT, parent_task_run_id=stand_in.id, flow_name="inner", name="fox")
    board = board_of(task(1, "load"), stand_in, child, task(2, "clean", flow_run_id=CHILD), task(3, "save"))
    picture = sent(board)
    assert [(item["kind"], item["depth"]) for item in picture["items"]] == [
        ("task", 0),
        ("flow", 0),
        ("task", 1),
        ("task", 0),
    ]
    assert picture["items"][1]["called"] == "fox"
    assert picture["total"] == 3  # what stands for the child computes nothing


def test_edges_come_from_what_the_runs_record_of_their_inputs():
    stand_in = task(4, "subflow", kind="subflow", sources=(3,))
    child = flow(id=CHILD, parent_flow_run_id=ROOT, parent_task_run_id=stand_in.id)
    of_child = {"x": [{"input_type": "flow_run", "id": str(CHILD)}]}
    board = board_of(
        task(1, "load"),
        *(task(n, "square", sources=(1,)) for n in range(10, 15)),
        task(3, "total", sources=range(10, 15)),
        stand_in,
        child,
        task(
            5,
            "report",
            task_inputs={**of_child, "__parents__": [{"input_type": "task_run", "id": str(UUID(int=1001))}]},
        ),
    )
    groups = board.picture(START).groups
    graph = graph_of(groups)
    assert graph.edges == [(0, 1), (1, 2), (2, 3), (3, 4)]
    lefts = [graph.boxes[number][0] for number in range(5)]
    assert lefts == sorted(set(lefts))
    shown = sent(board)["graph"]
    assert [box["name"] for box in shown["boxes"]][1] == "square × 5"
    assert shown["boxes"][1]["shares"] == [["PENDING", 5]]
    assert len(shown["lines"]) == 4


def test_boxes_do_not_overlap_and_the_layout_is_the_same_every_time():
    runs = [task(n, f"t{n}", sources=[one for one in (n // 2, n // 3) if 0 < one < n]) for n in range(1, 41)]
    graph = graph_of(board_of(*runs).picture(START).groups)
    assert graph == graph_of(board_of(*runs).picture(START).groups)
    boxes = list(graph.boxes.values())
    for place, (x, y, width) in enumerate(boxes):
        assert x >= 0
        assert x + width <= graph.width
        assert 0 <= y <= graph.height - HEIGHT
        for other_x, other_y, other_width in boxes[place + 1 :]:
            apart = x + width <= other_x or other_x + other_width <= x or abs(y - other_y) >= HEIGHT
            assert apart
    for source, target in graph.edges:
        assert graph.boxes[source][0] < graph.boxes[target][0]


@pytest.mark.parametrize("count", [61, 300])
def test_a_graph_of_too_many_tasks_is_left_out(count):
    board = board_of(*(task(n, f"t{n}", sources=(n - 1,) if n else ()) for n in range(count)))
    assert sent(board)["graph"] is None
    assert "<img" not in mimebundle_of(board.picture(START))["text/html"]


def test_tasks_in_a_loop_have_no_endless_graph():
    board = board_of(task(1, "a"), task(2, "b", sources=(1,)), task(3, "a", sources=(2,)), task(4, "b", sources=(3,)))
    assert graph_of(board.picture(START).groups).edges == [(0, 1)]


def test_what_is_left_comes_from_past_runs_and_from_the_pace():
    now = START + 10 * SECOND
    board = board_of(
        task(1, "train", RUNNING, state_us=START + 2 * SECOND),
        *(task(n, "square", COMPLETED) for n in range(10, 30)),
        *(task(n, "square") for n in range(30, 70)),
    )
    usual = {"train-0123abcd": 20 * SECOND, "": 60 * SECOND}
    shown = sent(board, now, usual_us=usual)
    assert shown["left"] == "~50 s left"
    assert shown["items"][0]["row"][6] == "~12 s left"
    assert shown["items"][1]["left"] == "~20 s left"  # 20 of 60 in ten seconds
    assert sent(board, now)["left"] == "~20 s left"
    assert sent(board, now)["items"][0]["row"][6] == ""
    assert left_text(999_999) == left_text(None) == ""
    assert left_text(600 * SECOND) == "~10 m 00 s left"


def test_a_cached_run_says_how_old_its_result_is():
    computed = UUID(int=((START // 1000 - 3 * 86_400_000) << 80) | 7)
    reference = ResultReference(sha256="0" * 64, size=1, serializer="json", source=computed)
    board = board_of(task(1, "load", COMPLETED, state_name="Cached", result=reference, start_us=None))
    assert sent(board)["items"][0]["row"][7] == "cached: the result of a run 3 days ago"


@pytest.mark.parametrize(
    ("type_", "letters"),
    [
        (PENDING, "SC"),
        (RUNNING, "RSC"),
        (FAILED, ""),
        (COMPLETED, ""),
        (StateType.CANCELLED, ""),
        (StateType.CANCELLING, ""),
        (StateType.PAUSED, "SC"),
    ],
)
def test_the_buttons_are_those_that_make_sense(type_, letters):
    assert sent(board_of(task(1, "load", type_)))["items"][0]["row"][8] == letters


def test_what_waits_for_its_retry_can_be_retried_at_once():
    run = task(1, "load", StateType.SCHEDULED, state_name="AwaitingRetry")
    assert sent(board_of(run))["items"][0]["row"][8] == "RSC"


@pytest.mark.parametrize(
    ("type_", "letters"), [(RUNNING, "PC"), (StateType.PAUSED, "UC"), (COMPLETED, ""), (StateType.CANCELLING, "")]
)
def test_the_buttons_of_the_flow_run_are_those_that_make_sense(type_, letters):
    board = board_of()
    board.put([flow(type_)])
    assert sent(board)["can"] == letters
