"""Too much to log: the run goes on at its pace, memory and file stay small, and what is left out is counted."""

import logging
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from harness import only_flow_run

from prefect_nb import flow, get_run_logger, task
from prefect_nb.execution import ledger as ledgers
from prefect_nb.execution.ledger import Ledger
from prefect_nb.execution.logs import install
from prefect_nb.home import Home
from prefect_nb.interfaces import LogLine
from prefect_nb.store.memory import MemoryStore

MEBIBYTE = 1024 * 1024


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Keeps the console and pytest from hearing what is logged; pytest only if that is said after its own set-up."""

    def be_quiet() -> None:
        monkeypatch.setenv("PREFECT_NB_LOGGING_TO_CONSOLE", "false")
        install()
        monkeypatch.setattr("prefect_nb.execution.logs.show_on_console", False)
        monkeypatch.setattr(logging.getLogger("prefect"), "propagate", False)

    return be_quiet


def test_a_hundred_thousand_lines_of_one_task(prefect_nb_home: Path, quiet: Callable[[], None]) -> None:
    quiet()
    slowest: list[float] = []

    @task
    def chatters() -> None:
        logger = get_run_logger()
        for number in range(100_000):
            logger.info("number %d of a great many lines", number)

    @flow
    def chatter() -> None:
        chatters()

    here = Home.current()
    log = here.ledger.log

    def timed(line: Any) -> None:
        began = time.perf_counter()
        log(line)
        slowest.append(time.perf_counter() - began)

    here.ledger.log = timed  # type: ignore[method-assign]
    chatter()
    run = only_flow_run(here)
    wait_for_lines(here)
    counted = len(here.store.logs(run.id, limit=1_000_000))
    dropped = sum(_number(line) for line in _markers(here))
    assert counted - len(_markers(here)) + dropped == 100_000, "every line is there or counted"
    assert counted <= 100_000 + 10
    # A line in ten thousand may meet the writer or another process; none waits for the disk.
    assert sorted(slowest)[int(len(slowest) * 0.999)] < 0.005
    assert (prefect_nb_home / "logs.db").stat().st_size < 64 * MEBIBYTE


def wait_for_lines(here: Home) -> None:
    for _ in range(2):  # the log is written right after the history
        here.ledger.commit()


def _markers(here: Home) -> list[LogLine]:
    return [line for _, line in here.store.logs(limit=1_000_000) if " dropped: more came" in line.message]


def _number(line: LogLine) -> int:
    return int(line.message.split(" ")[0].replace(",", ""))


class Stuck(MemoryStore):
    """A store whose log takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.entered = threading.Event()

    def write_logs(self, lines: Any) -> None:
        self.entered.set()
        assert self.go_on.wait(30)
        super().write_logs(lines)


def test_when_the_queue_is_full_lines_for_debugging_go_first_then_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_LOG_QUEUE", 100)
    monkeypatch.setattr(ledgers, "_MAKE_ROOM", 10)
    store, flow_run = Stuck(), uuid4()
    ledger = Ledger(store)

    def log(level: int, text: str) -> None:
        ledger.log(LogLine(1, level, "a", text, flow_run))

    log(logging.INFO, "the first")
    assert store.entered.wait(10)
    for number in range(60):
        log(logging.INFO, f"info {number}")
        log(logging.DEBUG, f"debug {number}")
    for number in range(60, 120):
        log(logging.INFO, f"info {number}")
    waiting = [line.message for line in ledger._logs]
    assert not [text for text in waiting if text.startswith("debug")]
    store.go_on.set()
    ledger.close()
    kept = [line.message for _, line in store.logs(flow_run)]
    infos = [text for text in kept if text.startswith("info")]
    assert infos == [f"info {number}" for number in range(120 - len(infos), 120)]
    (marker,) = [text for text in kept if "dropped" in text]
    assert marker == f"{180 - len(infos)} lines of this log were dropped: more came than could be written."


def test_a_writer_that_is_stuck_holds_nobody_up() -> None:
    store = Stuck()
    ledger = Ledger(store)
    line = LogLine(1, logging.INFO, "a", "one of many", uuid4())
    ledger.log(line)
    assert store.entered.wait(10)
    slowest = 0.0
    for _ in range(30_000):
        began = time.thread_time()
        ledger.log(line)
        slowest = max(slowest, time.thread_time() - began)
    assert slowest < 0.02
    assert len(ledger._logs) <= 10_000
    store.go_on.set()
    ledger.close()
    assert "dropped" in store.logs(limit=100_000)[-1][1].message


@pytest.mark.parametrize("how", ["log", "print"])
@pytest.mark.parametrize("letter", ["x", "é", "\udcff"])
def test_a_line_of_a_hundred_megabytes_takes_little_memory(how: str, letter: str, quiet: Callable[[], None]) -> None:
    quiet()
    text = letter * (100_000_000 if letter == "x" else 50_000_000)
    size = len(text) if letter == "x" else 50_000_000 * len(letter.encode("utf-8", "surrogatepass"))
    used = 0

    @flow(log_prints=True)
    def floods() -> None:
        nonlocal used
        say = print if how == "print" else get_run_logger().info
        say("warm")
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        say(text)
        used = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()

    floods()
    here = Home.current()
    assert used < 10 * MEBIBYTE
    wait_for_lines(here)
    message = here.store.logs(only_flow_run(here).id, limit=10)[1][1].message
    assert message.endswith(f"... [{size - 64 * 1024} more bytes]")
    assert len(message.split("...")[0]) <= 64 * 1024


def test_a_hundred_thousand_lines_in_one_print_are_one_entry_of_64_kib(quiet: Callable[[], None]) -> None:
    quiet()
    text = "\n".join(["a line of one print"] * 100_000)

    @flow(log_prints=True)
    def floods() -> None:
        print(text)  # noqa: T201
        print(*["a word"] * 100_000, sep="\n", file=sys.stdout)  # noqa: T201

    floods()
    here = Home.current()
    wait_for_lines(here)
    first, second = [line.message for _, line in here.store.logs(only_flow_run(here).id)]
    assert first.endswith(f"... [{len(text) - 64 * 1024} more bytes]")
    assert second.endswith("more bytes]")


def test_a_secret_at_the_cut_is_not_shown_in_part() -> None:
    from prefect_nb.execution.logs import MAX_LINE_BYTES, public
    from prefect_nb.model import redaction

    secret = "CANARY-" + "s" * 5_000
    redaction.learn(secret)
    try:
        for at in (MAX_LINE_BYTES - 3, MAX_LINE_BYTES + 2_040, MAX_LINE_BYTES + 4_000):
            for many in (0, 50):
                text = (secret + " ") * many + "x" * at + secret + "y" * 1_000_000
                assert "CANARY" not in public(text)
                assert len(public(text)) < MAX_LINE_BYTES + 50
    finally:
        redaction.forget()
