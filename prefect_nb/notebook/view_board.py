"""What a live view knows of one flow run: the newest snapshots, counted group by group as they come.

A group is what a person sees as one thing: the runs of one task (called once, or mapped over thousands), a child flow
run, or a cell. Drawing costs as much as what changed and what is shown, never as much as there is.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from uuid import UUID

from prefect_nb.interfaces import Artifact, Entry, MetricPoint
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.model.states import TERMINAL_STATES, StateType
from prefect_nb.notebook.picture import ACTIVE, BROKEN, GroupView, Picture, group_name, in_order
from prefect_nb.service.history import STAND_IN
from prefect_nb.service.metrics import Series

ROWS = 200
"""Task runs shown of a group that somebody opened, and groups shown, at most."""

PREVIEW = 20
"""Task runs shown of a group until the kernel has heard that it was opened."""

_STEADY_US = 1_000_000
"""Microseconds for which the runs chosen of a large group stay: nobody could read them if they changed all the time."""

_LINES = 100
"""Lines of metrics drawn at most."""

_POINTS = 400
"""Points of a line before it is fitted to a chart."""

_SOURCES = 50
"""Sources of one argument looked at for the graph's edges."""

_BATCHES = 200
"""Commits that may wait to be taken in by the next drawing."""

_ACTIVE_VALUES = frozenset(type_.value for type_ in ACTIVE)
_BROKEN_VALUES = frozenset(type_.value for type_ in BROKEN)
_FINAL_VALUES = frozenset(type_.value for type_ in TERMINAL_STATES)


