"""The same flow, unchanged, on threads, processes, Dask and Ray: same result, same history."""

# ruff: noqa: T201  # what is printed is the subject
import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from prefect_nb import allow_failure, flow, get_run_logger, runtime, tags, task, unmapped
from prefect_nb.cache_policies import INPUTS
from prefect_nb.dask import DaskTaskRunner
from prefect_nb.exceptions import ConfigurationError
from prefect_nb.execution.task_runners import TaskRunner
from prefect_nb.futures import wait
from prefect_nb.metrics import log_metric, read_metrics
from prefect_nb.ray import RayTaskRunner, remote_options
from prefect_nb.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

LARGE = 300_000


def made(name: str, request: pytest.FixtureRequest) -> TaskRunner:
    match name:
        case "threads":
            return ThreadPoolTaskRunner(max_workers=2)
        case "processes":
            return ProcessPoolTaskRunner(max_workers=2)
        case "dask":
            return DaskTaskRunner(cluster=request.getfixturevalue("dask_cluster"))
    request.getfixturevalue("ray_cluster")
    return RayTaskRunner()


@pytest.fixture(params=["threads", "processes", "dask", "ray"])
def runner(request: pytest.FixtureRequest) -> TaskRunner:
    return made(request.param, request)


@pytest.fixture(params=["dask", "ray"])
def on_cluster(request: pytest.FixtureRequest) -> TaskRunner:
    return made(request.param, request)


@pytest.fixture(params=["processes", "dask", "ray"])
def elsewhere(request: pytest.FixtureRequest) -> TaskRunner:
    return made(request.param, request)


@task(tags=["math"])
def double(x):
    get_run_logger().info("doubling %d", x)
    return x * 2


@task(log_prints=True)
def add(x, y):
    print("adding", x, y)
    return x + y


@task(retries=2)
def flaky():
    if runtime.task_run.run_count < 3:
        raise ValueError(f"attempt {runtime.task_run.run_count}")
    return runtime.task_run.run_count


@task
def bad(x):
    raise LookupError(f"no {x}")


@task(timeout_seconds=0.2)
def slow():
    while True:
        time.sleep(0.01)


@task(cache_policy=INPUTS)
def cached(x):
    return {"cached": x}


@task
async def awaited(x):
    await asyncio.sleep(0)
    return x + 1


@task
def nested(x):
    return double(x) + 1


@task
def items(n):
    yield from range(n)


@task(task_run_name="sum-of-{values}")
def named(values):
    return sum(values)


@task
def facts():
    return {
        "task": runtime.task_run.task_name,
        "flow": runtime.flow_run.flow_name,
        "parameters": runtime.flow_run.parameters,
        "tags": sorted(runtime.task_run.tags),
    }


@task
def recover(error):
    return type(error).__name__, str(error)


def everything(n):
    with tags("around"):
        doubled = double.map(range(n))
        seen = facts.submit()
    added = add.map(doubled, unmapped(10))
    failed = bad.submit(1)
    after = add.submit(failed, 1)
    recovered = recover.submit(allow_failure(failed))
    late = slow.submit()
    tries = flaky.submit()
    first = cached.submit(5)
    first.wait()
    second = cached.submit(5)
    wait([after, late])
    return {
        "added": added.result(),
        "facts": seen.result(),
        "failed": failed.state.message,
        "after": after.state.name,
        "recovered": recovered.result(),
        "late": late.state.name,
        "tries": tries.result(),
        "cached": [first.result(), second.result(), first.state.name, second.state.name],
        "awaited": awaited.submit(1).result(),
        "nested": nested.submit(2).result(),
        "items": items.submit(3).result(),
        "named": named.submit([double.submit(1), 2]).result(),
    }


def history_of(history: Any) -> list[Any]:
    """What the history says of the task runs, without what differs from run to run: ids, times, random names."""
    runs = history.task_runs()
    by_id = {run.id: run for run in runs}
    names = {run.id: run.name.removesuffix(f"-{run.id.hex[-3:]}") for run in runs}
    said = [
        (
            names[run.id],
            run.task_key.rpartition("-")[0],
            run.dynamic_key.partition(".")[0],
            history.states(run.id),
            run.state_message if run.state_name != "NotReady" else "NotReady",
            run.run_count,
            sorted(run.tags),
            by_id[run.parent_id].name.rpartition("-")[0] if run.parent_id else None,
            sorted((name, len(sources)) for name, sources in run.task_inputs.items()),
            [(line.level, line.name, line.message.partition("\n")[0]) for line in history.logs(task_run_id=run.id)],
        )
        for run in runs
    ]
    return sorted(said, key=repr)


