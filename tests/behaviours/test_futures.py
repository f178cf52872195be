"""Futures, waiting for several, and task runners."""

import contextvars
import inspect
import queue
import threading

import pytest

from prefect_nb import flow, tags, task
from prefect_nb.context import TaskRunContext
from prefect_nb.futures import PrefectConcurrentFuture, as_completed, resolve_futures_to_states, wait
from prefect_nb.states import State, StateType
from prefect_nb.task_runners import ConcurrentTaskRunner, ProcessPoolTaskRunner, ThreadPoolTaskRunner


@task
def double(x):
    return x * 2


@task
def bad():
    raise ValueError("bad")


@pytest.fixture
def gate():
    """An event that tasks wait for; opened at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def test_submit_gives_a_concurrent_future():
    @flow
    def f():
        future = double.submit(2)
        assert isinstance(future, PrefectConcurrentFuture)
        return {"value": future.result()}

    assert f() == {"value": 4}


async def test_result_is_sync_in_async_flows_too():
    @task
    async def adouble(x):
        return x * 2

    @flow
    async def f():
        return {"sync": double.submit(2).result(), "async": adouble.submit(2).result()}

    assert await f() == {"sync": 4, "async": 4}


def test_the_result_of_a_failed_run():
    @flow
    def f():
        future = bad.submit()
        with pytest.raises(ValueError, match="bad"):
            future.result()
        return {"error": future.result(raise_on_failure=False)}

    assert isinstance(f()["error"], ValueError)


def test_return_state_waits_and_gives_the_state():
    @flow
    def f():
        state = double.submit(2, return_state=True)
        assert isinstance(state, State)
        return {"value": state.result()}

    assert f() == {"value": 4}


def test_result_with_a_timeout_raises_and_the_task_goes_on(gate):
    @task
    def slow():
        gate.wait(30)
        return "done"

    @flow
    def f():
        future = slow.submit()
        with pytest.raises(TimeoutError):
            future.result(timeout=0.01)
        assert not future.done()
        gate.set()
        return {"value": future.result()}

    assert f() == {"value": "done"}


def test_wait_with_a_timeout_returns(gate):
    @task
    def slow():
        gate.wait(30)

    @flow
    def f():
        future = slow.submit()
        future.wait(timeout=0.01)
        done = future.done()
        gate.set()
        return {"done": done}

    assert f() == {"done": False}


def test_the_state_of_a_running_future(gate):
    started = threading.Event()

    @task
    def slow():
        started.set()
        gate.wait(30)

    @flow
    def f():
        future = slow.submit()
        started.wait(30)
        type_ = future.state.type
        gate.set()
        future.wait()
        return {"before": type_, "after": future.state.type}

    assert f() == {"before": StateType.RUNNING, "after": StateType.COMPLETED}


def test_wait_says_which_have_ended(gate):
    @task
    def slow():
        gate.wait(30)

    @flow
    def f():
        quick, late = double.submit(1), slow.submit()
        quick.wait()
        both = wait([quick, late], timeout=0.01)
        assert both.done == {quick}
        assert both.not_done == {late}
        gate.set()
        done, not_done = wait([quick, late])
        assert done == {quick, late}
        assert not_done == set()

    f()


def test_wait_counts_what_ended_behind_one_that_has_not(gate):
    @task
    def slow():
        gate.wait(30)

    @flow
    def f():
        late, quick = slow.submit(), double.submit(1)
        quick.wait()
        assert wait([late, quick], timeout=0.01).done == {quick}
        gate.set()

    f()


def test_as_completed_gives_them_in_the_order_they_end():
    gates = [threading.Event() for _ in range(3)]

    @task
    def numbered(n):
        gates[n].wait(30)
        return n

    @flow
    def f():
        futures = [numbered.submit(n) for n in range(3)]
        order = []
        gates[1].set()
        for future in as_completed(futures):
            order.append(future.result())
            if order == [1]:
                gates[2].set()
            elif order == [1, 2]:
                gates[0].set()
        return {"order": order}

    assert f() == {"order": [1, 2, 0]}


def test_as_completed_with_a_timeout(gate):
    @task
    def slow():
        gate.wait(30)

    @flow
    def f():
        futures = [double.submit(1), slow.submit()]
        seen = []
        with pytest.raises(TimeoutError):
            seen.extend(future for future in as_completed(futures, timeout=0.05))
        gate.set()

    f()


def test_as_completed_gives_failed_ones_too():
    @flow
    def f():
        return {"types": {future.state.type for future in as_completed([double.submit(1), bad.submit()])}}

    assert f() == {"types": {StateType.COMPLETED, StateType.FAILED}}


@pytest.mark.parametrize("when", ["before", "after"])
def test_done_callbacks_get_the_future(gate, when):
    called = queue.SimpleQueue()

    @task
    def slow():
        gate.wait(30)
        return 1

    @flow
    def f():
        future = slow.submit()
        if when == "after":
            gate.set()
            future.wait()
        future.add_done_callback(called.put)
        gate.set()
        assert called.get(timeout=30) is future

    f()
    assert called.empty()


def test_the_futures_id_is_the_runs_id():
    @flow
    def f():
        future = double.submit(1)
        future.wait()
        return {"same": future.task_run_id == future.state.state_details.task_run_id}

    assert f() == {"same": True}


def test_resolve_futures_to_states():
    @flow
    def f():
        return resolve_futures_to_states({"a": [double.submit(1)], "b": 2})

    resolved = f()
    assert resolved["a"][0].is_completed()
    assert resolved["b"] == 2


def test_a_future_outlives_its_flow():
    box = []

    @flow
    def f():
        box.append(double.submit(4))

    f()
    assert box[0].result() == 8


# Runners


def test_the_default_runner():
    @flow
    def f():
        pass

    assert isinstance(f.task_runner, ThreadPoolTaskRunner)
    assert ConcurrentTaskRunner is ThreadPoolTaskRunner


def test_runners_are_equal_by_options():
    assert ThreadPoolTaskRunner(max_workers=2) == ThreadPoolTaskRunner(max_workers=2)
    assert ThreadPoolTaskRunner(max_workers=2) != ThreadPoolTaskRunner(max_workers=3)
    assert ThreadPoolTaskRunner(max_workers=2) != ProcessPoolTaskRunner(max_workers=2)
    assert ThreadPoolTaskRunner(max_workers=2).duplicate() == ThreadPoolTaskRunner(max_workers=2)


def test_a_runner_may_be_given_as_a_class():
    @flow(task_runner=ThreadPoolTaskRunner)
    def f():
        return {"value": double.submit(1).result()}

    assert f.task_runner == ThreadPoolTaskRunner()
    assert f() == {"value": 2}


def test_max_workers_limits_what_runs_at_once():
    lock = threading.Lock()
    running, most = 0, 0

    @task
    def t():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.005)
        with lock:
            running -= 1

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def f():
        for _ in range(10):
            t.submit()

    f()
    assert most <= 2


def test_max_workers_from_the_setting(monkeypatch):
    monkeypatch.setenv("PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS", "1")
    threads = set()

    @task
    def t():
        threads.add(threading.get_ident())

    @flow
    def f():
        for future in [t.submit() for _ in range(5)]:
            future.wait()

    f()
    assert len(threads) == 1


def test_tasks_run_at_the_same_time():
    barrier = threading.Barrier(3, timeout=30)

    @task
    def meet():
        barrier.wait()
        return True

    @flow
    def f():
        return {"met": [future.result() for future in [meet.submit() for _ in range(3)]]}

    assert f() == {"met": [True, True, True]}


def test_a_runner_must_be_entered_before_it_takes_work():
    with pytest.raises(RuntimeError, match="not started"):
        ThreadPoolTaskRunner().submit(double, {"x": 1})


def test_a_runner_that_is_entered_takes_work():
    with ThreadPoolTaskRunner() as runner:
        future = runner.submit(double, {"x": 2})
        assert future.result() == 4
        assert runner.map(double, {"x": [1, 2]}).result() == [2, 4]


def test_a_runner_can_be_entered_twice_in_turn_and_not_at_once():
    runner = ThreadPoolTaskRunner()
    with runner, pytest.raises(RuntimeError, match="already started"):
        runner.__enter__()
    with runner:
        assert runner.submit(double, {"x": 2}).result() == 4


def test_each_flow_run_has_a_runner_of_its_own():
    runner = ThreadPoolTaskRunner(max_workers=1)

    @flow(task_runner=runner)
    def child():
        return {"value": double.submit(1).result()}

    @flow(task_runner=runner)
    def parent():
        double.submit(1).wait()
        return child()

    assert parent() == {"value": 2}


def test_one_worker_is_enough_for_tasks_in_tasks():
    @task
    def outer(x):
        return double.submit(x).result()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def f():
        return {"values": outer.map([1, 2, 3]).result()}

    assert f() == {"values": [2, 4, 6]}


def test_context_variables_reach_the_worker_thread():
    variable = contextvars.ContextVar("variable", default="outside")

    @task
    def look():
        return variable.get(), threading.get_ident()

    @flow
    def f():
        variable.set("inside")
        return {"seen": look.submit().result()}

    seen, thread = f()["seen"]
    assert seen == "inside"
    assert thread != threading.get_ident()


def test_tags_reach_the_worker_thread(history):
    @task
    def outer():
        return double(1)

    @flow
    def f():
        with tags("a"):
            outer.submit().wait()

    f()
    assert [run.tags for run in history.task_runs()] == [("a",), ("a",)]


def test_an_async_task_submitted_from_a_sync_flow():
    @task
    async def adouble(x):
        return x * 2

    @flow
    def f():
        return {"value": adouble.submit(2).result()}

    assert f() == {"value": 4}


def test_an_async_task_called_in_a_sync_flow_is_a_coroutine():
    import asyncio

    @task
    async def adouble(x):
        return x * 2

    @flow
    def f():
        coroutine = adouble(2)
        assert inspect.iscoroutine(coroutine)
        return {"value": asyncio.run(coroutine)}

    assert f() == {"value": 4}


async def test_sync_tasks_and_flows_called_in_an_async_flow():
    @flow
    def child():
        return {"value": double(1)}

    @flow
    async def f():
        return {"task": double(2), "flow": child()}

    assert await f() == {"task": 4, "flow": {"value": 2}}


def test_a_submitted_task_knows_its_run():
    @task
    def me():
        return TaskRunContext.get().task_run.id

    @flow
    def f():
        future = me.submit()
        return {"same": future.result() == future.task_run_id}

    assert f() == {"same": True}


def test_submit_outside_any_flow_uses_a_runner_of_its_own(history):
    future = double.submit(3)
    assert future.result() == 6
    (run,) = history.task_runs()
    assert run.flow_run_id is None


def test_a_chain_of_futures_outside_any_flow():
    assert double.submit(double.submit(double.submit(1))).result() == 8


def test_hundreds_at_once():
    @flow
    def f():
        futures = [double.submit(n) for n in range(500)]
        return {"sum": sum(future.result() for future in futures)}

    assert f() == {"sum": 2 * sum(range(500))}
