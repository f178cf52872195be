"""Concurrency limits and rate limits, as an author of flows meets them."""

import asyncio
import logging
import threading
import time
from typing import Any
from uuid import UUID

import pytest
from holding import AtOnce, Elsewhere, eventually, held, waiting

from prefect_nb import flow, task
from prefect_nb.concurrency import asyncio as awaited
from prefect_nb.concurrency.sync import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    concurrency,
    rate_limit,
)
from prefect_nb.execution.context import current_flow
from prefect_nb.home import Home
from prefect_nb.runtime import flow_run, task_run
from prefect_nb.service import limits
from prefect_nb.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner


@pytest.fixture
def gate() -> str:
    limits.create_limit("gate", 1)
    return "gate"


# -- concurrency


def test_a_slot_is_held_inside_the_block_only(gate: str) -> None:
    with concurrency(gate):
        assert held(gate) == 1
    assert held(gate) == 0


def test_it_is_free_again_after_an_exception(gate: str) -> None:
    with pytest.raises(ValueError, match="inside"), concurrency(gate):
        raise ValueError("inside")
    assert held(gate) == 0


def test_it_works_as_a_decorator(gate: str) -> None:
    @concurrency(gate)
    def work() -> int:
        return held(gate)

    assert [work(), work(), held(gate)] == [1, 1, 0]


def test_no_more_than_the_limit_are_inside_at_once() -> None:
    limits.create_limit("three", 3)
    inside = AtOnce()
    three = threading.Barrier(3)

    @task
    def work(_: int) -> None:
        with concurrency("three"), inside:
            three.wait(60)

    @flow
    def many() -> None:
        work.map(range(12)).wait()

    many()
    assert (inside.entered, inside.most) == (12, 3)
    assert held("three") == 0


def test_occupying_several_slots() -> None:
    limits.create_limit("three", 3)
    with concurrency("three", occupy=2):
        assert held("three") == 2
        with concurrency("three"):
            pass
        with pytest.raises(TimeoutError), concurrency("three", occupy=2, timeout_seconds=0):
            raise AssertionError


def test_a_limit_that_does_not_exist_is_warned_of_and_done_without(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), concurrency("missing"):
        pass
    assert "Concurrency limits ['missing'] do not exist - skipping acquisition." in caplog.text


def test_inside_a_run_the_warning_is_in_its_log(history: Any) -> None:
    @flow
    def careless() -> str:
        with concurrency("missing"):
            return flow_run.id

    id = UUID(careless())
    assert any("['missing'] do not exist" in line.message for line in history.logs(flow_run_id=id))


def test_strict_insists_that_every_limit_exists(gate: str) -> None:
    message = r"Concurrency limits \['missing'\] must be created before acquiring slots"
    with pytest.raises(ConcurrencySlotAcquisitionError, match=message), concurrency("missing", strict=True):
        raise AssertionError
    with pytest.raises(ConcurrencySlotAcquisitionError), concurrency([gate, "missing"], strict=True):
        raise AssertionError
    with concurrency(gate, strict=True):
        pass
    assert held(gate) == 0


@pytest.mark.parametrize("occupy", [0, -1, 2])
@pytest.mark.parametrize("strict", [True, False])
def test_no_slots_and_more_than_there_are_cannot_be_had(gate: str, occupy: int, strict: bool) -> None:
    with (
        pytest.raises(ConcurrencySlotAcquisitionError, match=r"^Unable to acquire concurrency slots on \['gate'\]: "),
        concurrency(gate, occupy=occupy, strict=strict),
    ):
        raise AssertionError


@pytest.mark.parametrize("names", [[], None, ""])
def test_without_names_nothing_is_limited(names: Any) -> None:
    with concurrency(names, occupy=5):
        pass
    rate_limit(names)


def test_a_limit_that_is_disabled_is_not_enforced(gate: str) -> None:
    limits.update_limit(gate, active=False)
    with concurrency(gate, occupy=7):
        pass


def test_waiting_ends_when_the_time_is_over(gate: str) -> None:
    with concurrency(gate):
        began = time.monotonic()
        with (
            pytest.raises(AcquireConcurrencySlotTimeoutError, match=r"timed out after 0.2 second\(s\)"),
            concurrency(gate, timeout_seconds=0.2),
        ):
            raise AssertionError
        assert time.monotonic() - began >= 0.2
    assert waiting() == 0
    with concurrency(gate, timeout_seconds=0):
        assert held(gate) == 1


def test_waiting_ends_when_the_retries_are_used_up(gate: str) -> None:
    with (
        concurrency(gate),
        pytest.raises(ConcurrencySlotAcquisitionError, match="Locked"),
        concurrency(gate, max_retries=0),
    ):
        raise AssertionError


def test_who_waits_goes_on_as_soon_as_there_is_room(gate: str) -> None:
    with Elsewhere(gate) as other:
        threading.Timer(0.1, other.let_go).start()
        with concurrency(gate, timeout_seconds=30):
            assert held(gate) == 1


