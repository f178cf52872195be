"""A run's state says what is the case: Running is what a thread has taken up, not what waits for one."""

import threading

from prefect_nb import flow, task
from prefect_nb.task_runners import ThreadPoolTaskRunner


def test_what_waits_for_a_thread_is_pending() -> None:
    begun, gate = threading.Event(), threading.Event()

    @task
    def gated() -> None:
        begun.set()
        gate.wait(10)

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def two() -> list[str]:
        futures = [gated.submit(), gated.submit()]
        begun.wait(10)
        seen = [future.state.name for future in futures]
        gate.set()
        return seen

    assert two() == ["Running", "Pending"]


def test_each_attempt_waits_for_its_turn() -> None:
    attempts: dict[int, int] = {}

    @task(retries=3, retry_delay_seconds=0.001)
    def third_time(number: int) -> int:
        attempts[number] = attempts.get(number, 0) + 1
        if attempts[number] < 3:
            raise ValueError("not yet")
        return attempts[number]

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
    def many() -> list[int]:
        return third_time.map(range(100)).result()  # type: ignore[no-any-return]

    assert many() == [3] * 100
