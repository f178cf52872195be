"""`task.delay` and the workers that execute what was delayed."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prefect_nb import flow, runtime, tags, task
from prefect_nb.exceptions import ConfigurationError, FailedRun
from prefect_nb.futures import PrefectDistributedFuture
from prefect_nb.home import Home
from prefect_nb.states import Scheduled
from prefect_nb.task_worker import TaskWorker, serve


@pytest.fixture
def working():
    """Call it with tasks: they are served by a worker of this process until the test ends."""
    workers = []

    def start(*tasks, **options):
        worker = TaskWorker(*tasks, **options)
        thread = threading.Thread(target=worker.start, daemon=True)
        thread.start()
        workers.append((worker, thread))
        return worker

    yield start
    for worker, thread in workers:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


@task
def double(x):
    return 2 * x


def test_a_delayed_run_waits_as_scheduled():
    future = double.delay(4)
    assert isinstance(future, PrefectDistributedFuture)
    run = Home.current().store.task_run(future.task_run_id)
    assert (run.state_name, run.flow_run_id, run.owner_id) == ("Scheduled", None, None)
    assert run.state.state_details.deferred is True
    assert run.state.state_details.task_parameters_id is not None
    assert future.state.is_scheduled()
    assert not future.done()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)


def test_a_worker_executes_it_and_the_result_comes_back(working):
    future = double.delay(x=4)
    working(double)
    assert future.result(timeout=30) == 8
    assert future.state.name == "Completed"


def test_runs_delayed_while_a_worker_waits_are_taken_up(working):
    working(double)
    assert [future.result(timeout=30) for future in [double.delay(n) for n in range(5)]] == [0, 2, 4, 6, 8]


def test_map_deferred(working):
    working(double)
    assert double.map([1, 2], deferred=True).result(timeout=30) == [2, 4]


def test_apply_async_takes_a_tuple_and_a_dict(working):
    working(double)
    assert double.apply_async((3,)).result(timeout=30) == 6
    assert double.apply_async(kwargs={"x": 5}).result(timeout=30) == 10


def test_async_tasks_are_executed_too(working):
    @task
    async def triple(x):
        return 3 * x

    working(triple)
    assert triple.delay(2).result(timeout=30) == 6


def test_a_failure_ends_failed_and_result_raises(working):
    @task
    def bad():
        raise ValueError("no good")

    working(bad)
    future = bad.delay()
    future.wait(30)
    assert future.state.is_failed()
    with pytest.raises(FailedRun, match="no good"):
        future.result(timeout=30)
    assert isinstance(future.result(raise_on_failure=False), FailedRun)


def test_retries_happen_in_the_worker(working):
    attempts = []

    @task(retries=2)
    def flaky():
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError
        return len(attempts)

    working(flaky)
    assert flaky.delay().result(timeout=30) == 3


def test_the_body_sees_its_run_its_tags_and_no_flow(working):
    @task
    def look():
        return runtime.task_run.id, sorted(runtime.task_run.tags), runtime.flow_run.id

    working(look)
    with tags("nightly"):
        future = look.delay()
    assert future.result(timeout=30) == (str(future.task_run_id), ["nightly"], None)


def test_hooks_of_the_task_are_called(working):
    seen = []

    @task(on_completion=[lambda _task, run, state: seen.append((run.name, state.name))])
    def hooked():
        return 1

    working(hooked)
    future = hooked.delay()
    future.result(timeout=30)
    run = Home.current().store.task_run(future.task_run_id)
    assert seen == [(run.name, "Completed")]


def test_futures_in_the_arguments_are_resolved_before(working):
    working(double)

    @flow
    def main():
        return double.delay(double.submit(1)).result(timeout=30)

    assert main() == 4


def test_a_delayed_run_may_be_an_argument_of_another_task(working):
    working(double)

    @flow
    def main():
        return double(double.delay(2)), double.submit(double.delay(3)).result()

    assert main() == (8, 12)


def test_delayed_in_a_flow_it_knows_its_parent(working):
    @flow
    def main():
        return double.delay(1).task_run_id, runtime.flow_run.id

    id, flow_run_id = main()
    run = Home.current().store.task_run(id)
    assert run.task_inputs["__parents__"] == [{"input_type": "flow_run", "id": flow_run_id}]


def test_the_future_travels_to_other_processes(working):
    working(double)
    future = pickle.loads(pickle.dumps(double.delay(6)))
    assert future.result(timeout=30) == 12


def test_callbacks_are_called_when_the_run_has_ended(working):
    called = threading.Event()
    future = double.delay(1)
    future.add_done_callback(lambda _future: called.set())
    working(double)
    assert called.wait(30)


async def test_it_can_be_awaited(working):
    working(double)
    future = double.delay(8)
    await future.wait_async(30)
    assert await future.result_async() == 16


def test_of_many_workers_one_executes_each_run(working):
    executed = []

    @task
    def note(n):
        executed.append(n)
        return n

    for _ in range(3):
        working(note, limit=4)
    futures = [note.delay(n) for n in range(30)]
    assert [future.result(timeout=60) for future in futures] == list(range(30))
    assert sorted(executed) == list(range(30))


def test_no_more_runs_at_once_than_the_limit(working):
    now, most, lock = [], [], threading.Lock()
    go = threading.Event()

    @task
    def busy():
        with lock:
            now.append(1)
            most.append(len(now))
            if len(most) == 2:
                go.set()
        go.wait(30)
        with lock:
            now.pop()

    futures = [busy.delay() for _ in range(6)]
    working(busy, limit=2)
    for future in futures:
        future.result(timeout=30)
    assert max(most) == 2


def test_runs_of_other_tasks_are_left_alone(working):
    @task
    def other():
        return 1

    working(double)
    waiting = other.delay()
    assert double.delay(1).result(timeout=30) == 2
    assert waiting.state.is_scheduled()


def test_arguments_that_cannot_be_read_crash_the_run_and_not_the_worker(working):
    future = double.delay(1)
    home = Home.current()
    run = home.store.task_run(future.task_run_id)
    sha = run.deferred.sha256
    (home.path / "results" / sha[:2] / sha).unlink()
    working(double)
    future.wait(30)
    assert future.state.is_crashed()
    assert double.delay(2).result(timeout=30) == 4


def test_serve_refuses_what_is_no_task():
    with pytest.raises(ConfigurationError, match="at least one task"):
        serve()
    with pytest.raises(ConfigurationError, match="Only tasks"):
        serve(print)
    with pytest.raises(ConfigurationError, match="limit"):
        serve(double, limit=0)


def test_serve_returns_after_its_timeout():
    serve(double, timeout=0.01)
    double.serve(timeout=0.01)


SERVED = """
from prefect_nb import task