def test_a_raised_limit_lets_in_who_waits(gate: str) -> None:
    with Elsewhere(gate):
        waiter = Elsewhere(gate)
        waiter.start()
        eventually(lambda: waiting() == 1)
        limits.update_limit(gate, limit=2)
        assert waiter.inside.wait(20)
        waiter.let_go()


def test_a_deleted_limit_lets_in_who_waits(gate: str) -> None:
    with Elsewhere(gate):
        waiter = Elsewhere(gate)
        waiter.start()
        eventually(lambda: waiting() == 1)
        limits.delete_limit(gate)
        assert waiter.inside.wait(20)
        waiter.let_go()


def test_equal_claims_are_served_in_the_order_in_which_they_came(gate: str) -> None:
    order: list[int] = []

    def work(number: int) -> None:
        with concurrency(gate):
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    with concurrency(gate):
        for number, thread in enumerate(threads, start=1):
            thread.start()
            eventually(lambda number=number: waiting() == number)
    for thread in threads:
        thread.join(60)
    assert order == list(range(8))


def test_limits_named_in_opposite_orders_cannot_deadlock() -> None:
    limits.create_limit("a", 1)
    limits.create_limit("b", 1)

    @task
    def work(number: int) -> int:
        with concurrency(["a", "b"] if number % 2 else ["b", "a"], timeout_seconds=60):
            return number

    @flow
    def many() -> list[int]:
        return work.map(range(10)).result()

    assert many() == list(range(10))


def test_who_holds_one_limit_never_stands_behind_who_waits_for_both() -> None:
    limits.create_limit("a", 1)
    limits.create_limit("b", 1)
    with Elsewhere("a") as holder_of_a, concurrency("b"):
        both = Elsewhere("a", "b")
        both.start()
        eventually(lambda: waiting() == 1)
        holder_of_a.let_go()
        with concurrency("a", timeout_seconds=20):
            assert not both.inside.is_set()
    assert both.inside.wait(20)
    both.let_go()


def test_a_thread_of_a_small_pool_lends_its_place_while_it_waits(gate: str) -> None:
    reached = threading.Event()

    @task
    def waits() -> None:
        with concurrency(gate):
            reached.set()

    @task
    def other() -> str:
        return "done"

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def crowded() -> str:
        with concurrency(gate):
            first = waits.submit()
            eventually(lambda: waiting() == 1)
            done = other.submit().result(timeout=20)
            assert not reached.is_set()
        first.wait()
        return done

    assert crowded() == "done"
    assert reached.is_set()


def test_who_holds_what_is_to_be_seen(gate: str) -> None:
    @task(task_run_name="holder")
    def holds() -> Any:
        with concurrency(gate):
            (holder,) = limits.holders(limits.find_limit(gate))
            assert str(holder.slot.run_id) == task_run.id
            Home.current().ledger.commit()
            return limits.holders(limits.find_limit(gate))[0]

    seen = holds()
    assert (seen.run_name, seen.run_kind, seen.slot.count) == ("holder", "task", 1)
    assert seen.pid is not None


def test_a_timeout_of_the_task_ends_the_wait(gate: str) -> None:
    @task(timeout_seconds=0.3)
    def waits() -> None:
        with concurrency(gate):
            raise AssertionError

    @flow
    def hopeless() -> Any:
        future = waits.submit()
        future.wait(timeout=20)
        return future.state.name

    with concurrency(gate):
        assert hopeless() == "TimedOut"
    assert waiting() == 0
    assert held(gate) == 0


@pytest.mark.parametrize("submitted", [True, False])
def test_a_cancel_of_the_flow_run_ends_the_wait(gate: str, history: Any, submitted: bool) -> None:
    @task
    def waits() -> None:
        with concurrency(gate):
            raise AssertionError

    @flow
    def patient() -> None:
        scope: Any = current_flow.get().execution.scope  # type: ignore[union-attr]

        def cancel() -> None:
            eventually(lambda: waiting() == 1)
            scope.stop("Enough.")

        threading.Thread(target=cancel).start()
        if submitted:
            waits.submit().wait()
        else:
            waits()

    with Elsewhere(gate):
        assert patient(return_state=True).name == "Cancelled"
        assert waiting() == 0
        assert held(gate) == 1
    (run,) = history.task_runs()
    assert run.state_name == "Cancelled"


def test_in_a_worker_process(gate: str) -> None:
    @task
    def work() -> tuple[int, int]:
        import os

        from prefect_nb.concurrency.sync import concurrency as limited
        from prefect_nb.service import limits as there

        with limited("gate"):
            (holder,) = there.holders(there.find_limit("gate"))
            return os.getpid(), holder.pid or 0

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def remote() -> list[tuple[int, int]]:
        futures = [work.submit() for _ in range(3)]
        return [future.result() for future in futures]

    for pid, holder in remote():
        assert pid == holder
    assert held(gate) == 0


