"""Ports of the history, of kept results, of runners and observers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

import msgspec

from prefect_nb.engine.commands import Outcome
from prefect_nb.interfaces.blocks import BlockStore
from prefect_nb.interfaces.inputs import InputStore
from prefect_nb.interfaces.limits import LimitStore
from prefect_nb.interfaces.metrics import MetricPoint, MetricStore
from prefect_nb.interfaces.objects import ObjectStore
from prefect_nb.interfaces.outputs import OutputStore
from prefect_nb.model.events import Event
from prefect_nb.model.fingerprint_parts import Part
from prefect_nb.model.runs import FlowRun, ResultReference, Run, TaskRun
from prefect_nb.model.states import StateType


class Entry(msgspec.Struct, frozen=True):
    """One event on its way into the store, with the snapshot it leads to."""

    run: Run
    """The snapshot after the event; `run.events - 1` is the event's number within its run."""
    event: Event
    flow_run_id: UUID | None
    """The flow run whose owner writes this; None for a task run outside any flow run."""


class CacheEntry(msgspec.Struct, frozen=True):
    """A kept result that a cache key stands for."""

    key: str
    result: ResultReference
    task_run_id: UUID
    created_us: int


class KeyParts(msgspec.Struct, frozen=True):
    """The named parts a task run's cache key was made of, kept to explain hits and misses."""

    task_run_id: UUID
    task_key: str
    parts: list[Part]
    hit: bool = False
    note: str | None = None
    """What the parts do not say: why there is no key (then there are no parts), or why a known result was not used."""
    sources: dict[str, str] = {}
    """Source texts by digest, of functions among the parts; a store need keep each once. Not read back with the parts."""


class LogLine(msgspec.Struct, frozen=True):
    """One line of a run's log. `level` as in `logging`; `at_us` microseconds since the epoch, UTC."""

    at_us: int
    level: int
    name: str
    message: str
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None


class Owner(msgspec.Struct, frozen=True):
    """A process that executes runs. It lives as long as it holds the lock on `lock_path`, in this boot of this host."""

    id: UUID
    host_id: str
    boot_id: str
    pid: int
    lock_path: str
    started_us: int
    kind: str = "engine"


class Request(msgspec.Struct, frozen=True):
    """What somebody else asks of a flow run's owner ("cancel", later "pause", "resume", "retry")."""

    id: int
    flow_run_id: UUID
    kind: str
    at_us: int
    details: dict[str, Any] = {}


