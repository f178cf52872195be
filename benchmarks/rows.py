"""The rows of the table: which work each runs, what it takes from the measurement, what must be reached."""

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import notebooks
from sides import NO_PROGRESS, Measurement, Side, WorkloadError, peer
from table import Result, Samples, Target

ASYNC_PEER_TASKS = 200
"""Prefect takes some 80 ms for each of these, and more the more there are."""
CACHED_TASKS = 200
CELLS = 100

IMPORT_PROBE = """
import resource, sys, time
started = time.perf_counter()
from {package} import flow, task
seconds = time.perf_counter() - started
unit = 1e6 if sys.platform == "darwin" else 1e3
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
"""


@dataclass(frozen=True)
class Bench:
    """What the rows have to work with; `peer` is None where only ours is measured."""

    scratch: Path
    ours: Side
    peer: Side | None
    tasks: int
    repeat: int
    peer_repeat: int


Row = Callable[[Bench], Iterator[Result]]


def attempt(measure: Callable[[], list[Any]]) -> "list[Any] | str":
    """What `measure` returns, or the words for the cell of a workload that failed."""
    try:
        return measure()
    except WorkloadError as error:
        return f"failed: {error}"


def measured(bench: Bench, workload: str, *, tasks: int, peer_tasks: int, samples: int) -> "tuple[Any, Any]":
    """The measurements of both sides, or the reason why there are none."""
    mine = attempt(lambda: [bench.ours.run(workload, tasks=tasks, samples=samples) for _ in range(bench.repeat)])
    other = bench.peer
    if other is None:
        return mine, "not run"
    theirs = attempt(lambda: [other.run(workload, tasks=peer_tasks, samples=samples) for _ in range(bench.peer_repeat)])
    return mine, theirs


def pick(measurements: "list[Measurement] | str", name: str) -> Samples:
    """All samples of one figure."""
    if isinstance(measurements, str):
        return measurements
    values = [measurement[name] for measurement in measurements]
    return [sample for value in values for sample in (value if isinstance(value, list) else [value])]


def tasks_row(workload: str, work: str, target: Target, *, peer_tasks: int | None = None, memory: bool = False) -> Row:
    """Seconds a task, taken inside the flow."""

    def row(bench: Bench) -> Iterator[Result]:
        others = min(peer_tasks or bench.tasks, bench.tasks)
        mine, theirs = measured(bench, workload, tasks=bench.tasks, peer_tasks=others, samples=1)
        note = f"Prefect with {others:,}" if others != bench.tasks else ""
        title = f"{work}, {bench.tasks:,}"
        yield Result(f"{title}: a task", "s", pick(mine, "per_task"), pick(theirs, "per_task"), target, note=note)
        if others == bench.tasks:
            yield Result(f"{title}: the whole flow call", "s", pick(mine, "whole_flow"), pick(theirs, "whole_flow"))
        if memory:
            yield Result(
                f"{title}: peak memory",
                "MB",
                pick(mine, "peak_megabytes"),
                pick(theirs, "peak_megabytes"),
                Target(at_most=100),
                note=note,
            )

    return row


def flow_row(workload: str, work: str, target: Target, *, samples: int) -> Row:
    """Seconds a flow run."""

    def row(bench: Bench) -> Iterator[Result]:
        mine, theirs = measured(bench, workload, tasks=1, peer_tasks=1, samples=samples)
        yield Result(work, "s", pick(mine, "per_flow"), pick(theirs, "per_flow"), target)

    return row


def cache_hit(bench: Bench) -> Iterator[Result]:
    """Seconds a task whose result is kept already, and one whose result is not."""
    tasks = min(CACHED_TASKS, bench.tasks)
    mine, theirs = measured(bench, "cache_hit", tasks=tasks, peer_tasks=tasks, samples=1)
    yield Result(f"cache hit, {tasks}: a task", "s", pick(mine, "per_task"), pick(theirs, "per_task"))
    yield Result(f"cache miss, result kept, {tasks}: a task", "s", pick(mine, "per_miss"), pick(theirs, "per_miss"))


