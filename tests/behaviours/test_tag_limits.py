"""Limits of tags: task runs wait before they are Running."""

import asyncio
import threading
from typing import Any

import pytest
from holding import Elsewhere, eventually, held, waiting

from prefect_nb import flow, tags, task
from prefect_nb.concurrency.sync import ConcurrencySlotAcquisitionError
from prefect_nb.execution.context import current_flow
from prefect_nb.home import Home
from prefect_nb.model.events import StateRecorded
from prefect_nb.service import limits
from prefect_nb.task_runners import ProcessPoolTaskRunner


def running_at_once(history: Any, tag: str) -> int:
    """The most task runs with this tag that the history says were Running at one instant."""
    moves: list[tuple[int, int]] = []
    for run in history.task_runs(tags=(tag,)):
        running = False
        for event in history.store.events(run.id):
            if isinstance(event, StateRecorded) and running != (event.type.value == "RUNNING"):
                running = not running
                moves.append((event.at_us, 1 if running else -1))
    now = most = 0
    for _, step in sorted(moves):
        now += step
        most = max(most, now)
    return most


def test_task_runs_with_a_limited_tag_wait_before_they_are_running(history: Any) -> None:
    limits.set_tag_limit("database", 2)

    everybody_asked = threading.Event()

    @task(tags=["database"])
    def query(number: int) -> int:
        everybody_asked.wait(60)
        return number

    @task
    def free() -> str:
        return "not limited"

    @flow
    def many() -> list[int]:
        futures = query.map(range(8))
        eventually(lambda: waiting() == 6)
        assert free.submit().result() == "not limited"
        everybody_asked.set()
        return futures.result()

    assert many() == list(range(8))
    assert running_at_once(history, "database") == 2
    queries = [run for run in history.task_runs() if run.tags]
    waited = [run for run in queries if "AwaitingConcurrencySlot" in history.states(run.id)]
    assert len(waited) == 6
    assert all(
        history.states(run.id) == ["Pending", "AwaitingConcurrencySlot", "Running", "Completed"] for run in waited
    )
    assert held("tag:database") == 0


@pytest.mark.parametrize("asynchronous", [True, False])
def test_async_and_called_task_runs_wait_too(history: Any, asynchronous: bool) -> None:
    limits.set_tag_limit("database", 1)
    reached = threading.Event()

    def cancel_holder(other: Elsewhere) -> None:
        eventually(lambda: waiting() == 1)
        other.let_go()

    def body() -> int:
        reached.set()
        return held("tag:database")

    async def async_body() -> int:
        return body()

    with Elsewhere("tag:database") as other:
        helper = threading.Thread(target=cancel_holder, args=(other,))
        helper.start()
        if asynchronous:
            assert asyncio.run(task(tags=["database"])(async_body)()) == 1  # type: ignore[arg-type]
        else:
            assert task(tags=["database"])(body)() == 1
        helper.join(60)
    (run,) = history.task_runs()
    assert history.states(run.id) == ["Pending", "AwaitingConcurrencySlot", "Running", "Completed"]
    assert held("tag:database") == 0


def test_submitted_async_task_runs_wait_without_a_thread(history: Any) -> None:
    limits.set_tag_limit("database", 1)

    @task(tags=["database"], on_running=[lambda *_: None])
    async def query(number: int) -> int:
        await asyncio.sleep(0.002)
        return number

    @flow
    def many() -> list[int]:
        return query.map(range(5)).result()

    assert many() == list(range(5))
    assert running_at_once(history, "database") == 1


def test_tags_of_a_context_count(history: Any) -> None:
    limits.set_tag_limit("database", 1)

    @task
    def query() -> int:
        return held("tag:database")

    assert query() == 0
    with tags("database"):
        assert query() == 1


def test_a_run_with_two_limited_tags_needs_both() -> None:
    limits.set_tag_limit("a", 1)
    limits.set_tag_limit("b", 1)

    @task(tags=["a", "b"])
    def both() -> tuple[int, int]:
        return held("tag:a"), held("tag:b")

    assert both() == (1, 1)
    assert (held("tag:a"), held("tag:b")) == (0, 0)


