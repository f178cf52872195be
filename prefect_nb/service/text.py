"""Words for people: text of users made harmless, lengths of time, moments, what is spelled nearly alike."""

import difflib
import re
from collections.abc import Iterable

from prefect_nb.model.runs import Snapshot

# Escape sequences of terminals (colours, titles, links).
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
# Control characters, and the invisible ones that reorder or hide text; joiners stay, scripts and emoji need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_SPACES = re.compile(r"\s+")
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def plain(text: str, limit: int = 64 * 1024) -> str:
    """The text without what could disturb a terminal or deceive; it may have several lines."""
    cut = _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", _ANSI.sub("", text[: limit * 2].replace("\r\n", "\n")))
    if len(cut) <= limit and len(text) <= limit * 2:
        return cut
    return f"{cut[:limit]}… ({len(text):,} characters)"


def one_line(text: str, limit: int = 80) -> str:
    """The text on one line, cleaned, at most `limit` characters."""
    line = _SPACES.sub(" ", _ANSI.sub("", text[: limit * 4])).strip()
    line = _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


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


def nearest(name: str, candidates: Iterable[str], number: int = 3) -> list[str]:
    """Those of the candidates that are spelled most like the name, nearest first; upper and lower case are alike."""
    by_fold: dict[str, str] = {}
    for candidate in candidates:
        by_fold.setdefault(candidate.casefold(), candidate)
    return [by_fold[match] for match in difflib.get_close_matches(name.casefold(), by_fold, n=number, cutoff=0.6)]


def did_you_mean(name: str, candidates: Iterable[str], number: int = 3) -> str:
    """`" Did you mean 'a' or 'b'?"`, or nothing."""
    near = [f"'{one_line(match)}'" for match in nearest(name, candidates, number)]
    return f" Did you mean {' or '.join(near)}?" if near else ""
