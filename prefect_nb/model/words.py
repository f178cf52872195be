"""Text of users made harmless for terminals and pages, and what is spelled nearly alike."""

import difflib
import re
from collections.abc import Iterable

# Escape sequences of terminals (colours, titles, links).
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
# Control characters, and the invisible ones that reorder or hide text; joiners stay, scripts and emoji need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_SPACES = re.compile(r"\s+")


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


def type_name(value: object) -> str:
    """The module and name of a value's type, as a message shows it."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def plural(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