# -- concurrency in coroutines


async def test_waiting_does_not_block_the_event_loop(gate: str) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.ensure_future(tick())
    with Elsewhere(gate) as other:

        async def wait() -> None:
            async with awaited.concurrency(gate):
                pass

        waiter = asyncio.ensure_future(wait())
        await asyncio.to_thread(eventually, lambda: waiting() == 1)
        before = ticks
        await asyncio.to_thread(eventually, lambda: ticks >= before + 20)
        assert not waiter.done()
        await asyncio.to_thread(other.let_go)
        await waiter
    ticking.cancel()
    assert held(gate) == 0


async def test_no_more_than_the_limit_of_coroutines_are_inside_at_once() -> None:
    limits.create_limit("two", 2)
    inside = AtOnce()
    two = asyncio.Barrier(2)

    async def work() -> None:
        async with awaited.concurrency("two"):
            with inside:
                await two.wait()

    await asyncio.gather(*(work() for _ in range(10)))
    assert (inside.entered, inside.most) == (10, 2)
    assert held("two") == 0


async def test_a_coroutine_that_is_cancelled_while_it_waits_leaves_nothing_behind(gate: str) -> None:
    async def work() -> None:
        async with awaited.concurrency(gate):
            raise AssertionError

    async with awaited.concurrency(gate):
        waiters = [asyncio.ensure_future(work()) for _ in range(3)]
        await asyncio.to_thread(eventually, lambda: waiting() == 3)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        assert waiting() == 0
    assert held(gate) == 0


async def test_a_coroutine_that_is_cancelled_inside_gives_its_slot_back(gate: str) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with awaited.concurrency(gate):
            inside.set()
            await asyncio.sleep(100)

    worker = asyncio.ensure_future(work())
    await inside.wait()
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    assert held(gate) == 0


async def test_in_coroutines_the_same_is_refused(gate: str) -> None:
    with pytest.raises(ConcurrencySlotAcquisitionError):
        async with awaited.concurrency("missing", strict=True):
            raise AssertionError
    with pytest.raises(ConcurrencySlotAcquisitionError):
        async with awaited.concurrency(gate, occupy=0):
            raise AssertionError
    with pytest.raises(ConcurrencySlotAcquisitionError, match="decay"):
        await awaited.rate_limit(gate)
    async with awaited.concurrency(gate, timeout_seconds=0):
        with pytest.raises(TimeoutError):
            async with awaited.concurrency(gate, timeout_seconds=0.05):
                raise AssertionError
        with pytest.raises(ConcurrencySlotAcquisitionError, match="Locked"):
            async with awaited.concurrency(gate, max_retries=0):
                raise AssertionError
    assert held(gate) == 0


async def test_in_async_tasks_of_an_async_flow(gate: str) -> None:
    inside = AtOnce()

    @task
    async def work(number: int) -> int:
        async with awaited.concurrency(gate):
            with inside:
                await asyncio.sleep(0.002)
                return number

    @flow
    async def many() -> list[int]:
        return await asyncio.gather(*(work(number) for number in range(5)))

    assert await many() == [0, 1, 2, 3, 4]
    assert inside.most == 1


# -- rate limits


def test_the_rate_is_that_of_the_decay() -> None:
    limits.create_limit("api", 2, slot_decay_per_second=20)
    began = time.monotonic()
    for _ in range(8):
        rate_limit("api")
    assert time.monotonic() - began >= 6 / 20
    assert held("api") == 0


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_step_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    limits.create_limit("api", 1, slot_decay_per_second=5)
    rate_limit("api")
    wall, wall_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: wall() + step)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + step * 10**9)
    began = time.monotonic()
    for _ in range(3):
        rate_limit("api")
    assert 2 / 5 <= time.monotonic() - began <= 4 / 5 + 10  # the upper bound only says that it did not take the hour


def test_a_limit_without_decay_limits_no_rate(gate: str) -> None:
    with pytest.raises(ConcurrencySlotAcquisitionError, match="Only concurrency limits with slot decay can be used"):
        rate_limit(gate)


def test_a_rate_limit_that_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rate_limit("missing")
    assert "['missing'] do not exist" in caplog.text
    with pytest.raises(ConcurrencySlotAcquisitionError):
        rate_limit("missing", strict=True)


def test_waiting_for_a_rate_ends_when_the_time_is_over() -> None:
    limits.create_limit("slow", 1, slot_decay_per_second=0.001)
    rate_limit("slow")
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        rate_limit("slow", timeout_seconds=0.1)
    assert waiting() == 0


async def test_coroutines_share_a_rate() -> None:
    limits.create_limit("api", 1, slot_decay_per_second=20)
    began = time.monotonic()
    await asyncio.gather(*(awaited.rate_limit("api") for _ in range(5)))
    assert time.monotonic() - began >= 4 / 20
