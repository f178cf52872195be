"""Async flows and tasks, alone and mixed with sync ones."""

import asyncio
import inspect
import threading

import pytest

from prefect_nb import flow, task
from prefect_nb.states import StateType


@task
async def adouble(x):
    await asyncio.sleep(0)
    return x * 2


@task
def double(x):
    return x * 2


async def test_calling_gives_a_coroutine():
    @flow
    async def f():
        return 1

    for coroutine in (f(), adouble(1)):
        assert inspect.iscoroutine(coroutine)
        await coroutine


def test_an_async_flow_by_asyncio_run():
    @flow
    async def f(x: int):
        return await adouble(x)

    assert asyncio.run(f("2")) == 4


async def test_tasks_side_by_side():
    meeting = asyncio.Barrier(3)

    @task
    async def meet(n):
        await meeting.wait()
        return n

    @flow
    async def f():
        return await asyncio.gather(*[meet(n) for n in range(3)])

    async with asyncio.timeout(30):
        assert await f() == [0, 1, 2]


async def test_submitted_async_tasks_run_beside_the_flow():
    @flow
    async def f():
        futures = adouble.map(range(5))
        await asyncio.sleep(0)
        return {"values": futures.result()}

    assert await f() == {"values": [0, 2, 4, 6, 8]}


async def test_a_submitted_async_task_that_submits():
    @task
    async def outer(x):
        return adouble.submit(x).result()

    @flow
    async def f():
        return {"value": outer.submit(3).result()}

    assert await f() == {"value": 6}


async def test_sync_and_async_tasks_depend_on_each_other():
    @flow
    async def f():
        one = double.submit(1)
        two = adouble.submit(one)
        three = double.submit(two)
        return {"value": three.result(), "direct": await adouble(two)}

    assert await f() == {"value": 8, "direct": 8}


async def test_an_exception_in_one_of_several():
    @task
    async def bad():
        raise ValueError("bad")

    @flow
    async def f():
        results = await asyncio.gather(adouble(1), bad(), return_exceptions=True)
        return {"value": results[0], "error": results[1]}

    found = await f()
    assert found["value"] == 2
    assert isinstance(found["error"], ValueError)


async def test_submitted_async_tasks_are_waited_for(history):
    release = threading.Event()

    @task
    async def slow():
        await asyncio.to_thread(release.wait, 30)

    @flow
    async def f():
        slow.submit()
        release.set()

    await f()
    assert [run.state_name for run in history.task_runs()] == ["Completed"]


async def test_the_loop_goes_on_while_children_are_waited_for():
    """Waiting for submitted runs at the end of an async flow must not stand in the loop's way."""
    release = threading.Event()
    ticks = []

    @task
    def slow():
        assert release.wait(30)

    @flow
    async def f():
        slow.submit()

    async def tick():
        ticks.append(1)
        release.set()

    async with asyncio.timeout(30):
        await asyncio.gather(f(), tick())
    assert ticks == [1]


async def test_cancelling_the_asyncio_task_crashes_the_run(history):
    started = asyncio.Event()

    @flow
    async def f():
        started.set()
        await asyncio.sleep(60)

    running = asyncio.create_task(f())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (run,) = history.flow_runs()
    assert run.state_type is StateType.CRASHED


async def test_async_return_states():
    @task
    async def bad():
        raise ValueError("bad")

    @flow
    async def f():
        state = await bad(return_state=True)
        return {"failed": state.is_failed(), "ok": await (await adouble(1, return_state=True)).result()}

    assert await f() == {"failed": True, "ok": 2}


async def test_a_sync_flow_in_an_async_flow_with_tasks():
    @flow
    def child(x):
        return {"value": double.submit(x).result() + double(x)}

    @flow
    async def parent():
        return child(1)

    assert await parent() == {"value": 4}


def test_an_async_flow_from_a_sync_one():
    @flow
    async def child():
        return await adouble(2)

    @flow
    def parent():
        return {"value": asyncio.run(child())}

    assert parent() == {"value": 4}


async def test_async_context_managers_and_comprehensions_in_a_body():
    @flow
    async def f():
        async with asyncio.timeout(30):
            return [await adouble(n) for n in range(3)]

    assert await f() == [0, 2, 4]


async def test_several_async_flows_at_once(history):
    @flow
    async def f(n):
        return await adouble(n)

    assert await asyncio.gather(*[f(n) for n in range(10)]) == [n * 2 for n in range(10)]
    owners = [run.flow_run_id for run in history.task_runs()]
    assert len(set(owners)) == 10


async def test_async_and_sync_runs_leave_the_same_history(history):
    calls = []

    def body():
        calls.append(1)
        if len(calls) % 2:
            raise ValueError
        return 1

    @task(retries=1)
    def sync():
        return body()

    @task(retries=1)
    async def awaited():
        return body()

    @flow
    async def f():
        sync()
        await awaited()
        sync.submit().wait()
        awaited.submit().wait()

    await f()
    histories = [history.states(run.id) for run in history.task_runs()]
    assert histories == [["Pending", "Running", "Retrying", "Completed"]] * 4
