"""Processes that want one cache key compute it once; when the one that computes dies, another goes on."""

import os
import signal
import threading
import time
from contextlib import ExitStack

import pytest

from prefect_nb import flow, task
from prefect_nb.cache_policies import INPUTS
from prefect_nb.exceptions import StoreUnavailable
from prefect_nb.store.key_locks import FileKeyLocks
from tests.faults import harness


def begun(home):
    """The processes whose body began, in order, each with when it did (seconds since the epoch)."""
    notes = [(pid, *what.split()) for pid, what in harness.executions(home)]
    return [(pid, float(at)) for pid, what, at in notes if what == "begins"]


@pytest.mark.parametrize("how", ["call", "submit"])
def test_eight_processes_compute_it_once_and_get_one_value(prefect_nb_home, how):
    with ExitStack() as stack:
        processes = [stack.enter_context(harness.started("one_key.py", prefect_nb_home, 0.3, how)) for _ in range(8)]
        assert [process.wait() for process in processes] == [0] * 8, [process.errors for process in processes]
        assert len(begun(prefect_nb_home)) == 1
        assert len({process.output for process in processes}) == 1
    with harness.opened(prefect_nb_home) as home:
        assert harness.states(harness.task_runs(home)) == {"Completed": 1, "Cached": 7}
        assert home.store.check() == []


def test_when_the_first_three_are_killed_a_waiter_goes_on_within_a_second(prefect_nb_home):
    with ExitStack() as stack:
        processes = {}
        for _ in range(6):
            process = stack.enter_context(harness.started("one_key.py", prefect_nb_home, 1.0, "call"))
            processes[process.pid] = process
        harness.wait_until(lambda: len(_waiting(prefect_nb_home)) == 6, "all want the key")
        for number in range(1, 4):
            _begun_by(prefect_nb_home, number)
            killed = time.time()
            processes.pop(begun(prefect_nb_home)[-1][0]).kill()
            _begun_by(prefect_nb_home, number + 1)
            assert begun(prefect_nb_home)[-1][1] - killed < 1.0
        assert [process.wait() for process in processes.values()] == [0] * 3
        assert len(begun(prefect_nb_home)) == 4
        assert len({process.output for process in processes.values()}) == 1


def _begun_by(home, count):
    harness.wait_until(lambda: len(begun(home)) == count, f"{count} processes have begun")


def _waiting(home):
    """The task runs there are, of processes that have come so far."""
    if not (home / "prefect_nb.db").exists():
        return []
    with harness.opened(home) as here:
        return harness.task_runs(here)


def test_another_process_waits_until_the_result_is_committed(prefect_nb_home):
    """The lock is not free before whoever takes it next can find the result."""
    from prefect_nb.home import Home

    names = f"COUNT_{os.getpid()}"
    os.environ[names] = "0"

    @task(cache_policy=INPUTS)
    def compute(x):
        os.environ[names] = str(int(os.environ[names]) + 1)
        return x

    home = Home.current()
    others = FileKeyLocks(prefect_nb_home / "locks" / "keys")
    key = None
    taken_early = []
    write = home.store.write

    def slow_write(entries, fences, caches=(), parts=()):
        nonlocal key
        for cached in caches:
            key = cached.key
            taken_early.append(others.try_lock(key))
        return write(entries, fences, caches, parts)

    home.store.write = slow_write

    @flow
    def f():
        compute(1)

    f()
    assert taken_early == [False]
    harness.wait_until(lambda: others.try_lock(key), "the lock is free after the commit")


def test_a_forked_child_does_not_keep_the_locks_of_its_dead_parent(tmp_path):
    path, mine = tmp_path / "keys", FileKeyLocks(tmp_path / "keys")
    ready, told = os.pipe()
    lives, ends = os.pipe()
    parent = os.fork()
    if parent == 0:
        holder = FileKeyLocks(path)
        holder.try_lock("k")
        if os.fork() == 0:  # the grandchild outlives its parent
            os.close(ends)
            os.write(told, b"x")
            os.read(lives, 1)
            os._exit(0)
        signal.pause()
    os.close(lives)
    try:
        assert os.read(ready, 1) == b"x"
        assert not mine.try_lock("k")
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        harness.wait_until(lambda: mine.try_lock("k"), "the dead parent's lock is free", seconds=5)
    finally:
        os.close(ends)


class TestLocks:
    def test_two_holders_exclude_each_other_by_key(self, tmp_path):
        one, other = FileKeyLocks(tmp_path / "keys"), FileKeyLocks(tmp_path / "keys")
        assert one.try_lock("k")
        assert not other.try_lock("k")
        assert other.try_lock("another")
        one.unlock("k")
        assert other.try_lock("k")
        one.close()
        other.close()
        one.close()

    def test_many_threads_take_a_key_one_at_a_time(self, tmp_path):
        lockers = [FileKeyLocks(tmp_path / "keys") for _ in range(4)]
        inside, worst = 0, 0
        count = threading.Lock()

        def enter(locks):
            nonlocal inside, worst
            for _ in range(50):
                while not locks.try_lock("k"):
                    time.sleep(0)
                with count:
                    inside += 1
                    worst = max(worst, inside)
                with count:
                    inside -= 1
                locks.unlock("k")

        threads = [threading.Thread(target=enter, args=(locks,)) for locks in lockers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert worst == 1

    @pytest.mark.parametrize("key", ["", "é" * 10_000, "\ud800", "a/b\\c:d"])
    def test_any_text_is_a_key(self, tmp_path, key):
        locks = FileKeyLocks(tmp_path / "locks" / "keys")
        assert locks.try_lock(key)
        locks.unlock(key)

    def test_a_link_in_its_place_is_not_followed(self, tmp_path):
        (tmp_path / "elsewhere").write_text("mine")
        (tmp_path / "keys").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StoreUnavailable, match="symbolic link"):
            FileKeyLocks(tmp_path / "keys").try_lock("k")
        assert (tmp_path / "elsewhere").read_text() == "mine"
