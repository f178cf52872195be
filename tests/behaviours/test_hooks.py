"""Hooks: who is called, with what, when, and what their errors do."""

import asyncio
import threading
from functools import partial

import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import CancelledRun
from prefect_nb.logging import flow_run_logger, task_run_logger
from prefect_nb.service import control
from prefect_nb.states import Failed, StateType

TASK_HOOKS = ["on_completion", "on_failure", "on_running", "on_rollback", "on_commit"]
FLOW_HOOKS = ["on_completion", "on_failure", "on_running", "on_cancellation", "on_crashed"]


class Log(list):
    """Hooks that note what they were called with."""

    def hook(self, label="hook"):
        def noted(owner, run, state):
            self.append((label, owner.name, state.name))

        return noted


@pytest.fixture
def log():
    return Log()


def test_a_tasks_hook_gets_task_run_and_state():
    seen = []

    @task(on_completion=[lambda *args: seen.append(args)])
    def t():
        return 5

    state = t(return_state=True)
    ((owner, run, given),) = seen
    assert owner is t
    assert run.id == state.state_details.task_run_id
    assert given.is_completed()
    assert given.result() == 5


def test_a_flows_hook_gets_flow_run_and_state():
    seen = []

    @flow(on_completion=[lambda *args: seen.append(args)])
    def f():
        return 5

    state = f(return_state=True)
    ((owner, run, given),) = seen
    assert owner is f
    assert run.id == state.state_details.flow_run_id
    assert given.result() == 5


@pytest.mark.parametrize("make", [task, flow])
def test_listed_hooks_come_first_then_decorated_ones(make, log):
    @make(on_completion=[log.hook("a"), log.hook("b")])
    def work():
        log.append("body")

    @work.on_completion
    def later(owner, run, state):
        log.append(("c", owner.name, state.name))

    work()
    assert log == ["body", ("a", "work", "Completed"), ("b", "work", "Completed"), ("c", "work", "Completed")]
    assert callable(later)


@pytest.mark.parametrize("make", [task, flow])
def test_hooks_by_decorator(make, log):
    failing = []

    @make
    def work():
        if failing:
            raise ValueError

    for kind in ("on_completion", "on_failure", "on_running"):
        getattr(work, kind)(log.hook(kind))
    work()
    failing.append(1)
    work(return_state=True)
    assert [entry[0] for entry in log] == ["on_running", "on_completion", "on_running", "on_failure"]


def test_on_running_of_a_task_before_each_attempt(log):
    @task(retries=2, on_running=[log.hook()])
    def t():
        log.append("body")
        raise ValueError

    t(return_state=True)
    names = [entry if entry == "body" else entry[2] for entry in log]
    assert names == ["Running", "body", "Retrying", "body", "Retrying", "body"]


def test_on_running_of_a_flow_before_each_attempt(log):
    @flow(retries=1, on_running=[log.hook()])
    def f():
        raise ValueError

    f(return_state=True)
    assert [entry[2] for entry in log] == ["Running", "Running"]


@pytest.mark.parametrize("make", [task, flow])
def test_on_failure_once_after_the_last_attempt(make, log):
    @make(retries=2, on_failure=[log.hook()])
    def work():
        log.append("body")
        raise ValueError

    work(return_state=True)
    assert log == ["body"] * 3 + [("hook", "work", "Failed")]


@pytest.mark.parametrize("make", [task, flow])
def test_a_timeout_is_a_failure(make, log):
    @make(timeout_seconds=0.05, on_failure=[log.hook()])
    def work():
        while True:
            pass

    work(return_state=True)
    assert log == [("hook", "work", "TimedOut")]


def test_a_task_that_returns_a_failed_state(log):
    @task(on_failure=[log.hook("failure")], on_completion=[log.hook("completion")])
    def t():
        return Failed(message="by hand")

    t()
    assert log == [("failure", "t", "Failed")]


def test_a_flow_that_returns_a_failed_state(log):
    @flow(on_failure=[log.hook("failure")], on_completion=[log.hook("completion")])
    def f():
        return Failed(message="by hand")

    f(return_state=True)
    assert log == [("failure", "f", "Failed")]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt, "Execution was aborted by an interrupt signal."),
        (SystemExit, "Execution was aborted by Python system exit call."),
    ],
)
def test_on_crashed(error, message):
    seen = []

    @flow(
        on_crashed=[lambda flow, run, state: seen.append((state.type, state.message))],
        on_failure=[lambda *args: seen.append("failure")],
    )
    def f():
        raise error

    with pytest.raises(error):
        f()
    assert seen == [(StateType.CRASHED, message)]


@pytest.mark.parametrize("make", [task, flow])
def test_a_hook_that_fails_is_logged_and_changes_nothing(make, log, caplog):
    def broken(owner, run, state):
        raise RuntimeError("hook is broken")

    @make(on_completion=[broken, log.hook("after")])
    def work():
        return 1

    assert work() == 1
    assert log == [("after", "work", "Completed")]
    assert "hook is broken" in caplog.text


