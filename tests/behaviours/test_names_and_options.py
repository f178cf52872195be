"""Names, tags, options, and what can be decorated."""

import datetime
import inspect
import re

import pytest

from prefect_nb import Flow, Task, flow, tags, task
from prefect_nb.cache_policies import INPUTS
from prefect_nb.exceptions import InvalidNameError
from prefect_nb.task_runners import ThreadPoolTaskRunner


def test_the_decorated_things():
    @task
    def t():
        """What it does."""

    @flow
    def f():
        """What it does."""

    assert isinstance(t, Task)
    assert isinstance(f, Flow)
    for thing in (t, f):
        assert thing.__doc__ == "What it does."
        assert thing.description == "What it does."
        assert thing.__name__ in {"t", "f"}
        assert thing.fn() is None
    assert (t.name, f.name) == ("t", "f")


def test_decorators_with_and_without_arguments():
    assert task(lambda: 1)() == 1
    assert task()(lambda: 1)() == 1
    assert task(name="x")(lambda: 1).name == "x"
    assert flow(lambda: 1)() == 1
    assert flow(name="x")(lambda: 1).name == "x"
    assert Task(fn=lambda: 1, name="y").name == "y"
    assert Flow(fn=lambda: 1, name="y").name == "y"


def test_default_names():
    @flow
    def my_daily_flow():
        pass

    @task
    def my_task():
        pass

    assert my_daily_flow.name == "my-daily-flow"
    assert my_task.name == "my_task"
    assert flow(lambda: None).name == "unknown-lambda"
    assert task(lambda: None).name == "unknown-lambda"


@pytest.mark.parametrize("character", list("/%&><"))
def test_names_a_flow_cannot_have(character):
    with pytest.raises(InvalidNameError, match=re.escape(character)):
        flow(name=f"my{character}flow")(lambda: None)


@pytest.mark.parametrize("name", [5, True, object()])
def test_a_flows_name_is_text(name):
    with pytest.raises(TypeError, match="name"):
        flow(name=name)(lambda: None)


def test_a_flows_version_is_its_files_hash():
    @flow
    def f():
        pass

    @flow
    def g():
        pass

    assert f.version
    assert f.version == g.version
    assert flow(version="v1")(lambda: None).version == "v1"


def test_run_names(history):
    @task
    def tt():
        pass

    @flow
    def f():
        tt()
        tt.submit().wait()

    tt()
    f()
    outside, inside, submitted = history.task_runs()
    (run,) = history.flow_runs()
    assert outside.name == "tt"
    assert re.fullmatch(r"tt-[0-9a-f]{3}", inside.name)
    assert re.fullmatch(r"tt-[0-9a-f]{3}", submitted.name)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", run.name)


@pytest.mark.parametrize("how", ["call", "submit"])
def test_run_names_from_templates(how, history):
    @task(task_run_name="clean {table} {options[a]} {day:%A}")
    def t(table, options, day=datetime.date(2024, 5, 1)):
        pass

    @flow(flow_run_name="report {x}-{y}")
    def f(x, y=2):
        if how == "call":
            t("wine", {"a": 1})
        else:
            t.submit("wine", {"a": 1}).wait()

    f(1)
    assert history.task_runs()[0].name == "clean wine 1 Wednesday"
    assert history.flow_runs()[0].name == "report 1-2"


def test_a_run_name_over_an_upstream_value(history):
    @task
    def make():
        return "value"

    @task(task_run_name="use {x}")
    def use(x):
        pass

    @flow
    def f():
        use.submit(make.submit()).wait()

    f()
    assert history.task_runs()[1].name == "use value"


def test_a_run_name_from_a_callable(history):
    @task(task_run_name=lambda: "computed")
    def t():
        pass

    def named(parameters):
        return f"x is {parameters['x']}"

    @flow(flow_run_name=named)
    def f(x):
        t()

    f(3)
    assert history.task_runs()[0].name == "computed"
    assert history.flow_runs()[0].name == "x is 3"


def test_a_callable_sees_the_run(history):
    from prefect_nb import runtime

    @flow(flow_run_name=lambda: f"{runtime.flow_run.flow_name} with {runtime.flow_run.parameters['x']}")
    def f(x):
        t(x)

    @task(task_run_name=lambda: f"{runtime.task_run.task_name} with {runtime.task_run.parameters['x']}")
    def t(x):
        pass

    f(3)
    assert history.flow_runs()[0].name == "f with 3"
    assert history.task_runs()[0].name == "t with 3"


@pytest.mark.parametrize("value", [5, None, ["x"]])
def test_a_callable_must_give_text(value):
    @task(task_run_name=lambda: value)
    def t():
        pass

    @flow(flow_run_name=lambda: value)
    def f():
        pass

    with pytest.raises(TypeError, match="string"):
        t()
    with pytest.raises(TypeError, match="string"):
        f()


def test_with_options_of_a_task():
    @task(name="old", tags=["a"], retries=3, cache_policy=INPUTS, persist_result=True, timeout_seconds=5)
    def t(x):
        """Doc."""
        return x

    changed = t.with_options(name="new", retries=1)
    assert changed is not t
    assert (changed.name, changed.retries, changed.tags, changed.cache_policy) == ("new", 1, {"a"}, INPUTS)
    assert (changed.persist_result, changed.timeout_seconds, changed.description) == (True, 5.0, "Doc.")
    assert changed.task_key == t.task_key
    assert changed.fn is t.fn
    assert (t.name, t.retries) == ("old", 3)
    assert changed(2) == 2