class Group:
    """Runs that are shown as one thing. Its runs' ids are integers here: they are cheaper to look up than UUIDs."""

    def __init__(self, number: int, kind: str, name: str, flow_run_id: UUID | None, task_key: str) -> None:
        self.number = number
        self.kind = kind
        self.name = name
        self.flow_run_id = flow_run_id
        self.task_key = task_key
        self.flow_run: FlowRun | None = None
        """Of kind "flow": the child flow run, once it is known."""
        self.stand_in: TaskRun | None = None
        self.sources: dict[int, None] = {}
        self.started_us: int | None = None
        self.total = self.ended = self.ran = 0
        self._runs: dict[int, TaskRun] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        # Ids by what matters, each in the order of the last change; kept up to date so that drawing need not sort.
        self._active: dict[int, None] = {}
        self._broken: dict[int, None] = {}
        self._others: dict[int, None] = {}
        self._view: GroupView | None = None
        self._drawn: tuple[int, int] = (-1, -1)
        self._chosen: list[int] = []
        self._chosen_us = 0
        self._moved = False

    def put(self, id: int, run: TaskRun) -> TaskRun | None:
        """Take a run's newest snapshot; returns the one before."""
        previous = self._runs.get(id)
        if previous is not None:
            type_ = previous.state_type._value_
            self._counts[type_, previous.state_name] -= 1
            del self._place(type_)[id]
            if type_ in _FINAL_VALUES:
                self.ended -= 1
                self.ran -= previous.start_us is not None
        else:
            self.total += 1
        type_ = run.state_type._value_
        self._counts[type_, run.state_name] += 1
        self._place(type_)[id] = None
        if type_ in _FINAL_VALUES:
            self.ended += 1
            self.ran += run.start_us is not None
        if self.started_us is None:
            self.started_us = run.start_us
        self._runs[id] = run
        self._view = None
        self._moved = True
        return previous

    def changed(self) -> None:
        """Something else about it is new."""
        self._view = None

    @property
    def weight(self) -> int:
        """What brings it to the top where not all can be shown."""
        flow_run = self.flow_run
        if self._active or (flow_run is not None and flow_run.state_type in ACTIVE):
            return 2
        return 1 if self._broken or (flow_run is not None and flow_run.state_type in BROKEN) else 0

    def view(self, depth: int, quota: int, now_us: int) -> GroupView:
        """How it is now, with at most `quota` runs."""
        is_due = self._moved and not 0 <= now_us - self._chosen_us < _STEADY_US
        if self._view is None or is_due or self._drawn != (depth, quota):
            if is_due or self._drawn[1] != quota:
                self._chosen, self._chosen_us, self._moved = self._choose(quota), now_us, False
            self._drawn = (depth, quota)
            self._view = GroupView(
                number=self.number,
                kind="map" if self.kind == "task" and self.total > 1 else self.kind,
                name=self.name,
                depth=depth,
                task_key=self.task_key,
                total=self.total,
                ended=self.ended,
                ran=self.ran,
                started_us=self.started_us,
                counts=in_order({(StateType(type_), word): n for (type_, word), n in self._counts.items()}),
                rows=[self._runs[id] for id in (self._runs if self.total <= quota else self._chosen)],
                flow_run=self.flow_run,
                stand_in=self.stand_in,
                sources=tuple(self.sources),
            )
        return self._view

    def _choose(self, quota: int) -> list[int]:
        # Neither what runs nor what broke crowds the other out of its half.
        actives = min(len(self._active), max(quota // 2, quota - len(self._broken)))
        broken = islice(reversed(self._broken), quota - actives)
        return list(islice(chain(islice(self._active, actives), broken, reversed(self._others)), quota))

    def _place(self, type_: str) -> dict[int, None]:
        if type_ in _ACTIVE_VALUES:
            return self._active
        return self._broken if type_ in _BROKEN_VALUES else self._others


class Board:
    """The newest snapshots of one flow run and of everything under it. Safe to use from several threads.

    Args:
        flow_run_id: the flow run.
    """

    def __init__(self, flow_run_id: UUID) -> None:
        self.flow_run_id = flow_run_id
        self.settled = threading.Event()
        """Set while the flow run has ended, or is paused: nothing more is to come for now."""
        self._version = 0
        self._structure = 0
        self._lock = threading.Lock()
        self._batches: list[Sequence[Entry]] = []
        self._flow_runs: dict[UUID, FlowRun] = {}
        self._task_runs: dict[int, TaskRun] = {}
        self._groups: dict[tuple[object, ...], Group] = {}
        self._group_of: dict[int, Group] = {}
        """By the id of a task run or child flow run."""
        self._within: dict[int, list[Group]] = {}
        """Groups by the flow run they are called in, in order of appearance."""
        self._counts: Counter[tuple[str, str]] = Counter()
        self._wanted: tuple[int, ...] = ()
        # Of any flow run: that one is ours may become known only after its first metric.
        self._series: dict[tuple[str, UUID | None], Series] = {}
        self._artifacts: Sequence[Artifact] = ()

    def absorb(self, entries: Sequence[Entry]) -> None:
        """Remember the snapshots that belong here. Costs next to nothing: they are counted when somebody looks."""
        with self._lock:
            self._batches.append(entries)
            for entry in entries:
                if type(entry.run) is FlowRun and entry.run.id == self.flow_run_id:
                    self._settle(entry.run)
            if len(self._batches) > _BATCHES:
                self._take_in()

    def put(self, runs: Iterable[Run]) -> None:
        """Remember these snapshots, of which a flow run comes before what is below it."""
        with self._lock:
            self._take_in()
            for run in runs:
                self._put(run)
            if (run_now := self._flow_runs.get(self.flow_run_id)) is not None:
                self._settle(run_now)

    def measure(self, points: Sequence[MetricPoint]) -> None:
        """Take in metrics."""
        with self._lock:
            self._take_in()
            for point in points:
                key = (point.name, point.run_id)
                series = self._series.get(key)
                if series is None:
                    series = self._series[key] = Series()
                series.add(point)
            if any(self._has(point.flow_run_id) for point in points):
                self._version += 1

    def put_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        """Take these for the artifacts that there are."""
        with self._lock:
            if list(artifacts) != list(self._artifacts):
                self._artifacts = artifacts
                self._version += 1

    def want(self, groups: Sequence[int]) -> None:
        """Show more of these groups, which somebody has opened."""
        with self._lock:
            self._wanted = tuple(groups)
            self._version += 1

    def run(self, id: UUID) -> Run | None:
        """The newest snapshot of a run."""
        with self._lock:
            self._take_in()
            return self._task_runs.get(id.int) or self._flow_runs.get(id)

    @property
    def version(self) -> int:
        """Grows with every change."""
        with self._lock:
            self._take_in()
            return self._version

    @property
    def flow_run_ids(self) -> list[UUID]:
        """The flow run and those under it."""
        with self._lock:
            self._take_in()
            return [self.flow_run_id, *(id for id in self._flow_runs if id != self.flow_run_id)]

    def picture(self, now_us: int) -> Picture:
        """Everything as it is now."""
        with self._lock:
            self._take_in()
            ordered = list(self._ordered(self.flow_run_id.int, 0))
            shown = _most_relevant(ordered)
            preview, wanted = self._quotas(shown)
            lines = [
                series.line(_POINTS)
                for series in self._series.values()
                if series.newest is not None and self._has(series.newest.flow_run_id)
            ][:_LINES]
            return Picture(
                flow_run=self._flow_runs.get(self.flow_run_id),
                every=self._every,
                children=[run for run in self._flow_runs.values() if run.id != self.flow_run_id],
                counts=in_order({(StateType(type_), word): n for (type_, word), n in self._counts.items()}),
                groups=[
                    group.view(depth, wanted if group.number in self._wanted else preview, now_us)
                    for depth, group in shown
                ],
                more_groups=len(ordered) - len(shown),
                structure=self._structure,
                metrics=lines,
                names=self._names(line.run_id for line in lines),
                artifacts=self._artifacts,
                now_us=now_us,
            )

    def _every(self) -> list[TaskRun]:
        with self._lock:
            return list(self._task_runs.values())

    def _names(self, ids: Iterable[UUID | None]) -> dict[UUID, str]:
        found = {id: self._task_runs.get(id.int) or self._flow_runs.get(id) for id in ids if id is not None}
        return {id: run.name for id, run in found.items() if run is not None}

    def _quotas(self, shown: Sequence[tuple[int, Group]]) -> tuple[int, int]:
        """How many runs are shown of a group that nobody has opened, and of one that somebody has."""
        maps = sum(group.total > 1 for _, group in shown)
        return max(3, min(PREVIEW, ROWS // max(1, maps))), max(PREVIEW, ROWS // max(1, len(self._wanted)))

    def _ordered(self, flow_run_id: int, depth: int) -> Iterator[tuple[int, Group]]:
        for group in self._within.get(flow_run_id, ()):
            yield depth, group
            if group.flow_run is not None:
                yield from self._ordered(group.flow_run.id.int, depth + 1)

    def _take_in(self) -> None:
        if not self._batches:
            return
        batches, self._batches = self._batches, []
        for entries in batches:
            for entry in entries:
                self._put(entry.run)

    def _put(self, run: Run) -> None:
        if type(run) is TaskRun:
            self._put_task_run(run)
        elif isinstance(run, FlowRun) and self._is_ours(run):
            self._flow_runs[run.id] = run
            self._version += 1
            if run.id != self.flow_run_id:
                self._put_child(run)

    def _put_child(self, run: FlowRun) -> None:
        group = self._group_of.get(run.id.int)
        if group is None:
            above = run.parent_flow_run_id or self.flow_run_id
            stands_for = run.parent_task_run_id or run.id
            group = self._group("flow", (stands_for.int,), run.flow_name, above, "")
            self._group_of[run.id.int] = group
        group.flow_run = run
        group.changed()

    def _put_task_run(self, run: TaskRun) -> None:
        id = run.id.int
        group = self._group_of.get(id)
        if group is None:
            if run.flow_run_id != self.flow_run_id and run.flow_run_id not in self._flow_runs:
                return
            group = self._group_of[id] = self._group_for(run)
            if run.task_inputs:
                self._connect(group, run)
        self._version += 1
        if run.kind == STAND_IN:
            group.stand_in = run
            group.changed()
            return
        previous = group.put(id, run)
        if previous is None:
            self._structure += group.total == 2
        else:
            self._counts[previous.state_type._value_, previous.state_name] -= 1
        self._counts[run.state_type._value_, run.state_name] += 1
        self._task_runs[id] = run

    def _group_for(self, run: TaskRun) -> Group:
        above = run.flow_run_id or self.flow_run_id
        if run.kind == STAND_IN:
            return self._group("flow", (run.id.int,), run.name, above, "")
        if run.kind == "cell":
            group = self._group("cell", (run.id.int,), run.name, above, "")
            earlier = [other for other in self._within[above.int] if other.kind == "cell"]
            if len(earlier) > 1:  # cells run one after another
                group.sources[earlier[-2].number] = None
            return group
        return self._group(run.kind, (above.int, run.task_key or run.name), group_name(run), above, run.task_key)

    def _group(self, kind: str, key: tuple[object, ...], name: str, above: UUID, task_key: str) -> Group:
        group = self._groups.get((kind, *key))
        if group is None:
            group = Group(len(self._groups), kind, name, above, task_key)
            self._groups[kind, *key] = group
            self._within.setdefault(above.int, []).append(group)
            self._structure += 1
        return group

    def _connect(self, group: Group, run: TaskRun) -> None:
        for name, sources in run.task_inputs.items():
            if name == "__parents__":
                continue
            for source in sources[:_SOURCES]:
                found = self._group_of.get(int(source["id"].replace("-", ""), 16))
                if found is not None and found is not group and found.number not in group.sources:
                    group.sources[found.number] = None
                    group.changed()
                    self._structure += 1

    def _has(self, flow_run_id: UUID | None) -> bool:
        return flow_run_id == self.flow_run_id or flow_run_id in self._flow_runs

    def _is_ours(self, run: FlowRun) -> bool:
        root = self.flow_run_id
        return root in (run.id, run.root_flow_run_id) or run.parent_flow_run_id in self._flow_runs

    def _settle(self, run: FlowRun) -> None:
        if run.is_final or run.state_type is StateType.PAUSED:
            self.settled.set()
        else:
            self.settled.clear()


def _most_relevant(groups: Sequence[tuple[int, Group]]) -> Sequence[tuple[int, Group]]:
    """At most 200 groups: all in their order, or else what runs, what broke, and the newest."""
    if len(groups) <= ROWS:
        return groups
    weigh: Callable[[int], int] = lambda place: groups[place][1].weight  # noqa: E731
    places = sorted(range(len(groups)), key=lambda place: (-weigh(place), -place))[:ROWS]
    return [groups[place] for place in places]
