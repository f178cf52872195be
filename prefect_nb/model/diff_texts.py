"""Two texts compared: numbers with a tolerance, what differs from run to run by its nature left out."""

import difflib
import math
import re
from collections.abc import Sequence

import msgspec

MAX_LINES = 200
"""Lines of a difference that are kept."""
_CONTEXT = 2
_LONGEST = 200_000
_MOST_COMPARED = 4_000

_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w])|(?<!\w)[-+]?(?:nan|inf|NaN)(?!\w)"
)
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_NOISE = (
    (re.compile(r"\b0x[0-9a-fA-F]{4,}\b"), "0x…"),
    (re.compile(r"IPY_MODEL_[0-9a-f]{8,}"), "IPY_MODEL_…"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "…-…"),
    (re.compile(r"\bT_[0-9a-f]{5}(?=_|\b)"), "T_…"),
    (re.compile(r"\b(?:sk|xr)-[\w-]*id-\d+\b"), "id-…"),
)


class Tolerance(msgspec.Struct, frozen=True):
    """Numbers are the same when |a - b| <= max(rtol * max(|a|, |b|), atol)."""

    rtol: float = 1e-9
    atol: float = 0.0

    def same(self, one: float, other: float) -> bool:
        """Whether two numbers count as the same; NaN is the same as NaN."""
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return math.isclose(one, other, rel_tol=self.rtol, abs_tol=self.atol)


class Spread(msgspec.Struct, frozen=True):
    """How far numbers moved."""

    count: int
    absolute: float
    relative: float
    """The greatest change relative to the number before; infinite from 0."""


def normal(text: str) -> str:
    """The text without colours, addresses of objects, and ids that are made anew in every run."""
    text = _ANSI.sub("", text[:_LONGEST]).replace("\r\n", "\n")
    for pattern, shown in _NOISE:
        text = pattern.sub(shown, text)
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def number_of(text: str) -> float | None:
    """The number that a text is; None: it is something else."""
    stripped = text.strip()
    if _NUMBER.fullmatch(stripped) is None:
        return None
    return float(stripped.replace(",", ""))


def same_text(before: str, after: str, tolerance: Tolerance) -> bool:
    """Whether two texts say the same, their numbers compared with the tolerance."""
    one, other = normal(before), normal(after)
    return one == other or _same_line(one, other, tolerance)


def _same_line(one: str, other: str, tolerance: Tolerance) -> bool:
    if one == other:
        return True
    if _NUMBER.sub("#", _squeezed(one)) != _NUMBER.sub("#", _squeezed(other)):
        return False
    return all(tolerance.same(*pair) for pair in _pairs(one, other))


def _squeezed(text: str) -> str:
    # A number that is a digit longer moves what stands beside it.
    return re.sub(r"[ \t]+", " ", text)


def _pairs(one: str, other: str) -> list[tuple[float, float]]:
    found = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=False)
    return [(float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in found]


def spread(pairs: Sequence[tuple[float, float]], tolerance: Tolerance) -> Spread | None:
    """How far the numbers that differ are apart; None: none does."""
    moved = [(a, b) for a, b in pairs if not tolerance.same(a, b)]
    finite = [(a, b) for a, b in moved if math.isfinite(a) and math.isfinite(b)]
    if not moved:
        return None
    absolute = max((abs(a - b) for a, b in finite), default=math.inf)
    relative = max((abs(a - b) / abs(a) if a else math.inf for a, b in finite), default=math.inf)
    return Spread(len(moved), absolute, relative)


def text_spread(before: str, after: str, tolerance: Tolerance) -> Spread | None:
    """How far the numbers of two texts moved that are the same otherwise; None where they are not."""
    one, other = normal(before), normal(after)
    if _NUMBER.sub("#", _squeezed(one)) != _NUMBER.sub("#", _squeezed(other)):
        return None
    return spread(_pairs(one, other), tolerance)


def unified(before: str, after: str, tolerance: Tolerance | None = None) -> tuple[str, ...]:
    """The lines that differ, each after `-`, `+` or a space, with `…` where lines were left out.

    Args:
        before: a text.
        after: another.
        tolerance: lines that say the same with it are not shown as different.
    """
    one, other = normal(before).split("\n")[:_MOST_COMPARED], normal(after).split("\n")[:_MOST_COMPARED]
    lines: list[str] = []
    for group in difflib.SequenceMatcher(None, one, other, autojunk=False).get_grouped_opcodes(_CONTEXT):
        if lines:
            lines.append("…")
        for tag, begin, end, begin_after, end_after in group:
            lines += _lines(tag, one[begin:end], other[begin_after:end_after], tolerance)
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"… {len(lines) - MAX_LINES:,} more lines"]
    return tuple(lines)


def _lines(tag: str, one: list[str], other: list[str], tolerance: Tolerance | None) -> list[str]:
    if tag == "equal":
        return [f" {line}" for line in one]
    if tolerance is not None and len(one) == len(other):
        same = [_same_line(a, b, tolerance) for a, b in zip(one, other, strict=True)]
        removed = [f" {line}" if kept else f"-{line}" for line, kept in zip(one, same, strict=True)]
        return removed + [f"+{line}" for line, kept in zip(other, same, strict=True) if not kept]
    return [f"-{line}" for line in one] + [f"+{line}" for line in other]
