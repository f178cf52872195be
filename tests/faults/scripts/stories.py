"""Small flows, each for one fault: `stories.py NAME [ARGUMENTS]`."""

import asyncio
import inspect
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

from notes import note, say

from prefect_nb import flow, task
from prefect_nb.home import Home, close_all
from prefect_nb.task_runners import ThreadPoolTaskRunner


def reach(file: str) -> None:
    """Say that the process has come this far."""
    Path(os.environ["PREFECT_NB_HOME"]).with_name(file).touch()


def wait_for(file: str) -> None:
    """Wait until the test lets the process go on."""
    path = Path(os.environ["PREFECT_NB_HOME"]).with_name(file)
    while not path.exists():
        time.sleep(0.002)


@task
def step(n: int) -> int:
    note(str(n))
    return n


@flow(durable=True)
def kills_itself() -> None:
    step(0)
    os.kill(os.getpid(), signal.SIGKILL)


@flow(durable=True)
def gets_further() -> int:
    done = [step(n) for n in range(12)]
    return sum(done)


@flow
def part(first: int) -> int:
    return sum(step(n) for n in range(first, first + 6))


@flow(durable=True)
def nested() -> list[int]:
    return [part(0), step(100), part(10)]


@task
def gated(n: int) -> int:
    note(str(n))
    reach(f"at-{n}")
    wait_for(f"go-{n}")
    return n


@flow(durable=True)
def gate() -> list[int]:
    """Waits in its third task until it may go on; whoever takes it over finds the gate open."""
    first = [step(n) for n in range(2)]
    waited = gated(2)
    reach("past-2")
    return [*first, waited, *(step(n) for n in range(3, 6))]


@flow
def gate_open() -> int:
    """The same, and nothing waits for its commits."""
    return sum([step(0), step(1), gated(2), step(3)])


@flow
def idle() -> str:
    """Writes nothing while it is stopped and taken over."""
    reach("at-body")
    wait_for("go-body")
    return "the value of the old process"


@task
def hold_the_interpreter(seconds: float) -> int:
    began, length = time.monotonic(), 22
    reach("at-regex")
    while time.monotonic() - began < seconds:
        # Each try holds the interpreter's lock from its beginning to its end, twice as long as the one before.
        length += 1
        re.match(r"(a+)+$", "a" * length + "b")
    return length


@flow
def regex(seconds: str) -> int:
    return hold_the_interpreter(float(seconds))


@task
def slow(n: int) -> int:
    note(str(n))
    reach(f"at-{n}")
    time.sleep(1.5)
    return n


@flow(task_runner=ThreadPoolTaskRunner(max_workers=10))
def many() -> None:
    slow.map(range(100)).wait()


@flow(task_runner=ThreadPoolTaskRunner(max_workers=10))
def many_left() -> None:
    """Does not wait for what it submits."""
    slow.map(range(100))


@flow(task_runner=ThreadPoolTaskRunner(max_workers=10))
async def many_awaited() -> None:
    slow.map(range(100))


@task
def hangs(seconds: float) -> None:
    """Calls a task that no interrupt reaches in time, and another one afterwards."""
    try:
        stuck(seconds)
    except BaseException:
        step(1)
        raise


@task
def stuck(seconds: float) -> None:
    reach("at-stuck")
    time.sleep(seconds)


@flow
def left_behind() -> None:
    hangs.submit(7).wait()


def outlives_its_flow() -> None:
    """As in a notebook: the process goes on after the interrupt, and so does the thread that could not be stopped."""
    try:
        left_behind()
    except KeyboardInterrupt:
        reach("at-end")
    time.sleep(3)


def unfinished() -> None:
    """The interpreter ends while another thread is in the middle of a flow."""
    threading.Thread(target=gate, daemon=True).start()
    wait_for("at-2")


@flow
def many_inside() -> None:
    many()


@flow
def two_hundred() -> None:
    for future in step.map(range(200)):
        future.wait()


@task(retries=2, retry_delay_seconds=[0.1, 2])
def fails_twice() -> str:
    note("attempt")
    raise ValueError("not yet")


@flow(durable=True)
def retrying() -> str:
    step(0)
    return fails_twice()


def leave_after(act: Callable[[], object]) -> None:
    """What a forked child does, as `multiprocessing` has it: its work, and no return into its parent's frames."""
    code = 1
    try:
        act()
        close_all()
        code = 0
    except BaseException as error:
        note(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


@flow
def forks() -> int:
    """The child of a fork, in the middle of a flow, runs a flow of its own."""
    step(1)
    if os.fork() == 0:
        leave_after(lambda: (in_child(), step(3)))
    _, status = os.wait()
    step(4)
    return os.waitstatus_to_exitcode(status)


@flow
def in_child() -> None:
    step.submit(2).wait()


@flow
def pools() -> list[int]:
    import multiprocessing

    step(1)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        answers = pool.map(run_in_pool, range(4))
        pool.close()
        pool.join()
    return answers


def run_in_pool(n: int) -> int:
    return in_pool(n)


@flow
def in_pool(n: int) -> int:
    return step(n)


@flow
def falls_through() -> None:
    """The child of a fork does not leave: it goes on where its parent does, and ends where that ends."""
    step(0)
    child = os.fork()
    for n in range(1, 21):
        step(n)
    if child:
        os.waitpid(child, 0)


@flow
def forks_often() -> int:
    """Many threads are busy with the history while others fork; each child runs a task of its own."""
    busy = step.map(range(2_000))
    failed = 0
    for n in range(20):
        child = os.fork()
        if child == 0:
            leave_after(partial(step, n))
        failed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        len(Home.current().store.owners())
    busy.wait()
    return failed


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


@task(persist_result=True)
def raises(kind: str) -> None:
    makes: dict[str, Callable[[], Exception]] = {
        "unspeakable": Unspeakable,
        "unpicklable": Unpicklable,
        "surrogate": lambda: ValueError("a name that is no text: \udcff"),
    }
    error = makes[kind]()
    raise error


@flow
def bad_errors() -> str:
    return " ".join(raises(kind, return_state=True).name for kind in ("unspeakable", "unpicklable", "surrogate"))


@task(persist_result=True)
def a_lock() -> object:
    return threading.Lock()


@flow
def plain_lock() -> str:
    return type(a_lock()).__name__


@flow(durable=True)
def durable_lock() -> None:
    a_lock()


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    story = globals()[name]
    if arguments[:1] == ["resume"]:
        say(story.resume(UUID(arguments[1]), force="--force" in arguments))
    else:
        answer = story(*arguments)
        say(asyncio.run(answer) if inspect.iscoroutine(answer) else answer)
