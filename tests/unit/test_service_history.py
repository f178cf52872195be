"""Finding, listing and reading runs."""

import sqlite3
import threading
from contextlib import closing
from uuid import UUID

import pytest

from prefect_nb import flow, get_run_logger, tags, task
from prefect_nb.exceptions import ConfigurationError, InvalidMove, NotResumable, ObjectNotFound
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.service import control, history, run_logs
from prefect_nb.service.documents import run_document


@task
def double(x: int) -> int:
    get_run_logger().info("doubling %d", x)
    return 2 * x


@task
def outer(x: int) -> int:
    return double(x)


@task(persist_result=True, result_serializer="json")
def kept() -> dict[str, int]:
    return {"answer": 42}


@flow
def child() -> int:
    return double(1)


@flow
def parent(n: int = 2) -> list[int]:
    get_run_logger().warning("n is %d", n)
    return [outer(n), child()]


@flow
def failing() -> None:
    raise ValueError("no")


def ids_of(runs) -> list[UUID]:
    return [run.id for run in runs]


def newest() -> FlowRun:
    Home.current().ledger.commit()
    return Home.current().store.flow_runs(RunQuery(limit=1))[0]


def test_flow_runs_are_listed_newest_first():
    for _ in range(3):
        child()

    runs = history.flow_runs(limit=2)

    assert len(runs) == 2
    assert runs[0].created_us > runs[1].created_us


def test_flow_runs_are_filtered():
    with tags("nightly"):
        child()
    failing(return_state=True)

    assert [run.flow_name for run in history.flow_runs(states=["failed"])] == ["failing"]
    assert [run.flow_name for run in history.flow_runs(states=["FAILED", "Completed"])] == ["failing", "child"]
    assert [run.flow_name for run in history.flow_runs(tags=["nightly"])] == ["child"]
    assert [run.flow_name for run in history.flow_runs(flow="child")] == ["child"]


def test_a_state_may_be_a_type_or_a_name():
    @task(persist_result=True, cache_key_fn=lambda *_: "key")
    def cached() -> int:
        return 1

    @flow
    def twice() -> None:
        cached()
        cached()
        double(1)

    twice()

    assert [run.state_name for run in history.task_runs(states=["cached"])] == ["Cached"]
    assert len(history.task_runs(states=["completed"])) == 3
    assert len(history.task_runs(states=["cached", "failed"])) == 1
    assert len(history.task_runs(states=["cached", "completed"], limit=2)) == 2


def test_a_misspelled_filter_is_explained():
    child()

    with pytest.raises(ConfigurationError, match="Did you mean 'Failed'"):
        history.flow_runs(states=["faild"])
    with pytest.raises(ObjectNotFound, match="Did you mean 'child'"):
        history.flow_runs(flow="chid")
    assert history.flow_runs(states=["Sleeping"]) == []  # a flow may return a state of any name


def test_a_flow_run_is_found_by_id_prefix_and_name():
    child()
    run = newest()

    assert history.find_flow_run(str(run.id)) == run
    assert history.find_flow_run(run.id.hex[:20]) == run
    assert history.find_flow_run(run.name) == run


def test_what_is_not_found_is_explained():
    child()
    run = newest()
    (task_run,) = history.all_task_runs(run.id)

    with pytest.raises(ObjectNotFound, match=f"Did you mean '{run.name}'"):
        history.find_flow_run(run.name[:-1])
    with pytest.raises(ObjectNotFound, match="is a task run, not a flow run"):
        history.find_flow_run(str(task_run.id))
    with pytest.raises(ObjectNotFound, match="is a flow run, not a task run"):
        history.find_task_run(str(run.id))
    with pytest.raises(ObjectNotFound, match="flow-run ls"):
        history.find_flow_run("\x1b[31mnothing\n")


def test_what_is_ambiguous_is_listed():
    named = flow(flow_run_name="same")(child.fn)
    named()
    named()
    runs = history.flow_runs()

    with pytest.raises(ConfigurationError) as caught:
        history.find_flow_run("same")

    assert all(str(run.id) in str(caught.value) for run in runs)
    assert history.handle_of(runs[0]) == str(runs[0].id)
    assert history.find_flow_run(str(runs[1].id)) == runs[1]


def newest_of(flow_name: str) -> FlowRun:
    Home.current().ledger.commit()
    return next(run for run in history.flow_runs() if run.flow_name == flow_name)


@flow
def family() -> None:
    parent(1)
    double(2)
    with_child()


@task
def with_child() -> int:
    return child()


def drawn(flow_run: FlowRun) -> list[str]:
    nodes = history.walk(history.tree(flow_run.id))
    return [
        f"{depth} {node.run.flow_name if isinstance(node.run, FlowRun) else node.run.name.split('-')[0]}"
        for depth, node in nodes
    ]


def test_what_a_flow_run_called_as_a_tree():
    family()

    assert drawn(newest_of("family")) == [
        "0 parent",
        "1 outer",
        "2 double",
        "1 child",
        "2 double",
        "0 double",
        "0 with_child",
        "1 child",
        "2 double",
    ]
    assert drawn(newest_of("parent")) == ["0 outer", "1 double", "0 child", "1 double"]


