"""`ProcessPoolTaskRunner`: submitted tasks in other processes."""

# ruff: noqa: T201  # what is printed is the subject
import os

import pytest

from prefect_nb import flow, get_run_logger, runtime, tags, task
from prefect_nb.task_runners import ProcessPoolTaskRunner

RUNNER = ProcessPoolTaskRunner(max_workers=2)


@task
def double(x):
    return x * 2


def test_submitted_tasks_run_in_other_processes(history):
    @task
    def where(x):
        return os.getpid(), x

    @flow(task_runner=RUNNER)
    def f():
        mapped = where.map([1, 2, 3]).result()
        return {"mapped": mapped, "direct": where(4)}

    found = f()
    assert [x for _, x in found["mapped"]] == [1, 2, 3]
    assert os.getpid() not in [pid for pid, _ in found["mapped"]]
    assert found["direct"] == (os.getpid(), 4)
    assert {run.state_name for run in history.task_runs()} == {"Completed"}


def test_closures_lambdas_and_futures_travel():
    factor = 3

    @task
    def times(x, function):
        return function(x) * factor

    @flow(task_runner=RUNNER)
    def f():
        return {"value": times.submit(double.submit(2), lambda x: x + 1).result()}

    assert f() == {"value": 15}


def test_failures_retries_and_states_stay_with_the_flow(history):
    @task(retries=2)
    def flaky():
        if runtime.task_run.run_count < 3:
            raise ValueError(f"attempt {runtime.task_run.run_count}")
        return runtime.task_run.run_count

    @task
    def bad():
        raise ValueError("bad")

    @flow(task_runner=RUNNER)
    def f():
        failed = bad.submit()
        after = double.submit(failed)
        after.wait()
        return {"flaky": flaky.submit().result(), "failed": failed.state, "after": after.state.name}

    found = f()
    assert found["flaky"] == 3
    assert found["failed"].message == "Task run encountered an exception ValueError: bad"
    assert found["after"] == "NotReady"
    states = [history.states(run.id) for run in history.task_runs() if run.run_count == 3]
    assert states == [["Pending", "Running", "Retrying", "Retrying", "Completed"]]


def test_contexts_tags_and_logs_travel(history):
    @task(log_prints=True, tags=["own"])
    def look():
        get_run_logger().info("logged")
        print("printed")
        return {
            "task": runtime.task_run.task_name,
            "flow": runtime.flow_run.flow_name,
            "tags": sorted(runtime.task_run.tags),
            "parameters": runtime.flow_run.parameters,
        }

    @flow(task_runner=RUNNER)
    def f(x):
        with tags("around"):
            return {"seen": look.submit().result()}

    assert f(1) == {"seen": {"task": "look", "flow": "f", "tags": ["around", "own"], "parameters": {"x": 1}}}
    (run,) = history.task_runs()
    assert sorted(run.tags) == ["around", "own"]
    lines = {line.message: line.task_run_id for line in history.logs()}
    assert lines == {"logged": run.id, "printed": run.id}


def test_async_tasks_travel():
    @task
    async def adouble(x):
        return x * 2

    @flow(task_runner=RUNNER)
    def f():
        return {"value": adouble.submit(2).result()}

    assert f() == {"value": 4}


def test_timeouts_hold_there():
    @task(timeout_seconds=0.1)
    def slow():
        import time

        time.sleep(30)

    @flow(task_runner=RUNNER)
    def f():
        return {"name": slow.submit(return_state=True).name}

    assert f() == {"name": "TimedOut"}


def test_what_cannot_be_pickled_fails_its_run_and_says_so():
    @flow(task_runner=RUNNER)
    def f():
        import threading

        return {"state": double.submit(threading.Lock(), return_state=True)}

    state = f()["state"]
    assert state.is_failed() or state.is_crashed()
    assert "pickle" in state.message


def test_a_result_that_cannot_be_pickled_fails_its_run_and_says_so():
    @task
    def lock():
        import threading

        return threading.Lock()

    @flow(task_runner=RUNNER)
    def f():
        return {"state": lock.submit(return_state=True)}

    assert "pickle" in f()["state"].message


def test_a_process_that_dies_crashes_its_run_only():
    @task
    def die():
        os._exit(3)

    @flow(task_runner=RUNNER)
    def f():
        state = die.submit(return_state=True)
        return {"state": state, "other": double.submit(1).result()}

    found = f()
    assert found["state"].is_crashed()
    assert found["other"] == 2


def test_kept_results_are_hits():
    from prefect_nb.cache_policies import INPUTS

    @task(cache_policy=INPUTS)
    def where(x):
        return os.getpid()

    @flow(task_runner=RUNNER)
    def f():
        first = where.submit(1, return_state=True)
        second = where.submit(1, return_state=True)
        return {"names": [first.name, second.name], "same": first.result() == second.result()}

    assert f() == {"names": ["Completed", "Cached"], "same": True}


def test_tasks_in_tasks_over_there(history):
    @task
    def outer(x):
        return double(x) + 1

    @flow(task_runner=RUNNER)
    def f():
        return {"value": outer.submit(2).result()}

    assert f() == {"value": 5}
    runs = history.task_runs()
    assert len(runs) == 2
    assert {run.flow_run_id for run in runs} == {history.flow_runs()[0].id}
    inner = next(run for run in runs if run.parent_id is not None)
    assert inner.state_name == "Completed"


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_that_makes_no_sense(workers):
    from prefect_nb.exceptions import ConfigurationError

    with pytest.raises(ConfigurationError, match="max_workers"):
        ProcessPoolTaskRunner(max_workers=workers)