def test_one_flow_has_one_history(request, history, monkeypatch, tmp_path):
    results, histories = {}, {}
    for name in ("threads", "processes", "dask", "ray"):
        monkeypatch.setenv("PREFECT_NB_HOME", str(tmp_path / name))
        body = flow(everything, task_runner=made(name, request))
        results[name] = body(3)
        histories[name] = history_of(history)
        assert [run.state_name for run in history.flow_runs()] == ["Completed"]

    assert results["threads"] == {
        "added": [10, 12, 14],
        "facts": {"task": "facts", "flow": "everything", "parameters": {"n": 3}, "tags": ["around"]},
        "failed": "Task run encountered an exception LookupError: no 1",
        "after": "NotReady",
        "recovered": ("LookupError", "no 1"),
        "late": "TimedOut",
        "tries": 3,
        "cached": [{"cached": 5}, {"cached": 5}, "Completed", "Cached"],
        "awaited": 2,
        "nested": 5,
        "items": [0, 1, 2],
        "named": 4,
    }
    for name in ("processes", "dask", "ray"):
        assert results[name] == results["threads"], name
        assert histories[name] == histories["threads"], name


def test_submitted_tasks_run_elsewhere_and_called_ones_here(elsewhere):
    @task
    def where():
        return os.getpid()

    @flow(task_runner=elsewhere)
    def f():
        return {"there": {future.result() for future in [where.submit() for _ in range(3)]}, "here": where()}

    found = f()
    assert os.getpid() not in found["there"]
    assert found["here"] == os.getpid()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_crashes_the_task_run_only(runner, error):
    @task
    def leave():
        raise error("bye")

    @flow(task_runner=runner)
    def f():
        state = leave.submit(return_state=True)
        return {"type": state.type.value, "message": state.message, "next": double.submit(1).result()}

    found = f()
    assert found["type"] == "CRASHED"
    assert "aborted by" in found["message"]
    assert found["next"] == 2


