"""`prefect_nb.runtime`: facts about the run, inside and outside."""

import datetime
import importlib

import pytest

from prefect_nb import flow, runtime, tags, task
from prefect_nb.context import FlowRunContext, TaskRunContext, get_run_context
from prefect_nb.exceptions import MissingContextError
from prefect_nb.home import Home
from prefect_nb.testing import prefect_test_harness


@pytest.mark.parametrize(
    ("subject", "fact", "expected"),
    [
        ("flow_run", "id", None),
        ("flow_run", "name", None),
        ("flow_run", "flow_name", None),
        ("flow_run", "flow_version", None),
        ("flow_run", "parameters", {}),
        ("flow_run", "tags", []),
        ("flow_run", "run_count", 0),
        ("flow_run", "parent_flow_run_id", None),
        ("flow_run", "root_flow_run_id", None),
        ("task_run", "id", None),
        ("task_run", "name", None),
        ("task_run", "task_name", None),
        ("task_run", "parameters", {}),
        ("task_run", "tags", []),
        ("task_run", "run_count", 0),
        ("deployment", "id", None),
        ("deployment", "name", None),
        ("deployment", "version", None),
        ("deployment", "flow_run_id", None),
    ],
)
def test_outside_a_run(subject, fact, expected):
    module = importlib.import_module(f"prefect_nb.runtime.{subject}")
    assert getattr(module, fact) == expected
    assert getattr(getattr(runtime, subject), fact) == expected
    assert fact in dir(module)


def test_the_scheduled_start_outside_a_run_is_now():
    start = runtime.flow_run.scheduled_start_time
    assert abs(datetime.datetime.now(datetime.UTC) - start) < datetime.timedelta(seconds=30)


@pytest.mark.parametrize("subject", ["flow_run", "task_run", "deployment"])
def test_an_unknown_fact(subject):
    with pytest.raises(AttributeError, match="nope"):
        getattr(getattr(runtime, subject), "nope")  # noqa: B009


def test_inside_a_flow(history):
    seen = {}

    @flow(version="v7", flow_run_name="run of {x}")
    def my_flow(x: int, y=2):
        for fact in (
            "id",
            "name",
            "flow_name",
            "flow_version",
            "parameters",
            "tags",
            "run_count",
            "parent_flow_run_id",
        ):
            seen[fact] = getattr(runtime.flow_run, fact)
        seen["start"] = runtime.flow_run.scheduled_start_time
        seen["deployment"] = (runtime.deployment.id, runtime.deployment.flow_run_id)

    with tags("a", "b"):
        my_flow("1")
    (run,) = history.flow_runs()
    assert seen.pop("start") == run.expected_start_time
    assert seen.pop("deployment") == (None, str(run.id))
    assert sorted(seen.pop("tags")) == ["a", "b"]
    assert seen == {
        "id": str(run.id),
        "name": "run of 1",
        "flow_name": "my-flow",
        "flow_version": "v7",
        "parameters": {"x": 1, "y": 2},
        "run_count": 1,
        "parent_flow_run_id": None,
    }


@pytest.mark.parametrize("how", ["call", "submit", "outside"])
def test_inside_a_task(how, history):
    @task(name="my task", tags=["own"], task_run_name="run of {x}")
    def t(x, y=2):
        facts = ("id", "name", "task_name", "parameters", "tags", "run_count")
        return {fact: getattr(runtime.task_run, fact) for fact in facts} | {"flow": runtime.flow_run.id}

    @flow
    def f():
        return {"seen": t(1) if how == "call" else t.submit(1).result()}

    seen = t(1) if how == "outside" else f()["seen"]
    (run,) = history.task_runs()
    assert seen == {
        "id": str(run.id),
        "name": "run of 1",
        "task_name": "my task",
        "parameters": {"x": 1, "y": 2},
        "tags": ["own"],
        "run_count": 1,
        "flow": None if how == "outside" else str(run.flow_run_id),
    }


def test_a_task_sees_upstream_values_in_its_parameters():
    @task
    def one():
        return 1

    @task
    def t(x):
        return runtime.task_run.parameters

    @flow
    def f():
        return {"seen": t.submit([one.submit()]).result()}

    assert f() == {"seen": {"x": [1]}}


def test_a_sub_flow_in_a_task_has_no_task_run_of_its_own():
    @flow
    def child():
        return {"task": runtime.task_run.id, "flow": runtime.flow_run.flow_name}

    @task
    def t():
        inside = child()
        return inside, runtime.task_run.id is not None

    @flow
    def parent():
        return {"seen": t()}

    inside, has_task = parent()["seen"]
    assert inside == {"task": None, "flow": "child"}
    assert has_task


def test_afterwards_it_is_empty_again():
    @flow
    def f():
        raise ValueError

    f(return_state=True)
    assert runtime.flow_run.id is None
    assert FlowRunContext.get() is None


def test_contexts():
    @task
    def t(x):
        context = get_run_context()
        assert isinstance(context, TaskRunContext)
        return context.task.name, context.task_run.name, context.parameters, FlowRunContext.get().flow_run.id

    @flow
    def f(y):
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        assert TaskRunContext.get() is None
        return {"flow": (context.flow.name, context.parameters, context.flow_run.id), "task": t(1)}

    seen = f(2)
    name, parameters, flow_run_id = seen["flow"]
    assert (name, parameters) == ("f", {"y": 2})
    assert seen["task"][0] == "t"
    assert seen["task"][1].startswith("t-")
    assert seen["task"][2:] == ({"x": 1}, flow_run_id)


def test_no_context():
    with pytest.raises(MissingContextError):
        get_run_context()
    assert FlowRunContext.get() is None
    assert TaskRunContext.get() is None


async def test_inside_async_runs():
    @task
    async def t():
        return runtime.task_run.task_name, runtime.flow_run.flow_name

    @flow
    async def f():
        return {"seen": await t(), "submitted": t.submit().result()}

    assert await f() == {"seen": ("t", "f"), "submitted": ("t", "f")}


def test_the_test_harness_is_a_home_of_its_own():
    @flow
    def f():
        pass

    before = Home.current().path
    with prefect_test_harness() as path:
        f()
        assert Home.current().path == path
        assert path.exists()
    assert not path.exists()
    assert Home.current().path == before
