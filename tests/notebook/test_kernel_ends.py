"""The kernel is restarted or shut down in the middle of a flow: the run has ended, and the next cell can run another."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import TIMEOUT, Kernel, Outcome

from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import StateType

ENDED = {StateType.CANCELLED, StateType.CRASHED}


@pytest.fixture
def kernel(kernel_environment: dict[str, str], tmp_path: Path) -> Iterator[Kernel]:
    kernel = Kernel({**kernel_environment, "PREFECT_NB_HOME": str(tmp_path / "home")})
    yield kernel
    kernel.close()


def in_mid_flow(kernel: Kernel, name: str) -> tuple[str, Outcome]:
    request = kernel.start(f"%%flow {name}\nimport time\nprint('begun')\ntime.sleep(60)")
    return request, kernel.end_of(request, until="begun")


def ended_within(home: Path, name: str, seconds: float) -> FlowRun:
    here = Home(home)
    try:
        deadline = time.monotonic() + seconds
        while True:
            here.reap()
            (run,) = here.store.flow_runs(RunQuery(flow_name=name))
            if run.is_final or time.monotonic() > deadline:
                return run
            time.sleep(0.02)
    finally:
        here.close()


@pytest.mark.parametrize("now", [True, False], ids=["by force", "asked to"])
def test_a_restart(kernel: Kernel, tmp_path: Path, now: bool) -> None:
    in_mid_flow(kernel, "cut-off")

    kernel._manager.restart_kernel(now=now)

    assert ended_within(tmp_path / "home", "cut-off", 2.0).state_type in ENDED
    client: Any = kernel._client
    client.wait_for_ready(timeout=TIMEOUT)
    kernel.run("%load_ext prefect_nb")
    assert "alive" in kernel.run("%%flow next-one\nprint('alive')").stdout
    assert ended_within(tmp_path / "home", "next-one", 2.0).state_type is StateType.COMPLETED


def test_a_shutdown(kernel: Kernel, tmp_path: Path) -> None:
    in_mid_flow(kernel, "cut-off")

    kernel._manager.shutdown_kernel()

    assert ended_within(tmp_path / "home", "cut-off", 2.0).state_type in ENDED


def test_an_interrupt(kernel: Kernel, tmp_path: Path) -> None:
    request, begun = in_mid_flow(kernel, "cut-off")

    kernel.interrupt()

    assert ended_within(tmp_path / "home", "cut-off", 2.0).state_type is StateType.CANCELLED
    kernel.end_of(request, so_far=begun)
    assert "alive" in kernel.run("%%flow next-one\nprint('alive')").stdout
