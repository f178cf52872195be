"""Run logs: loggers, prints, and where lines go."""

# ruff: noqa: T201  # what is printed is the subject
import logging

import pytest

from prefect_nb import flow, get_run_logger, task
from prefect_nb.exceptions import MissingContextError
from prefect_nb.logging import disable_run_logger, get_logger


def messages(history, name="prefect."):
    return [line.message for line in history.logs() if line.name.startswith(name)]


def test_a_flows_logger(history):
    @flow
    def f():
        get_run_logger().info("hello %s", "flow")

    state = f(return_state=True)
    (line,) = history.logs()
    assert (line.name, line.level, line.message) == ("prefect.flow_runs", logging.INFO, "hello flow")
    assert line.flow_run_id == state.state_details.flow_run_id
    assert line.task_run_id is None


@pytest.mark.parametrize("how", ["call", "submit", "outside"])
def test_a_tasks_logger(how, history):
    @task
    def t():
        get_run_logger().warning("hello task")

    @flow
    def f():
        t() if how == "call" else t.submit().wait()

    t() if how == "outside" else f()
    (line,) = history.logs()
    (run,) = history.task_runs()
    assert (line.name, line.level, line.message) == ("prefect.task_runs", logging.WARNING, "hello task")
    assert line.task_run_id == run.id
    assert line.flow_run_id == run.flow_run_id


def test_outside_a_run():
    with pytest.raises(MissingContextError):
        get_run_logger()


def test_a_disabled_run_logger():
    @task
    def t():
        get_run_logger().info("nobody hears")
        return 1

    with disable_run_logger():
        assert t.fn() == 1
    with pytest.raises(MissingContextError):
        t.fn()


def test_get_logger():
    assert get_logger().name == "prefect"
    assert get_logger("mine").name == "prefect.mine"
    assert get_logger("prefect.mine") is get_logger("mine")


def test_records_name_their_run(caplog):
    @task
    def t():
        get_run_logger().info("from task")

    @flow
    def f():
        get_run_logger().info("from flow")
        t()

    with caplog.at_level(logging.INFO, logger="prefect"):
        state = f(return_state=True)
    records = {record.message: record for record in caplog.records}
    assert records["from flow"].flow_run_id == str(state.state_details.flow_run_id)
    assert records["from flow"].flow_name == "f"
    assert records["from task"].task_name == "t"
    assert records["from task"].flow_run_id == str(state.state_details.flow_run_id)


def test_extra_fields(caplog):
    @flow
    def f():
        get_run_logger().info("with extra", extra={"mine": 5})

    with caplog.at_level(logging.INFO, logger="prefect"):
        f()
    assert next(record for record in caplog.records if record.message == "with extra").mine == 5


def test_prints_are_not_logged_by_default(history, capsys):
    @flow
    def f():
        print("plain")

    f()
    assert "plain" in capsys.readouterr().out
    assert messages(history) == []


def test_prints_of_a_flow_are_logged(history):
    @flow(log_prints=True)
    def f():
        print("one", 2, sep="-")

    f()
    (line,) = history.logs()
    assert (line.name, line.level, line.message) == ("prefect.flow_runs", logging.INFO, "one-2")


@pytest.mark.parametrize("how", ["call", "submit", "outside"])
def test_prints_of_a_task_are_logged(how, history):
    @task(log_prints=True)
    def t():
        print("from task")

    @flow
    def f():
        print("from flow")
        t() if how == "call" else t.submit().wait()

    t() if how == "outside" else f()
    (line,) = history.logs()
    assert (line.name, line.message) == ("prefect.task_runs", "from task")


@pytest.mark.parametrize(
    ("flow_says", "task_says", "expected"),
    [
        (None, None, []),
        (True, None, ["flow", "task"]),
        (True, False, ["flow"]),
        (False, True, ["task"]),
        (None, True, ["task"]),
    ],
)
@pytest.mark.parametrize("how", ["call", "submit"])
def test_a_task_inherits_from_its_flow(flow_says, task_says, expected, how, history):
    @task(log_prints=task_says)
    def t():
        print("task")

    @flow(log_prints=flow_says)
    def f():
        print("flow")
        t() if how == "call" else t.submit().wait()

    f()
    assert messages(history) == expected


@pytest.mark.parametrize(
    ("parent_says", "child_says", "expected"), [(True, None, ["c"]), (True, False, []), (None, True, ["c"])]
)
def test_a_sub_flow_inherits_from_its_parent(parent_says, child_says, expected, history):
    @flow(log_prints=child_says)
    def child():
        print("c")

    @flow(log_prints=parent_says)
    def parent():
        child()

    parent()
    assert messages(history) == expected


@pytest.mark.parametrize(
    ("setting", "own", "expected"), [("true", None, ["x", "x"]), ("true", False, []), ("false", True, ["x", "x"])]
)
def test_the_setting_is_the_last_word_asked(setting, own, expected, monkeypatch, history):
    monkeypatch.setenv("PREFECT_LOGGING_LOG_PRINTS", setting)

    @flow(log_prints=own)
    def f():
        print("x")

    @task(log_prints=own)
    def t():
        print("x")

    f()
    t()
    assert messages(history) == expected


def test_a_nested_task_inherits_from_the_task_around_it(history):
    @task
    def inner():
        print("inner")

    @task(log_prints=True)
    def outer():
        inner()

    outer()
    assert messages(history) == ["inner"]


def test_prints_to_a_file_are_left_alone(history, tmp_path):
    @flow(log_prints=True)
    def f():
        with (tmp_path / "x").open("w") as file:
            print("to a file", file=file)

    f()
    assert messages(history) == []
    assert (tmp_path / "x").read_text() == "to a file\n"


def test_prints_after_the_run_are_prints_again(history, capsys):
    @flow(log_prints=True)
    def f():
        pass

    f()
    print("afterwards")
    assert capsys.readouterr().out == "afterwards\n"
    assert messages(history) == []


async def test_prints_of_async_runs(history):
    @task
    async def t():
        print("task")

    @flow(log_prints=True)
    async def f():
        print("flow")
        await t()

    await f()
    assert messages(history) == ["flow", "task"]


def test_lines_are_in_order(history):
    @flow
    def f():
        for n in range(20):
            get_run_logger().info("line %d", n)

    f()
    assert messages(history) == [f"line {n}" for n in range(20)]


def test_lines_of_submitted_tasks_belong_to_their_runs(history):
    @task
    def t(n):
        get_run_logger().info("%d", n)

    @flow
    def f():
        futures = t.map(range(5))
        futures.wait()
        return {"ids": [future.task_run_id for future in futures]}

    ids = f()["ids"]
    assert {line.task_run_id: line.message for line in history.logs()} == {id: str(n) for n, id in enumerate(ids)}
