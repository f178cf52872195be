"""Runs with one cache key do not compute it side by side; isolation levels and lock managers."""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prefect_nb import flow, task
from prefect_nb.cache_policies import INPUTS, RUN_ID, TASK_SOURCE
from prefect_nb.exceptions import ConfigurationError
from prefect_nb.home import Home
from prefect_nb.locking.filesystem import FileSystemLockManager
from prefect_nb.locking.memory import MemoryLockManager
from prefect_nb.locking.protocol import LockManager
from prefect_nb.results import ResultStore
from prefect_nb.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from prefect_nb.transactions import IsolationLevel, transaction


class Broken(Exception):
    """What goes wrong in these tests."""


class Gate:
    """A body's begin and end, seen from outside. It counts for nothing in a cache key."""

    def __init__(self):
        self.begun = 0
        self.opened = threading.Event()
        self.someone_inside = threading.Event()

    def pass_through(self):
        self.begun += 1
        self.someone_inside.set()
        assert self.opened.wait(20)


@pytest.fixture
def gate():
    made = Gate()
    sys._gate = made  # where no cache policy looks
    yield made
    made.opened.set()


def held(policy=INPUTS, **options):
    @task(cache_policy=policy, **options)
    def waits_at_gate(x):
        sys._gate.pass_through()
        return x

    return waits_at_gate