class Change(msgspec.Struct, frozen=True):
    """One event as read back by cursor."""

    cursor: int
    run_id: UUID
    number: int
    event: Event


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs to list, newest first (by creation, then id). Empty means any."""

    ids: tuple[UUID, ...] = ()
    flow_run_id: UUID | None = None
    """Task runs: of this flow run. Flow runs: children of this one."""
    parent_id: UUID | None = None
    state_types: tuple[StateType, ...] = ()
    state_names: tuple[str, ...] = ()
    name_contains: str | None = None
    flow_name: str | None = None
    task_key: str | None = None
    tags: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    owner_id: UUID | None = None
    before: UUID | None = None
    """Keyset page: only runs older than this one."""
    limit: int = 200
    oldest_first: bool = False


class Problem(msgspec.Struct, frozen=True):
    """Something `doctor` found: what is wrong, where, and how to mend it."""

    what: str
    where: str
    mend: str


class Store(Protocol):
    """The history. Every write is one short transaction that either happens whole or not at all.

    An event and the row it leads to are written together, so `fold(events(id)) == row` always holds. A method may be
    called from any thread. Several stores, in several processes, may be open on one home.
    """

    @property
    def limits(self) -> LimitStore:
        """Concurrency limits, and the slots held of them."""
        ...

    @property
    def objects(self) -> ObjectStore:
        """Artifacts and variables."""
        ...

    @property
    def blocks(self) -> BlockStore:
        """Saved blocks."""
        ...

    @property
    def metrics(self) -> MetricStore:
        """Metrics over time."""
        ...

    @property
    def outputs(self) -> OutputStore:
        """What task runs printed and displayed."""
        ...

    @property
    def inputs(self) -> InputStore:
        """What flow runs are handed while they live."""
        ...

    def write(
        self,
        entries: Sequence[Entry],
        fences: Mapping[UUID, int],
        caches: Sequence[CacheEntry] = (),
        parts: Sequence[KeyParts] = (),
    ) -> set[UUID]:
        """Append these events, in order, and replace their runs' rows, durably, in one transaction.

        Args:
            entries: events with the snapshots after them; several of one run are in order. A `Renamed`, `KeyComputed`
                or state event never creates a row.
            fences: for each flow run with an existing row, the epoch the writer holds. Entries of a flow run whose
                row has another epoch are left out, whole; so are caches and parts of its task runs.
            caches: cache index rows to insert or replace.
            parts: key parts to insert or replace, by task run.

        Returns:
            The flow runs that were fenced off.

        Raises:
            StorageFull, StoreUnavailable: nothing was written.
        """
        ...

    def write_logs(self, lines: Sequence[LogLine]) -> None:
        """Append log lines (best effort durability; kept apart from the history).

        Of a run that has more lines or bytes than the store keeps, the oldest go; one line in their place counts them.
        """
        ...

    def flow_run(self, id: UUID) -> FlowRun | None:
        """One flow run."""
        ...

    def task_run(self, id: UUID) -> TaskRun | None:
        """One task run."""
        ...

    def flow_runs(self, query: RunQuery) -> list[FlowRun]:
        """The flow runs that fit."""
        ...

    def task_runs(self, query: RunQuery) -> list[TaskRun]:
        """The task runs that fit."""
        ...

    def resolve_run(self, text: str) -> list[Run]:
        """Runs by whole id, by a prefix of the id of at least 4 characters, or by exact name; at most 20."""
        ...

    def count_task_states(self, flow_run_id: UUID) -> dict[str, int]:
        """State name -> number of the flow run's task runs."""
        ...

    def events(self, run_id: UUID) -> list[Event]:
        """A run's events, in order."""
        ...

    def changes(self, cursor: int, limit: int = 1000) -> list[Change]:
        """Events written after the cursor (0: from the beginning), in the order of their commit."""
        ...

    def last_cursor(self) -> int:
        """The newest event's cursor; 0 for an empty history."""
        ...

    def logs(
        self,
        flow_run_id: UUID | None = None,
        task_run_id: UUID | None = None,
        min_level: int = 0,
        after: int = 0,
        limit: int = 1000,
    ) -> list[tuple[int, LogLine]]:
        """Log lines with their cursors, oldest first, after a cursor."""
        ...

    def flow_id(self, name: str) -> UUID:
        """The flow's id, made on first use."""
        ...

    def add_owner(self, owner: Owner) -> None:
        """Register a process that is about to execute runs."""
        ...

    def remove_owner(self, id: UUID) -> None:
        """Forget an owner that left in good order."""
        ...

    def owners(self) -> list[Owner]:
        """Every registered owner, living or dead."""
        ...

    def claim(
        self, flow_run_id: UUID, owner_id: UUID, at_us: int, recoveries: int, expected_epoch: int | None = None
    ) -> FlowRun:
        """Make this owner the flow run's, under a new epoch (`Claimed`); open child task runs become Crashed.

        Args:
            expected_epoch: claim it only if nobody else has since: of several who try at once, one succeeds.

        Raises:
            ObjectNotFound: no such run.
            Fenced: somebody else has claimed it; nothing was written.
        """
        ...

    def claim_task_run(self, id: UUID, owner_id: UUID, at_us: int) -> TaskRun | None:
        """Make this owner the deferred task run's (`TaskRunClaimed`), if it waits for one; None if it does not."""
        ...

    def crash(self, owner_ids: Sequence[UUID], at_us: int, message: str) -> list[Run]:
        """Settle what dead owners left open, in one transaction.

        Every open flow run of these owners, its open task runs, and open task runs these owners executed elsewhere
        become Crashed, as do those left open in a flow run of theirs that has ended (a flow run found CANCELLING, or with
        a request to cancel it or its root, becomes Cancelled, and so do its tasks; a suspended one stays as it is, for it waits without a process); the flow runs' epochs rise
        so that nothing late is written; the owners are removed. Task runs in Pending/"NotReady" stay as they are.

        Returns:
            The runs changed.
        """
        ...

    def add_request(self, flow_run_id: UUID, kind: str, at_us: int, details: Mapping[str, Any]) -> Request:
        """Ask something of a flow run's owner."""
        ...

    def open_requests(self, flow_run_ids: Sequence[UUID]) -> list[Request]:
        """Requests nobody has settled, for these flow runs."""
        ...

    def settle_request(self, id: int, outcome: str) -> None:
        """Note what became of a request."""
        ...

    def request_outcome(self, id: int) -> str | None:
        """What became of a request; None while nobody has settled it."""
        ...

    def cache_entry(self, key: str) -> CacheEntry | None:
        """What a cache key stands for; expired entries too (the caller judges)."""
        ...

    def forget_cache(self, key: str) -> None:
        """Drop a cache key (its result was damaged)."""
        ...

    def key_parts(self, task_run_id: UUID) -> KeyParts | None:
        """The parts of one task run's key."""
        ...

    def previous_key_parts(self, task_key: str, before: UUID) -> KeyParts | None:
        """The parts of the newest other run of this task created before that run."""
        ...

    def earlier_key_parts(self, task_key: str, before: UUID, limit: int) -> list[KeyParts]:
        """The parts of other runs of this task created before that run; runs without a key are left out.

        Args:
            task_key: the task's; first come runs with the same key, then those of other code under the same name
                (what precedes the last hyphen), each newest first.
            before: the run.
            limit: at most so many of either.
        """
        ...

    def source_text(self, digest: str) -> str | None:
        """The source of a function by the digest that stands for it in key parts; None if it was never kept."""
        ...

    def check(self) -> list[Problem]:
        """Integrity of the files, and `fold(events) == row` for every run."""
        ...

    def rebuild(self, run_id: UUID) -> bool:
        """Write a run's row from the fold of its events, in one transaction; no event is added.

        Returns:
            Whether it was written. False: the run has no events, or not all of them, or they cannot be read.

        Raises:
            StorageFull, StoreUnavailable, StoreDamaged: nothing was written.
        """
        ...

    def describe(self) -> dict[str, str]:
        """What keeps the history: `store` (its kind), and what else is worth knowing of it, such as versions."""
        ...

    def close(self) -> None:
        """Release files and connections; idempotent."""
        ...


