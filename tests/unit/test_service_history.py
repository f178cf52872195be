"""Finding, listing and reading runs."""

import threading
from uuid import UUID

import pytest

from prefect_nb import flow, get_run_logger, tags, task
from prefect_nb.exceptions import ConfigurationError, InvalidMove, NotResumable, ObjectNotFound
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.service import control, history
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


def test_task_runs_as_a_tree():
    parent()
    run = next(run for run in history.flow_runs() if run.flow_name == "parent")

    first, second = history.tree(history.all_task_runs(run.id))

    assert first.run.name.startswith("outer")
    assert [node.run.name.split("-")[0] for node in first.children] == ["double"]
    assert second.run.kind == "subflow"
    assert [found.flow_name for found in history.child_flow_runs(run.id)] == ["child"]
    assert history.count_states(run.id) == ({}, {"Completed": 4})


def test_logs_with_those_of_task_runs():
    parent(5)
    run = next(run for run in history.flow_runs() if run.flow_name == "parent")
    Home.current().ledger.commit()

    assert [line.message for line in history.follow(run)] == ["n is 5", "doubling 5"]
    assert [line.message for line in history.logs(run, min_level=30)] == ["n is 5"]
    (inner,) = history.tree(history.all_task_runs(run.id))[0].children
    assert [line.message for line in history.logs(inner.run)] == ["doubling 5"]


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
    lines = history.follow(newest())
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
