"""Interrupting a cell that awaits.

While such a cell runs, ipykernel has a signal handler of its own, which asks the kernel's loop to cancel the cell. Two
things are missing there. The handler does not wake the loop, so where nothing else happens the cell goes on until the
next message comes. And a task that the cell calls or waits for without awaiting it keeps the loop from hearing of it.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

_KERNEL = "ipykernel."
_BLOCKING = "prefect_nb.execution."


def listen(shell: Any) -> None:
    """See to the handler before each cell; does nothing where there is no kernel."""
    if getattr(shell, "kernel", None) is None:
        return
    events = shell.events
    for callback in list(events.callbacks["pre_run_cell"]):
        if callback.__module__ == __name__:  # of an earlier registration, before a reload
            events.unregister("pre_run_cell", callback)
    events.register("pre_run_cell", before_cell)


def before_cell(_info: Any = None) -> None:
    """Complete the kernel's handler, if it is one for a cell that awaits. The kernel takes it back after the cell."""
    handler: Any = signal.getsignal(signal.SIGINT)
    is_kernels = callable(handler) and str(getattr(handler, "__module__", "")).startswith(_KERNEL)
    if not is_kernels or threading.current_thread() is not threading.main_thread():
        return
    asyncio = sys.modules["asyncio"]
    try:
        loop, cell = asyncio.get_running_loop(), asyncio.current_task()
    except RuntimeError:
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        if cell is not None and asyncio.current_task(loop) is cell and _is_in_run(frame):
            raise KeyboardInterrupt
        handler(number, frame)
        loop.call_soon_threadsafe(_wake)

    signal.signal(signal.SIGINT, interrupted)


def _wake() -> None:
    """Nothing; that the loop has something to do is enough."""


def _is_in_run(frame: FrameType | None) -> bool:
    """Whether the cell's own code is in a run, or waits for one. Raised anywhere else, an interrupt may end the kernel."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_BLOCKING):
            return True
        frame = frame.f_back
    return False
