"""What a picture of a run says, whatever draws it: words, counts, and which runs matter most.

Everything here is pure. Text that comes from users passes `one_line` or `plain` (`service.text`) before it is shown.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from uuid import UUID

import msgspec

from prefect_nb.interfaces import Artifact
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, StateType
from prefect_nb.service.metrics import Line
from prefect_nb.service.run_outputs import Printed
from prefect_nb.service.text import duration_text

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


class GroupView(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown as one thing, at one moment: the runs of a task, a child flow run, or a cell."""

    number: int
    """Its place in the order of appearance."""
    kind: str
    """"task", "map" (a task with several runs), "cell" or "flow"."""
    name: str
    depth: int
    """How many child flow runs it is inside of."""
    task_key: str
    total: int
    ended: int
    ran: int
    """How many of those that ended had started."""
    started_us: int | None
    counts: Sequence[Count]
    rows: Sequence[TaskRun]
    """The most relevant of its runs."""
    flow_run: FlowRun | None = None
    stand_in: TaskRun | None = None
    sources: tuple[int, ...] = ()
    """Numbers of the groups that its arguments come from."""


def silent(_task_run_id: UUID) -> str:
    """Nothing is known of what task runs print."""
    return ""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A flow run and everything under it, as far as it is known at one moment."""

    flow_run: FlowRun | None
    every: Callable[[], Sequence[TaskRun]]
    """All task runs in the order in which they first appeared, those of child flow runs too. Costs as much as there are."""
    children: Sequence[FlowRun] = ()
    counts: Sequence[Count] = ()
    groups: Sequence[GroupView] = ()
    """The most relevant groups, each below the child flow run it is in."""
    more_groups: int = 0
    structure: int = 0
    """Changes when there is a new group, or a new edge between two."""
    metrics: Sequence[Line] = ()
    """What the runs reported over time, one line for each run and name."""
    names: Mapping[UUID, str] = {}
    """What the runs that reported are called."""
    artifacts: Sequence[Artifact] = ()
    """What the runs made, oldest first."""
    usual_us: Mapping[str, int] = {}
    """How long the runs of a task usually take, by task key; of the flow, by the empty one."""
    remarks: Mapping[UUID, str] = {}
    """What is known of single runs beyond their state: where it failed, why it was computed."""
    printed: Mapping[UUID, Printed] = {}
    """What task runs printed."""
    saying: Callable[[UUID], str] = silent
    """The newest line that a task run has printed."""
    now_us: int

    @property
    def task_runs(self) -> Sequence[TaskRun]:
        """All task runs; see `every`."""
        return self.every()

    @property
    def total(self) -> int:
        """How many task runs there are."""
        return sum(number for _, _, number in self.counts)


def count_states(task_runs: Iterable[TaskRun]) -> list[Count]:
    """How many runs are in which state, what needs attention first."""
    return in_order(Counter((run.state_type, run.state_name) for run in task_runs))


def in_order(numbers: Mapping[tuple[StateType, str], int]) -> list[Count]:
    """Counts by type and word as a list, what needs attention first."""
    counts = [(type_, word, number) for (type_, word), number in numbers.items() if number > 0]
    return sorted(counts, key=lambda count: (_ORDER[count[0]], -count[2], count[1]))


def group_state(group: GroupView) -> tuple[StateType, str]:
    """What a group as a whole is in: what runs comes first, then what waits, then what broke."""
    if group.flow_run is not None:
        return group.flow_run.state_type, group.flow_run.state_name
    if group.stand_in is not None:
        return group.stand_in.state_type, group.stand_in.state_name
    if not group.counts:
        return _S.PENDING, "Pending"
    if len(group.counts) == 1:
        return group.counts[0][:2]
    types = {type_ for type_, _, _ in group.counts}
    for type_ in (_S.RUNNING, _S.CANCELLING, _S.PAUSED):
        if type_ in types:
            return type_, type_.capitalize()
    if group.ended < group.total:
        return (_S.RUNNING, "Running") if group.ended else group.counts[0][:2]
    worst = next(type_ for type_ in (_S.FAILED, _S.CRASHED, _S.CANCELLED, _S.COMPLETED) if type_ in types)
    return worst, worst.capitalize()


def finished(counts: Iterable[Count]) -> int:
    """How many of the counted runs have ended."""
    return sum(number for type_, _, number in counts if type_ in TERMINAL_STATES)


def left_us(group: GroupView, usual_us: int | None, now_us: int) -> int | None:
    """How long a group still needs, from its own pace or else from past runs; None when nobody knows."""
    open_runs = group.total - group.ended
    if group.kind not in ("task", "map") or not open_runs:
        return None
    if group.total > 1 and group.ran >= 3 and group.started_us is not None:
        return max(0, now_us - group.started_us) * open_runs // group.ran
    if usual_us is None:
        return None
    if group.total > 1:
        running = sum(number for type_, _, number in group.counts if type_ in ACTIVE)
        return usual_us * open_runs // max(1, running)
    return run_left_us(group.rows[0], usual_us, now_us)


def run_left_us(run: TaskRun, usual_us: int | None, now_us: int) -> int | None:
    """How long a running task run still needs, from past runs."""
    if usual_us is None or run.state_type is not _S.RUNNING:
        return None
    return max(0, usual_us - (now_us - run.state_us))


def left_text(us: int | None) -> str:
    """`~12 s left`; nothing where that is unknown or less than a second."""
    if us is None or us < 1_000_000:
        return ""
    seconds = round(us / 1_000_000)
    return f"~{seconds} s left" if seconds < 100 else f"~{duration_text(us)} left"


def most_relevant(first: Sequence[UUID], second: Sequence[UUID], others: Iterable[UUID], limit: int) -> list[UUID]:
    """At most `limit` ids: `first`, then `second` (neither crowds the other out of its half), then the others."""
    firsts = min(len(first), max(limit // 2, limit - len(second)))
    return list(islice(chain(first[:firsts], second[: limit - firsts], others), limit))


def moment(us: int) -> str:
    """A time in UTC, to the second."""
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us):%Y-%m-%d %H:%M:%S} UTC"


_RAISED = "Task run encountered an exception "


def note(run: TaskRun, remarks: Mapping[UUID, str] = {}) -> str:
    """What there is to say about a task run beyond its state: its message, where a reused result came from, ..."""
    parts = []
    if run.state_message:
        parts.append(run.state_message[:2000].removeprefix(_RAISED))
    if run.state_name == "Cached" and run.result and run.result.source:
        # Ids are time-ordered: the first 48 bits are milliseconds.
        parts.append(f"cached: the result of a run of {moment((run.result.source.int >> 80) * 1000)}")
    if run.result_note:
        parts.append(f"result not kept: {run.result_note[:2000]}")
    if run.id in remarks:
        parts.append(remarks[run.id])
    return "; ".join(parts)


_HASH = re.compile(r"-[0-9a-f]{8,}$")


def group_name(run: TaskRun) -> str:
    """What runs of the same task have in common to be called by."""
    return _HASH.sub("", run.task_key) or run.name
