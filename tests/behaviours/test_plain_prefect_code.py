"""Code of the plain kind written for Prefect runs after changing one word."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

GREETING = """
from prefect import flow, task


@task(retries=2, retry_delay_seconds=0)
def shaky(box=[]):
    box.append(1)
    if len(box) < 3:
        raise RuntimeError("not yet")
    return len(box)


@task
def say_hello(name):
    return f"Hello, {name}!"


@flow(log_prints=True)
def hello_universe(names: list[str]):
    for greeting in say_hello.map(names).result():
        print(greeting)
    return shaky()


if __name__ == "__main__":
    print("attempts:", hello_universe(["Marvin", "Trillian"]))
"""

ASYNCHRONOUS = """
import asyncio
from prefect import flow, task
from prefect.futures import wait
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner


@task
async def fetch(n: int) -> int:
    await asyncio.sleep(0)
    return n * n


@flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
async def squares(upto: int = 4):
    one = await fetch(1)
    futures = fetch.map(range(upto))
    wait(futures)
    many = [future.result() for future in futures]
    together = await asyncio.gather(*[fetch(n) for n in range(2)])
    return Completed(message="done", data=(one, many, together))


print(asyncio.run(squares()))
"""


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script written for Prefect, its import changed."""
    path = folder / "script.py"
    path.write_text(script.replace("from prefect", "from prefect_nb"))
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False)


def test_a_greeting_flow_with_retries_map_and_log_prints(tmp_path: Path) -> None:
    done = run(GREETING, tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "attempts: 3\n"
    assert "Hello, Marvin!" in done.stderr
    assert "Hello, Trillian!" in done.stderr


def test_an_async_flow(tmp_path: Path) -> None:
    done = run(ASYNCHRONOUS, tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "(1, [0, 1, 4, 9], [0, 1])\n"


def test_the_same_in_an_interactive_session(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, object] = {"__name__": "interactive"}
    exec(compile(GREETING.replace("from prefect", "from prefect_nb"), "<session>", "exec"), namespace)
    universe = namespace["hello_universe"]

    assert universe(["Zaphod"]) == 3  # type: ignore[operator]
    assert "Hello, Zaphod!" in capsys.readouterr().err
    assert not asyncio.iscoroutine(universe)
