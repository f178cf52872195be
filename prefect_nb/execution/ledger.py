"""The only writer of the history: events are gathered for a few milliseconds and committed together.

Laws:
1. What is appended is committed in the order of appending, or refused as a whole because its flow run was fenced off.
2. Observers see only what is committed.
3. `commit()` returns when everything appended before it is durable, or raises why it is not.
4. When the disk refuses a batch, the batch is kept and tried again; nothing appended is dropped while the process lives.
5. A run whose rows are damaged keeps nobody else waiting: what was appended of it is set aside and tried again.
6. A log line never blocks: when too many wait, those for debugging go first. What went is counted and said in the log.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Container
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from prefect_nb.exceptions import Fenced, StorageFull, StoreDamaged, StoreUnavailable
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.secrets import without_secrets
from prefect_nb.interfaces import CacheEntry, Entry, KeyParts, LogLine, MetricPoint, Observer, Store
from prefect_nb.model import redaction

logger = logging.getLogger("prefect_nb.ledger")

_RETRY_SECONDS = 0.5
_ASIDE_SECONDS = 5.0
_LOG_QUEUE = 10_000
_MAKE_ROOM = 1_000
_BACKLOG = 50_000
_TAKEN_OVER = "Flow run {} was taken over by another process; nothing more of it is written here."


class _Barrier:
    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: Exception | None = None


Item = Entry | KeyParts | tuple[Entry, CacheEntry] | _Barrier


class Ledger:
    """Group commit over a store.

    Args:
        store: where to write.
        interval: seconds to gather events before a commit nobody waits for.
    """

    def __init__(self, store: Store, interval: float = 0.005) -> None:
        self._store = store
        self._interval = interval
        self.observers: list[Observer] = []
        self.on_fenced: list[Callable[[UUID], None]] = []
        self._begin()

    def _begin(self) -> None:
        self._queue: deque[Item] = deque()
        self._logs: deque[LogLine] = deque()
        self._logs_guard = threading.RLock()  # a signal handler may log, too
        self._lost_lines: Counter[tuple[UUID | None, UUID | None]] = Counter()
        self._aside: dict[UUID, list[Item]] = {}
        self._aside_error: dict[UUID, StoreUnavailable] = {}
        self._aside_at = 0.0
        self._points: deque[MetricPoint] = deque()
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._space = threading.Event()
        self._space.set()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._epochs: dict[UUID, int] = {}
        self.uncommitted_cache: dict[str, CacheEntry] = {}
        """Cache entries on their way into the store, by key: a lookup sees them before it asks the store."""
        self.fenced: set[UUID] = set()
        self.failure: Exception | None = None

    def forget(self) -> None:
        """After a fork: what the parent has appended the parent will write, and its thread exists only there."""
        self.observers.clear()
        self.on_fenced.clear()
        self._begin()

    def own(self, flow_run_id: UUID, epoch: int) -> None:
        """Write this flow run's entries under this epoch from now on."""
        self.fenced.discard(flow_run_id)
        self._epochs[flow_run_id] = epoch

    def epoch_of(self, flow_run_id: UUID) -> int:
        """The epoch under which this process writes a flow run."""
        return self._epochs.get(flow_run_id, 1)

    def disown(self, flow_run_id: UUID) -> None:
        """The flow run has ended; its epoch need not be checked any more. One that was taken over stays refused."""
        self._epochs.pop(flow_run_id, None)

    def fence(self, flow_run_id: UUID) -> None:
        """Another process has taken this flow run over: take nothing more of it."""
        if flow_run_id in self.fenced:
            return
        self.fenced.add(flow_run_id)
        for callback in list(self.on_fenced):
            try:
                callback(flow_run_id)
            except Exception:
                logger.exception("Flow run %s was taken over, but could not be stopped here.", flow_run_id)

    def append(
        self, item: Entry | KeyParts | tuple[Entry, CacheEntry], flow_run_id: UUID | None, holder: Any = None
    ) -> None:
        """Have this committed soon. Waits only when tens of thousands of events are ahead of it.

        Args:
            item: an event, with the cache entry that goes with it, or the parts of a key.
            flow_run_id: the flow run whose owner writes this.
            holder: whose `run` becomes the event's snapshot.

        Raises:
            Fenced: another process has taken the flow run over.
        """
        if self.fenced and flow_run_id in self.fenced:
            raise Fenced(_TAKEN_OVER.format(flow_run_id))
        entry: Any = item
        if redaction.known and type(item) is Entry:
            item = entry = without_secrets(item)
        if type(item) is tuple:
            entry = item[0]
            self.uncommitted_cache[item[1].key] = item[1]
        if holder is not None:
            # No call stands between these two lines, so a signal finds both done or neither. Were one done without the
            # other, the run's next event would not follow its history.
            holder.run = entry.run
        self._queue.append(item)
        if not self._wake.is_set():
            self._notify()
        if len(self._queue) > _BACKLOG:
            self._space.clear()
            self._space.wait(1.0)

    def log(self, line: LogLine | MetricPoint) -> None:
        """Have this log line or metric written soon.

        A line never blocks: when 10,000 wait, those for debugging go, then the oldest. A metric waits when tens of
        thousands are ahead of it.
        """
        if type(line) is MetricPoint:
            self._points.append(line)
        else:
            with self._logs_guard:
                if len(self._logs) >= _LOG_QUEUE:
                    self._make_room()
                self._logs.append(line)  # type: ignore[arg-type]
        if not self._wake.is_set():
            self._notify()
        if len(self._points) > _BACKLOG:
            self._space.clear()
            self._space.wait(1.0)

    def _make_room(self) -> None:
        """Drop what is least missed of the lines that wait. The caller has their guard."""
        waiting = self._logs
        kept = [line for line in waiting if line.level > logging.DEBUG]
        spare = len(waiting) - len(kept)
        if spare < _MAKE_ROOM:
            del kept[: _MAKE_ROOM - spare]
        self._lost_lines += Counter((line.flow_run_id, line.task_run_id) for line in waiting)
        self._lost_lines -= Counter((line.flow_run_id, line.task_run_id) for line in kept)
        waiting.clear()
        waiting.extend(kept)

    def commit(self, timeout: float | None = None, flow_run_id: UUID | None = None) -> None:
        """Wait until everything appended so far is durable.

        Args:
            timeout: seconds to wait; None for however long it takes.
            flow_run_id: the flow run whose entries the caller waits for.

        Raises:
            Fenced: another process has taken that flow run over; what was appended of it may not have been written.
            StorageFull, StoreUnavailable: it could not be written, or something of that flow run could not, as its rows
                are damaged; the ledger goes on trying.
            TimeoutError: not within `timeout` seconds.
        """
        barrier = _Barrier()
        self._queue.append(barrier)
        self._urgent.set()
        self._notify()
        if not barrier.done.wait(timeout):
            raise TimeoutError(f"The history was not written within {timeout} seconds.")
        if barrier.error is not None:
            raise barrier.error
        if self.fenced and flow_run_id in self.fenced:
            raise Fenced(_TAKEN_OVER.format(flow_run_id))
        if self._aside_error and flow_run_id in self._aside_error:
            raise self._aside_error[flow_run_id]

    def close(self) -> None:
        """Write everything and stop. Raises what `commit` raises when that cannot be done."""
        if self._thread is None and not (self._queue or self._logs or self._points):
            self._closing = True
            return
        try:
            self._aside_at = 0.0
            self.commit(timeout=30)
            if self._aside:
                raise StoreUnavailable(
                    "What came of damaged runs could not be written. Run `prefect-nb doctor --mend`."
                )
        finally:
            self._closing = True
            self._wake.set()
            self._urgent.set()
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join(timeout=5)

    def _notify(self) -> None:
        if self._thread is None:
            with self._start_lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="prefect_nb-ledger", daemon=True)
                    self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        held: list[Item] = []
        while True:
            if not held:
                self._wake.wait(_ASIDE_SECONDS if self._aside else None)
            if not self._closing:
                self._urgent.wait(_RETRY_SECONDS if self.failure else self._interval)
            self._wake.clear()
            self._urgent.clear()
            queue = self._queue
            if self._aside and time.monotonic() >= self._aside_at:
                held += self._taken_up_again()
            held += [queue.popleft() for _ in range(len(queue))]
            if self._points:
                # Before the events, so that whoever sees a run's end has seen all its metrics.
                self._write_points()
            self._space.set()
            held = self._write(held)
            self._write_logs()
            if self._closing and not (self._queue or self._logs or self._points):
                return

    def _taken_up_again(self) -> list[Item]:
        """What was set aside, to be tried once more: somebody may have mended the rows."""
        items = [item for aside in self._aside.values() for item in aside]
        self._aside.clear()
        self._aside_error.clear()
        return items

    def _write(self, items: list[Item]) -> list[Item]:
        """Commit a batch; returns what has to be tried again."""
        if self._aside:
            items = self._set_aside(self._aside, items)
        entries: list[Entry] = []
        caches: list[CacheEntry] = []
        parts: list[KeyParts] = []
        barriers: list[_Barrier] = []
        for item in items:
            kind = type(item)
            if kind is Entry:
                entries.append(item)  # type: ignore[arg-type]
            elif kind is tuple:
                entries.append(item[0])  # type: ignore[index]
                caches.append(item[1])  # type: ignore[index]
            elif kind is KeyParts:
                parts.append(item)  # type: ignore[arg-type]
            else:
                barriers.append(item)  # type: ignore[arg-type]
        fenced: set[UUID] = set()
        if entries or caches or parts:
            try:
                fenced = self._store.write(entries, dict(self._epochs), caches, parts)
            except Exception as error:
                rest = self._without_damaged(error, items) if isinstance(error, StoreDamaged) else items
                if len(rest) < len(items):
                    return self._write(rest)
                return self._refused(error, items, barriers)
        if self.failure is not None:
            logger.warning("The history is written again.")
            self.failure = None
        for cached in caches:
            if self.uncommitted_cache.get(cached.key) is cached:
                del self.uncommitted_cache[cached.key]
        for flow_run_id in fenced:
            self.fence(flow_run_id)
        for barrier in barriers:
            barrier.done.set()
        self._publish([entry for entry in entries if entry.flow_run_id not in fenced] if fenced else entries)
        return []

    def _without_damaged(self, error: StoreDamaged, items: list[Item]) -> list[Item]:
        """Set aside what concerns the runs that are damaged; returns the rest."""
        rest = self._set_aside(error.run_ids, items)
        if len(rest) < len(items):
            logger.error("%s What comes of it waits; the rest of the history is written.", error)
            self._aside_at = time.monotonic() + _ASIDE_SECONDS
            unavailable = StoreUnavailable(str(error))
            for item in (item for aside in self._aside.values() for item in aside):
                entry = item[0] if type(item) is tuple else item
                if type(entry) is Entry and entry.flow_run_id is not None:
                    self._aside_error[entry.flow_run_id] = unavailable
        return rest

    def _set_aside(self, run_ids: Container[UUID], items: list[Item]) -> list[Item]:
        rest: list[Item] = []
        for item in items:
            entry = item[0] if type(item) is tuple else item
            run_id = entry.run.id if type(entry) is Entry else getattr(entry, "task_run_id", None)
            if run_id is not None and run_id in run_ids:
                self._aside.setdefault(run_id, []).append(item)
            else:
                rest.append(item)
        return rest

    def _refused(self, error: Exception, items: list[Item], barriers: list[_Barrier]) -> list[Item]:
        if not isinstance(error, StorageFull | StoreUnavailable):
            logger.error("Writing the history failed.", exc_info=error)
            error = StoreUnavailable(f"Writing the history failed: {error}")
        elif self.failure is None:
            logger.error("%s Trying again until it succeeds.", error)
        self.failure = error
        for barrier in barriers:
            barrier.error = error
            barrier.done.set()
        if self._closing:
            return []
        return [item for item in items if type(item) is not _Barrier]

    def _publish(self, entries: list[Entry]) -> None:
        if not entries:
            return
        for observer in list(self.observers):
            try:
                observer.committed(entries)
            except Exception:
                logger.exception("An observer of the history failed; the run goes on.")

    def _write_points(self) -> None:
        waiting = self._points
        points = [waiting.popleft() for _ in range(len(waiting))]
        try:
            self._store.metrics.write(points)
        except Exception as error:
            logger.warning("%d values of metrics could not be kept: %s", len(points), error)
            return
        for observer in list(self.observers):
            measured = getattr(observer, "measured", None)
            if measured is not None:
                try:
                    measured(points)
                except Exception:
                    logger.exception("An observer of the metrics failed; the run goes on.")

    def _write_logs(self) -> None:
        if not self._logs:
            return
        with self._logs_guard:
            lines = list(self._logs)
            self._logs.clear()
            lost, self._lost_lines = self._lost_lines, Counter()
        lines += [_of_lost_lines(count, *ids) for ids, count in lost.items()]
        if redaction.known:
            # Lines from other processes, which may not know what is secret here.
            lines = [replace(line, message=redaction.redact_known(line.message)) for line in lines]
        try:
            self._store.write_logs(lines)
        except Exception as error:
            logger.warning("%d log lines could not be kept: %s", len(lines), error)


def _of_lost_lines(count: int, flow_run_id: UUID | None, task_run_id: UUID | None) -> LogLine:
    lines = "line of this log was" if count == 1 else "lines of this log were"
    message = f"{count:,} {lines} dropped: more came than could be written."
    return LogLine(now_us(), logging.WARNING, logger.name, message, flow_run_id, task_run_id)