class HoldsALock(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


def test_an_exception_that_cannot_travel_fails_the_run_with_its_text(elsewhere):
    @task
    def fail():
        raise HoldsALock

    @flow(task_runner=elsewhere)
    def f():
        return {"state": fail.submit(return_state=True)}

    state = f()["state"]
    assert state.name == "Failed"
    assert "holds a lock" in state.message


def test_a_run_is_pending_until_a_worker_takes_it_up(elsewhere, history, tmp_path):
    gates = [tmp_path / f"gate-{number}" for number in range(3)]
    for gate in gates:
        os.mkfifo(gate)

    @task
    def hold(gate):
        get_run_logger().info("held")
        return gate.read_text()

    @flow(task_runner=elsewhere)
    def f():
        futures = hold.map(gates)
        deadline = time.monotonic() + 60
        while len(history.logs()) < 2:
            assert time.monotonic() < deadline
        states = sorted(future.state.name for future in futures)
        for gate in gates:
            gate.write_text("go")
        return {"states": states}

    assert f() == {"states": ["Pending", "Running", "Running"]}


def test_lines_come_while_the_task_runs(elsewhere, history, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    @task
    def talk():
        for number in range(50):
            get_run_logger().info("line %d", number)
        gate.read_text()
        get_run_logger().info("last")

    @flow(task_runner=elsewhere)
    def f():
        future = talk.submit()
        deadline = time.monotonic() + 60
        while len(history.logs()) < 50:
            assert time.monotonic() < deadline
        gate.write_text("go")
        future.wait()

    f()
    assert [line.message for line in history.logs()] == [*(f"line {number}" for number in range(50)), "last"]


def test_metrics_come_home(runner, history):
    @task
    def train(rate):
        for epoch in range(3):
            log_metric("loss", rate / (epoch + 1), step=epoch)
        log_metric("rate", rate)

    @flow(task_runner=runner)
    def f():
        train.map([0.5, 1.0]).wait()

    f()
    (run,) = history.flow_runs()
    lines = {name: sorted(line.points for line in found) for name, found in read_metrics(str(run.id)).items()}
    assert lines == {
        "loss": [((0, 0.5), (1, 0.25), (2, 0.5 / 3)), ((0, 1.0), (1, 0.5), (2, 1 / 3))],
        "rate": [((0, 0.5),), ((0, 1.0),)],
    }


def test_large_results_pass_from_task_to_task_without_coming_here(on_cluster, monkeypatch):
    from prefect_nb.runners.aside import Held

    fetched: list[int] = []
    fetch: Callable[[Any], bytes] = Held._fetch
    monkeypatch.setattr(Held, "_fetch", lambda held: (fetched.append(1), fetch(held))[1])

    @task
    def make():
        return b"x" * LARGE

    @task
    def measure(value):
        return len(value)

    @flow(task_runner=on_cluster)
    def f():
        large = make.submit()
        lengths = measure.map([large, large, large]).result()
        before = len(fetched)
        return {"lengths": lengths, "before": before, "value": len(large.result()), "again": len(large.result())}

    assert f() == {"lengths": [LARGE] * 3, "before": 0, "value": LARGE, "again": LARGE}
    assert fetched == [1]


def test_large_results_are_there_after_the_flow(on_cluster):
    @task
    def make(n):
        return [n] * LARGE

    @flow(task_runner=on_cluster)
    def f():
        return make.submit(1), make.submit(2)

    state = f(return_state=True)
    assert [len(future.result()) for future in state.data] == [LARGE, LARGE]


def test_kept_results_are_read_where_they_are_needed(elsewhere, history):
    @task(cache_policy=INPUTS, persist_result=True)
    def make(n):
        return b"x" * n

    @task
    def measure(values):
        return [len(value) for value in values]

    @flow(task_runner=elsewhere)
    def f():
        first = make.submit(LARGE)
        first.wait()
        second = make.submit(LARGE)
        sizes = measure.submit([first, second]).result()
        return {"names": [first.state.name, second.state.name], "sizes": sizes}

    assert f() == {"names": ["Completed", "Cached"], "sizes": [LARGE, LARGE]}


def test_what_a_task_submits_is_in_the_history_when_it_ends(elsewhere, history):
    @task
    def outer(n):
        double.map(range(n))
        return n

    @flow(task_runner=elsewhere)
    def f():
        return {"value": outer.submit(3).result()}

    assert f() == {"value": 3}
    inner = [run for run in history.task_runs() if run.name.startswith("double")]
    assert [run.state_name for run in inner] == ["Completed"] * 3
    (outer_run,) = [run for run in history.task_runs() if run.name.startswith("outer")]
    assert {run.parent_id for run in inner} == {outer_run.id}
    assert {run.flow_run_id for run in inner} == {history.flow_runs()[0].id}


def test_cancelling_the_flow_interrupts_what_runs(elsewhere, history, tmp_path):
    from prefect_nb.exceptions import CancelledRun
    from prefect_nb.home import Home

    @task
    def endless():
        get_run_logger().info("begun")
        while True:
            time.sleep(0.01)

    @task
    async def endless_too():
        get_run_logger().info("begun")
        await asyncio.sleep(600)

    @flow(task_runner=elsewhere)
    def f():
        futures = [endless.submit(), endless_too.submit(), endless.submit()]
        deadline = time.monotonic() + 60
        while len(history.logs()) < 2:
            assert time.monotonic() < deadline
        home = Home.current()
        home.store.add_request(history.flow_runs()[0].id, "cancel", 1, {})
        wait(futures)

    begun = time.monotonic()
    with pytest.raises(CancelledRun):
        f()
    assert time.monotonic() - begun < 60
    assert {run.state_name for run in [*history.task_runs(), *history.flow_runs()]} == {"Cancelled"}
    # Nothing goes on: both places of the cluster are free.
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    @task
    def meet(side):
        return gate.write_text("met") if side else gate.read_text()

    @flow(task_runner=elsewhere)
    def g():
        return {"met": meet.map([0, 1]).result()}

    assert g() == {"met": ["met", 3]}


def test_options_of_ray_reach_the_task(ray_cluster):
    @task
    def resources():
        import ray

        return ray.get_runtime_context().get_assigned_resources()

    @flow(task_runner=RayTaskRunner())
    def f():
        with remote_options(num_cpus=2):
            two = resources.submit()
        return {"two": two.result()["CPU"], "one": resources.submit().result()["CPU"]}

    assert f() == {"two": 2.0, "one": 1.0}


def test_annotations_of_dask_reach_the_scheduler(dask_cluster):
    import dask

    @task
    def where():
        import distributed

        return distributed.get_worker().address

    @flow(task_runner=DaskTaskRunner(cluster=dask_cluster))
    def f():
        found = {}
        for worker in dask_cluster.scheduler.workers:
            with dask.annotate(workers=[worker]):
                found[worker] = {future.result() for future in [where.submit() for _ in range(4)]}
        return found

    found = f()
    assert len(found) == 2
    assert found == {worker: {worker} for worker in found}


def test_collections_of_dask_in_a_flow_and_its_tasks(dask_cluster):
    from prefect_nb.dask import get_dask_client

    @task
    def total():
        with get_dask_client() as client:
            return client.gather(client.submit(sum, [1, 2, 3]))

    @flow(task_runner=DaskTaskRunner(cluster=dask_cluster))
    def f():
        with get_dask_client() as client:
            here = client.submit(sum, [4, 5]).result()
        return {"there": [future.result() for future in [total.submit() for _ in range(3)]], "here": here}

    assert f() == {"there": [6, 6, 6], "here": 9}


def test_a_runner_by_itself(on_cluster):
    with on_cluster as opened:
        assert opened.submit(double, {"x": 4}).result() == 8
        assert opened.map(add, {"x": [1, 2], "y": 1}).result() == [2, 3]


def test_a_cluster_of_its_own_is_closed_with_the_flow():
    import psutil

    @task
    def worker():
        return os.getpid()

    @flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1}))
    def f():
        return {"pid": worker.submit().result()}

    assert not psutil.pid_exists(f()["pid"])


