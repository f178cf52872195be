"""How much memory a kernel and what it started use, and how much there is; as the system tells, in samples.

On Linux all of it is read from `/proc` and the control groups; elsewhere psutil is asked, if it is installed, and limits
of containers are not known. Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

SAMPLE_SECONDS = 1.0
_REMEMBERED = 120
_IS_LINUX: bool = sys.platform.startswith("linux")
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# Where the fields of /proc/<pid>/stat are, counted after the name in parentheses, which may hold anything.
_STATE, _GROUP, _STARTED, _RESIDENT = 0, 2, 19, 21
_UNLIMITED = 1 << 60
"""Control groups of the first version say "no limit" with a number near the largest there is."""


class Sample(msgspec.Struct, frozen=True):
    """A moment (seconds of the monotonic clock) and what was in use then."""

    at: float
    resident: int
    """Of the kernel and what it started. Memory that processes share is counted for each."""
    used: int = 0
    """Of everything that shares the limit."""
    size: int | None = None
    """The limit; None where it is not known."""
    in_container: bool = False
    """Whether the limit is one of a control group (a container, a job), not all there is."""


class Process(NamedTuple):
    """A line of the process table."""

    pid: int
    group: int
    started: str
    """When it began, in whatever the system counts by: together with the pid it names one process for good."""
    resident: int
    is_zombie: bool


class Sampler:
    """Samples of one process group, about one a second, as often as it is given the chance.

    Args:
        pid: the group's leader.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._groups = _control_groups(pid)
        self._kills_before = _oom_kills(self._groups)
        self._due = 0.0
        self.samples: deque[Sample] = deque(maxlen=_REMEMBERED)

    def tick(self) -> None:
        """Take a sample if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + SAMPLE_SECONDS
        resident = group_memory(self._pid)
        if resident:
            size, used, in_container = _tightest(self._groups)
            self.samples.append(Sample(now, resident, used, size, in_container))

    def oom_kills(self) -> int:
        """How many processes of its control group the system has killed for want of memory since this began."""
        return max(0, _oom_kills(self._groups) - self._kills_before)


def processes() -> Iterator[Process]:
    """The processes there are."""
    if not _IS_LINUX:
        yield from _processes_by_psutil()
        return
    with os.scandir(_PROC) as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    for pid in pids:
        found = _stat(pid)
        if found is not None:
            yield found


def process(pid: int) -> Process | None:
    """The process of that number; None for none."""
    if _IS_LINUX:
        return _stat(pid)
    return next((found for found in _processes_by_psutil() if found.pid == pid), None)


def is_alive(pid: int, started: str) -> bool:
    """Whether it is still the process that began then, and has not ended."""
    found = process(pid)
    return found is not None and not found.is_zombie and found.started == started


def group_memory(group: int) -> int:
    """Resident bytes of all processes of a group; 0 where none lives or the system does not tell."""
    return sum(found.resident for found in processes() if found.group == group)


def machine_memory() -> int | None:
    """All the memory that this process could have: the machine's, or its container's; None where it is not known."""
    return _tightest(_control_groups(os.getpid()))[0]


def available_memory() -> int | None:
    """What is left of it."""
    size, used, _ = _tightest(_control_groups(os.getpid()))
    return None if size is None else max(0, size - used)


def _stat(pid: int) -> Process | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        resident = int(fields[_RESIDENT]) * os.sysconf("SC_PAGE_SIZE")
        return Process(pid, int(fields[_GROUP]), fields[_STARTED], resident, fields[_STATE] in "ZX")
    except (OSError, ValueError, IndexError):
        return None


def _processes_by_psutil() -> Iterator[Process]:
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError:
        return
    found: Any
    for found in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            group = os.getpgid(found.pid) if hasattr(os, "getpgid") else found.pid
            yield Process(
                found.pid, group, str(found.create_time()), found.memory_info().rss, found.status() == "zombie"
            )


# Limits


def _control_groups(pid: int) -> list[Path]:
    """The folders of the control groups that limit a process's memory, its own first."""
    try:
        lines = (_PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            root = _CGROUPS
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
        else:
            continue
        # In a container the path may be one of the host's, of which only the root is to be seen.
        own = root / path.lstrip("/")
        folders = [folder for folder in (own, *own.parents) if folder.is_relative_to(root)] if own.is_dir() else [root]
        found = [folder for folder in folders if _limit_of(folder) is not None or (folder / "memory.events").exists()]
        if found:
            return found
    return []


def _tightest(groups: list[Path]) -> tuple[int | None, int, bool]:
    """The limit with the least room under it, what is used of that, and whether it is a control group's."""
    rooms = [(size, _used_in(folder), True) for folder in groups if (size := _limit_of(folder)) is not None]
    machine = _machine()
    if machine is not None:
        rooms = [room for room in rooms if room[0] < machine[0]] + [(*machine, False)]
    return min(rooms, key=lambda room: room[0] - room[1]) if rooms else (None, 0, False)


def _machine() -> tuple[int, int] | None:
    try:
        lines = (_PROC / "meminfo").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return sizes["MemTotal"], sizes["MemTotal"] - sizes["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:
        import psutil
    except ImportError:
        return None
    memory: Any = psutil.virtual_memory()
    return memory.total, memory.total - memory.available


def _limit_of(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        size = _number(folder / name)
        if size is not None and size < _UNLIMITED:
            return size
    return None


def _used_in(folder: Path) -> int:
    """What counts against the limit for good: pages of files can be dropped when there is no more room."""
    used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
    with contextlib.suppress(OSError, ValueError):
        pairs = dict(line.split()[:2] for line in (folder / "memory.stat").read_text().splitlines())
        used -= int(pairs.get("inactive_file", pairs.get("total_inactive_file", 0)))
    return max(0, used)


def _oom_kills(groups: list[Path]) -> int:
    for folder in groups[:1]:
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                pairs = dict(line.split()[:2] for line in (folder / name).read_text().splitlines())
                return int(pairs.get("oom_kill", 0))
    return 0


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