def waiting(count):
    """Until so many runs wait for keys in this process."""
    claims = Home.current().keys._claims
    deadline = time.monotonic() + 20
    while sum(len(claim.waiters) for claim in list(claims.values())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


class TestByDefault:
    @pytest.mark.parametrize("policy", [INPUTS, INPUTS + TASK_SOURCE, INPUTS + RUN_ID], ids=str)
    def test_submitted_equal_calls_compute_once(self, gate, policy, history):
        t = held(policy)

        @flow
        def f():
            futures = [t.submit(3) for _ in range(5)]
            waiting(4)
            gate.opened.set()
            return [future.result() for future in futures]

        assert f() == [3] * 5
        assert gate.begun == 1
        names = [history.states(run.id) for run in history.task_runs()]
        assert sorted(names) == [["Pending", "Cached"]] * 4 + [["Pending", "Running", "Completed"]]
        assert not Home.current().keys._claims

    def test_submitting_does_not_wait(self, gate):
        t = held()

        @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
        def f():
            future, again = t.submit(3), t.submit(3)
            other = t.with_options(name="other").submit(4)
            gate.opened.set()
            return future.result(), again.result(), other.result()

        assert f() == (3, 3, 4)
        assert gate.begun == 2

    def test_direct_calls_on_threads_compute_once(self, gate):
        t, got = held(), []
        threads = [threading.Thread(target=lambda: got.append(t(3))) for _ in range(4)]
        for thread in threads:
            thread.start()
        waiting(3)
        gate.opened.set()
        for thread in threads:
            thread.join()
        assert got == [3] * 4
        assert gate.begun == 1

    async def test_async_calls_compute_once(self):
        begun = []
        name = f"_begun_{id(begun)}"
        globals()[name] = begun

        @task(cache_policy=INPUTS)
        async def t(x, name):
            globals()[name].append(x)
            await asyncio.sleep(0.05)
            return x

        @flow
        async def f():
            direct = await asyncio.gather(*(t(3, name) for _ in range(4)))
            futures = [t.submit(4, name) for _ in range(4)]
            return direct + [future.result() for future in futures]

        assert await f() == [3] * 4 + [4] * 4
        assert begun == [3, 4]

    def test_when_it_fails_the_next_computes(self, gate):
        tries = []
        globals()["_tries"] = tries

        @task(cache_policy=INPUTS)
        def fails_first(x):
            sys._gate.pass_through()
            globals()["_tries"].append(x)
            if len(globals()["_tries"]) < 3:
                raise Broken
            return x

        @flow
        def f():
            futures = [fails_first.submit(1) for _ in range(5)]
            waiting(4)
            gate.opened.set()
            for future in futures:
                future.wait()
            return sorted(future.state.name for future in futures)

        assert f() == ["Cached", "Cached", "Completed", "Failed", "Failed"]

    def test_a_retried_run_has_its_key_until_it_is_done(self, gate):
        globals()["_tries"] = tries = []

        @task(cache_policy=INPUTS, retries=1, retry_delay_seconds=0.05)
        def fails_first(x):
            sys._gate.pass_through()
            globals()["_tries"].append(x)
            if len(globals()["_tries"]) == 1:
                raise Broken
            return x

        @flow
        def f():
            futures = [fails_first.submit(1) for _ in range(3)]
            waiting(2)
            gate.opened.set()
            return [future.result() for future in futures]

        assert f() == [1, 1, 1]
        assert tries == [1, 1]

    def test_a_cancel_ends_the_wait(self, gate, history):
        t = held()
        from prefect_nb.execution.context import current_flow

        @flow
        def f():
            scope = current_flow.get().execution.scope
            holder = threading.Thread(target=lambda: t(3))
            holder.start()
            assert gate.someone_inside.wait(10)
            future = t.submit(3)
            waiting(1)
            scope.stop("enough")
            future.wait()
            names.append(future.state.name)
            gate.opened.set()
            holder.join()

        names = []
        f(return_state=True)
        assert names == ["Cancelled"]

    def test_nobody_waits_for_the_run_it_is_called_in(self):
        @task(cache_key_fn=lambda *_: "the same")
        def calls_itself(depth):
            return depth if depth == 0 else calls_itself(depth - 1) + 1

        assert calls_itself(3) == 3

        @flow
        def around():
            return by_a_flow(0)

        @task(cache_key_fn=lambda *_: "the same, too")
        def by_a_flow(depth):
            return around() + 1 if depth else 0

        assert by_a_flow(1) == 1

    def test_runs_that_wait_for_each_other_in_a_circle_go_on(self):
        both = threading.Barrier(2)
        globals()["_both"] = both

        @task(cache_key_fn=lambda _context, parameters: parameters["mine"])
        def wants(mine, other):
            if other is not None:
                globals()["_both"].wait(10)
                return mine + wants(other, None)
            return mine

        @flow
        def f():
            return [future.result() for future in (wants.submit("a", "b"), wants.submit("b", "a"))]

        assert [value[0] for value in f()] == ["a", "b"]

    def test_refresh_cache_never_waits(self, gate):
        t = held()

        @flow
        def f():
            first = t.submit(3)
            assert gate.someone_inside.wait(10)
            gate.someone_inside.clear()
            second = t.with_options(refresh_cache=True).submit(3)
            assert gate.someone_inside.wait(10)
            gate.opened.set()
            return first.result(), second.result()

        assert f() == (3, 3)
        assert gate.begun == 2

    def test_other_keys_do_not_wait(self, gate):
        t = held()

        @flow
        def f():
            futures = [t.submit(n) for n in range(3)]
            while gate.begun < 3:
                time.sleep(0.001)
            gate.opened.set()
            return [future.result() for future in futures]

        assert f() == [0, 1, 2]

    def test_in_a_process_runner(self, tmp_path):
        log = str(tmp_path / "log")

        @task(cache_policy=INPUTS)
        def t(log):
            with Path(log).open("a") as file:
                file.write("x")
            time.sleep(0.1)
            return 1

        @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
        def f():
            return [future.result() for future in [t.submit(log) for _ in range(4)]]

        assert f() == [1] * 4
        assert Path(log).read_text() == "x"

    def test_read_committed_when_asked_for_lets_them_compute_side_by_side(self, gate):
        t = held(INPUTS.configure(isolation_level=IsolationLevel.READ_COMMITTED))

        @flow
        def f():
            futures = [t.submit(3) for _ in range(2)]
            while gate.begun < 2:
                time.sleep(0.001)
            gate.opened.set()
            return [future.result() for future in futures]

        assert f() == [3, 3]


MANAGERS = {"memory": lambda _: MemoryLockManager(), "files": lambda path: FileSystemLockManager(path / "locks")}


@pytest.fixture(params=list(MANAGERS))
def manager(request, tmp_path):
    return MANAGERS[request.param](tmp_path)


class TestSerializable:
    @pytest.mark.parametrize("level", ["SERIALIZABLE", IsolationLevel.SERIALIZABLE])
    @pytest.mark.parametrize("further", [{}, {"key_storage": "keys"}])
    def test_without_a_lock_manager_the_run_fails(self, level, further, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        @task(cache_policy=INPUTS.configure(isolation_level=level, **further))
        def t():
            raise AssertionError("not called")

        state = t(return_state=True)
        assert (state.type.value, state.name) == ("FAILED", "Failed")
        assert state.message.startswith(
            "Task run encountered an exception ConfigurationError: Isolation level SERIALIZABLE is not supported"
        )
        with pytest.raises(ConfigurationError, match="lock manager"):
            state.result()

    def test_equal_calls_execute_once(self, manager, gate):
        t = held(INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=manager))

        @flow
        def f():
            futures = [t.submit(3) for _ in range(4)]
            waiting(3)
            gate.opened.set()
            return [future.result() for future in futures]

        assert f() == [3] * 4
        assert gate.begun == 1

    def test_it_waits_for_whoever_else_has_the_lock(self, manager, gate):
        gate.opened.set()

        @task(cache_key_fn=lambda *_: "k")
        def t():
            sys._gate.pass_through()

        t.cache_policy = t.cache_policy.configure(isolation_level="SERIALIZABLE", lock_manager=manager)
        assert manager.acquire_lock("k", "somebody")

        @flow
        def f():
            future = t.submit()
            waiting(1)
            assert gate.begun == 0
            manager.release_lock("k", "somebody")
            future.wait()

        f()
        assert gate.begun == 1
        assert not manager.is_locked("k")

    def test_in_a_transaction_the_lock_is_held_until_the_commit(self, manager):
        seen = []
        globals()["_look"] = lambda: seen.append(manager.is_locked("k"))

        @task(cache_key_fn=lambda *_: "k")
        def t():
            globals()["_look"]()

        t.cache_policy = t.cache_policy.configure(isolation_level="SERIALIZABLE", lock_manager=manager)
        with transaction():
            t()
            assert manager.is_locked("k")
            t()  # its own transaction does not keep it out
        assert not manager.is_locked("k")
        assert seen == [True, True]

    def test_transactions_with_one_key_come_one_after_the_other(self, manager, tmp_path):
        store = ResultStore(result_storage=tmp_path / "results", lock_manager=manager)
        seen = []

        def enter(number):
            with transaction(key="k", store=store, isolation_level=IsolationLevel.SERIALIZABLE) as around:
                seen.append(around.is_committed())
                if not around.is_committed():
                    time.sleep(0.05)
                    around.stage(number)

        threads = [threading.Thread(target=enter, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [False, True, True]
        assert not manager.is_locked("k")


class TestLockManagers:
    def test_they_are_lock_managers(self, manager):
        assert isinstance(manager, LockManager)

    def test_a_lock_belongs_to_its_holder(self, manager):
        assert manager.acquire_lock("k", "a")
        assert manager.acquire_lock("k", "a")
        assert not manager.acquire_lock("k", "b", acquire_timeout=0.02)
        assert manager.is_locked("k")
        assert manager.is_lock_holder("k", "a")
        assert not manager.is_lock_holder("k", "b")
        with pytest.raises(ValueError, match="No lock held by b for transaction with key k"):
            manager.release_lock("k", "b")
        assert not manager.wait_for_lock("k", timeout=0.02)
        manager.release_lock("k", "a")
        assert not manager.is_locked("k")
        assert manager.wait_for_lock("k")
        with pytest.raises(ValueError, match="No lock"):
            manager.release_lock("k", "a")

    def test_a_lock_may_be_held_for_a_time_only(self, manager):
        assert manager.acquire_lock("k", "a", hold_timeout=0.05)
        assert manager.acquire_lock("k", "b", acquire_timeout=10)
        manager.release_lock("k", "b")

    async def test_in_coroutines(self, manager):
        assert await manager.aacquire_lock("k", "a")
        assert not await manager.aacquire_lock("k", "b", acquire_timeout=0.02)
        assert not await manager.await_for_lock("k", timeout=0.02)
        manager.release_lock("k", "a")
        assert await manager.await_for_lock("k")

    def test_there_is_one_memory_lock_manager(self):
        assert MemoryLockManager() is MemoryLockManager()

    def test_managers_of_one_directory_see_the_same_locks(self, tmp_path):
        one, other = FileSystemLockManager(tmp_path), FileSystemLockManager(lock_files_directory=tmp_path)
        assert one == other
        assert one.acquire_lock("k", "a")
        assert [path.name for path in tmp_path.iterdir()] == ["k.lock"]
        assert other.is_lock_holder("k", "a")
        assert not other.acquire_lock("k", "b", acquire_timeout=0.02)
        other.release_lock("k", "a")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("key", ["../outside", "a/b:c", "é", ""])
    def test_any_text_is_a_key_of_files(self, tmp_path, key):
        manager = FileSystemLockManager(tmp_path / "locks")
        assert manager.acquire_lock(key, "a")
        assert [path.parent for path in tmp_path.rglob("*.lock")] == [tmp_path / "locks"]
        manager.release_lock(key, "a")

    def test_a_killed_holder_frees_its_file_lock_at_once(self, tmp_path):
        script = (
            "import sys, time; from pathlib import Path; from prefect_nb.locking.filesystem import *;"
            "m = FileSystemLockManager(Path(sys.argv[1])); m.acquire_lock('k', 'dead'); print('has', flush=True);"
            "time.sleep(60)"
        )
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        manager = FileSystemLockManager(tmp_path)
        try:
            assert process.stdout.readline() == b"has\n"
            assert manager.is_lock_holder("k", "dead")
            assert not manager.acquire_lock("k", "living", acquire_timeout=0.02)
            process.kill()
            process.wait()
            assert manager.acquire_lock("k", "living", acquire_timeout=1)
        finally:
            process.kill()
            process.communicate()
        manager.release_lock("k", "living")
