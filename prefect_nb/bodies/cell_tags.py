"""What the tags of a cell ask for: `retry:3`, `retry:3@10s*2`, `timeout:10m`, `skip`, `skip-if:expression`.

They are read before anything runs, so that one that cannot be understood is no surprise an hour later. Tags that are not
ours are nobody's business, unless they are nearly ours.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from prefect_nb.exceptions import NotebookError
from prefect_nb.model.durations import seconds_of
from prefect_nb.model.words import one_line

ATTEMPTS = "prefect_nb_attempts"
"""The key of a cell's metadata that holds what became of the attempts before its last."""
SKIP = "skip"
_FORMS = {
    "retry": "retry:3, retry:3@10s (10 seconds before each) or retry:3@10s*2 (each delay twice the one before)",
    "timeout": "timeout:30s, timeout:10m or timeout:1.5h",
    "skip-if": "skip-if:expression, an expression of Python that is evaluated right before the cell",
}
_MOST_RETRIES = 1000
_RETRY = re.compile(r"(?P<count>[0-9]+)(?:@(?P<delay>[^*]+)(?:\*(?P<factor>[0-9]+(?:\.[0-9]+)?))?)?")
_ALIKE = 0.8
"""Names more alike than this are taken for the same: `timout`, not `entry`."""


class Rules(msgspec.Struct, frozen=True):
    """How a cell is run. Times are seconds."""

    retries: int = 0
    delay: float = 0.0
    """Before the first retry."""
    factor: float = 1.0
    """How many times the delay before it each further delay is."""
    timeout: float | None = None
    skip: bool = False
    skip_if: str | None = None

    def delay_before(self, retry: int) -> float:
        """Seconds to wait before the retry of this number, from 1."""
        return self.delay * self.factor ** (retry - 1)

    @property
    def delays(self) -> tuple[float, ...]:
        """The delays before the retries; none if there is none."""
        return tuple(map(self.delay_before, range(1, self.retries + 1))) if self.delay else ()


PLAIN = Rules()


def rules_of(cell: Mapping[str, Any]) -> Rules:
    """What a cell's tags ask for.

    Raises:
        ValueError: one of them is ours, or nearly, and cannot be understood; the message names the tag.
    """
    tags = cell.get("metadata", {}).get("tags")
    if not isinstance(tags, list) or not tags:
        return PLAIN
    found: dict[str, Any] = {}
    for tag in tags:
        if isinstance(tag, str):
            found |= _read(tag, found)
    return Rules(**found) if found else PLAIN


def check(notebook: Mapping[str, Any]) -> None:
    """Look at the tags of all code cells.

    Raises:
        NotebookError: naming every cell and tag that cannot be understood, and what to write.
    """
    problems = []
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] != "code":
            continue
        try:
            rules_of(cell)
        except ValueError as error:
            first = one_line(cell["source"].strip().partition("\n")[0], 40)
            problems.append(f"Cell {number} ({first!r}) {error}")
    if problems:
        raise NotebookError("\n".join(problems))


def _read(tag: str, before: Mapping[str, Any]) -> dict[str, Any]:
    if tag == SKIP:
        return {"skip": True}
    name, colon, value = (part.strip() for part in tag.partition(":"))
    if name in _FORMS:
        if not value:
            raise ValueError(f"has the tag {tag!r}, which needs a value. Write {_FORMS[name]}.")
        fields = _READERS[name](tag, value)
        if before.keys() & fields.keys():
            raise ValueError(f"has two tags {name!r}; keep one.")
        return fields
    meant = _meant(name.casefold()) if colon and value else None
    if meant is not None:
        raise ValueError(
            f"has the tag {tag!r}: did you mean '{meant}:{value}'? (If it is somebody else's, spell it otherwise.)"
        )
    return {}


def _meant(name: str) -> str | None:
    """Which of our names another one is with a slip in it, rather than a word of its own; None for none."""
    if name == SKIP:
        return "skip-if"
    plain = name.replace("_", "-").removesuffix("s")
    plain = f"{plain.removesuffix('ie')}y" if plain.endswith("ie") else plain
    return next((ours for ours in _FORMS if difflib.SequenceMatcher(None, plain, ours).ratio() > _ALIKE), None)


def _retry(tag: str, value: str) -> dict[str, Any]:
    found = _RETRY.fullmatch(value.replace(" ", ""))
    if found is None or not 1 <= int(found["count"]) <= _MOST_RETRIES:
        raise ValueError(f"has the tag {tag!r}, which is no number of retries. Write {_FORMS['retry']}.")
    fields: dict[str, Any] = {"retries": int(found["count"])}
    if found["delay"] is not None:
        fields["delay"] = _seconds(tag, found["delay"], "retry")
    if found["factor"] is not None:
        fields["factor"] = float(found["factor"])
    return fields


def _timeout(tag: str, value: str) -> dict[str, Any]:
    seconds = _seconds(tag, value, "timeout")
    if seconds <= 0:
        raise ValueError(f"has the tag {tag!r}: no time at all. Write {_FORMS['timeout']}.")
    return {"timeout": seconds}


def _seconds(tag: str, text: str, name: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise ValueError(f"has the tag {tag!r}: {error}. Write {_FORMS[name]}.") from None


def _skip_if(tag: str, value: str) -> dict[str, Any]:
    try:
        ast.parse(value, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(
            f"has the tag {tag!r}: {value!r} is no expression of Python ({reason}). JupyterLab ends a tag at the first "
            "space: write not(full) for `not full`, or compute a name in a cell before and give that."
        ) from None
    return {"skip_if": value}


_READERS = {"retry": _retry, "timeout": _timeout, "skip-if": _skip_if}
