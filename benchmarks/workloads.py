"""The work that is timed: one text for both packages, run in a process of its own.

    python workloads.py {prefect_nb,prefect} WORKLOAD [--tasks N] [--samples N] [--stay]

The package is chosen by its import name and by nothing else. One line of JSON on standard output holds the
measurement (seconds, unless a name says otherwise) or ``{"error": reason}``. With ``--stay`` the process then lives
until its standard input is closed, as a notebook's kernel would.
"""

import argparse
import asyncio
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

WARM_UP_TASKS = 2


@dataclass(frozen=True)
class Size:
    """How much to do: task runs in a flow, and samples of what is timed one by one."""

    tasks: int
    samples: int


Measurement = dict[str, Any]
Workload = Callable[[Any, Size], Measurement]


def direct(lib: Any, size: Size) -> Measurement:
    """Call a trivial task, one after the other."""

    @lib.task
    def trivial(x):
        return x

    @lib.flow
    def many(count):
        started = perf_counter()
        for i in range(count):
            trivial(i)
        return perf_counter() - started

    return timed(many, size)


def submit(lib: Any, size: Size) -> Measurement:
    """Submit a trivial task many times, then take every result."""

    @lib.task
    def trivial(x):
        return x

    @lib.flow
    def many(count):
        started = perf_counter()
        futures = [trivial.submit(i) for i in range(count)]
        expect([future.result() for future in futures], count)
        return perf_counter() - started

    return timed(many, size)


def map_(lib: Any, size: Size) -> Measurement:
    """Map a trivial task over a list, then take every result."""

    @lib.task
    def trivial(x):
        return x

    @lib.flow
    def many(count):
        started = perf_counter()
        futures = trivial.map(list(range(count)))
        expect([future.result() for future in futures], count)
        return perf_counter() - started

    return timed(many, size)


def async_submit(lib: Any, size: Size) -> Measurement:
    """Submit a trivial async task many times from an async flow."""

    @lib.task
    async def trivial(x):
        return x

    @lib.flow
    async def many(count):
        started = perf_counter()
        futures = [trivial.submit(i) for i in range(count)]
        expect([future.result() for future in futures], count)
        return perf_counter() - started

    return timed_async(many, size)


def async_map(lib: Any, size: Size) -> Measurement:
    """Map a trivial async task over a list from an async flow."""

    @lib.task
    async def trivial(x):
        return x

    @lib.flow
    async def many(count):
        started = perf_counter()
        futures = trivial.map(list(range(count)))
        expect([future.result() for future in futures], count)
        return perf_counter() - started

    return timed_async(many, size)


def async_gather(lib: Any, size: Size) -> Measurement:
    """Await many direct calls of a trivial async task at once."""

    @lib.task
    async def trivial(x):
        return x

    @lib.flow
    async def many(count):
        started = perf_counter()
        expect(await asyncio.gather(*(trivial(i) for i in range(count))), count)
        return perf_counter() - started

    return timed_async(many, size)


def cache_hit(lib: Any, size: Size) -> Measurement:
    """Call a task whose result is kept a second time with the same inputs."""
    bodies_run = []

    @lib.task(persist_result=True, cache_policy=inputs_policy(lib))
    def kept(x, salt):  # noqa: ARG001 - it makes the key of every process a new one
        bodies_run.append(x)
        return x

    @lib.flow
    def twice(count):
        salt = time.time_ns()
        seconds = []
        for _ in range(2):
            started = perf_counter()
            for i in range(count):
                kept(i, salt)
            seconds.append(perf_counter() - started)
        return seconds

    miss, hit = twice(size.tasks)
    if len(bodies_run) != size.tasks:
        raise AssertionError(f"{len(bodies_run)} bodies ran where {size.tasks} should have")
    return {"per_task": hit / size.tasks, "per_miss": miss / size.tasks, "task_runs": 2 * size.tasks}


def empty_flow(lib: Any, size: Size) -> Measurement:
    """Call a flow that does nothing, in a process that has run flows before."""

    @lib.flow
    def nothing():
        return None

    for _ in range(WARM_UP_TASKS):
        nothing()
    return {"per_flow": [seconds_of(nothing) for _ in range(size.samples)], "task_runs": 0}


def empty_async_flow(lib: Any, size: Size) -> Measurement:
    """Await an async flow that does nothing, in a process that has run flows before."""

    @lib.flow
    async def nothing():
        return None

    async def main():
        for _ in range(WARM_UP_TASKS):
            await nothing()
        samples = []
        for _ in range(size.samples):
            started = perf_counter()
            await nothing()
            samples.append(perf_counter() - started)
        return samples

    return {"per_flow": asyncio.run(main()), "task_runs": 0}


