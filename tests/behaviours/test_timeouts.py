"""Bodies that take longer than they may."""

import asyncio
import threading
import time

import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import FlowRunTimeoutError, TaskRunTimeoutError


def spin(seconds=30):
    """Take time in Python code, which a timeout can interrupt on any thread."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize("how", ["outside", "call", "submit"])
def test_a_task_that_takes_too_long(how, history):
    @task(timeout_seconds=0.05)
    def t():
        spin()

    @flow
    def f():
        return {"state": t(return_state=True) if how == "call" else t.submit(return_state=True)}

    state = t(return_state=True) if how == "outside" else f()["state"]
    assert (state.type.value, state.name) == ("FAILED", "TimedOut")
    assert state.message == "Task run exceeded timeout of 0.05 second(s)"
    error = state.result(raise_on_failure=False)
    assert isinstance(error, TaskRunTimeoutError)
    assert isinstance(error, TimeoutError)


def test_a_blocking_call_on_the_main_thread_is_interrupted():
    @task(timeout_seconds=0.05)
    def t():
        time.sleep(30)

    started = time.monotonic()
    with pytest.raises(TaskRunTimeoutError):
        t()
    assert time.monotonic() - started < 10


def test_a_flow_that_takes_too_long():
    @flow(timeout_seconds=0.05)
    def f():
        time.sleep(30)

    with pytest.raises(FlowRunTimeoutError):
        f()
    state = f(return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "TimedOut")
    assert state.message == "Flow run exceeded timeout of 0.05 second(s)"


async def test_async_bodies_are_cancelled_at_the_await():
    reached = []

    @task(timeout_seconds=0.05)
    async def t():
        await asyncio.sleep(30)
        reached.append("task")

    @flow(timeout_seconds=0.05)
    async def f():
        await asyncio.sleep(30)
        reached.append("flow")

    state = await t(return_state=True)
    assert state.message == "Task run exceeded timeout of 0.05 second(s)"
    with pytest.raises(TaskRunTimeoutError):
        await state.result()
    state = await f(return_state=True)
    assert state.name == "TimedOut"
    with pytest.raises(FlowRunTimeoutError):
        await f()
    assert reached == []


def test_an_async_task_that_is_submitted():
    @task(timeout_seconds=0.05)
    async def t():
        await asyncio.sleep(30)

    @flow
    def f():
        return {"name": t.submit(return_state=True).name}

    assert f() == {"name": "TimedOut"}


def test_a_timeout_is_a_failure_and_is_retried():
    calls = []

    @task(timeout_seconds=0.05, retries=1)
    def t():
        calls.append(1)
        if len(calls) == 1:
            spin()
        return "done"

    assert t() == "done"
    assert len(calls) == 2


def test_a_flow_timeout_is_retried():
    calls = []

    @flow(timeout_seconds=0.05, retries=1)
    def f():
        calls.append(1)
        if len(calls) == 1:
            time.sleep(30)
        return "done"

    assert f() == "done"
    assert len(calls) == 2


def test_the_timeout_is_a_float():
    assert task(timeout_seconds=10)(lambda: None).timeout_seconds == 10.0
    assert isinstance(task(timeout_seconds=10)(lambda: None).timeout_seconds, float)
    assert isinstance(flow(timeout_seconds=10)(lambda: None).timeout_seconds, float)
    assert flow(lambda: None).timeout_seconds is None
    assert task(timeout_seconds=0)(lambda: None).timeout_seconds is None


def test_a_sub_flows_timeout_does_not_end_the_parent():
    @flow(timeout_seconds=0.05)
    def child():
        time.sleep(30)

    @flow
    def parent():
        state = child(return_state=True)
        return {"child": state.name}

    assert parent() == {"child": "TimedOut"}


def test_a_timeout_error_of_the_bodys_own_is_failed_not_timed_out():
    @task(timeout_seconds=30)
    def t():
        raise TimeoutError("mine")

    @flow(timeout_seconds=30)
    def f():
        raise TimeoutError("mine")

    assert t(return_state=True).name == "Failed"
    assert f(return_state=True).name == "Failed"


async def test_a_timeout_error_of_an_async_bodys_own():
    @task(timeout_seconds=30)
    async def t():
        raise TimeoutError("mine")

    assert (await t(return_state=True)).name == "Failed"


def test_a_body_in_time_is_not_touched():
    @task(timeout_seconds=30)
    def t():
        return 1

    @flow(timeout_seconds=30)
    def f():
        return t() + t.submit().result()

    assert f() == 2


def test_a_flow_timeout_outside_the_main_thread():
    box = []

    @flow(timeout_seconds=0.05)
    def f():
        spin()

    def run():
        box.append(f(return_state=True))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert box[0].name == "TimedOut"


def test_a_task_timeout_inside_a_flow_timeout():
    @task(timeout_seconds=0.05)
    def t():
        time.sleep(30)

    @flow(timeout_seconds=20)
    def f():
        return {"name": t(return_state=True).name}

    assert f() == {"name": "TimedOut"}


def test_a_flow_timeout_ends_a_task_inside():
    @task(timeout_seconds=20)
    def t():
        time.sleep(30)

    @flow(timeout_seconds=0.05)
    def f():
        t()

    assert f(return_state=True).name == "TimedOut"


def test_an_exception_handler_of_the_body_does_not_catch_the_timeout():
    @task(timeout_seconds=0.05)
    def t():
        try:
            spin()
        except Exception:
            return "swallowed"

    assert t(return_state=True).name == "TimedOut"
