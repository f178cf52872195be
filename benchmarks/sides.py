"""The two packages that are compared: where each lives, how a workload is run there, what it recorded."""

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PEER_PINS = ("prefect==3.8.4", "fastapi==0.141.1", "sqlalchemy==2.0.58")
WORKLOADS = Path(__file__).with_name("workloads.py")
WORKLOAD_TIMEOUT = 900.0
EXIT_TIMEOUT = 180.0
SERVER_TIMEOUT = 120.0
NO_PROGRESS = 12.0
"""Seconds without another recorded row after which the missing ones are taken for lost."""

Measurement = dict[str, Any]


class WorkloadError(Exception):
    """A workload gave no measurement; the message says why in one line."""


@dataclass
class Side:
    """One package: its interpreter, its environment variables and its SQLite database."""

    package: str
    python: Path
    database: Path
    environment: dict[str, str]
    scratch: Path
    settles: bool = field(default=False)
    """Whether rows are still being written by somebody else after the process that made them has ended."""

    def run(self, workload: str, *, tasks: int = 1000, samples: int = 5) -> Measurement:
        """Run `workload` in a fresh process and wait until what it made is recorded, or is not going to be."""
        before = self.recorded()
        with self.running(workload, tasks=tasks, samples=samples) as measurement:
            pass
        if self.settles:
            self.wait_recorded(before + measurement["task_runs"])
        return measurement

    @contextlib.contextmanager
    def running(self, workload: str, *, tasks: int, samples: int = 5, stay: bool = False) -> Iterator[Measurement]:
        """The measurement of `workload`; with `stay` its process lives until the block is left.

        Raises WorkloadError.
        """
        command = [str(self.python), str(WORKLOADS), self.package, workload]
        command += ["--tasks", str(tasks), "--samples", str(samples), *(["--stay"] if stay else [])]
        errors = self.scratch / "stderr.txt"
        with errors.open("w") as stderr:
            child = subprocess.Popen(
                command,
                cwd=self.scratch,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        try:
            yield measurement_of(child, errors)
        finally:
            # Closing its input is what lets a staying child go.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()  # type: ignore[union-attr]
            end(child, grace=EXIT_TIMEOUT)
            child.stdout.close()  # type: ignore[union-attr]

    def recorded(self) -> int:
        """Finished task runs in the database."""
        return self._ask("select count(*) from task_run where upper(state_type) = 'COMPLETED'")

    def database_bytes(self) -> int:
        """The size of the database, with what is still in its write-ahead log."""
        return self._ask("pragma page_count") * self._ask("pragma page_size")

    def wait_recorded(self, expected: int) -> int:
        """Wait until `expected` task runs are recorded or no more are coming; how many there are."""
        seen, since = self.recorded(), time.monotonic()
        while seen < expected and time.monotonic() - since < NO_PROGRESS:
            time.sleep(0.01 if not self.settles else 0.1)
            now = self.recorded()
            if now != seen:
                seen, since = now, time.monotonic()
        return seen

    def _ask(self, question: str) -> int:
        if not self.database.exists():
            return 0
        try:
            with contextlib.closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=30)) as db:
                return int(db.execute(question).fetchone()[0])
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return 0
            raise WorkloadError(f"the database cannot be read: {error}") from error


def measurement_of(child: "subprocess.Popen[str]", errors: Path) -> Measurement:
    """The line of JSON `child` prints, read as soon as it stands. Raises WorkloadError."""
    assert child.stdout is not None
    watchdog = threading.Timer(WORKLOAD_TIMEOUT, child.kill)
    watchdog.start()
    try:
        for line in child.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                measurement = json.loads(line)
                if isinstance(measurement, dict):
                    if "error" in measurement:
                        raise WorkloadError(str(measurement["error"]))
                    return measurement
        last_words = errors.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise WorkloadError(f"exit code {child.wait()}: {last_words[0]}")
    finally:
        watchdog.cancel()


def end(process: "subprocess.Popen[Any]", *, grace: float) -> None:
    """Let `process` end by itself, ask it to after `grace` seconds, make it after as many more."""
    for ask in (None, process.terminate, process.kill):
        if ask is not None:
            ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
            return


def clean_environment(home: Path) -> dict[str, str]:
    """This process's environment without either package's settings, at home in a scratch folder."""
    foreign = ("PREFECT", "JUPYTER", "PYTEST", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "HOME": str(home), "IPYTHONDIR": str(home / ".ipython")}


def ours(scratch: Path) -> Side:
    """This package, as installed for the interpreter that runs the benchmark; its home is below `scratch`."""
    home = scratch / "prefect_nb"
    home.mkdir(parents=True)
    environment = clean_environment(scratch) | {"PREFECT_NB_HOME": str(home), "PREFECT_NB_LOGGING_LEVEL": "CRITICAL"}
    return Side("prefect_nb", Path(sys.executable), home / "prefect_nb.db", environment, scratch)


def peer(python: Path, scratch: Path, url: str | None) -> Side:
    """Prefect, its client pointed at the server at `url`, or left to start one by itself."""
    home = scratch / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    environment = clean_environment(scratch) | {
        "PREFECT_HOME": str(home),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    if url:
        environment["PREFECT_API_URL"] = url
    return Side("prefect", python, home / "prefect.db", environment, scratch, settles=True)


def peer_python(folder: Path) -> Path:
    """The interpreter of the peer's virtual environment in `folder`, which is made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making Prefect's virtual environment in {folder}", flush=True)
        venv.create(folder, with_pip=True)
        # The tables and arrays that are hashed must come from the same numpy and pandas on both sides.
        shared = [f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "pandas")]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run([*install, *PEER_PINS, *shared], check=True)
        except BaseException:
            shutil.rmtree(folder)
            raise
    return python


@contextlib.contextmanager
def peer_server(python: Path, scratch: Path) -> Iterator[Side]:
    """Prefect beside a server of its own, on a free port, stopped when the block is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    side = peer(python, scratch, f"http://127.0.0.1:{port}/api")
    command = [str(python), "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (scratch / "server.txt").open("w") as log:
        # A session of its own, so that what the server starts is stopped with it.
        server = subprocess.Popen(
            command, cwd=scratch, env=side.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_healthy(server, f"{side.environment['PREFECT_API_URL']}/health")
        yield side
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        end(server, grace=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def wait_healthy(server: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait until the server answers at `url`. Raises WorkloadError."""
    deadline = time.monotonic() + SERVER_TIMEOUT
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise WorkloadError("Prefect's server did not start")
