"""Real processes to kill, and the look at what they left behind."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.settings import get_settings

SCRIPTS = Path(__file__).parent / "scripts"
LIMIT_SECONDS = 60.0


class Process:
    """A script in a process group of its own.

    Args:
        script: name of a file in `scripts/`.
        home: its `PREFECT_NB_HOME`; its execution log is beside it.
        environment: further variables.
    """

    def __init__(self, script: str, home: Path, *args: object, **environment: str) -> None:
        self.home = home
        self._popen = subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *map(str, args)],
            env={
                **os.environ,
                "PREFECT_NB_HOME": str(home),
                "PREFECT_NB_LOGGING_TO_CONSOLE": "false",
                "EXECUTIONS": str(log_of(home)),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self.output = self.errors = ""

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = LIMIT_SECONDS) -> int:
        """Its exit code, once it has ended; then `output` and `errors` are what it said."""
        self.output, self.errors = self._popen.communicate(timeout=seconds)
        return self._popen.returncode

    def ended(self) -> bool:
        return self._popen.poll() is not None

    def stop(self) -> None:
        """However the test ended: nothing of it goes on."""
        if self._popen.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._popen.communicate()


@contextmanager
def started(script: str, home: Path, *args: object, **environment: str) -> Iterator[Process]:
    """A script that runs beside the test, and not longer."""
    process = Process(script, home, *args, **environment)
    try:
        yield process
    finally:
        process.stop()


def run(script: str, home: Path, *args: object, **environment: str) -> Process:
    """A script, run to its end; killed by itself or not."""
    with started(script, home, *args, **environment) as process:
        process.wait()
    return process


def succeed(script: str, home: Path, *args: object, **environment: str) -> str:
    """What a script prints that has to end well."""
    with started(script, home, *args, **environment) as process:
        assert process.wait() == 0, process.errors
    return process.output.strip()


def wait_until(condition: Callable[[], Any], what: str, seconds: float = LIMIT_SECONDS) -> Any:
    """What the condition says once it is true."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
        time.sleep(0.002)
    return answer


def log_of(home: Path) -> Path:
    return home.with_name(f"{home.name}.executions")


def executions(home: Path) -> list[tuple[int, str]]:
    """Every body that ran: the process, and what it called itself, in order."""
    try:
        lines = log_of(home).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(pid), what) for pid, _, what in (line.partition(" ") for line in lines)]


@contextmanager
def opened(home: Path) -> Iterator[Home]:
    """The home as somebody sees it who looks from another process."""
    here = Home(home, get_settings())
    try:
        yield here
    finally:
        here.close()


def only_flow_run(home: Home) -> FlowRun:
    (found,) = [run for run in home.store.flow_runs(RunQuery()) if run.parent_flow_run_id is None]
    return found


def task_runs(home: Home, flow_run_id: UUID | None = None) -> list[TaskRun]:
    return home.store.task_runs(RunQuery(flow_run_id=flow_run_id, limit=100_000, oldest_first=True))


def flow_runs(home: Home) -> list[FlowRun]:
    return home.store.flow_runs(RunQuery(limit=100_000, oldest_first=True))


def committed(home: Path) -> set[str]:
    """What is done for good: the positions of the task runs that completed and whose results were kept."""
    with opened(home) as here:
        return {
            run.dynamic_key
            for run in task_runs(here)
            if run.state_type is StateType.COMPLETED and run.result is not None
        }


def states(runs: Iterable[Run]) -> dict[str, int]:
    return dict(Counter(run.state_name for run in runs))
