"""Kernels that are kept after their notebook failed, so that the run can go on in them.

A kept kernel outlives the process that started it, so somebody else sees to it: a keeper (`bodies.keeper`), a small
process of its own, which ends it when its time is over, when it takes too much memory, or when it is told to. Keeper and
kernel hold the two ends of a pipe in the kernel's folder: when the keeper is gone, however, the kernel notices and ends
itself. Whoever goes on with the run takes the keeper's place in the same way. So a kernel is never left behind.

What is kept is written down in `<home>/kernels/<flow run>.json`; to rename that file is to take the kernel.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from prefect_nb.bodies import memory

if TYPE_CHECKING:
    from prefect_nb.bodies.kernels import Kernel

FOLDER = "kernels"
_READY_SECONDS = 20.0
_ANSWER_SECONDS = 10.0
_END_SECONDS = 5.0
_TAKEN = ".taken"

# Executed in the kernel, which need not have prefect_nb: it is to end when nobody holds the other end of the pipe any more.
# Until now it has watched its parent; the parent may end.
_HOLD = """
import os, signal, sys, threading, types
from IPython import get_ipython

def hold(path):
    reading = os.open(path, os.O_RDONLY)
    os.unlink(path)
    holder = sys._prefect_nb_holder = object()

    def watch():
        while True:
            try:
                if not os.read(reading, 1):
                    break
            except OSError:
                break
        os.close(reading)
        if sys._prefect_nb_holder is holder:
            if os.getpgrp() == os.getpid():
                os.killpg(0, signal.SIGKILL)
            os._exit(1)

    poller = getattr(get_ipython().kernel.parent, "poller", None)
    if poller is not None:
        from ipykernel import parentpoller
        own = types.ModuleType("os")
        own.__dict__.update(os.__dict__)
        own.getppid = lambda: getattr(poller, "parent_pid", 0) or 2
        parentpoller.os = own
    threading.Thread(target=watch, name="prefect_nb-holder", daemon=True).start()
