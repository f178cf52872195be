"""A living process holds its lock, a dead one does not: with real processes and real signals."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

import prefect_nb
from prefect_nb.exceptions import StoreUnavailable
from prefect_nb.interfaces import Owner
from prefect_nb.store.owners import OwnerLock, boot_id, host_id, is_alive, read_pid

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and forks")

ROOT = str(Path(prefect_nb.__file__).parents[1])
_CHILD = """
import sys
from pathlib import Path
import msgspec
from prefect_nb.store.owners import OwnerLock
owner, lock = OwnerLock.acquire(Path(sys.argv[1]), "engine")
{more}
print(msgspec.json.encode(owner).decode(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@contextmanager
def owning(home: Path, more: str = "") -> Iterator[tuple[Owner, subprocess.Popen[bytes]]]:
    """Another process that owns something; it is killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD.format(more=more), str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ROOT},
    ) as process:
        try:
            assert process.stdout is not None
            yield msgspec.json.decode(process.stdout.readline(), type=Owner), process
        finally:
            process.kill()


def test_a_killed_process_is_dead_at_once_although_its_forked_child_lives(home: Path) -> None:
    fork = """
import os, signal
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, str(lock.holds()).encode())
    os.close(1)
    signal.pause()
assert os.read(read, 9) == b"False", "a child owns nothing"
Path(sys.argv[1], "child").write_text(str(child))
"""
    with owning(home, fork) as (owner, process):
        assert is_alive(owner)
        child = int((home / "child").read_text())
        try:
            process.kill()
            process.wait()
            os.kill(child, 0)
            assert not is_alive(owner)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_stopped_process_is_alive(home: Path) -> None:
    with owning(home) as (owner, process):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert is_alive(owner)
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        assert not is_alive(owner)


def test_asking_does_not_disturb_the_lock(home: Path) -> None:
    with owning(home) as (owner, _):
        assert all(is_alive(owner) for _ in range(3))
        assert read_pid(owner.lock_path) == owner.pid
        assert is_alive(owner)


def test_an_owner_says_who_it_is(home: Path) -> None:
    owner, lock = OwnerLock.acquire(home, "worker")
    assert (owner.pid, owner.kind, owner.host_id, owner.boot_id) == (os.getpid(), "worker", host_id(), boot_id())
    path = Path(owner.lock_path)
    assert path == home / "owners" / f"{owner.id}.lock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    lock.release()


def test_own_locks_are_answered_for_without_opening_them(home: Path) -> None:
    owner, lock = OwnerLock.acquire(home, "engine")
    assert is_alive(owner)
    assert is_alive(owner, owner.id)
    assert read_pid(owner.lock_path) == os.getpid()
    assert _seen_alive_from_outside(owner), "opening and closing the file here would have dropped the lock"
    lock.release()
    assert not is_alive(owner)
    assert is_alive(owner, owner.id)


def test_a_lock_that_another_library_dropped_is_taken_again(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    owner, lock = OwnerLock.acquire(home, "engine")
    assert lock.holds()
    assert not caplog.records
    Path(owner.lock_path).read_text()
    assert not _seen_alive_from_outside(owner), "closing any descriptor drops a POSIX lock"
    assert lock.holds()
    assert "taking it again" in caplog.text
    assert _seen_alive_from_outside(owner)
    lock.release()


def test_an_owner_whose_file_was_removed_holds_nothing(home: Path) -> None:
    owner, lock = OwnerLock.acquire(home, "engine")
    Path(owner.lock_path).unlink()
    assert not lock.holds()
    Path(owner.lock_path).write_text("planted")
    assert not lock.holds()
    lock.release()
    assert Path(owner.lock_path).exists(), "a file of somebody else's is not removed"


def test_release_removes_the_file_and_may_be_repeated(home: Path) -> None:
    owner, lock = OwnerLock.acquire(home, "engine")
    lock.release()
    lock.release()
    assert not Path(owner.lock_path).exists()
    assert not lock.holds()
    assert read_pid(owner.lock_path) is None


def test_two_owners_of_one_process_are_apart(home: Path) -> None:
    first, first_lock = OwnerLock.acquire(home, "engine")
    second, second_lock = OwnerLock.acquire(home, "worker")
    first_lock.release()
    assert second_lock.holds()
    assert (is_alive(first), is_alive(second)) == (False, True)
    assert _seen_alive_from_outside(second)
    second_lock.release()


def test_an_owner_of_another_boot_is_dead_and_of_another_machine_is_left_alone(home: Path) -> None:
    with owning(home) as (owner, _):
        rebooted = msgspec.structs.replace(owner, boot_id="earlier")
        assert not is_alive(rebooted)
        assert is_alive(msgspec.structs.replace(rebooted, host_id="elsewhere"))
        assert is_alive(msgspec.structs.replace(owner, host_id="a container on this machine"))


def test_a_lock_that_is_a_symbolic_link_is_refused(home: Path) -> None:
    with owning(home) as (owner, _):
        link = home / "link.lock"
        link.symlink_to(owner.lock_path)
        with pytest.raises(StoreUnavailable, match=r"link\.lock"):
            is_alive(msgspec.structs.replace(owner, lock_path=str(link)))
    (home / "other").mkdir()
    (home / "other" / "owners").symlink_to(home)
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        OwnerLock.acquire(home / "other", "engine")


def test_a_home_that_is_not_there_is_refused(home: Path) -> None:
    with pytest.raises(StoreUnavailable, match="owners"):
        OwnerLock.acquire(home / "missing", "engine")


def _seen_alive_from_outside(owner: Owner) -> bool:
    code = """
import sys, msgspec
from prefect_nb.interfaces import Owner
from prefect_nb.store.owners import is_alive
print(is_alive(msgspec.json.decode(sys.argv[1], type=Owner)))
"""
    text = subprocess.run(
        [sys.executable, "-c", code, msgspec.json.encode(owner).decode()],
        env=os.environ | {"PYTHONPATH": ROOT},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    return text.strip() == "True"
