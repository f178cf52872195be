"""The history in memory: what a store has to do, in the fewest words. For tests, and for runs nobody will look at."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from prefect_nb.exceptions import ObjectNotFound, StoreUnavailable
from prefect_nb.interfaces import CacheEntry, Change, Entry, KeyParts, LogLine, Owner, Problem, Request, RunQuery
from prefect_nb.model.events import Event, fold
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.store import takeover
from prefect_nb.store.log_limits import LogLimit, lines_left_out, log_of, size_of
from prefect_nb.store.memory_blocks import MemoryBlocks
from prefect_nb.store.memory_inputs import MemoryInputs
from prefect_nb.store.memory_limits import MemoryLimits
from prefect_nb.store.memory_metrics import MemoryMetrics
from prefect_nb.store.memory_objects import MemoryObjects
from prefect_nb.store.memory_outputs import MemoryOutputs

R = TypeVar("R", FlowRun, TaskRun)


class MemoryStore:
    """A `Store` that ends with its process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: dict[UUID, Run] = {}
        self._changes: list[Change] = []
        self._lines: dict[int, LogLine] = {}
        self._last_line = 0
        self._left_out: dict[UUID, tuple[int, int]] = {}
        """By run: the cursor of the line that stands for those dropped, and their number."""
        self.log_limit = LogLimit()
        self._flows: dict[str, UUID] = {}
        self._owners: dict[UUID, Owner] = {}
        self._requests: dict[int, Request] = {}
        self._outcomes: dict[int, str] = {}
        self._caches: dict[str, CacheEntry] = {}
        self._parts: dict[UUID, KeyParts] = {}
        self._sources: dict[str, str] = {}
        self._closed = False
        self.limits = MemoryLimits(self._lock, self._owners)
        self.objects = MemoryObjects()
        self.blocks = MemoryBlocks()
        self.inputs = MemoryInputs(self.flow_run)
        self.metrics = MemoryMetrics()
        self.outputs = MemoryOutputs()

    def write(
        self,
        entries: Sequence[Entry],
        fences: Mapping[UUID, int],
        caches: Sequence[CacheEntry] = (),
        parts: Sequence[KeyParts] = (),
    ) -> set[UUID]:
        """Append events and replace rows."""
        with self._lock:
            if self._closed:
                raise StoreUnavailable("The history in memory has been closed.")
            fenced = {id for id, epoch in fences.items() if self._epoch(id, epoch) != epoch}
            flow_run_of = {run.id: run.flow_run_id for run in self._runs.values() if isinstance(run, TaskRun)}
            flow_run_of |= {entry.run.id: entry.flow_run_id for entry in entries}
            self._append(entry for entry in entries if entry.flow_run_id not in fenced)
            self._caches |= {item.key: item for item in caches if flow_run_of.get(item.task_run_id) not in fenced}
            for item in parts:
                if flow_run_of.get(item.task_run_id) not in fenced:
                    self._parts[item.task_run_id] = msgspec.structs.replace(item, sources={})
                    self._sources |= item.sources
            return fenced

    def _epoch(self, flow_run_id: UUID, default: int) -> int:
        run = self._runs.get(flow_run_id)
        return run.epoch if isinstance(run, FlowRun) else default

    def _append(self, entries: Iterable[Entry]) -> None:
        # Runs from which nothing more is taken: a task run outside any flow run that has ended (it has no epoch to
        # guard it), and whatever an event did not follow from.
        closed = {r.id for r in self._runs.values() if isinstance(r, TaskRun) and r.flow_run_id is None and r.is_final}
        for entry in entries:
            run, row = entry.run, self._runs.get(entry.run.id)
            number = run.events - 1
            written = row.events if row else 0
            if number < written and self.events(run.id)[number] == entry.event:
                continue
            if run.id in closed or number != written:
                closed.add(run.id)
                continue
            self._runs[run.id] = run
            self._changes.append(Change(len(self._changes) + 1, run.id, number, entry.event))

    def flow_run(self, id: UUID) -> FlowRun | None:
        """One flow run."""
        run = self._runs.get(id)
        return run if isinstance(run, FlowRun) else None

    def task_run(self, id: UUID) -> TaskRun | None:
        """One task run."""
        run = self._runs.get(id)
        return run if isinstance(run, TaskRun) else None

    def flow_runs(self, query: RunQuery) -> list[FlowRun]:
        """The flow runs that fit."""
        with self._lock:
            runs = [run for run in self._runs.values() if isinstance(run, FlowRun)]
            tasks = [run for run in self._runs.values() if isinstance(run, TaskRun)]
            of_task = {task.flow_run_id for task in tasks if task.task_key == query.task_key}
            return self._select(
                (
                    run
                    for run in runs
                    if query.flow_run_id in (None, run.parent_flow_run_id)
                    and query.parent_id in (None, run.parent_task_run_id)
                    and query.flow_name in (None, run.flow_name)
                    and (query.task_key is None or run.id in of_task)
                ),
                query,
                FlowRun,
            )

    def task_runs(self, query: RunQuery) -> list[TaskRun]:
        """The task runs that fit."""
        with self._lock:
            runs = [run for run in self._runs.values() if isinstance(run, TaskRun)]
            flows = {r.id for r in self._runs.values() if isinstance(r, FlowRun) and r.flow_name == query.flow_name}
            return self._select(
                (
                    run
                    for run in runs
                    if query.flow_run_id in (None, run.flow_run_id)
                    and query.parent_id in (None, run.parent_id)
                    and query.task_key in (None, run.task_key)
                    and (query.flow_name is None or run.flow_run_id in flows)
                ),
                query,
                TaskRun,
            )

    def _select(self, runs: Iterable[R], query: RunQuery, kind: type[R]) -> list[R]:
        before = self._runs.get(query.before) if query.before else None
        if query.before and not isinstance(before, kind):
            return []
        part = _ascii_lower(query.name_contains or "")
        found = [
            run
            for run in runs
            if (not query.ids or run.id in query.ids)
            and (not query.state_types or run.state_type in query.state_types)
            and (not query.state_names or run.state_name in query.state_names)
            and (not query.kinds or run.kind in query.kinds)
            and part in _ascii_lower(run.name)
            and set(query.tags) <= set(run.tags)
            and query.owner_id in (None, run.owner_id)
            and (before is None or _age(run) < _age(before))
        ]
        found.sort(key=_age, reverse=not query.oldest_first)
        return found[: query.limit if query.limit >= 0 else None]

    def resolve_run(self, text: str) -> list[Run]:
        """Runs by id, by a prefix of the id, or by exact name."""
        start = text.lower() if len(text.replace("-", "")) >= 4 else "nothing begins so"
        with self._lock:
            found = [
                run
                for run in self._runs.values()
                if run.name == text or run.id.hex.startswith(start) or str(run.id).startswith(start)
            ]
        found.sort(key=lambda run: (isinstance(run, FlowRun), *_age(run)), reverse=True)
        return found[:20]

    def count_task_states(self, flow_run_id: UUID) -> dict[str, int]:
        """State name -> number of the flow run's task runs."""
        return dict(Counter(run.state_name for run in self._tasks(flow_run_id)))

    def events(self, run_id: UUID) -> list[Event]:
        """A run's events, in order."""
        with self._lock:
            return [change.event for change in self._changes if change.run_id == run_id]

    def changes(self, cursor: int, limit: int = 1000) -> list[Change]:
        """Events written after the cursor."""
        with self._lock:
            return self._changes[cursor : cursor + limit]

    def last_cursor(self) -> int:
        """The newest event's cursor."""
        return len(self._changes)

    def write_logs(self, lines: Sequence[LogLine]) -> None:
        """Append log lines."""
        with self._lock:
            for line in lines:
                self._last_line += 1
                self._lines[self._last_line] = line
            for id, newest in {id: line for line in lines if (id := log_of(line)) is not None}.items():
                self._trim_log(id, newest)

    def _trim_log(self, id: UUID, newest: LogLine) -> None:
        marker, count = self._left_out.get(id, (0, 0))
        theirs = [at for at, line in self._lines.items() if log_of(line) == id and at != marker]
        lines, size = len(theirs), sum(size_of(self._lines[at]) for at in theirs)
        for at in theirs:
            if lines <= self.log_limit.lines and size <= self.log_limit.bytes:
                return
            self._lines.pop(marker, None)
            oldest = self._lines[at]
            lines, size, count, marker = lines - 1, size - size_of(oldest), count + 1, at
            self._left_out[id] = (marker, count)
            self._lines[at] = lines_left_out(oldest.at_us, count, self.log_limit, newest)

    def logs(
        self,
        flow_run_id: UUID | None = None,
        task_run_id: UUID | None = None,
        min_level: int = 0,
        after: int = 0,
        limit: int = 1000,
    ) -> list[tuple[int, LogLine]]:
        """Log lines with their cursors."""
        with self._lock:
            lines = [(cursor, line) for cursor, line in self._lines.items() if cursor > after]
        return [
            (cursor, line)
            for cursor, line in lines
            if line.level >= min_level
            and flow_run_id in (None, line.flow_run_id)
            and task_run_id in (None, line.task_run_id)
        ][:limit]

    def flow_id(self, name: str) -> UUID:
        """The flow's id, made on first use."""
        with self._lock:
            return self._flows.setdefault(name, uuid.uuid4())

    def add_owner(self, owner: Owner) -> None:
        """Register an owner."""
        with self._lock:
            self._owners[owner.id] = owner

    def remove_owner(self, id: UUID) -> None:
        """Forget an owner."""
        with self._lock:
            self._owners.pop(id, None)

    def owners(self) -> list[Owner]:
        """Every registered owner."""
        with self._lock:
            return sorted(self._owners.values(), key=lambda owner: (owner.started_us, owner.id.bytes))

    def claim(
        self, flow_run_id: UUID, owner_id: UUID, at_us: int, recoveries: int, expected_epoch: int | None = None
    ) -> FlowRun:
        """Make this owner the flow run's, under a new epoch."""
        with self._lock:
            run = self.flow_run(flow_run_id)
            if run is None:
                raise ObjectNotFound(f"There is no flow run {flow_run_id}.")
            takeover.check_epoch(run, expected_epoch)
            claimed, entries = takeover.claim(run, self._tasks(flow_run_id), owner_id, at_us, recoveries)
            self._append(entries)
            return claimed

    def claim_task_run(self, id: UUID, owner_id: UUID, at_us: int) -> TaskRun | None:
        """Make this owner the deferred task run's, if it waits for one."""
        with self._lock:
            entry = takeover.claim_task(self.task_run(id), owner_id, at_us)
            if entry is None:
                return None
            self._append([entry])
            assert isinstance(entry.run, TaskRun)
            return entry.run

    def crash(self, owner_ids: Sequence[UUID], at_us: int, message: str) -> list[Run]:
        """End every open run of these dead owners."""
        with self._lock:
            flows = {run.id for run in self._runs.values() if isinstance(run, FlowRun) and run.owner_id in owner_ids}
            theirs = [
                run
                for run in self._runs.values()
                if not run.is_final and (run.owner_id in owner_ids or getattr(run, "flow_run_id", None) in flows)
            ]
            entries: list[Entry] = []
            asked = self.open_requests(
                [id for run in theirs for id in (run.id, getattr(run, "root_flow_run_id", None)) if id]
            )
            cancels = {
                request.flow_run_id: takeover.reason_of(request.details)
                for request in asked
                if request.kind == "cancel"
            }
            for run in theirs:
                if isinstance(run, FlowRun) and run.owner_id in owner_ids and not run.is_suspended:
                    entries += takeover.crash(run, self._tasks(run.id), at_us, message, cancels)
                    self._settle_cancels(run.id, entries[-1].run.state_name.lower())
            ended = {entry.run.id for entry in entries}
            for run in theirs:
                if isinstance(run, TaskRun) and run.id not in ended and takeover.is_open(run):
                    entries.append(takeover.crash_task(run, at_us, message))
            self._append(entries)
            for id in owner_ids:
                self._owners.pop(id, None)
            self.limits.free(owner_ids)
            return list({entry.run.id: entry.run for entry in entries}.values())

    def _tasks(self, flow_run_id: UUID) -> list[TaskRun]:
        with self._lock:
            return [r for r in self._runs.values() if isinstance(r, TaskRun) and r.flow_run_id == flow_run_id]

    def _settle_cancels(self, flow_run_id: UUID, outcome: str) -> None:
        for request in self.open_requests([flow_run_id]):
            if request.kind == "cancel":
                self._outcomes[request.id] = outcome

    def add_request(self, flow_run_id: UUID, kind: str, at_us: int, details: Mapping[str, Any]) -> Request:
        """Ask something of a flow run's owner."""
        with self._lock:
            request = Request(len(self._requests) + 1, flow_run_id, kind, at_us, dict(details))
            self._requests[request.id] = request
            return request

    def open_requests(self, flow_run_ids: Sequence[UUID]) -> list[Request]:
        """Requests nobody has settled."""
        with self._lock:
            return [r for r in self._requests.values() if r.flow_run_id in flow_run_ids and r.id not in self._outcomes]

    def settle_request(self, id: int, outcome: str) -> None:
        """Note what became of a request."""
        with self._lock:
            self._outcomes[id] = outcome

    def request_outcome(self, id: int) -> str | None:
        """What became of a request; None while nobody has settled it."""
        return self._outcomes.get(id)

    def cache_entry(self, key: str) -> CacheEntry | None:
        """What a cache key stands for."""
        return self._caches.get(key)

    def forget_cache(self, key: str) -> None:
        """Drop a cache key."""
        with self._lock:
            self._caches.pop(key, None)

    def key_parts(self, task_run_id: UUID) -> KeyParts | None:
        """The parts of one task run's key."""
        return self._parts.get(task_run_id)

    def previous_key_parts(self, task_key: str, before: UUID) -> KeyParts | None:
        """The parts of the newest other run of this task created before that run; if it is unknown, of the newest."""
        return next(iter(self._earlier(before, 1, lambda key: key == task_key)), None)

    def earlier_key_parts(self, task_key: str, before: UUID, limit: int) -> list[KeyParts]:
        """The parts of other runs of the task of that name created before that run."""
        name = task_key.rpartition("-")[0]
        same_code = self._earlier(before, limit, lambda key: key == task_key)
        return same_code + self._earlier(
            before, limit, lambda key: key != task_key and len(key) == len(task_key) and key.rpartition("-")[0] == name
        )

    def _earlier(self, before: UUID, limit: int, fits: Callable[[str], bool]) -> list[KeyParts]:
        with self._lock:
            later = self._runs.get(before)
            found = (parts for parts in self._parts.values() if fits(parts.task_key) and parts.parts)
            others = [(self._parts_age(parts), parts) for parts in found if parts.task_run_id != before]
        older = [pair for pair in others if later is None or pair[0] < _age(later)]
        older.sort(key=lambda pair: pair[0], reverse=True)
        return [parts for _, parts in older[:limit]]

    def source_text(self, digest: str) -> str | None:
        """The source of a function by its digest."""
        return self._sources.get(digest)

    def _parts_age(self, parts: KeyParts) -> tuple[int, bytes]:
        run = self._runs.get(parts.task_run_id)
        return (run.created_us if run else 0, parts.task_run_id.bytes)

    def check(self) -> list[Problem]:
        """`fold(events) == row` for every run."""
        return [
            Problem("its row is not what its events say", f"run {id}", "There is nothing to restore it from.")
            for id, run in list(self._runs.items())
            if fold(self.events(id)) != run
        ]

    def rebuild(self, run_id: UUID) -> bool:
        """Write a run's row from the fold of its events."""
        with self._lock:
            run = fold(self.events(run_id))
            if run is None:
                return False
            self._runs[run_id] = run
            return True

    def describe(self) -> dict[str, str]:
        """What keeps the history."""
        return {"store": "memory"}

    def close(self) -> None:
        """Take no more."""
        self._closed = True


def _age(run: Run) -> tuple[int, bytes]:
    return (run.created_us, run.id.bytes)


def _ascii_lower(text: str) -> str:
    """As SQLite's LIKE compares: only A to Z lose their case."""
    return "".join(char.lower() if char.isascii() else char for char in text)
