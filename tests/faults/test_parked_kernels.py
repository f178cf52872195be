"""Kept kernels are never left behind: whoever dies - keeper, kernel, the process that goes on - the rest ends, too."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_nb.bodies import adopted, memory, parking
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="kernels are kept on Unix only")

RUN = [sys.executable, "-m", "prefect_nb", "run", "--quiet"]
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def home(prefect_nb_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PREFECT_NB_NOTEBOOK_KEPT_KERNELS", "2")
    monkeypatch.delenv("CI", raising=False)
    yield prefect_nb_home
    for one in parking.parked_kernels(prefect_nb_home):
        parking.drop(prefect_nb_home, one)


def notebook(folder: Path, *sources: str, name: str = "report") -> Path:
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
        for n, source in enumerate(sources)
    ]
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    return path


def lives(pid: int) -> bool:
    found = memory.process(pid)
    return found is not None and not found.is_zombie


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
        time.sleep(0.01)
    return answer


def parked(home: Path, folder: Path, **environment: str) -> parking.Parked:
    """The kernel of a run that failed in a process which has ended since."""
    path = notebook(
        folder, "x = 1", "import subprocess, sys\nchild = subprocess.Popen(['sleep', '600'])", "1 / 0", "print(x)"
    )
    done = subprocess.run(
        [*RUN, str(path)], env={**os.environ, **environment}, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    (one,) = parking.parked_kernels(home)
    return one


def test_it_outlives_the_process_that_ran_it(home: Path, tmp_path: Path):
    one = parked(home, tmp_path)

    # The kernel's own watch over its parent would have ended it by now.
    with pytest.raises(AssertionError):
        wait_until(lambda: not lives(one.kernel_pid), "must not end", seconds=2.5)
    assert lives(one.keeper_pid)
    for file in (parking.record_of(home, one.flow_run_id), Path(one.folder), Path(one.folder) / "connection.json"):
        assert file.stat().st_mode & 0o077 == 0, "for its owner only"


def test_it_ends_when_its_keeper_is_killed(home: Path, tmp_path: Path):
    one = parked(home, tmp_path)
    group = [found.pid for found in memory.processes() if found.group == one.kernel_pid]
    assert len(group) > 1, "what the notebook started counts, too"

    os.kill(one.keeper_pid, signal.SIGKILL)

    wait_until(lambda: not any(map(lives, group)), "the kernel and its children have ended", seconds=10)
    assert parking.parked_kernels(home) == []
    assert not Path(one.folder).exists()
    assert not parking.record_of(home, one.flow_run_id).exists()


def test_its_keeper_ends_when_it_is_killed(home: Path, tmp_path: Path):
    one = parked(home, tmp_path)

    os.killpg(one.kernel_pid, signal.SIGKILL)

    wait_until(lambda: not lives(one.keeper_pid), "the keeper has ended")
    wait_until(lambda: not Path(one.folder).exists(), "its folder is gone")
    assert not parking.record_of(home, one.flow_run_id).exists()


def test_it_ends_when_its_time_is_over(home: Path, tmp_path: Path):
    one = parked(home, tmp_path, PREFECT_NB_NOTEBOOK_KEPT_KERNEL_SECONDS="3")
    assert lives(one.kernel_pid)

    wait_until(lambda: not lives(one.kernel_pid) and not lives(one.keeper_pid), "both have ended")
    assert parking.parked_kernels(home) == []
    assert not Path(one.folder).exists()


def test_it_ends_when_it_grows_too_large(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    grows = (
        "import threading, time\ndef grow():\n    time.sleep(3); keep.append(bytearray(300_000_000))\nkeep = []\n"
        "threading.Thread(target=grow, daemon=True).start()"
    )
    path = notebook(tmp_path, grows, "1 / 0")
    limit = {"PREFECT_NB_NOTEBOOK_KEPT_KERNELS_MAX_BYTES": "250000000"}
    subprocess.run([*RUN, str(path)], env={**os.environ, **limit}, capture_output=True, timeout=60, check=False)
    (one,) = parking.parked_kernels(home)

    wait_until(lambda: not lives(one.kernel_pid), "the kernel has ended")


def test_it_ends_when_its_record_is_removed(home: Path, tmp_path: Path):
    one = parked(home, tmp_path)

    parking.record_of(home, one.flow_run_id).unlink()

    wait_until(lambda: not lives(one.kernel_pid) and not lives(one.keeper_pid), "both have ended")


def test_only_one_of_two_takes_it(home: Path, tmp_path: Path):
    one = parked(home, tmp_path)
    taken: list[Any] = []
    gate = threading.Barrier(2)

    def take() -> None:
        gate.wait()
        taken.append(adopted.adopt(home, one))

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (kernel,) = [kernel for kernel in taken if kernel is not None]
    assert kernel.exit_code is None
    assert not lives(one.keeper_pid)
    kernel.close(1.0)
    assert not lives(one.kernel_pid)


RESUME = """
import os, sys
from prefect_nb.service import control, history
run = history.flow_runs(limit=1)[0]
control.resume(run)
"""
UNDER_SUBREAPER = f"""
import ctypes, os, signal, subprocess, sys, time
assert ctypes.CDLL(None).prctl({PR_SET_CHILD_SUBREAPER}, 1, 0, 0, 0) == 0
process = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
sys.stdin.readline()
process.kill()
process.wait()
print("killed", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("in_kept_kernel", [False, True], ids=["new kernel", "kept kernel"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="subreapers are Linux's")
def test_under_a_subreaper_no_orphan_is_left(home: Path, tmp_path: Path, in_kept_kernel: bool):
    marker = tmp_path / "pid"
    slow = f"import os, pathlib, time\npathlib.Path({str(marker)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    if in_kept_kernel:
        path = notebook(tmp_path, "x = 1", "1 / 0")
        subprocess.run([*RUN, str(path)], capture_output=True, timeout=60, check=False)
        notebook(tmp_path, "x = 1", slow)
        program = RESUME
    else:
        program = f"from prefect_nb import Flow; Flow.from_notebook({str(notebook(tmp_path, 'x = 1', slow))!r})()"
    reaper = subprocess.Popen(
        [sys.executable, "-c", UNDER_SUBREAPER, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: marker.exists() and marker.read_text(), "the cell runs", 40)
        kernel = int(marker.read_text())
        assert lives(kernel)
        assert reaper.stdin is not None
        assert reaper.stdout is not None
        reaper.stdin.write("\n")
        reaper.stdin.flush()
        assert reaper.stdout.readline() == "killed\n"

        wait_until(lambda: not lives(kernel), "the kernel has ended", 10)
        here = Home.current()
        here.reap()
        (run,) = here.store.flow_runs(RunQuery())
        assert run.state_type.value == "CRASHED"
    finally:
        reaper.communicate("\n", timeout=20)
    assert parking.parked_kernels(home) == []


def test_whoever_dies_while_taking_it_leaves_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = parked(home, tmp_path)
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom prefect_nb.bodies import parking\n"
        "home = Path(sys.argv[1])\n(one,) = parking.parked_kernels(home)\n"
        "parking.take(home, one) and os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(home)], timeout=30, check=False)
    assert parking.parked_kernels(home) == []
    assert lives(one.kernel_pid), "its keeper still holds it"

    os.kill(one.keeper_pid, signal.SIGTERM)

    wait_until(lambda: not lives(one.kernel_pid), "the kernel has ended")