"""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How many kernels are kept, for how long, and how much memory all of them may take."""

    number: int
    seconds: float
    memory: int | None
    """Bytes; None for any."""


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """A kept kernel."""

    flow_run_id: UUID
    run_name: str
    notebook: str
    cell_id: str
    cell_number: int
    """The cell that failed, counted from 1 among the cells that are executed."""
    cell_name: str
    kernel_name: str
    kernel_pid: int
    kernel_started: str
    keeper_pid: int
    keeper_started: str
    folder: str
    signalled: bool
    """Whether it is interrupted by a signal, not by a message."""
    parked_us: int
    until_us: int
    memory: int | None
    """Bytes that all kept kernels may have together."""
    language_info: dict[str, Any] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether its process lives."""
        return memory.is_alive(self.kernel_pid, self.kernel_started)

    @property
    def resident(self) -> int:
        """The bytes it and what it started have in memory."""
        return memory.group_memory(self.kernel_pid)


def record_of(home: Path, flow_run_id: UUID) -> Path:
    """The file that says that the kernel of a run is kept."""
    return home / FOLDER / f"{flow_run_id}.json"


# Keeping


def park(home: Path, kernel: Kernel, bounds: Bounds, **about: Any) -> Parked | None:
    """Keep a kernel beyond the life of this process; the oldest ones give way to it.

    Args:
        home: the home directory.
        kernel: alive and idle. If it is kept, nothing more can be said to it from here.
        bounds: what is kept at most.
        about: what is known of the run: those fields of `Parked` that do not follow from the kernel.

    Returns:
        What was written down; None if it cannot be kept: it takes too much memory, is no IPython kernel or none of this
        machine. Then nothing has changed for it.
    """
    if kernel.pid is None or bounds.number < 1 or not hasattr(os, "mkfifo"):
        return None
    found = memory.process(kernel.pid)
    size = memory.group_memory(kernel.pid)
    if found is None or found.group != kernel.pid or (bounds.memory is not None and size > bounds.memory):
        return None
    before = parked_kernel(home, about["flow_run_id"])
    if before is not None:
        drop(home, before)
    make_room(home, bounds.number - 1, None if bounds.memory is None else bounds.memory - size)
    pipe = new_pipe(kernel.own_folder)
    keeper = _start_keeper(pipe)
    try:
        keeping = memory.process(keeper.pid)
        if keeping is None or not is_held(kernel, pipe):
            return None
        now = time.time_ns() // 1000
        parked = Parked(
            **about, kernel_name=kernel.name, kernel_pid=kernel.pid, kernel_started=found.started,
            keeper_pid=keeper.pid, keeper_started=keeping.started, folder=str(kernel.own_folder),
            signalled=kernel.is_signalled, parked_us=now, until_us=now + int(bounds.seconds * 1e6), memory=bounds.memory,
            language_info=kernel.language_info,
        )  # fmt: skip
        record = record_of(home, parked.flow_run_id)
        _write(record, parked)
        kernel.let_go()
        assert keeper.stdin is not None
        keeper.stdin.write(f"{record}\n".encode())
        keeper.stdin.flush()
        return parked
    finally:
        for stream in (keeper.stdin, keeper.stdout):
            if stream is not None:
                stream.close()
        # It outlives this process, or ends while this one lives: then somebody has to take note of it.
        _reap_later(keeper)


def new_pipe(folder: Path) -> Path:
    """A named pipe for a kernel and whoever holds it."""
    pipe = folder / f"held-{secrets.token_hex(4)}"
    os.mkfifo(pipe, 0o600)
    return pipe


def is_held(kernel: Kernel, pipe: Path) -> bool:
    """Have a kernel live as long as somebody has this pipe open, which somebody has; whether it will."""
    source = f"{_HOLD}\nhold({str(pipe)!r})"
    held = kernel.does(f"exec({source!r}, {{}})", _ANSWER_SECONDS)
    pipe.unlink(missing_ok=True)
    return held


def _start_keeper(pipe: Path) -> subprocess.Popen[bytes]:
    keeper = subprocess.Popen(  # noqa: S603 - our own interpreter and our own program
        [sys.executable, "-m", "prefect_nb.bodies.keeper", str(pipe)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert keeper.stdout is not None
    keeper.stdout.readline()
    return keeper


def _reap_later(process: subprocess.Popen[bytes]) -> None:
    import threading

    threading.Thread(target=process.wait, name="prefect_nb-reaper", daemon=True).start()


def _write(record: Path, parked: Parked) -> None:
    record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = record.with_suffix(f".{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(parked))
    temporary.replace(record)


# Looking


def parked_kernels(home: Path) -> list[Parked]:
    """The kernels that are kept, the oldest first. What is left of others is removed."""
    found: list[Parked] = []
    for record in (home / FOLDER).glob("*.*"):
        parked = read(record)
        if parked is None or not parked.is_alive:
            record.unlink(missing_ok=True)
            if parked is not None:
                shutil.rmtree(parked.folder, ignore_errors=True)
        elif record.suffix == ".json":
            found.append(parked)
    return sorted(found, key=lambda parked: parked.parked_us)


def parked_kernel(home: Path, flow_run_id: UUID) -> Parked | None:
    """The kernel that is kept for a run; None for none."""
    parked = read(record_of(home, flow_run_id))
    return parked if parked is not None and parked.is_alive else None


def read(record: Path) -> Parked | None:
    """What a record says; None where it is gone or no record."""
    try:
        return msgspec.json.decode(record.read_bytes(), type=Parked)
    except (OSError, msgspec.DecodeError):
        return None


def is_stray(parked: Parked) -> bool:
    """Whether a kernel lives on although its keeper is gone: it is stuck, or it would have noticed."""
    return not memory.is_alive(parked.keeper_pid, parked.keeper_started)


# Ending


def make_room(home: Path, number: int, size: int | None) -> None:
    """End the oldest kept kernels until at most so many are left, with at most so many bytes together."""
    kept = parked_kernels(home)
    sizes = [parked.resident for parked in kept]
    while kept and (len(kept) > number or (size is not None and sum(sizes) > size)):
        drop(home, kept.pop(0))
        sizes.pop(0)


def drop(home: Path, parked: Parked) -> None:
    """End a kept kernel."""
    if _signal_keeper(parked, signal.SIGTERM):
        _await_end(parked)
    end(home, parked)


def end(home: Path, parked: Parked) -> None:
    """Kill a kept kernel with what it started, and remove what there is of it."""
    if parked.is_alive:
        with contextlib.suppress(OSError):
            os.killpg(parked.kernel_pid, signal.SIGKILL)
        _await_end(parked)
    record = record_of(home, parked.flow_run_id)
    for file in (record, record.with_suffix(_TAKEN)):
        if read(file) == parked:
            file.unlink(missing_ok=True)
    shutil.rmtree(parked.folder, ignore_errors=True)


def _await_end(parked: Parked) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while parked.is_alive and time.monotonic() < deadline:
        time.sleep(0.01)


# Taking


def take(home: Path, parked: Parked) -> bool:
    """Take a kept kernel, to go on in it: whether it is ours now, and nobody else's."""
    record = record_of(home, parked.flow_run_id)
    try:
        record.rename(record.with_suffix(_TAKEN))
    except OSError:
        return False
    return True


def release_keeper(home: Path, parked: Parked) -> None:
    """The kernel is held by whoever has taken it: its keeper may go."""
    _signal_keeper(parked, signal.SIGUSR1)
    deadline = time.monotonic() + _END_SECONDS
    while memory.is_alive(parked.keeper_pid, parked.keeper_started) and time.monotonic() < deadline:
        time.sleep(0.005)
    record_of(home, parked.flow_run_id).with_suffix(_TAKEN).unlink(missing_ok=True)


def is_taken(home: Path, parked: Parked) -> bool:
    """Whether somebody is about to go on in the kernel."""
    return record_of(home, parked.flow_run_id).with_suffix(_TAKEN).exists()


def _signal_keeper(parked: Parked, number: int) -> bool:
    if not memory.is_alive(parked.keeper_pid, parked.keeper_started):
        return False
    try:
        os.kill(parked.keeper_pid, number)
    except OSError:
        return False
    return True