def test_with_options_of_a_task_empty_values():
    @task(tags=["a"], retries=3, retry_delay_seconds=5, refresh_cache=True)
    def t():
        pass

    assert t.with_options(tags=[]).tags == {"a"}
    assert t.with_options(tags=["b"]).tags == {"b"}
    assert t.with_options(retries=0).retries == 0
    assert t.with_options(retry_delay_seconds=0).retry_delay_seconds == 0
    assert t.with_options(refresh_cache=False).refresh_cache is False


def test_with_options_of_a_flow():
    @flow(name="old", version="1", retries=2, timeout_seconds=3, log_prints=True)
    def f(x: int):
        return x

    changed = f.with_options(name="new", retries=0, validate_parameters=False, task_runner=ThreadPoolTaskRunner(2))
    assert (changed.name, changed.retries, changed.version) == ("new", 0, "1")
    assert (changed.timeout_seconds, changed.log_prints) == (3.0, True)
    assert changed.task_runner == ThreadPoolTaskRunner(2)
    assert changed("5") == "5"
    assert f("5") == 5
    assert (f.name, f.retries) == ("old", 2)


@pytest.mark.parametrize("make", [task, flow])
def test_options_that_with_options_takes_back(make):
    work = make(persist_result=True, log_prints=True, result_serializer="json", timeout_seconds=5)(lambda: None)
    bare = work.with_options(persist_result=None, log_prints=None, result_serializer=None, timeout_seconds=0)
    assert (bare.persist_result, bare.log_prints, bare.result_serializer, bare.timeout_seconds) == (None,) * 4
    same = work.with_options(timeout_seconds=None, retries=None)
    assert (same.timeout_seconds, same.retries) == (5.0, 0)


@pytest.mark.parametrize("make", [task, flow])
def test_an_unknown_option(make):
    with pytest.raises(TypeError, match="nope"):
        make(lambda: None).with_options(nope=1)
    with pytest.raises(TypeError, match="nope"):
        make(nope=1)(lambda: None)


@pytest.mark.parametrize("make", [task, flow])
def test_what_is_not_callable(make):
    with pytest.raises(TypeError, match="'fn' must be callable"):
        make(5)


def test_task_keys():
    def make(text):
        namespace = {"__name__": "somewhere"}
        exec(f"def same():\n    return {text}", namespace)
        return task(namespace["same"])

    assert make("1").task_key != make("2").task_key
    assert make("1").task_key == make("1").task_key
    assert "same" in make("1").task_key


def test_tags_union_into_the_runs_inside(history):
    @task(tags=["own"])
    def t():
        pass

    @flow
    def f():
        t()
        with tags("inner"):
            t.submit().wait()

    with tags("outer", "more") as current:
        assert current == {"outer", "more"}
        with tags("nested"):
            f()
        assert f.with_options(name="f2").name == "f2"
    f()
    first, second, third, _ = history.task_runs()
    assert [set(run.tags) for run in history.flow_runs()] == [{"outer", "more", "nested"}, set()]
    assert set(first.tags) == {"own", "outer", "more", "nested"}
    assert set(second.tags) == {"own", "outer", "more", "nested", "inner"}
    assert set(third.tags) == {"own"}
    assert t.tags == {"own"}


def test_tags_reach_sub_flows(history):
    @flow
    def child():
        pass

    @flow
    def parent():
        with tags("for the child"):
            child()

    parent()
    assert {run.flow_name: run.tags for run in history.flow_runs()} == {"parent": (), "child": ("for the child",)}


class Worker:
    factor = 3

    @task
    def task_method(self, x):
        return x * self.factor

    @flow
    def flow_method(self, x: int):
        return self.task_method(x)

    @flow
    @staticmethod
    def static_inside(x: int):
        return x

    @staticmethod
    @flow
    def static_outside(x: int):
        return x

    @flow
    @classmethod
    def class_inside(cls, x: int):
        return cls.factor * x

    @classmethod
    @flow
    def class_outside(cls, x: int):
        return cls.factor * x

    @task
    @classmethod
    def task_class(cls, x):
        return cls.factor * x

    @task
    @staticmethod
    def task_static(x):
        return x

    @task
    async def async_method(self, x):
        return x * self.factor


def test_methods():
    worker = Worker()
    assert worker.task_method(2) == 6
    assert worker.flow_method("2") == 6
    assert worker.task_method.submit(2).result() == 6
    assert worker.task_method.map([1, 2]).result() == [3, 6]
    worker.factor = 4
    assert worker.task_method(2) == 8
    assert Worker().task_method(2) == 6


@pytest.mark.parametrize("owner", [Worker, Worker()])
def test_static_and_class_methods(owner):
    assert owner.static_inside("2") == 2
    assert owner.static_outside("2") == 2
    assert owner.class_inside("2") == 6
    assert owner.class_outside("2") == 6
    assert owner.task_class(2) == 6
    assert owner.task_static(2) == 2


async def test_async_methods():
    assert await Worker().async_method(2) == 6


def test_self_is_no_parameter(history):
    Worker().flow_method(2)
    (run,) = history.flow_runs()
    assert run.parameters == {"x": 2}


def test_a_bound_method_can_be_decorated():
    class Plain:
        def work(self, x):
            return x + 1

    assert task(Plain().work)(1) == 2
    assert flow(Plain().work)(1) == 2


def test_a_subclass_gets_its_own_self():
    class Child(Worker):
        factor = 10

    assert Child().task_method(1) == 10
    assert Child.class_inside(1) == 10


def test_colours():
    @task
    async def at():
        pass

    @flow
    async def af():
        pass

    assert at.isasync
    assert af.isasync
    assert not task(lambda: None).isasync
    coroutine = af()
    assert inspect.iscoroutine(coroutine)
    coroutine.close()


def test_a_runs_name_that_cannot_be_filled_in():
    @task(task_run_name="{missing}")
    def t():
        pass

    with pytest.raises(ValueError, match="missing"):
        t()
