"""Slots of concurrency limits belong to living processes: whatever is killed, no limit is exceeded and none leaks."""

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import Process, log_of, opened, run, started, succeed, wait_until

from prefect_nb.home import Home
from prefect_nb.service import limits

FREE_SECONDS = 1.0


@pytest.fixture
def home(prefect_nb_home: Path) -> Home:
    return Home.current()


def entries(home: Home) -> list[tuple[int, int, str]]:
    """Who came in or went out, in the order of the instants: nanoseconds, pid, sign."""
    try:
        lines = log_of(home.path).read_text().splitlines()
    except FileNotFoundError:
        return []
    return sorted((int(ns), int(pid), sign) for pid, ns, sign in map(str.split, lines))


def inside(home: Home) -> set[int]:
    """The processes that said they came in and did not say that they went out."""
    now: set[int] = set()
    for _, pid, sign in entries(home):
        (now.add if sign == "+" else now.discard)(pid)
    return now


def most_at_once(home: Home, killed: dict[int, int]) -> int:
    """The most processes inside at one instant; a killed one until just before it was killed."""
    moves = [(ns, 1 if sign == "+" else -1) for ns, _, sign in entries(home)]
    moves += [(ns, -1) for ns in killed.values()]
    now = most = 0
    for _, step in sorted(moves):
        now += step
        most = max(most, now)
    return most


def kill(process: Process) -> int:
    """End it as a power cut would; the last instant at which it surely lived."""
    alive = time.monotonic_ns()
    process.kill()
    return alive


def wait_for_entry_after(home: Home, ns: int) -> float:
    """Seconds from this instant until somebody came in."""
    wait_until(lambda: any(at > ns and sign == "+" for at, _, sign in entries(home)), "somebody comes in")
    return min(at - ns for at, _, sign in entries(home) if at > ns and sign == "+") / 1e9


@pytest.mark.parametrize(
    ("limit", "workers", "victims", "restarts"),
    [(3, 10, 10, False), (3, 5, 6, True)],
    ids=["holders are killed", "and another process that has the home open, too"],
)
def test_killed_holders_leave_nothing_behind(
    home: Home, limit: int, workers: int, victims: int, restarts: bool
) -> None:
    limits.create_limit("gate", limit)
    killed: dict[int, int] = {}
    waits: list[float] = []
    with ExitStack() as stack:
        holding = [stack.enter_context(started("slots.py", home.path, "hold")) for _ in range(victims)]
        working = [stack.enter_context(started("slots.py", home.path, "enter_often", 5)) for _ in range(workers)]
        by_pid = {process.pid: process for process in holding}

        def living() -> set[int]:
            alive = by_pid.keys() - killed.keys()
            failed = [by_pid[pid] for pid in alive if by_pid[pid].ended()]
            assert [(process.wait(), process.errors) for process in failed] == []
            return alive

        # Not while twenty interpreters start at once: what is measured is the limit, not the machine.
        wait_until(lambda: living() <= {owner.pid for owner in home.store.owners()}, "all stand in line")
        for number in range(victims):
            full = min(limit, victims - number)
            wait_until(lambda full=full: len(inside(home) & living()) >= full, "the holders hold")
            # The slots' rows say the same as the holders themselves, at every look.
            assert sum(slot.count for slot in home.store.limits.slots()) <= limit
            if restarts:
                with started("slots.py", home.path, "keep_home_open") as keeper:
                    wait_until(lambda keeper=keeper: keeper.pid in {o.pid for o in home.store.owners()}, "it is there")
                    keeper.kill()
            pid = min(inside(home) & living())
            killed[pid] = kill(by_pid[pid])
            if number < victims - limit:
                waits.append(wait_for_entry_after(home, killed[pid]))
        for process in working:
            assert process.wait() == 0, process.errors
    assert most_at_once(home, killed) == limit
    assert max(waits) <= FREE_SECONDS
    assert len([1 for _, pid, sign in entries(home) if sign == "-"]) == workers * 5
    home.reap()
    assert home.store.limits.slots() == []


def test_a_slot_of_a_killed_process_is_taken_at_once_when_nothing_else_is_free(home: Home) -> None:
    limits.create_limit("gate", 1)
    with started("slots.py", home.path, "hold") as holder:
        wait_until(lambda: inside(home), "it holds")
        holder.kill()
        from prefect_nb.concurrency.sync import concurrency

        with concurrency("gate", timeout_seconds=0):
            assert len(home.store.limits.slots()) == 1


def test_a_stopped_process_keeps_its_slot(home: Home) -> None:
    limits.create_limit("gate", 1)
    with started("slots.py", home.path, "hold") as holder:
        wait_until(lambda: inside(home), "it holds")
        holder.signal(signal.SIGSTOP)
        with started("slots.py", home.path, "enter_often", 1) as other:
            with pytest.raises(AssertionError, match="somebody else"):
                wait_until(lambda: len(inside(home)) > 1, "somebody else", seconds=1.5)
            holder.kill()
            assert other.wait() == 0


@pytest.mark.parametrize("point", ["before_take_commit", "before_release_commit:3"])
def test_a_kill_between_taking_and_giving_back(home: Home, point: str) -> None:
    limits.create_limit("gate", 1)
    assert run("slots.py", home.path, "enter_often", 5, PREFECT_NB_CRASH_AT=point).ended()
    with opened(home.path) as here:
        assert here.store.limits.slots() == [] or point.startswith("before_release")
    began = time.monotonic()
    succeed("slots.py", home.path, "enter_often", 5)
    assert time.monotonic() - began < 30
    assert home.store.limits.slots() == []


def test_the_slot_of_a_task_run_is_free_when_its_process_is_killed(home: Home) -> None:
    limits.set_tag_limit("gate", 1)
    with (
        started("slots.py", home.path, "hold_in_task") as first,
        started("slots.py", home.path, "hold_in_task") as second,
    ):
        (pid,) = wait_until(lambda: inside(home), "one of them holds")
        holder, other = (first, second) if pid == first.pid else (second, first)
        (slot,) = home.store.limits.slots()
        assert slot.run_id is not None
        killed = kill(holder)
        wait_until(lambda: other.pid in inside(home), "the other one holds", seconds=10)
        assert most_at_once(home, {holder.pid: killed}) == 1
        other.kill()
    home.reap()
    assert home.store.limits.slots() == []


def test_a_forked_child_gives_back_nothing_of_its_parents(home: Home) -> None:
    limits.create_limit("gate", 1)
    assert succeed("slots.py", home.path, "fork_inside") == "1"
    assert home.store.limits.slots() == []


@pytest.mark.parametrize("step", [3600, -3600])
def test_processes_share_a_rate_whatever_the_wall_clock_does(home: Home, step: int) -> None:
    limits.create_limit("rate", 2, slot_decay_per_second=10)
    with ExitStack() as stack:
        users = [stack.enter_context(started("slots.py", home.path, "use_up", 8, step)) for _ in range(3)]
        for user in users:
            assert user.wait() == 0, user.errors
    used = [ns for ns, _, _ in entries(home)]
    assert len(used) == 24
    # In any stretch of time there are at most the limit, and what decayed meanwhile, and one at each end on its way.
    for i, first in enumerate(used):
        for j in range(i, len(used)):
            assert j - i + 1 <= 2 + 10 * (used[j] - first) / 1e9 + 1.5
    assert (used[-1] - used[0]) / 1e9 < 24 / 10 + 5
