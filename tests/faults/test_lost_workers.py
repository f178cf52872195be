"""Workers of a cluster die: what they were at is done again, once in the history, and nobody is answered twice."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_nb import flow, get_run_logger, task
from prefect_nb.dask import DaskTaskRunner
from prefect_nb.engine.commands import Interrupted, Outcome, Returned
from prefect_nb.execution.task_runners import TaskRunner
from prefect_nb.home import Home
from prefect_nb.interfaces import LogLine, RunQuery, Store
from prefect_nb.model.runs import TaskRun
from prefect_nb.ray import RayTaskRunner
from prefect_nb.runners.aside import Held
from prefect_nb.runners.carry import pickle_outcome
from prefect_nb.runners.cluster import BEGUN, LINE, STAYS, TRIES, ClusterRunner, Flight

WAIT = 60.0
LARGE = 300_000


@pytest.fixture(params=["dask", "ray"])
def runner(request: pytest.FixtureRequest) -> TaskRunner:
    if request.param == "dask":
        return DaskTaskRunner(cluster=request.getfixturevalue("dask_cluster"))
    request.getfixturevalue("ray_cluster")
    return RayTaskRunner()


def store() -> Store:
    home = Home.current()
    home.ledger.commit()
    return home.store


def task_runs() -> list[TaskRun]:
    return store().task_runs(RunQuery(oldest_first=True))


def states(run: TaskRun) -> list[str]:
    return [getattr(event, "name", None) or event.run.state_name for event in store().events(run.id)]


def lines(run: TaskRun) -> list[str]:
    return [line.message for _, line in store().logs(task_run_id=run.id)]


@task
def double(x: int) -> int:
    return x * 2


@task
def die_the_first_time(marker: Path) -> str:
    first = not marker.exists()
    get_run_logger().info("first" if first else "second")
    if first:
        marker.touch()
        while not marker.with_name("heard").exists():  # that it was taken up
            time.sleep(0.01)
        os._exit(3)
    return "done"


def test_a_task_whose_worker_dies_runs_again_and_the_history_says_so(runner: TaskRunner, tmp_path: Path) -> None:
    @flow(task_runner=runner)
    def f() -> dict[str, Any]:
        futures = [die_the_first_time.submit(tmp_path / "marker"), *double.map([1, 2, 3])]
        while not futures[0].state.is_running():
            time.sleep(0.01)
        (tmp_path / "heard").touch()
        return {"results": [future.result() for future in futures]}

    assert f() == {"results": ["done", 2, 4, 6]}
    died, *others = task_runs()
    assert states(died) == ["Pending", "Running", "Completed"]
    assert died.run_count == 1
    # What the first worker said last may have died with it.
    said = lines(died)
    assert said[-1] == "second"
    assert [line for line in said if line not in ("first", "second")] == [said[-2]]
    assert said[-2].startswith("The worker that ran this task was lost. It is begun again in process ")
    assert {run.state_name for run in others} == {"Completed"}


def test_a_task_that_kills_every_worker_crashes(runner: TaskRunner, tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"

    @task
    def die() -> None:
        with deaths.open("a") as file:
            file.write("x")
        os._exit(3)

    @flow(task_runner=runner)
    def f() -> dict[str, Any]:
        state = die.submit(return_state=True)
        return {"state": state, "next": double.submit(1).result()}

    found = f()
    assert found["state"].is_crashed()
    assert "worker process died" in found["state"].message
    assert found["next"] == 2
    assert len(deaths.read_text()) == TRIES


def test_retries_are_for_what_the_task_raises(dask_cluster: Any, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    @task(retries=1)
    def fail_then_die_then_succeed() -> str:
        if not marker.exists():
            marker.write_text("failed")
            raise ValueError("failed")
        if marker.read_text() == "failed":
            marker.write_text("died")
            os._exit(3)
        return "done"

    @flow(task_runner=DaskTaskRunner(cluster=dask_cluster))
    def f() -> dict[str, Any]:
        return {"result": fail_then_die_then_succeed.submit().result()}

    assert f() == {"result": "done"}
    (run,) = task_runs()
    assert states(run) == ["Pending", "Running", "Retrying", "Completed"]


def test_tasks_of_a_scheduler_that_goes_crash(tmp_path: Path) -> None:
    from prefect_nb.runners.dask import local_cluster

    gate = tmp_path / "gate"
    os.mkfifo(gate)

    @task
    def hold() -> str:
        return gate.read_text()

    with local_cluster(n_workers=1) as cluster:

        @flow(task_runner=DaskTaskRunner(address=cluster.scheduler_address, client_kwargs={"timeout": 1}))
        def f() -> dict[str, Any]:
            futures = [hold.submit(), hold.submit()]
            cluster.close()
            for future in futures:
                future.wait()
            return {"states": [future.state for future in futures]}

        states = f()["states"]

    assert [state.type.value for state in states] == ["CRASHED", "CRASHED"]
    assert {state.message for state in states} == {"The connection to the Dask scheduler was lost."}


# ----------------------------------------------------------------------------------------- values that were on a worker


@task
def make(log: Path) -> bytes:
    with log.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return b"x" * LARGE


@task
def measure(value: bytes, argument: bytes) -> tuple[int, int]:
    return len(value), len(argument)


@pytest.mark.parametrize("size", [2_000_000, 20_000_000], ids=["in the scheduler", "scattered"])
def test_values_that_die_with_their_worker_are_made_again(tmp_path: Path, size: int) -> None:
    from prefect_nb.runners.dask import connect, local_cluster, release

    log, argument = tmp_path / "log", b"y" * size

    with local_cluster(n_workers=2) as cluster:
        client = connect(cluster, {})

        @flow(task_runner=DaskTaskRunner(cluster=cluster))
        def f() -> dict[str, Any]:
            value = make.submit(log)
            before = measure.submit(value, argument).result()
            for pid in client.run(os.getpid).values():  # all of them: no copy is left anywhere
                os.kill(pid, signal.SIGKILL)
            return {"before": before, "after": measure.submit(value, argument).result(), "here": len(value.result())}

        found = f()
        release(client, None, None, hard=False)

    assert found == {"before": (LARGE, size), "after": (LARGE, size), "here": LARGE}
    assert len(log.read_text().split()) >= 2
    assert {run.state_name for run in task_runs()} == {"Completed"}


# ------------------------------------------------------------------------------------------ what every cluster goes by


class FakeCluster(ClusterRunner):
    """A cluster whose workers are the test."""

    name = "fake"

    def __init__(self) -> None:
        super().__init__(shares_files=True)
        self.sent: list[Flight] = []
        self.is_released = False

    def _send(self, flight: Flight, data: bytes, places: list[Any]) -> None:
        self.sent.append(flight)

    def _stop(self, flights: list[Flight]) -> None:
        for flight in flights:
            self._crashed(flight, "stopped")

    def _release(self) -> None:
        self.is_released = True

    def fetch(self, place: Any) -> bytes:
        return place  # type: ignore[no-any-return]

    def letter(self, flight: Flight, attempt: str, kind: bytes, text: str = "") -> None:
        said = pickle.dumps(LogLine(1, 20, "test", text)) if text else b""
        self._news.put(lambda: self._hear((flight.id, attempt, kind, said)))


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.outcomes: list[Outcome] = []
        self.is_done = threading.Event()

    def done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.is_done.set()

    def emit(self, line: Any) -> None:
        self.lines.append(line.message)


@pytest.fixture
def fake() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    yield cluster
    cluster.kill()
    cluster.close()


def started(fake: FakeCluster) -> tuple[Flight, Heard]:
    heard = Heard()
    fake.start(lambda _: Returned(None), heard.done, heard.emit)
    return fake.sent[-1], heard


def test_letters_and_answers_of_a_lost_attempt_are_refused(fake: FakeCluster) -> None:
    flight, heard = started(fake)
    for attempt, kind, text in [
        ("a", BEGUN, ""), ("a", LINE, "a1"), ("b", BEGUN, ""), ("a", LINE, "late"), ("b", LINE, "b1"),
        ("a", BEGUN, ""), ("a", LINE, "later"), ("b", LINE, "b2"),
    ]:  # fmt: skip
        fake.letter(flight, attempt, kind, text)
    fake._news.put(lambda: fake._end(flight, pickle_outcome(Returned("b"))))
    fake._news.put(lambda: fake._end(flight, pickle_outcome(Returned("a"))))
    fake.letter(flight, "c", LINE, "latest")
    assert heard.is_done.wait(WAIT)
    fake.close()

    assert heard.lines == ["a1", "b1", "b2"]
    assert heard.outcomes == [Returned("b")]


def test_where_a_value_stays_is_what_the_last_attempt_says(fake: FakeCluster) -> None:
    flight, _ = started(fake)
    for attempt, kind in [("a", BEGUN), ("a", STAYS), ("b", BEGUN)]:
        fake.letter(flight, attempt, kind)
    seen = threading.Event()
    fake._news.put(seen.set)
    assert seen.wait(WAIT)

    assert not flight.stays


def test_a_work_is_sent_again_only_so_often(fake: FakeCluster) -> None:
    flight, heard = started(fake)
    for _ in range(TRIES):
        fake._again(flight, "lost")
    assert heard.is_done.wait(WAIT)

    assert len(fake.sent) == TRIES
    assert isinstance(heard.outcomes[0], Interrupted)
    assert heard.outcomes[0].message == "lost"


def test_a_work_that_was_stopped_is_not_sent_again(fake: FakeCluster) -> None:
    flight, heard = started(fake)
    flight.stopped = True
    fake._again(flight, "cancelled")
    assert heard.is_done.wait(WAIT)

    assert len(fake.sent) == 1


def test_values_come_home_before_the_cluster_goes(fake: FakeCluster) -> None:
    flight, heard = started(fake)
    fake._stayed(flight, pickle_outcome(Returned("large")))
    assert heard.is_done.wait(WAIT)
    (outcome,) = heard.outcomes
    assert isinstance(outcome, Returned)
    assert isinstance(outcome.value, Held)
    fake.close()

    assert fake.is_released
    assert outcome.value.place is None
    assert outcome.value.get() == "large"


def test_a_cluster_that_takes_no_work_answers_all_the_same(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(fake, "_send", refuse)
    heard = Heard()
    fake.start(lambda _: Returned(None), heard.done, heard.emit)
    assert heard.is_done.wait(WAIT)

    assert isinstance(heard.outcomes[0], Interrupted)
    assert "gone" in heard.outcomes[0].message


# ------------------------------------------------------------------------------------------------- the flow's own death

_FLOW = """
import os, sys, time
from prefect_nb import flow, task
from prefect_nb.dask import DaskTaskRunner

@task
def wait():
    print(os.getpid(), flush=True)
    time.sleep(600)

@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1}))
def f():
    wait.submit().wait()

if __name__ == "__main__":
    f()
"""


def test_workers_of_a_flow_that_is_killed_end_with_it(tmp_path: Path) -> None:
    import psutil

    script = tmp_path / "story.py"
    script.write_text(_FLOW)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = psutil.Process(int(process.stdout.readline()))
        process.kill()
    _, alive = psutil.wait_procs([worker], timeout=WAIT)

    assert alive == []


def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    script = tmp_path / "story.py"
    script.write_text(_FLOW.replace('if __name__ == "__main__":\n    f()', "f()"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=WAIT, check=False)

    assert done.returncode == 1
    assert 'if __name__ == "__main__"' in done.stderr