def test_clusters_that_we_start_listen_on_the_loopback_address_only(dask_cluster, ray_cluster):
    import psutil

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    connections = [item for process in processes for item in process.net_connections("inet")]
    listening = [item.laddr.ip.removeprefix("::ffff:") for item in connections if item.status == psutil.CONN_LISTEN]
    assert len(listening) > 5
    assert set(listening) == {"127.0.0.1"}


def test_a_cluster_that_was_given_is_left_running(dask_cluster):
    @flow(task_runner=DaskTaskRunner(address=dask_cluster.scheduler_address))
    def f():
        return {"value": double.submit(2).result()}

    assert [f(), f()] == [{"value": 4}, {"value": 4}]
    assert len(dask_cluster.scheduler.workers) == 2


def test_an_address_where_nobody_answers():
    @flow(task_runner=DaskTaskRunner(address="tcp://127.0.0.1:1", client_kwargs={"timeout": 0.5}))
    def f():
        return double.submit(1).result()

    begun = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"tcp://127.0.0.1:1.*0.5 seconds"):
        f()
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "arguments",
    [
        {"address": "tcp://x:1", "cluster_kwargs": {"n_workers": 1}},
        {"cluster": object(), "cluster_class": "x.Y"},
        {"client_kwargs": {"asynchronous": True}},
        {"cluster_kwargs": {"asynchronous": True}},
    ],
)
def test_arguments_that_contradict_each_other(arguments):
    with pytest.raises(ValueError, match="annot"):
        DaskTaskRunner(**arguments)


def test_a_cluster_class_by_name():
    assert DaskTaskRunner(cluster_class="distributed.LocalCluster") == DaskTaskRunner(
        cluster_class="distributed.LocalCluster"
    )
    with pytest.raises(ConfigurationError, match="NoSuchCluster"):
        DaskTaskRunner(cluster_class="distributed.NoSuchCluster")


@pytest.mark.parametrize(
    ("runner_class", "module", "extra"), [(DaskTaskRunner, "distributed", "dask"), (RayTaskRunner, "ray", "ray")]
)
def test_a_missing_extra_is_named(runner_class, module, extra, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    with pytest.raises(ConfigurationError, match=rf"pip install 'prefect-nb\[{extra}\]'"):
        runner_class()


def test_nothing_of_a_cluster_is_imported_before_it_is_wanted():
    import subprocess
    import sys

    program = "import sys, prefect_nb, prefect_nb.dask, prefect_nb.ray; print({'dask', 'distributed', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
