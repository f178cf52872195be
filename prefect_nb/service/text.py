"""Words for people: lengths of time, moments, sizes; and those of `model.words`."""

from prefect_nb.model.runs import Snapshot
from prefect_nb.model.words import did_you_mean, nearest, one_line, plain, plural

__all__ = ["ago", "bytes_text", "did_you_mean", "duration_text", "elapsed", "nearest", "one_line", "plain", "plural"]

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def duration_text(microseconds: int) -> str:
    """A length of time: `850 ms`, `1.2 s`, `3 m 04 s`, `2 h 05 m`, `3 d 04 h`."""
    milliseconds = round(microseconds / 1000)
    if milliseconds < 1000:
        return "< 1 ms" if milliseconds < 1 else f"{milliseconds} ms"
    tenths = round(microseconds / 100_000)
    if tenths < 600:
        return f"{tenths / 10:.1f} s"
    seconds = round(microseconds / 1_000_000)
    if seconds < 3600:
        return f"{seconds // 60} m {seconds % 60:02} s"
    minutes = seconds // 60
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} m"
    return f"{minutes // 1440} d {minutes // 60 % 24:02} h"


def elapsed(run: Snapshot, now_us: int) -> str:
    """How long the run has taken, or took, from its first start; empty when it never started."""
    if run.start_us is None:
        return ""
    return duration_text(max(0, (run.end_us or now_us) - run.start_us))


def ago(us: int, now_us: int) -> str:
    """How long a moment is past: `just now`, `40 seconds ago`, `1 hour ago`; a coming one: `in 5 minutes`."""
    seconds = (now_us - us) // 1_000_000
    size = abs(seconds)
    if size < 10:
        return "just now"
    amount, unit = size, "second"
    for name, length in _UNITS:
        if size >= length:
            amount, unit = size // length, name
            break
    words = f"{amount} {unit}{'s' * (amount != 1)}"
    return f"{words} ago" if seconds > 0 else f"in {words}"


def bytes_text(size: int) -> str:
    """A number of bytes: `312 B`, `1.2 kB`, `34.0 MB`."""
    if size < 1000:
        return f"{size} B"
    amount, unit = next(
        ((size / scale, unit) for unit, scale in (("kB", 1e3), ("MB", 1e6)) if size < scale * 1000), (size / 1e9, "GB")
    )
    return f"{amount:.1f} {unit}"