def test_the_slot_is_free_after_a_failure_and_between_attempts(history: Any) -> None:
    limits.set_tag_limit("database", 1)
    between: list[int] = []

    @task(tags=["database"], retries=1, retry_delay_seconds=0.2)
    def flaky() -> None:
        raise ValueError("always")

    @flow
    def retrying() -> None:
        future = flaky.submit()
        eventually(lambda: future.state.name == "AwaitingRetry")
        eventually(lambda: held("tag:database") == 0 or future.done())
        between.append(held("tag:database"))
        future.wait()

    retrying()
    assert between == [0]
    assert held("tag:database") == 0
    (run,) = history.task_runs()
    assert history.states(run.id) == ["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"]


def test_an_attempt_that_follows_at_once_keeps_the_slot(history: Any) -> None:
    limits.set_tag_limit("database", 1)
    seen: list[int] = []

    @task(tags=["database"], retries=2)
    def flaky() -> None:
        seen.append(held("tag:database"))
        raise ValueError("always")

    with pytest.raises(ValueError, match="always"):
        flaky()
    assert seen == [1, 1, 1]
    assert held("tag:database") == 0


def test_a_limit_of_none_fails_the_run() -> None:
    limits.set_tag_limit("closed", 0)
    failures: list[str] = []

    @task(tags=["closed"], retries=3, on_failure=[lambda _task, run, state: failures.append(state.name)])
    def never() -> None:
        raise AssertionError

    with pytest.raises(ConcurrencySlotAcquisitionError, match="'tag:closed'"):
        never()

    @flow
    def submits() -> str:
        future = never.submit()
        future.wait()
        return future.state.name

    assert submits() == "Failed"
    assert failures == ["Failed", "Failed"]


def test_a_cancel_ends_the_wait_of_submitted_runs(history: Any) -> None:
    limits.set_tag_limit("database", 1)

    @task(tags=["database"])
    def query() -> None:
        raise AssertionError

    @flow
    def patient() -> None:
        scope: Any = current_flow.get().execution.scope  # type: ignore[union-attr]

        def cancel() -> None:
            eventually(lambda: waiting() == 3)
            scope.stop("Enough.")

        futures = [query.submit() for _ in range(3)]
        threading.Thread(target=cancel).start()
        for future in futures:
            future.wait(timeout=20)

    with Elsewhere("tag:database"):
        assert patient(return_state=True).name == "Cancelled"
        assert waiting() == 0
    assert {run.state_name for run in history.task_runs()} == {"Cancelled"}
    assert held("tag:database") == 0


def test_limits_of_tags_hold_for_worker_processes(history: Any) -> None:
    limits.set_tag_limit("database", 1)

    @task(tags=["database"])
    def query(number: int) -> int:
        return number

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def many() -> list[int]:
        return query.map(range(4)).result()

    assert many() == list(range(4))
    assert running_at_once(history, "database") == 1
    assert held("tag:database") == 0


def test_a_cached_result_needs_no_slot() -> None:
    limits.set_tag_limit("database", 1)

    @task(tags=["database"], persist_result=True, cache_key_fn=lambda *_: "known")
    def query() -> int:
        return 1

    assert query() == 1
    with Elsewhere("tag:database"):
        assert query(return_state=True).name == "Cached"


def test_a_limit_made_by_another_process_is_noticed() -> None:
    home = Home.current()
    assert home.limits.limited_tags() == frozenset()
    other = Home(home.path, home.settings)
    try:
        limit = limits.create_limit("plain", 1)
        other.store.limits.update(limit.id, 1, name="tag:late")
    finally:
        other.close()
    eventually(lambda: home.limits.limited_tags() == frozenset({"late"}), seconds=5)


def test_without_limits_of_tags_nothing_is_asked() -> None:
    @task(tags=["database"])
    def query() -> bool:
        from prefect_nb.context import TaskRunContext

        execution: Any = TaskRunContext.get().execution  # type: ignore[union-attr]
        return execution.plan.limited

    assert query() is False
    limits.set_tag_limit("database", 5)
    assert query() is True
