"""`python -m prefect_nb.bodies.keeper <pipe>`: sees to one kept kernel, and ends with it. See `bodies.parking`.

It says when it holds the pipe, is then told the kernel's record on stdin, and ends the kernel when its time is over, when
the kept kernels take too much memory and this is the oldest, or on SIGTERM. On SIGUSR1 somebody else holds the kernel.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from prefect_nb.bodies import parking

_LOOK_SECONDS = 1.0
_MEMORY_SECONDS = 5.0
_TAKING_SECONDS = 60.0


class _Asked(BaseException):
    """A signal says what is to become of the kernel."""

    def __init__(self, lets_live: bool) -> None:
        super().__init__()
        self.lets_live = lets_live


def main(pipe: str) -> None:
    """Hold the pipe, and see to the kernel until it has ended or is somebody else's."""
    os.open(pipe, os.O_RDWR)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _asked)
    signal.signal(signal.SIGUSR1, _asked)
    lets_live = False
    parked: parking.Parked | None = None
    record = Path()
    try:
        os.write(1, b"ready\n")
        os.close(1)
        record = Path(sys.stdin.readline().strip())
        parked = parking.read(record)
        if parked is not None:
            _guard(record.parents[1], parked)
    except _Asked as asked:
        lets_live = asked.lets_live
    if parked is not None and not lets_live:
        parking.end(record.parents[1], parked)


def _asked(number: int, _frame: FrameType | None) -> None:
    raise _Asked(number == signal.SIGUSR1)


def _guard(home: Path, parked: parking.Parked) -> None:
    """Until the kernel has ended, or has to."""
    measured = time.monotonic()
    taken_since: float | None = None
    while parked.is_alive:
        now = time.monotonic()
        if parking.is_taken(home, parked):
            # Whoever takes it says so when it is held; who has died over it never will.
            taken_since = taken_since or now
            if now - taken_since > _TAKING_SECONDS:
                return
        elif parking.read(parking.record_of(home, parked.flow_run_id)) != parked or time.time() * 1e6 > parked.until_us:
            return
        elif parked.memory is not None and now - measured > _MEMORY_SECONDS:
            measured = now
            if _takes_too_much(home, parked, parked.memory):
                return
        time.sleep(_LOOK_SECONDS)


def _takes_too_much(home: Path, parked: parking.Parked, most: int) -> bool:
    kept = parking.parked_kernels(home)
    return bool(kept) and kept[0] == parked and sum(one.resident for one in kept) > most


if __name__ == "__main__":
    main(sys.argv[1])
