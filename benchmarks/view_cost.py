"""What the live view costs: 5,000 mapped tasks in a real kernel, with the view and without, in turns.

`python benchmarks/view_cost.py [--tasks 5000] [--rounds 3]` prints the ratio of the run times, the bytes sent to the
front end and the bytes left in the notebook. Two kinds of tasks: 2 ms of computing, where the processor is what counts,
and 2 ms of waiting on ten threads, where the run is nothing but overhead.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from typing import Any

from jupyter_client.manager import KernelManager

SETUP = """
%load_ext prefect_nb
import sys, time
from prefect_nb import task
from prefect_nb.home import root_hooks
from prefect_nb.task_runners import ThreadPoolTaskRunner

hooks = list(root_hooks)

@task
def computes(n):
    end = time.thread_time() + 0.002
    while time.thread_time() < end:
        pass

@task
def waits(n):
    time.sleep(0.002)
"""

RUN = """%%flow measured --max-workers 10
{kind}.map(range({tasks})).wait()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pnb-") as folder:
        environment = {**os.environ, "PREFECT_NB_HOME": f"{folder}/home", "IPYTHONDIR": f"{folder}/ipython"}
        manager = KernelManager(transport="ipc", connection_file=f"{folder}/kernel.json")
        manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        manager.start_kernel(env=environment, cwd=folder)
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            cell(client, SETUP)
            for kind in ("computes", "waits"):
                measure(client, kind, chosen.tasks, chosen.rounds)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def measure(client: Any, kind: str, tasks: int, rounds: int) -> None:
    """Print what the view costs with one kind of task."""
    figures: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    sent = saved = messages = 0
    cell(client, RUN.format(kind=kind, tasks=200))  # warm
    for turn in range(2 * rounds):
        on = turn % 2 == 1
        cell(client, f"root_hooks[:] = hooks if {on} else []")
        body = RUN.format(kind=kind, tasks=tasks)
        used = float(cell(client, "print(time.process_time())")[0])
        began = time.perf_counter()
        _, outputs, traffic = cell(client, body)
        wall = time.perf_counter() - began  # with the folding at the end
        figures[on].append((wall, float(cell(client, "print(time.process_time())")[0]) - used))
        if on:
            messages, sent = len(traffic), sum(traffic)
            saved = sum(len(text.encode()) for data in outputs for text in data.values())
    for place, name in enumerate(("run time", "processor")):
        with_view, without = (statistics.median(one[place] for one in figures[on]) for on in (True, False))
        print(f"{kind}: {name} {without:.2f} s without, {with_view:.2f} s with: {with_view / without - 1:+.1%}")
    print(f"{kind}: {messages} updates of the panel, {sent / 1000:.0f} kB; saved output {saved / 1000:.1f} kB")


def cell(client: Any, code: str) -> tuple[str, list[dict[str, Any]], list[int]]:
    """Run a cell as a person would; its printed text, its outputs at the end, and the sizes of the panel's updates."""
    outputs: list[dict[str, Any]] = []
    printed: list[str] = []
    traffic: list[int] = []

    def take(message: dict[str, Any]) -> None:
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                printed.append(content["text"])
            case "display_data" | "update_display_data":
                outputs.append(content["data"])
            case "comm_msg":
                traffic.append(sum(map(len, message["buffers"])))

    reply = client.execute_interactive(code, allow_stdin=True, output_hook=take, timeout=600)
    if reply["content"]["status"] != "ok":
        raise SystemExit("\n".join(reply["content"]["traceback"]))
    return "".join(printed), outputs[-1:], traffic


if __name__ == "__main__":
    main()
