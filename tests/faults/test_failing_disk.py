"""The disk fails at the Nth write, fsync or rename: it is said, nothing is torn, and what was committed stays."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit import audit
from harness import committed, executions, flow_runs, opened, run, started, states, task_runs, wait_until

from prefect_nb.model.states import StateType

SOURCE = Path(__file__).parent / "scripts" / "failing_disk.c"
COUNT = 9
TOTAL = sum(n * n for n in range(COUNT))
# The first hundred make the files, the rest run the flow.
PLACES = [1, 5, 12, 20, 30, 45, 60, 80, 100, 115, 130, 145, 160, 175, 190, 205, 220, 240, 260, 280]


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux":
        pytest.skip("needs LD_PRELOAD")
    if compiler is None and not os.environ.get("CI"):
        pytest.skip("needs a C compiler")
    assert compiler is not None, "there is no C compiler: install gcc"
    library = tmp_path_factory.mktemp("shim") / "failing_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return str(library)


def failing(shim: str, home: Path, at: int, code: int, on: bool) -> dict[str, str]:
    log = home.with_name("failed")
    return {
        "LD_PRELOAD": shim, "FAIL_UNDER": f"{home}/", "FAIL_AT": str(at), "FAIL_ERRNO": str(code),
        "FAIL_ON": str(int(on)), "FAIL_LOG": str(log),
    }  # fmt: skip


@pytest.mark.parametrize("at", PLACES)
def test_one_operation_fails(at: int, shim: str, tmp_path: Path) -> None:
    code = errno.ENOSPC if PLACES.index(at) % 2 else errno.EIO
    _fails_and_recovers(shim, tmp_path, at, code, on=PLACES.index(at) % 4 > 1)


@pytest.mark.soak
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("at", range(1, 301))
def test_any_operation_fails(at: int, code: int, shim: str, tmp_path: Path) -> None:
    _fails_and_recovers(shim, tmp_path, at, code, on=False)


def _fails_and_recovers(shim: str, folder: Path, at: int, code: int, on: bool) -> None:
    home = folder / "home"
    with started("squares.py", home, "start", COUNT, **failing(shim, home, at, code, on)) as process:
        ended = process.wait(40)
    failed = home.with_name("failed").read_text().split() if home.with_name("failed").exists() else None
    if ended == 0:
        assert process.output == f"{TOTAL}\n"
        # Nothing of a durable flow counts as done that is not on disk, whatever a second try would say.
        assert failed is None or "/results/" not in failed[1], failed
    else:
        assert ended != -signal.SIGSEGV
        assert "Storage" in process.errors or "StoreUnavailable" in process.errors or "OSError" in process.errors, (
            failed,
            process.errors,
        )
    if not (home / "prefect_nb.db").exists():
        assert run("squares.py", home, "start", COUNT).output == f"{TOTAL}\n"
        return
    audit(home)
    with opened(home) as here:
        known = flow_runs(here)
        if ended == 0:
            assert states(known) == {"Completed": 1}
            assert states(task_runs(here)) == {"Completed": COUNT}
            return
    if not known or known[0].state_type is StateType.COMPLETED:
        return
    before = committed(home)
    with started("squares.py", home, "resume", known[0].id) as process:
        assert process.wait() == 0, process.errors
    assert int(process.output) == TOTAL
    again = {what.removeprefix("square ") for pid, what in executions(home) if pid == process.pid}
    assert again & before == set()
    audit(home)


# -- the home goes


@pytest.mark.parametrize("durable", [False, True])
def test_a_home_that_is_removed_in_mid_run_ends_the_flow_with_an_error(durable: bool, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "gate" if durable else "gate_open") as process:
        wait_until((tmp_path / "at-2").exists, "it is in mid-run")
        shutil.rmtree(home)
        (tmp_path / "go-2").touch()
        code = process.wait(20)
    assert code not in (0, -signal.SIGKILL)
    assert "removed, replaced or closed while it was in use" in process.errors, process.errors
    assert not (home / "prefect_nb.db").exists(), "no new history begins behind the back of whoever removed it"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() == 0:  # who may write into every folder, but make none in this one
        yield Path("/sys/kernel")
        return
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o500)
    yield home
    home.chmod(0o700)


def test_a_read_only_place_for_the_home_is_an_error(read_only: Path) -> None:
    process = run("squares.py", read_only / "inside", "start", COUNT)
    assert process.wait() == 1
    assert "StoreUnavailable" in process.errors


def test_something_else_where_the_home_should_be_is_an_error(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file")
    process = run("squares.py", home, "start", COUNT)
    assert process.wait() == 1
    assert "there is a file in its place" in process.errors
