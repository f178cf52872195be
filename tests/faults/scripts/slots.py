"""Processes that hold slots of the limit "gate". The first argument says how; the journal is in `EXECUTIONS`.

A line of the journal is `<pid> <nanoseconds> +` or `-`: the process is inside from here on, or is no more.
"""

import os
import signal
import sys
import time

from notes import say

from prefect_nb import flow, task
from prefect_nb.concurrency.sync import concurrency, rate_limit
from prefect_nb.home import Home

_journal = os.open(os.environ["EXECUTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(sign: str) -> None:
    os.write(_journal, f"{os.getpid()} {time.monotonic_ns()} {sign}\n".encode())


def forever() -> None:
    while True:
        signal.pause()


def enter_often(rounds: int) -> None:
    for _ in range(rounds):
        with concurrency("gate"):
            note("+")
            time.sleep(0.005)
            note("-")


def hold() -> None:
    with concurrency("gate"):
        note("+")
        forever()


def hold_in_task() -> None:
    @task(tags=["gate"])
    def work() -> None:
        note("+")
        forever()

    @flow
    def story() -> None:
        work.submit().wait()

    story()


def keep_home_open() -> None:
    """Opens the home, is an owner, looks after the dead, and holds nothing."""
    home = Home.current()
    assert home.owner_id
    while True:
        home.reap()
        time.sleep(0.05)


def fork_inside() -> None:
    """The forked child comes to the end of its parent's block first, and takes slots of its own."""
    with concurrency("gate"):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            say(len(Home.current().store.limits.slots()))
    if child == 0:
        try:
            with concurrency("gate", timeout_seconds=0):
                os._exit(1)
        except TimeoutError:
            os._exit(0)


def use_up(count: int, step_seconds: int) -> None:
    """Uses a rate limit while the wall clock jumps."""
    wall, wall_ns = time.time, time.time_ns
    for number in range(count):
        rate_limit("rate")
        note("+")
        moved = step_seconds * (number % 3)
        time.time = lambda moved=moved: wall() + moved  # type: ignore[assignment]
        time.time_ns = lambda moved=moved: wall_ns() + moved * 10**9  # type: ignore[assignment]


def main(how: str, *numbers: str) -> None:
    known = {f.__name__: f for f in (enter_often, hold, hold_in_task, keep_home_open, fork_inside, use_up)}
    known[how](*map(int, numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