def test_hooks_may_be_coroutine_functions(log):
    async def hook(owner, run, state):
        log.append(("async", owner.name, state.name))

    @task(on_completion=[hook])
    def t():
        pass

    @flow(on_completion=[hook])
    def f():
        t()

    f()
    assert log == [("async", "t", "Completed"), ("async", "f", "Completed")]


async def test_coroutine_hooks_of_async_runs(log):
    async def hook(owner, run, state):
        log.append(("async", owner.name, state.name))

    @task(on_completion=[hook, log.hook("sync")])
    async def t():
        pass

    @flow(on_completion=[hook])
    async def f():
        await t()

    await f()
    assert log == [("async", "t", "Completed"), ("sync", "t", "Completed"), ("async", "f", "Completed")]


def test_hooks_may_be_partials(log):
    def hook(owner, run, state, word):
        log.append(word)

    @task(on_completion=[partial(hook, word="task")])
    def t():
        pass

    @flow(on_completion=[partial(hook, word="flow")])
    def f():
        t()

    f()
    assert log == ["task", "flow"]


def test_hooks_may_be_methods_and_objects(log):
    class Hook:
        def __call__(self, owner, run, state):
            log.append("object")

        def method(self, owner, run, state):
            log.append("method")

    @task(on_completion=[Hook(), Hook().method])
    def t():
        pass

    t()
    assert log == ["object", "method"]


@pytest.mark.parametrize("kind", TASK_HOOKS)
def test_a_tasks_hooks_must_be_a_list_of_callables(kind):
    with pytest.raises(TypeError, match=f"Expected iterable for '{kind}'; got function instead"):
        task(**{kind: lambda: None})(lambda: None)
    with pytest.raises(TypeError, match=f"Expected callables in '{kind}'; got str instead"):
        task(**{kind: ["x"]})(lambda: None)


@pytest.mark.parametrize("kind", FLOW_HOOKS)
def test_a_flows_hooks_must_be_a_list_of_callables(kind):
    with pytest.raises(TypeError, match=f"Expected iterable for '{kind}'; got function instead"):
        flow(**{kind: lambda: None})(lambda: None)
    with pytest.raises(TypeError, match=f"Expected callables in '{kind}'; got str instead"):
        flow(**{kind: ["x"]})(lambda: None)


@pytest.mark.parametrize("make", [task, flow])
def test_with_options_keeps_hooks_unless_given(make, log):
    @make(on_completion=[log.hook("old")])
    def work():
        pass

    kept = work.with_options(retries=1)
    assert kept is not work
    kept()
    work.with_options(on_completion=[log.hook("new")])()
    work()
    assert [entry[0] for entry in log] == ["old", "new", "old"]


def test_hooks_of_a_copy_do_not_reach_the_original(log):
    @task
    def t():
        pass

    copy = t.with_options(name="copy")
    copy.on_completion(log.hook())
    t()
    assert log == []
    copy()
    assert log == [("hook", "copy", "Completed")]


def test_hooks_run_after_the_state_is_recorded(history):
    seen = []

    def hook(task, run, state):
        seen.append(history.task_run(run.id).state_name)

    @task(on_completion=[hook], on_running=[hook])
    def t():
        pass

    t()
    assert seen == ["Running", "Completed"]


def test_hooks_of_submitted_tasks(log):
    @task(on_completion=[log.hook("completion")], on_failure=[log.hook("failure")])
    def t(x):
        if x:
            raise ValueError

    @flow
    def f():
        t.submit(0).wait()
        t.submit(1).wait()

    f()
    assert [entry[0] for entry in log] == ["completion", "failure"]


def test_hooks_of_an_invalid_call(log):
    @flow(on_failure=[log.hook()])
    def f(x: int):
        pass

    f("nope", return_state=True)
    assert log == [("hook", "f", "Failed")]


def test_a_hook_may_log(history):
    @flow(on_completion=[lambda flow, run, state: flow_run_logger(run, flow).info("from the flow's hook")])
    def f():
        t()

    @task(on_completion=[lambda task, run, state: task_run_logger(run, task).info("from the task's hook")])
    def t():
        pass

    f()
    lines = {line.message: line for line in history.logs()}
    assert lines["from the task's hook"].task_run_id == history.task_runs()[0].id
    assert lines["from the flow's hook"].flow_run_id == history.flow_runs()[0].id


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_cancel_by_somebody_fires_on_cancellation(colour, log, history):
    started = threading.Event()
    options = {"on_cancellation": [log.hook("cancelled")], "on_failure": [log.hook("failed")]}

    def cancel_it():
        assert started.wait(30)
        (run,) = history.flow_runs()
        control.cancel(run, reason="enough")

    if colour == "sync":

        @flow(**options)
        def f():
            started.set()
            threading.Event().wait(60)
    else:

        @flow(**options)
        async def f():
            started.set()
            await asyncio.sleep(60)

    canceller = threading.Thread(target=cancel_it)
    canceller.start()
    with pytest.raises(CancelledRun, match="enough"):
        asyncio.run(f()) if colour == "async" else f()
    canceller.join(30)
    assert log == [("cancelled", "f", "Cancelled")]
    assert [run.state_type for run in history.flow_runs()] == [StateType.CANCELLED]