def first_flow(lib: Any, size: Size) -> Measurement:  # noqa: ARG001 - the first one comes once
    """Call a flow that does nothing, the first in its process."""

    @lib.flow
    def nothing():
        return None

    return {"per_flow": seconds_of(nothing), "task_runs": 0}


def sub_flow(lib: Any, size: Size) -> Measurement:
    """Call a flow that does nothing from inside a flow."""

    @lib.flow
    def child():
        return None

    @lib.flow
    def parent():
        child()
        return [seconds_of(child) for _ in range(size.samples)]

    return {"per_flow": parent(), "task_runs": 0}


def hash_array(lib: Any, size: Size) -> Measurement:
    """Find a kept result by a 100 MB array."""
    import numpy as np

    array = np.random.default_rng(0).random(100_000_000 // 8)
    return {**seconds_to_hash(lib, array, size), "megabytes": array.nbytes / 1e6}


def hash_frame(lib: Any, size: Size) -> Measurement:
    """Find a kept result by a table of 1,000,000 rows and 3 numeric columns."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.random(1_000_000) for name in "abc"})
    return {**seconds_to_hash(lib, frame, size), "megabytes": frame.memory_usage(index=False).sum() / 1e6}


WORKLOADS: dict[str, Workload] = {
    "direct": direct,
    "submit": submit,
    "map": map_,
    "async_submit": async_submit,
    "async_map": async_map,
    "async_gather": async_gather,
    "cache_hit": cache_hit,
    "empty_flow": empty_flow,
    "empty_async_flow": empty_async_flow,
    "first_flow": first_flow,
    "sub_flow": sub_flow,
    "hash_array": hash_array,
    "hash_frame": hash_frame,
}


def timed(many: Any, size: Size) -> Measurement:
    """The seconds a task of `many(count)`, which returns those of its body; warmed up first."""
    many(WARM_UP_TASKS)
    started = perf_counter()
    body = many(size.tasks)
    return per_task(body, perf_counter() - started, size)


def timed_async(many: Any, size: Size) -> Measurement:
    """The same for an async flow, both calls in one event loop."""

    async def main():
        await many(WARM_UP_TASKS)
        started = perf_counter()
        body = await many(size.tasks)
        return per_task(body, perf_counter() - started, size)

    return asyncio.run(main())


def per_task(body: float, whole: float, size: Size) -> Measurement:
    """The measurement of `size.tasks` task runs: seconds in the body of their flow, and of the whole call."""
    return {
        "per_task": body / size.tasks,
        "whole_flow": whole,
        "ended_at": time.time(),
        "task_runs": WARM_UP_TASKS + size.tasks,
    }


def seconds_of(call: Callable[[], Any]) -> float:
    """How long `call()` takes."""
    started = perf_counter()
    call()
    return perf_counter() - started


def seconds_to_hash(lib: Any, value: Any, size: Size) -> Measurement:
    """What a cache hit on `value` costs beyond a cache hit on a small integer: reading the whole value for the key."""
    bodies_run = []

    @lib.task(persist_result=True, cache_policy=inputs_policy(lib))
    def kept(x, salt):  # noqa: ARG001 - it is there to be hashed
        bodies_run.append(salt)
        return 0

    @lib.flow
    def look_up(salt):
        kept(1, salt)
        kept(value, salt)
        small = min(seconds_of(lambda: kept(1, salt)) for _ in range(size.samples))
        return [max(seconds_of(lambda: kept(value, salt)) - small, 1e-9) for _ in range(size.samples)]

    samples = look_up(time.time_ns())
    if len(bodies_run) != 2:
        raise AssertionError(f"{len(bodies_run)} bodies ran where 2 should have")
    return {"per_hash": samples, "task_runs": 2 + 2 * size.samples}


def inputs_policy(lib: Any) -> Any:
    """The package's cache policy by inputs alone."""
    return importlib.import_module(f"{lib.__name__}.cache_policies").INPUTS


def expect(results: list[Any], count: int) -> None:
    """Fail unless `results` are those of the numbers up to `count`, in order."""
    if results != list(range(count)):
        raise AssertionError("the results are not those of the tasks")


def peak_megabytes() -> float:
    """The most memory this process held; Linux counts in kilobytes, macOS in bytes."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> int:
    """Run one workload and print its measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", choices=["prefect_nb", "prefect"])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--stay", action="store_true")
    arguments = parser.parse_args()
    try:
        lib = importlib.import_module(arguments.package)
        measurement = WORKLOADS[arguments.workload](lib, Size(arguments.tasks, arguments.samples))
        measurement["peak_megabytes"] = peak_megabytes()
    except BaseException as error:  # whatever went wrong belongs in the table
        measurement = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(measurement), flush=True)
    if arguments.stay:
        sys.stdin.read()
    return 1 if "error" in measurement else 0


if __name__ == "__main__":
    sys.exit(main())
