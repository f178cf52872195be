"""Why a kernel died, in words: from how its process ended, what memory it used, and what it was doing."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

import msgspec

from prefect_nb.bodies.memory import Sample

UNSEEN = 1_000
"""In place of an exit code: the process has ended, and as somebody else had started it, how is not known."""
_NEAR = 0.9
"""Of the limit: whoever is killed with this much in use was killed for it."""
_RATE_SECONDS = 10.0
_FAST = 16 * 1024**2
"""Bytes a second that are worth a word."""
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)', re.MULTILINE)
_FATAL = re.compile(r"^Fatal Python error: (?P<what>.+)$", re.MULTILINE)
_MEANINGS = {
    "SIGSEGV": "compiled code used memory that is not its own",
    "SIGBUS": "compiled code used memory that is not there; a mapped file may have been cut off",
    "SIGABRT": "compiled code gave up",
    "SIGILL": "compiled code is made for another processor",
    "SIGFPE": "compiled code divided by zero",
    "SIGTERM": "something outside asked it to end",
    "SIGHUP": "its terminal was closed",
    "SIGINT": "it was interrupted",
    "SIGXCPU": "it used up the processor time it may have",
}


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the end of a kernel's process."""

    exit_code: int
    """Negative for a signal; `UNSEEN` where it is not known."""
    samples: Sequence[Sample] = ()
    oom_kills: int = 0
    """How many processes of its control group the system killed for want of memory meanwhile."""
    doing: str = ""
    """What it was doing, such as "while running `train`"."""
    words: str = ""
    """The end of what it wrote to stderr."""


def verdict(death: Death) -> str:
    """Why it died: `killed by the system (out of memory) while running `train`: 9.8 GiB of 10 GiB, rising 300 MiB/s`."""
    doing = f" {death.doing}" if death.doing else ""
    killed = death.exit_code in (-9, UNSEEN)
    if killed and _ran_out_of_memory(death):
        usage = _usage(death.samples, whole=True)
        return f"killed by the system (out of memory){doing}{f': {usage}' if usage else ''}"
    how = _how(death)
    if death.exit_code == -9:
        usage = _usage(death.samples)
        memory = (
            f"; it used {usage}, so memory is hardly why" if usage else " (the system does this when memory runs out)"
        )
        return f"its process was ended by SIGKILL{doing}{memory}"
    place = _place(death.words)
    return f"{how}{doing}{f', {place}' if place else ''}"


def _how(death: Death) -> str:
    code = death.exit_code
    if code == UNSEEN:
        return "its process has ended"
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    meaning = f" ({_MEANINGS[name]})" if name in _MEANINGS else ""
    return f"its process was ended by {name}{meaning}"


def _ran_out_of_memory(death: Death) -> bool:
    if death.oom_kills:
        return True
    last = death.samples[-1] if death.samples else None
    if last is None or not last.size or death.exit_code == UNSEEN:
        return False
    # Its own share must be worth killing it for: a full machine kills whoever is largest.
    within_a_second = max(last.used, last.resident) + max(0.0, _rate(death.samples))
    return within_a_second >= _NEAR * last.size and last.resident >= last.size / 4


def _usage(samples: Sequence[Sample], *, whole: bool = False) -> str:
    """`9.8 GiB of 10 GiB, rising 300 MiB/s`; empty where nothing is known."""
    if not samples:
        return ""
    last = samples[-1]
    of = f" of {size_text(last.size)}" if last.size else ""
    rate = _rate(samples)
    rising = f", rising {size_text(int(rate))}/s" if rate >= _FAST else ""
    others = ""
    if whole and last.size and last.resident < _NEAR * last.size and last.used > last.resident:
        others = (
            f" ({size_text(last.used)} with what else shares {'the container' if last.in_container else 'the machine'})"
        )
    return f"{size_text(last.resident)}{of}{others}{rising}"


def _rate(samples: Sequence[Sample]) -> float:
    """Bytes a second by which it grew lately."""
    recent = [sample for sample in samples if sample.at >= samples[-1].at - _RATE_SECONDS]
    if len(recent) < 2:
        return 0.0
    return (recent[-1].resident - recent[0].resident) / (recent[-1].at - recent[0].at)


def _place(words: str) -> str:
    """Where faulthandler saw it: the first line of the user's own, or the first there is."""
    fatal = list(_FATAL.finditer(words))
    frames = list(_FRAME.finditer(words, fatal[-1].end())) if fatal else []
    if not frames:
        return ""
    own = next(
        (frame for frame in frames if "site-packages" not in frame["file"] and "/lib/python" not in frame["file"]), None
    )
    frame = own or frames[0]
    file = "the cell" if "ipykernel_" in frame["file"] or frame["file"].startswith("<ipython") else frame["file"]
    return f"at line {frame['line']} of {file}, in {frame['function']}"


def size_text(size: int | None) -> str:
    """A size for people: `9.8 GiB`."""
    value, units = float(size or 0), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return (
        f"{value:.0f} {units[0]}"
        if value >= 100 or units[0] == "B"
        else f"{value:.1f}".removesuffix(".0") + f" {units[0]}"
    )
