"""What runs in a worker process: take work, call it, send its log lines and its outcome back."""

import contextlib
import io
import os
import pickle
import signal
import sys
import threading
from queue import SimpleQueue
from typing import Any

from prefect_nb.runners.carry import answer

LINE = b"L"
OUTCOME = b"O"


def main(descriptor: int) -> None:
    """Serve the process at the other end of this socket until it hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    os.set_inheritable(descriptor, False)
    line = _Line(descriptor)
    while (work := line.works.get()) is not None:
        _, outcome = answer(work, line.emit)
        line.is_busy = False
        try:
            line.send(OUTCOME, outcome)
        except OSError:
            return


class _Line:
    """The socket to the process that gives the work."""

    def __init__(self, descriptor: int) -> None:
        from multiprocessing.connection import Connection

        self.works: SimpleQueue[bytes | None] = SimpleQueue()
        self.is_busy = False
        self._connection: Connection[Any, Any] = Connection(descriptor)
        self._sending = threading.Lock()
        # A process forked by a task must not keep the line open when this one dies.
        os.register_at_fork(after_in_child=self._connection.close)
        threading.Thread(target=self._receive, name="prefect_nb-line", daemon=True).start()

    def send(self, kind: bytes, data: bytes) -> None:
        with self._sending:
            self._connection.send_bytes(kind + data)

    def emit(self, log_line: Any) -> None:
        with contextlib.suppress(OSError):  # nobody hears it any more; `_receive` ends this process
            self.send(LINE, pickle.dumps(log_line))

    def _receive(self) -> None:
        """Take work as it comes. When the other end dies, so does this one, at once, whatever it is doing."""
        try:
            while True:
                work = self._connection.recv_bytes()
                self.is_busy = True
                self.works.put(work)
        except (EOFError, OSError):
            if self.is_busy:
                os._exit(1)
            self.works.put(None)
