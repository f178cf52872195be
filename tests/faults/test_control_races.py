"""Commands to task runs at every moment of their lives: every task run ends, and the history stays whole."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import flow_runs, opened, started, task_runs, wait_until

from prefect_nb import flow, task
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.service.doctor import examine
from prefect_nb.service.task_control import command
from prefect_nb.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

COMMANDS = 200
KINDS = ("cancel", "skip", "retry")

STORY = """
import asyncio, random, sys, time
from pathlib import Path
from prefect_nb import flow, task
from prefect_nb.futures import wait
from prefect_nb.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

def pause(name):
    time.sleep(random.Random(name).uniform(0, 0.06))

@task(retries=2, retry_delay_seconds=0.1)
def flaky(number, before=None):
    pause(number)
    if number % 3 == 0:
        raise ValueError(number)
    return number

@task
def plain(number, before=None):
    pause(number)
    return number

@task(cache_key_fn=lambda _, values: str(values["number"] % 4), persist_result=True, refresh_cache=True)
def cached(number, before=None):
    pause(number)
    return number

@task(retries=1)
async def awaited(number, before=None):
    await asyncio.sleep(0.04)
    return number

@task
def nested(number, before=None):
    return plain(number, return_state=True).name

TASKS = [flaky, plain, cached, awaited, nested]

@flow
def story(done):
    rounds = 0
    while not Path(done).exists():
        futures = []
        for number in range(20):
            before = futures[-1] if number % 4 == 1 else None
            futures.append(TASKS[number % len(TASKS)].submit(100 * rounds + number, before))
        for number in range(5):
            plain(100 * rounds + 50 + number, return_state=True)
        wait(futures)
        rounds += 1

if __name__ == "__main__":
    runner = ProcessPoolTaskRunner(2) if sys.argv[2] == "processes" else ThreadPoolTaskRunner(4)
    story.with_options(task_runner=runner)(sys.argv[1], return_state=True)
"""


def check(home: Home) -> list[TaskRun]:
    """Nothing is open, and the rows are what their events say."""
    assert home.store.check() == []
    runs = task_runs(home)
    assert [run for run in runs if not run.is_final and run.state_name != "NotReady"] == []
    return runs


@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_commands_of_another_process(runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, done, script = tmp_path / "home", tmp_path / "done", tmp_path / "story.py"
    script.write_text(STORY)
    monkeypatch.setenv("PREFECT_NB_HOME", str(path))
    luck = random.Random(runner)
    with opened(path) as home, started(str(script), path, done, runner) as process:
        wait_until(lambda: task_runs(home), "the first task run")
        flow_run_id = flow_runs(home)[0].id
        is_open = RunQuery(
            flow_run_id=flow_run_id,
            state_types=(StateType.PENDING, StateType.RUNNING, StateType.SCHEDULED),
            limit=40,
        )
        requests = []
        while len(requests) < COMMANDS:
            found = [run for run in home.store.task_runs(is_open) if run.state_name != "NotReady"]
            for run in luck.sample(found, min(3, len(found))):
                details = {"task_run_id": run.id.hex, "message": "By luck."}
                requests.append(
                    home.store.add_request(flow_run_id, f"{luck.choice(KINDS)}-task", time.time_ns() // 1000, details)
                )
            time.sleep(luck.uniform(0, 0.02))
            assert not process.ended(), process.errors
        outcomes = [
            wait_until(lambda one=one: home.store.request_outcome(one.id), "an answer to every request")
            for one in requests
        ]
        done.touch()
        assert process.wait() == 0, process.errors
    with opened(path) as home:
        runs = check(home)
        assert [run.state_name for run in flow_runs(home)] == ["Completed"]
    assert {run.state_name for run in runs} >= {"Completed", "Cancelled", "Skipped"}
    assert {outcome.partition(":")[0] for outcome in outcomes} == {"taken", "refused"}
    assert [finding for finding in examine().findings if not (finding.harmless or finding.mended)] == []


def _luckily(luck: random.Random, over: threading.Event, given: list[Any]) -> None:
    """Commands to whatever is under way in this process, as fast as they can be given."""
    home = Home.current()
    while not over.is_set():
        executions = [
            execution
            for scope in list(home.live.values())
            for execution in [*(future._execution for future in list(scope.futures)), *list(scope.direct)]
            if execution is not None
        ]
        if executions:
            run = luck.choice(executions)
            given.append((run.id, command(luck.choice(KINDS), task_run_id=run.id)))
        time.sleep(luck.choice([0, 0, 0.001, 0.003]))


@task(retries=3, retry_delay_seconds=[0, 0.01, 0])
def flaky(number: int, before: Any = None) -> int:
    if number % 2:
        time.sleep(0.002)
    if number % 3 == 0:
        raise ValueError(number)
    return number


@task(retries=1)
async def awaited(number: int, before: Any = None) -> int:
    await asyncio.sleep(0.002)
    return number


@task
def nested(number: int, before: Any = None) -> Any:
    return [flaky(number, return_state=True).name for _ in range(2)]


@pytest.mark.parametrize("runner", ["threads", "processes"])
@pytest.mark.parametrize("seed", range(3))
def test_commands_of_a_thread_of_this_process(seed: int, runner: str) -> None:
    over, given = threading.Event(), []
    luck = random.Random(seed)
    clicker = threading.Thread(target=_luckily, args=(luck, over, given))

    @flow(task_runner=ProcessPoolTaskRunner(2) if runner == "processes" else ThreadPoolTaskRunner(4))
    def work() -> str:
        deadline = time.monotonic() + 60
        while sum(answer.ok for _, answer in given) < COMMANDS and time.monotonic() < deadline:
            bodies: list[Callable[..., Any]] = [flaky.submit, awaited.submit, nested.submit]
            futures: list[Any] = []
            for number in range(12):
                futures.append(bodies[number % 3](number, futures[-1] if number % 5 == 4 else None))
                flaky(number, return_state=True)
            for future in futures:
                future.wait()
        return "done"

    clicker.start()
    try:
        assert work() == "done"
    finally:
        over.set()
        clicker.join()
    home = Home.current()
    home.ledger.commit()
    runs = check(home)
    assert sum(answer.ok for _, answer in given) >= COMMANDS
    assert {"Cancelled", "Skipped"} <= {run.state_name for run in runs}
    # What a task run has called is rolled back with its attempt.
    expected = {"Cancelled", "Skipped", "Completed", "Failed", "NotReady", "RolledBack"}
    assert [f"{run.name} {run.state_name}: {run.state_message}" for run in runs if run.state_name not in expected] == []
    assert [run.state_name for run in home.store.flow_runs(RunQuery())] == ["Completed"]
