"""What a picture of a run says, whatever draws it: words, counts, durations, and which runs matter most.

Everything here is pure. Text that comes from users passes `one_line` or `plain` before it is shown anywhere.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from uuid import UUID

import msgspec

from prefect_nb.model.runs import FlowRun, Snapshot, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, StateType

_S = StateType

ACTIVE = frozenset({_S.RUNNING, _S.PAUSED, _S.CANCELLING})
"""Types of runs something is happening with (or should be)."""

BROKEN = frozenset({_S.FAILED, _S.CRASHED})
"""Types of runs somebody has to look at."""

COLOURS: dict[StateType, str] = {
    _S.COMPLETED: "var(--jp-success-color1,#219d4b)",
    _S.FAILED: "var(--jp-error-color1,#de0529)",
    _S.RUNNING: "var(--jp-brand-color1,#2b78d8)",
    _S.PENDING: "var(--jp-ui-font-color2,#7a7a7a)",
    _S.SCHEDULED: "var(--jp-warn-color0,#b8690a)",
    _S.PAUSED: "var(--jp-ui-font-color2,#7a7a7a)",
    _S.CANCELLING: "var(--jp-ui-font-color2,#7a7a7a)",
    _S.CANCELLED: "var(--jp-ui-font-color2,#7a7a7a)",
    _S.CRASHED: "var(--jp-error-color0,#ea580c)",
}
"""The colour of a type's glyph and border. Words keep the normal text colour, so nothing depends on these."""

_ORDER = {
    type_: place
    for place, type_ in enumerate(
        (
            _S.FAILED,
            _S.CRASHED,
            _S.RUNNING,
            _S.PAUSED,
            _S.CANCELLING,
            _S.SCHEDULED,
            _S.PENDING,
            _S.COMPLETED,
            _S.CANCELLED,
        )
    )
}

Count = tuple[StateType, str, int]
"""Type, word and number of the runs in one state."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A flow run and everything under it, as far as it is known at one moment."""

    flow_run: FlowRun | None
    task_runs: Sequence[TaskRun]
    """In the order in which they first appeared, those of child flow runs too."""
    children: Sequence[FlowRun] = ()
    counts: Sequence[Count] = ()
    rows: Sequence[TaskRun] = ()
    """The most relevant task runs."""
    now_us: int


def count_states(task_runs: Iterable[TaskRun]) -> list[Count]:
    """How many runs are in which state, what needs attention first."""
    return in_order(Counter((run.state_type, run.state_name) for run in task_runs))


def in_order(numbers: Counter[tuple[StateType, str]]) -> list[Count]:
    """Counts by type and word as a list, what needs attention first."""
    counts = [(type_, word, number) for (type_, word), number in numbers.items() if number > 0]
    return sorted(counts, key=lambda count: (_ORDER[count[0]], -count[2], count[1]))


def finished(counts: Iterable[Count]) -> int:
    """How many of the counted runs have ended."""
    return sum(number for type_, _, number in counts if type_ in TERMINAL_STATES)


def most_relevant(first: Sequence[UUID], second: Sequence[UUID], others: Iterable[UUID], limit: int) -> list[UUID]:
    """At most `limit` ids: `first`, then `second` (neither crowds the other out of its half), then the others."""
    firsts = min(len(first), max(limit // 2, limit - len(second)))
    return list(islice(chain(first[:firsts], second[: limit - firsts], others), limit))


# Escape sequences of terminals (colours in tracebacks).
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
# Control characters, and the invisible ones that reorder or hide text; joiners stay, scripts and emoji need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_SPACES = re.compile(r"\s+")


def plain(text: str, limit: int) -> str:
    """The text without what could disturb or deceive, at most about `limit` characters; it may have several lines."""
    cut = text[: limit * 2]
    cut = _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", _ANSI.sub("", cut.replace("\r\n", "\n")))
    if len(cut) <= limit and len(text) <= limit * 2:
        return cut
    return f"{cut[:limit]}… ({len(text):,} characters)"


def one_line(text: str, limit: int = 80) -> str:
    """The text on one line, cleaned, at most `limit` characters."""
    line = _SPACES.sub(" ", _ANSI.sub("", text[: limit * 4])).strip()
    line = _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def duration_text(microseconds: int) -> str:
    """A length of time for people: `850 ms`, `1.2 s`, `3 m 04 s`, `2 h 05 m`, `3 d 04 h`."""
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


def moment(us: int) -> str:
    """A time in UTC, to the second."""
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us):%Y-%m-%d %H:%M:%S} UTC"


_RAISED = "Task run encountered an exception "


def note(run: TaskRun) -> str:
    """What there is to say about a task run beyond its state: its message, where a reused result came from, ..."""
    parts = []
    if run.state_message:
        parts.append(run.state_message[:2000].removeprefix(_RAISED))
    if run.state_name == "Cached" and run.result and run.result.source:
        # The first three groups of a time-ordered id find the run again.
        parts.append(f"result of task run {str(run.result.source)[:18]} reused")
    if run.result_note:
        parts.append(f"result not kept: {run.result_note[:2000]}")
    return "; ".join(parts)


_HASH = re.compile(r"-[0-9a-f]{8,}$")


def group_name(run: TaskRun) -> str:
    """What runs of the same task have in common to be called by."""
    return _HASH.sub("", run.task_key) or run.name
