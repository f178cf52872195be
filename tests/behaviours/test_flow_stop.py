"""`flow.stop` ends a flow run well before its code does: what had not started will not, what ran comes to its end."""

import asyncio
import threading
from typing import Any

import pytest

import prefect_nb
from prefect_nb import flow, task
from prefect_nb.exceptions import MissingContextError, StopFlow
from prefect_nb.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner


@task
def end_it() -> None:
    flow.stop("the task found nothing")


def test_a_flow_ends_completed_with_the_message(history: Any) -> None:
    reached = []

    @flow(retries=2, persist_result=True)
    def nightly() -> str:
        try:
            flow.stop("no new data")
        except Exception:
            reached.append("caught")
        reached.append("after")
        return "done"

    state = nightly(return_state=True)

    assert (state.type, state.name, state.message) == ("COMPLETED", "Completed", "no new data")
    assert nightly() is None
    assert reached == []
    first, _ = history.flow_runs()
    assert history.states(first.id) == ["Pending", "Running", "Completed"]
    assert first.state_message == "no new data"
    assert history.store.check() == []


def test_hooks_see_a_completed_run() -> None:
    seen = []

    @flow(on_completion=[lambda _flow, _run, state: seen.append(state.message)])
    def nightly() -> None:
        prefect_nb.stop("no new data")

    nightly()

    assert seen == ["no new data"]


def test_an_async_flow_and_one_that_yields() -> None:
    @flow
    async def awaiting() -> str:
        await asyncio.sleep(0)
        flow.stop("enough")
        return "never"

    @flow
    def yielding() -> Any:
        yield 1
        flow.stop("enough")
        yield 2

    assert asyncio.run(awaiting(return_state=True)).message == "enough"
    assert list(yielding()) == [1]
    assert yielding(return_state=True).message == "enough"


def test_in_a_sub_flow_it_ends_the_sub_flow_only(history: Any) -> None:
    @flow
    def inner() -> None:
        flow.stop("nothing in here")

    @flow
    def outer() -> str:
        inner()
        return "the outer flow went on"

    assert outer() == "the outer flow went on"
    assert [run.state_message for run in history.flow_runs()] == [None, "nothing in here"]


def test_what_has_not_started_will_not_and_what_runs_comes_to_its_end(history: Any) -> None:
    begun, gate = threading.Event(), threading.Event()

    @task
    def first() -> str:
        begun.set()
        gate.wait(10)
        return "came to its end"

    @task
    def later(_: Any = None) -> None: ...

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def three() -> None:
        running = first.submit()
        later.submit()
        later.submit(running)
        begun.wait(10)
        threading.Timer(0.05, gate.set).start()
        flow.stop("no more")

    assert three(return_state=True).message == "no more"
    runs = {run.name: run for run in history.task_runs()}
    assert sorted(run.state_name for run in runs.values()) == ["Completed", "NotRun", "NotRun"]
    assert all("no more" in run.state_message for run in runs.values() if run.state_name == "NotRun")
    assert history.store.check() == []


@pytest.mark.parametrize("how", ["called", "submitted and waited for", "submitted"])
def test_a_task_can_end_its_flow(history: Any, how: str) -> None:
    after = []

    @flow
    def nightly() -> str:
        if how == "called":
            end_it()
        else:
            future = end_it.submit()
            if how == "submitted and waited for":
                future.result()
            else:
                future.wait()
        after.append(how)
        return "done"

    state = nightly(return_state=True)

    assert (state.name, state.message) == ("Completed", "the task found nothing")
    assert after == (["submitted"] if how == "submitted" else [])
    (run,) = history.task_runs()
    assert (run.state_name, run.state_message) == ("Cancelled", "It ended its flow run: the task found nothing")


def test_a_task_in_another_process_can_end_its_flow() -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def nightly() -> None:
        end_it.submit().result()

    state = nightly(return_state=True)

    assert (state.name, state.message) == ("Completed", "the task found nothing")


def test_a_cached_task_that_ended_its_flow_is_not_a_hit_the_next_time() -> None:
    calls = []

    @task(persist_result=True, cache_key_fn=lambda *_: "always the same")
    def fetch() -> None:
        calls.append(1)
        flow.stop("no new data")

    @flow
    def nightly() -> None:
        fetch()

    assert [nightly(return_state=True).message for _ in range(2)] == ["no new data"] * 2
    assert len(calls) == 2


def test_outside_any_run_it_says_where_it_belongs() -> None:
    with pytest.raises(MissingContextError, match=r"@flow function.*%%flow.*prefect-nb run"):
        flow.stop("nowhere")

    @task
    def alone() -> None:
        flow.stop("nowhere")

    with pytest.raises(MissingContextError):
        alone()
    assert not issubclass(StopFlow, Exception)
