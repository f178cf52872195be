"""A pool of worker processes, each on a line of its own, so that one's death harms no other."""

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from prefect_nb.engine.commands import Interrupted, Outcome, Raised
from prefect_nb.exceptions import CrashedRun, SerializationError
from prefect_nb.interfaces import Emit, Work
from prefect_nb.runners.carry import pickle_work, unpickle_outcome
from prefect_nb.runners.child import OUTCOME
from prefect_nb.runners.threads import ThreadRunner

logger = logging.getLogger(__name__)

_SECONDS_TO_LEAVE = 5.0


class ProcessRunner:
    """A `Runner` on processes of this machine.

    Each is a fresh interpreter with this one's module search path; it does not run this program's `__main__`, so a
    notebook, an interactive session and a script without an `if __name__ == "__main__"` all work. Processes start when
    there is work for them, are used again, ignore SIGINT, and end with `close` or with this process.

    Args:
        max_workers: how many processes there are at most; None: one per core.
    """

    name = "processes"
    remote = True
    shares_files = True

    def __init__(self, max_workers: int | None = None) -> None:
        self.max_workers = max_workers or os.cpu_count() or 1
        # One thread per process sends it work and hears it out.
        self._threads = ThreadRunner(self.max_workers, thread_name="prefect_nb-process")
        self._workers = _Workers()
        self._lock = threading.Lock()
        self._carried: dict[int, _Worker] = {}
        """Which process is at which work, by the work's `id`."""
        self._unwanted: dict[int, Work] = {}
        weakref.finalize(self, self._workers.close)

    def start(self, work: Work, done: Callable[[Outcome], None], emit: Emit) -> None:
        """Call `work` in a process as soon as one is free, then `done(outcome)` on a thread of this one.

        Raises:
            RuntimeError: the runner is closed.
        """
        self._threads.start(partial(self._carry, work), done, emit)

    def close(self, wait: bool = True) -> None:
        """Take no more work; with `wait`, until what was started is done. Processes end when they are idle."""
        self._threads.close(wait)
        self._workers.close()

    def kill(self) -> None:
        """Kill every process. Work that ran there ends as `Interrupted`; work in line goes to new ones."""
        self._workers.kill()

    def stop(self, work: Work) -> None:
        """Kill the process that is at this work; or, while it is in line, do not begin it. It ends as `Interrupted`."""
        with self._lock:
            worker = self._carried.get(id(work))
            if worker is None:
                self._unwanted[id(work)] = work
            else:
                worker.kill()

    def _carry(self, work: Work, emit: Emit) -> Outcome:
        if self._is_unwanted(work):
            return _not_begun()
        try:
            data = pickle_work(work)
        except SerializationError as error:
            return Raised(error)
        worker = self._workers.take()
        with self._lock:
            self._carried[id(work)] = worker
        if self._is_unwanted(work):
            self._put_down(work)
            self._workers.put_back(worker)
            return _not_begun()
        try:
            outcome = worker.call(data, emit)
        except (EOFError, OSError):
            self._put_down(work)
            message = f"The worker process died ({self._workers.bury(worker)}) while it ran this call."
            return Interrupted(CrashedRun(message), message)
        self._put_down(work)
        self._workers.put_back(worker)
        return unpickle_outcome(outcome)

    def _is_unwanted(self, work: Work) -> bool:
        with self._lock:
            return self._unwanted.pop(id(work), None) is not None

    def _put_down(self, work: Work) -> None:
        """From here on the process is not at this work any more, and is not killed for it."""
        with self._lock:
            self._carried.pop(id(work), None)


def _not_begun() -> Outcome:
    message = "The call was not wanted any more before it began."
    return Interrupted(CrashedRun(message), message)


class _Workers:
    """The processes of one runner: those at work and those free."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False

    def take(self) -> "_Worker":
        """A free process that lives, or a new one."""
        while True:
            with self._lock:
                worker = self._free.pop() if self._free else None
            if worker is None:
                worker = _Worker()
            elif not worker.is_alive():
                worker.end()
                continue
            with self._lock:
                self._busy.add(worker)
            return worker

    def put_back(self, worker: "_Worker") -> None:
        with self._lock:
            self._busy.discard(worker)
            if not self._closed:
                self._free.append(worker)
                return
        worker.end()

    def bury(self, worker: "_Worker") -> str:
        """How it died."""
        with self._lock:
            self._busy.discard(worker)
        return worker.end()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for worker in free:
            worker.hang_up()
        for worker in free:
            worker.end()

    def kill(self) -> None:
        with self._lock:
            workers = [*self._busy, *self._free]
        for worker in workers:
            worker.kill()


class _Worker:
    """One process and the line to it."""

    def __init__(self) -> None:
        from multiprocessing.connection import Connection

        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            program = (
                f"import sys; sys.path[:] = {sys.path!r}; from prefect_nb.runners.child import main; main({number})"
            )
            # Blocked here, SIGINT is blocked there from the first instruction until `main` ignores it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own program
                    [sys.executable, "-c", program], stdin=subprocess.DEVNULL, pass_fds=(number,)
                )
            except BaseException:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._line: Connection[Any, Any] = Connection(ours.detach())

    def call(self, data: bytes, emit: Emit) -> bytes:
        """Send work, pass its log lines on as they come, return its outcome's bytes.

        Raises:
            EOFError, OSError: the process is gone.
        """
        self._line.send_bytes(data)
        while True:
            message = self._line.recv_bytes()
            if message[:1] == OUTCOME:
                return message[1:]
            try:
                emit(pickle.loads(message[1:]))
            except Exception:
                logger.exception("A log line from a worker process could not be kept")

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def hang_up(self) -> None:
        """Tell the process to end."""
        self._line.close()

    def end(self) -> str:
        """End the process if it has not ended, and say how it did."""
        self.hang_up()
        try:
            code = self._process.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        if code == -signal.SIGKILL:
            return "signal 9, SIGKILL; often for want of memory"
        return f"signal {-code}, {signal.strsignal(-code)}"