@task
def whose(hang=False):
    import os, time
    while hang:
        time.sleep(0.1)
    return os.getpid()

if __name__ == "__main__":
    from prefect_nb.task_worker import serve
    print("serving", flush=True)
    serve(whose)
"""


@pytest.fixture
def served(tmp_path: Path):
    script = tmp_path / "served.py"
    script.write_text(SERVED)
    processes = []

    def start():
        process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "serving\n"
        return process

    namespace: dict[str, object] = {"__name__": "__main__", "__file__": str(script)}
    exec(compile(SERVED.split("if __name__", maxsplit=1)[0], str(script), "exec"), namespace)
    yield namespace["whose"], start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_worker_in_another_process(served):
    whose, start = served
    process = start()
    assert whose.delay().result(timeout=60) == process.pid != os.getpid()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_killed_workers_run_is_crashed_and_the_next_worker_goes_on(served):
    whose, start = served
    first = start()
    hanging = whose.delay(hang=True)
    while hanging.state.name != "Running":
        hanging.wait(0.05)
    first.kill()
    first.wait()
    second = start()
    hanging.wait(60)
    assert hanging.state.is_crashed()
    assert whose.delay().result(timeout=60) == second.pid


def test_a_scheduled_state_made_by_hand_is_not_deferred():
    assert Scheduled().state_details.deferred is False