def hash_row(workload: str, work: str, target: Target) -> Row:
    """Seconds to read a large input for the cache key."""

    def row(bench: Bench) -> Iterator[Result]:
        mine, theirs = measured(bench, workload, tasks=1, peer_tasks=1, samples=5)
        yield Result(work, "s", pick(mine, "per_hash"), pick(theirs, "per_hash"), target)

    return row


def import_(bench: Bench) -> Iterator[Result]:
    """Seconds and memory of the import, each time in a fresh process."""
    mine = attempt(lambda: probe_import(bench.ours, 5))
    other = bench.peer
    theirs = "not run" if other is None else attempt(lambda: probe_import(other, 5))
    for place, work, unit, target in (
        (0, "`import` of the decorators", "s", Target(at_most=0.5)),
        (1, "`import` of the decorators: memory of the process", "MB", Target(at_most=45)),
    ):
        picked = [side if isinstance(side, str) else [sample[place] for sample in side] for side in (mine, theirs)]
        yield Result(work, unit, picked[0], picked[1], target)


def probe_import(side: Side, repeat: int) -> "list[list[float]]":
    """Seconds and megabytes, without the first time, which may compile."""
    samples = []
    for _ in range(repeat + 1):
        probe = subprocess.run(
            [str(side.python), "-c", IMPORT_PROBE.format(package=side.package)],
            cwd=side.scratch,
            env=side.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if probe.returncode:
            raise WorkloadError(probe.stderr.strip().splitlines()[-1])
        samples.append([float(number) for number in probe.stdout.split()])
    return samples[1:]


def recorded(bench: Bench) -> Iterator[Result]:
    """The process lives on after its flow, as a kernel does: when is everything recorded, how large is it?"""
    mine = attempt(lambda: [record(bench.ours, bench.tasks) for _ in range(bench.repeat)])
    other = bench.peer
    theirs = "not run" if other is None else attempt(lambda: [record(other, bench.tasks)])
    missing = ""
    if not isinstance(theirs, str) and theirs[0]["recorded"] < theirs[0]["expected"]:
        missing = (
            f"Prefect: {theirs[0]['recorded']:,} of {theirs[0]['expected']:,}, then no more for {NO_PROGRESS:.0f} s"
        )
    yield Result(
        f"from the flow's end until all {bench.tasks:,} are recorded",
        "s",
        pick(mine, "lag"),
        pick(theirs, "lag"),
        Target(at_most=1.0),
        note=missing,
    )
    yield Result("database bytes a task run", "bytes", pick(mine, "bytes"), pick(theirs, "bytes"), Target(at_most=2000))


def record(side: Side, tasks: int) -> Measurement:
    """What becomes of a flow's rows while its process lives on. Raises WorkloadError."""
    recorded_before, bytes_before = side.recorded(), side.database_bytes()
    with side.running("direct", tasks=tasks, stay=True) as measurement:
        expected = measurement["task_runs"]
        made = side.wait_recorded(recorded_before + expected) - recorded_before
        lag = time.time() - measurement["ended_at"]
        size = (side.database_bytes() - bytes_before) / max(made, 1)
    if made < expected and not side.settles:
        raise WorkloadError(f"{made:,} of {expected:,} recorded")
    return {"lag": lag, "bytes": size, "recorded": made, "expected": expected}


def kept(bench: Bench) -> Iterator[Result]:
    """The process ends normally right after the flow."""
    everything = Target(at_least=bench.tasks)
    mine = attempt(lambda: [rows_kept(bench.ours, bench.tasks) for _ in range(bench.repeat)])
    other = bench.peer
    theirs = "not run" if other is None else attempt(lambda: [rows_kept(other, bench.tasks)])
    work = f"rows of {bench.tasks:,} kept when the process exits right after"
    yield Result(work, "rows", mine, theirs, everything, more_is_better=True)
    if other is not None:
        alone = peer(other.python, bench.scratch / "alone", None)
        theirs = attempt(lambda: [rows_kept(alone, bench.tasks)])
        yield Result(f"{work}, no server running", "rows", mine, theirs, everything, more_is_better=True)


def rows_kept(side: Side, tasks: int) -> int:
    """Finished task runs of the last flow that are in the database after its process ended. Raises WorkloadError."""
    before = side.recorded()
    with side.running("direct", tasks=tasks) as measurement:
        pass
    made = int(measurement["task_runs"])
    seen = side.wait_recorded(before + made) if side.settles else side.recorded()
    # The warm-up's rows came first and count as kept.
    return max(seen - before - (made - tasks), 0)


def first_flow(bench: Bench) -> Iterator[Result]:
    """For Prefect beside a server, and starting one itself."""
    yield from flow_row("first_flow", "first empty flow in a process", Target(at_most=0.3), samples=1)(bench)
    if bench.peer is not None:
        alone = peer(bench.peer.python, bench.scratch / "alone", None)
        mine = attempt(lambda: [bench.ours.run("first_flow") for _ in range(bench.repeat)])
        theirs = attempt(lambda: [alone.run("first_flow")])
        work = "first empty flow in a process, no server running"
        yield Result(work, "s", pick(mine, "per_flow"), pick(theirs, "per_flow"), Target(at_most=0.3))


def notebook(bench: Bench) -> Iterator[Result]:
    """Interleaved, so that a change in the machine's load meets all of them."""
    runs: dict[str, list[tuple[float, float]] | str] = {runner: [] for runner in notebooks.RUNNERS}
    for _ in range(bench.repeat):
        for runner, done in runs.items():
            if isinstance(done, list):
                again = attempt(partial(notebook_once, bench.ours, runner))
                runs[runner] = again if isinstance(again, str) else done + again
    mine = runs.pop("prefect-nb")
    ratios = {"papermill": Target(), "nbclient": Target(ratio=1 / 1.15), "raw": Target()}
    for runner, theirs in runs.items():
        seconds = [side if isinstance(side, str) else [sample[0] for sample in side] for side in (mine, theirs)]
        work = f"notebook of {CELLS} trivial cells, execution only, beside {runner}"
        yield Result(work, "s", seconds[0], seconds[1], ratios[runner])
        if runner == "papermill":
            whole = [side if isinstance(side, str) else [sample[1] for sample in side] for side in (mine, theirs)]
            yield Result("the same, the whole command, beside papermill", "s", whole[0], whole[1])


def notebook_once(side: Side, runner: str) -> list[tuple[float, float]]:
    """Seconds of the execution and of the whole command, in a list. Raises WorkloadError."""
    return [notebooks.execution(side, runner, CELLS)]


ROWS: dict[str, Row] = {
    "import": import_,
    "first_flow": first_flow,
    "empty_flow": flow_row("empty_flow", "an empty flow, steady state", Target(at_most=0.01), samples=10),
    "empty_async_flow": flow_row(
        "empty_async_flow", "an empty async flow, steady state", Target(at_most=0.01), samples=10
    ),
    "sub_flow": flow_row("sub_flow", "an empty sub-flow", Target(at_most=0.01), samples=10),
    "direct": tasks_row("direct", "direct call of a trivial task", Target(ratio=60)),
    "submit": tasks_row("submit", "`.submit()` + result", Target(ratio=40)),
    "map": tasks_row("map", "`.map`", Target(ratio=40)),
    "async_submit": tasks_row(
        "async_submit",
        "async `.submit()` from an async flow",
        Target(ratio=400),
        peer_tasks=ASYNC_PEER_TASKS,
        memory=True,
    ),
    "async_map": tasks_row(
        "async_map", "async `.map` from an async flow", Target(ratio=400), peer_tasks=ASYNC_PEER_TASKS, memory=True
    ),
    "async_gather": tasks_row("async_gather", "async gather of direct awaits", Target(ratio=40)),
    "cache_hit": cache_hit,
    "recorded": recorded,
    "kept": kept,
    "hash_array": hash_row("hash_array", "hash a 100 MB array for a cache key", Target(at_most=0.05)),
    "hash_frame": hash_row("hash_frame", "hash a 1e6 x 3 DataFrame for a cache key", Target(at_most=0.03)),
    "notebook": notebook,
}