def test_a_child_flow_run_that_was_never_made_is_shown_by_what_stood_for_it():
    family()
    run = newest_of("family")
    with closing(sqlite3.connect(Home.current().path / "prefect_nb.db")) as connection, connection:
        connection.execute("UPDATE flow_run SET parent_flow_run_id = NULL WHERE flow_name = 'parent'")

    assert drawn(run)[:2] == ["0 parent", "0 double"]


def test_tasks_are_counted_over_the_whole_tree_without_stand_ins():
    family()
    run = newest_of("family")

    assert [found.flow_name for found in history.child_flow_runs(run.id)] == ["parent", "child"]
    assert sorted(found.flow_name for found in history.descendants(run.id)) == ["child", "child", "parent"]
    assert history.count_states(run.id) == ({}, {"Completed": 6})


def test_logs_of_the_whole_tree():
    family()
    run = newest_of("family")
    lines = ["n is 1", "doubling 1", "doubling 1", "doubling 2", "doubling 1"]

    assert [line.message for line in run_logs.follow(run)] == lines
    assert [line.message for line in run_logs.logs(run)] == lines
    assert [line.message for line in run_logs.logs(run, min_level=30)] == ["n is 1"]
    outer_node = history.tree(newest_of("parent").id)[0]
    assert [line.message for line in run_logs.logs(outer_node.children[0].run)] == ["doubling 1"]


def test_log_lines_name_whom_they_are_about():
    family()
    subjects = run_logs.Subjects(newest_of("parent"))
    lines = list(run_logs.logs(newest_of("family")))

    assert subjects.of(lines[0]) == ""
    assert subjects.of(lines[1]).startswith("Task run 'double-")
    of_family = run_logs.Subjects(newest_of("family")).of(lines[0])
    assert of_family == f"Flow run '{newest_of('parent').name}'"


def test_logs_longer_than_a_page_come_in_order(monkeypatch: pytest.MonkeyPatch):
    @flow
    def inner(first: int) -> None:
        for number in range(first, first + 5):
            get_run_logger().info(str(number))

    @flow
    def around() -> None:
        for first in (0, 10):
            get_run_logger().info(str(first - 1))
            inner(first)

    monkeypatch.setattr(run_logs, "_PAGE", 2)
    around()

    numbers = [int(line.message) for line in run_logs.follow(newest_of("around"))]
    assert numbers == [-1, 0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14]


def test_followed_logs_come_while_the_run_goes_on():
    told, go_on = threading.Event(), threading.Event()

    @flow
    def talking() -> None:
        get_run_logger().info("first")
        told.set()
        go_on.wait(20)
        get_run_logger().info("second")

    worker = threading.Thread(target=talking, daemon=True)
    worker.start()
    assert told.wait(20)
    lines = run_logs.follow(newest())
    assert next(lines).message == "first"
    go_on.set()

    assert [line.message for line in lines] == ["second"]
    worker.join()


def test_results_are_described_not_loaded():
    @flow
    def keeping() -> None:
        kept()
        double.with_options(persist_result=True)(3)
        double(4)

    keeping()
    texts = [history.result_text(run) for run in history.all_task_runs(newest().id)]

    assert texts == ["{'answer': 42} (json, 13 B)", "kept (pickle, 15 B)", None] or texts[0].startswith(
        "{'answer': 42}"
    )
    assert texts[1] is not None
    assert texts[1].startswith("kept (")
    assert texts[2] is None


def test_how_long_a_flow_usually_takes():
    assert history.usual_us("child") is None
    child()
    run = newest()

    assert history.usual_us("child") == run.end_us - run.start_us


def test_documents_hold_every_field_as_json():
    import json

    parent()
    flow_run = newest()
    task_run = history.task_runs(limit=1)[0]

    for run in (flow_run, task_run):
        document = json.loads(json.dumps(run_document(run)))
        assert document["id"] == str(run.id)
        assert document["state"]["type"] == "COMPLETED"
        assert document["created"].endswith("+00:00")
    assert isinstance(flow_run, FlowRun)
    assert isinstance(task_run, TaskRun)


def test_an_ended_run_cannot_be_cancelled():
    child()

    with pytest.raises(InvalidMove, match="has ended already: it is Completed"):
        control.cancel(newest())


def test_a_run_of_another_thread_is_cancelled():
    started = threading.Event()

    @task
    def waiting() -> None:
        started.set()
        for _ in range(2000):
            threading.Event().wait(0.01)

    @flow
    def long() -> None:
        waiting()

    worker = threading.Thread(target=lambda: long(return_state=True), daemon=True)
    worker.start()
    assert started.wait(20)

    assert control.cancel(newest(), wait=20, reason="Enough.").state_message == "Enough."
    worker.join()


def test_code_that_is_in_no_file_cannot_be_resumed():
    exec("@flow\ndef typed_in(): raise ValueError", namespace := {"flow": flow})
    namespace["typed_in"](return_state=True)

    with pytest.raises(NotResumable, match="its code is in no file"):
        control.resume(newest())


def test_a_completed_run_cannot_be_resumed():
    child()

    with pytest.raises(NotResumable, match="completed"):
        control.resume(newest())
