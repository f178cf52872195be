"""Who holds slots, who waits for them, and somebody else who does."""

import threading
import time
from collections.abc import Callable
from typing import Any, Self

from prefect_nb.concurrency.sync import concurrency
from prefect_nb.home import Home
from prefect_nb.service import limits


def held(name: str) -> int:
    return sum(holder.slot.count for holder in limits.holders(limits.find_limit(name)))


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.002)
    return answer


def waiting() -> int:
    """How many claims of this process stand in line."""
    return sum(map(len, Home.current().limits._lines.values()))


class AtOnce:
    """Counts who is inside at once."""

    def __init__(self) -> None:
        self.now = self.most = self.entered = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.entered += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


class Elsewhere:
    """Somebody in another thread who holds a limit until told to let go."""

    def __init__(self, *names: str, occupy: int = 1) -> None:
        self._names, self._occupy = list(names), occupy
        self.inside, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with concurrency(self._names, occupy=self._occupy):
            self.inside.set()
            self._leave.wait(60)

    def start(self) -> None:
        self._thread.start()

    def let_go(self) -> None:
        self._leave.set()
        self._thread.join(60)

    def __enter__(self) -> Self:
        self.start()
        assert self.inside.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
