"""What a picture of a run says, whatever draws it: words, counts, and which runs matter most.

Everything here is pure. Text that comes from users passes `one_line` or `plain` (`service.text`) before it is shown.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from uuid import UUID

import msgspec

from prefect_nb.interfaces import Artifact
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, StateType
from prefect_nb.service.metrics import Line

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
    metrics: Sequence[Line] = ()
    """What the runs reported over time, one line for each run and name."""
    artifacts: Sequence[Artifact] = ()
    """What the runs made, oldest first."""
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