class ResultStore(Protocol):
    """Values kept by content or under a key: whole or not at all, checked when read."""

    def put(
        self, value: Any, serializer: Any = None, expires_us: int | None = None, key: str | None = None
    ) -> ResultReference:
        """Keep a value; it is on disk, synced, under its final name when this returns.

        Args:
            value: what to keep.
            serializer: a serializer's name ("pickle", "json", "compressed/pickle", ...) or instance; None: the default.
            expires_us: when it stops counting as a cache hit (microseconds since the epoch).
            key: the path to keep it at, below the store's root; what was there is replaced. None: by content.

        Raises:
            SerializationError: the value cannot be turned into bytes. Nothing is left behind.
            StorageFull: no room. Nothing is left behind.
            StoreUnavailable: the storage cannot be reached or written.
            InvalidNameError: the key leads elsewhere.
        """
        ...

    def get(self, reference: ResultReference) -> Any:
        """The value, wherever the reference says it is.

        Raises:
            MissingResult: there is no such file.
            ResultCorrupt: it is damaged; it was set aside, and a warning says where.
        """
        ...

    def check(self, reference: ResultReference) -> bool:
        """Whether the file is there and whole (nothing is deserialized)."""
        ...

    def find(self, key: str) -> ResultReference | None:
        """The result kept under a key, by whichever run or process of a home with the same secret; None for none."""
        ...


Emit = Callable[[LogLine | MetricPoint], None]
Work = Callable[[Emit], Outcome]
"""One call of a body, ready to be carried anywhere: it is given where to send log lines and metrics and hands back an outcome. It
never raises. It pickles with cloudpickle if the body and its arguments do."""


class Runner(Protocol):
    """Calls bodies somewhere else and hands back outcomes. It knows no store, no states, no retries."""

    name: str
    remote: bool
    """Whether work leaves this process (its arguments are pickled; contexts do not travel)."""

    def start(self, work: Work, done: Callable[[Outcome], None], emit: Emit) -> None:
        """Call `work` elsewhere as soon as there is room, then `done(outcome)`, exactly once, from any thread.

        If the work cannot be carried there (it does not pickle) or its place dies, `done` gets `Raised` or
        `Interrupted` with an error that says so. Must not block for long.
        """
        ...

    def close(self, wait: bool = True) -> None:
        """Take no more work; with `wait`, until what was started is done."""
        ...


class Observer(Protocol):
    """Somebody who sees what has been committed."""

    def committed(self, entries: Sequence[Entry]) -> None:
        """Called on the writer thread after each commit; must return at once. An error here is logged and ignored.

        One that has a method `measured(points)` is told of metrics in the same way.
        """
        ...
