"""What the task runs of one flow run share: identity, counters, the pool, the wish to stop."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from prefect_nb.exceptions import RunCancelled
from prefect_nb.execution.timeouts import raise_in_thread
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import State

if TYPE_CHECKING:
    from prefect_nb.exceptions import StopFlow
    from prefect_nb.execution.again import Again
    from prefect_nb.execution.futures import PrefectFuture
    from prefect_nb.interfaces import Request, Runner

DEEPEST = 64
_TRACKED_VALUES = 512
_UNTRACKED = frozenset({type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented)})


class KnownPath(Protocol):
    """What the code of a resumed run called before."""

    def called(self, execution: Any, found: TaskRun | None) -> None:
        """The flow calls a task; `found` is the run of the same task and position from before."""
        ...


class Scope:
    """A flow run, or the notebook run this kernel belongs to, as its task runs see it.

    Raises:
        RecursionError: 64 flow runs enclose one another already.
    """

    entered_us = 0
    """Since when this process executes it: what was requested before is not meant for this attempt."""
    pauses = 0
    """How many pauses this attempt has come to."""
    wanted: Request | None = None
    """To be paused or suspended, as somebody asked from outside; not carried out yet."""

    def __init__(
        self,
        flow_run_id: UUID,
        *,
        durable: bool = False,
        persist: bool | None = None,
        make_runner: Callable[[], Runner],
        parent: Scope | None = None,
        shared: bool = False,
        depth: int = 0,
    ) -> None:
        self.flow_run_id = flow_run_id
        self.durable = durable
        self.persist = persist
        self.shared = shared
        """Whether another process owns the flow run, and this one only adds task runs to it."""
        self.parent = parent
        self.depth: int = depth + 1 if parent is None else parent.depth + 1
        """How many flow runs enclose one another, this one included."""
        if self.depth > DEEPEST:
            raise RecursionError(f"Flow runs enclose one another {DEEPEST} deep; here one more begins.")
        self.across_runs: bool = parent is not None and parent.across_runs
        """Whether tasks with the default cache policy reuse results of other flow runs, too."""
        self.result_storage: Any = None if parent is None else parent.result_storage
        self.result_serializer: Any = None if parent is None else parent.result_serializer
        self.parameters: dict[str, Any] = {}
        """The flow's parameters, for cache policies that read them."""
        self.stop_reason: str | None = None
        self.stopped_by_keyboard = False
        self.early: StopFlow | None = None
        """`flow.stop` was called: the flow run ends well, before its code does."""
        self.lock = threading.RLock()
        self.futures: set[PrefectFuture[Any]] = set()
        self.direct: set[Any] = set()  # task runs that were called, and not submitted
        self.previous: dict[tuple[str, str], TaskRun] = {}
        """On a resume: this flow run's task runs from before, by task key and dynamic key."""
        self.finished_flows: dict[tuple[str, str], State[Any]] = {}
        """Completed sub-flow runs whose results were kept, by the same keys: a retry does not run them again."""
        self.again: Again | None = parent.again if parent is not None else None
        """On a retry or repair: what may not be taken over from before."""
        self.path: KnownPath | None = None
        """On a resume of a durable run: what its code called before."""
        self.on_linger: Callable[[], None] | None = None
        """Says of the flow run that it has not ended although it was to."""
        self.on_wish: Callable[[Request], None] | None = None
        """Pauses or suspends the flow run, as somebody asked from outside."""
        self.threads: set[int] = set()
        # Locks of their own: workers and the submitting thread would otherwise stand in each other's way.
        self._threads_lock = threading.Lock()
        self._counters_lock = threading.Lock()
        self.stoppers: set[Callable[[], None]] = set()
        self.signalled = False
        self.closed = False
        self._make_runner = make_runner
        self._runner: Runner | None = None
        self._counters: dict[tuple[UUID | None, str], int] = {}
        self._values = _TrackedValues()
        self.flows: set[UUID] = set()
        """The sub-flow runs among those that values are remembered to come from."""
        if parent is not None:
            parent.stoppers.add(self._stop_with_parent)

    @property
    def root(self) -> Scope:
        """The outermost enclosing scope of this process."""
        return self if self.parent is None else self.parent.root

    def _stop_with_parent(self) -> None:
        self.stop(self.parent.reason if self.parent is not None else "Run cancelled.")

    @property
    def stopping(self) -> bool:
        """Whether the run is being cancelled."""
        return self.stop_reason is not None or (self.parent is not None and self.parent.stopping)

    @property
    def reason(self) -> str:
        """Why it is being cancelled."""
        return self.stop_reason or (self.parent.reason if self.parent is not None else "") or "Run cancelled."

    @property
    def runner(self) -> Runner:
        """The runner of submitted tasks; made on first use."""
        if self._runner is None:
            with self.lock:
                if self._runner is None:
                    self._runner = self._make_runner()
        return self._runner

    def stop(self, reason: str, *, keyboard: bool = False) -> None:
        """Cancel: what has not started will not, what runs is interrupted."""
        self.stop_reason = self.stop_reason or reason
        self.stopped_by_keyboard = self.stopped_by_keyboard or keyboard
        with self._threads_lock:
            for ident in self.threads:
                raise_in_thread(ident, RunCancelled)
        for stopper in list(self.stoppers):
            stopper()
        kill = getattr(self._runner, "kill", None)
        if kill is not None:
            kill()

    @contextmanager
    def stoppable_thread(self) -> Iterator[None]:
        """Around a body on a thread of the pool: `stop` raises in it, and not in what the thread does afterwards."""
        ident = threading.get_ident()
        with self._threads_lock:
            self.threads.add(ident)
        try:
            yield
        finally:
            with self._threads_lock:
                self.threads.discard(ident)

    def begin_again(self) -> None:
        """Before another attempt: its calls get the positions that those of the first had."""
        with self._counters_lock:
            self._counters.clear()
            self.pauses = 0
        self.path = None
        self.early = None

    def position(self, parent: TaskRun | None, task_key: str) -> str:
        """The dynamic key of the next call of a task: how many came before, under the same parent.

        The same calls in the same order get the same keys, so a resumed run finds what it has done already.
        """
        key = (parent.id if parent is not None else None, task_key)
        with self._counters_lock:
            number = self._counters.get(key, 0)
            self._counters[key] = number + 1
        return str(number) if parent is None else f"{parent.dynamic_key}.{parent.task_key[-8:]}.{number}"

    def wish(self, request: Request) -> None:
        """Have `on_wish` called before the next task run or sub-flow run that the flow itself calls."""

        def position(parent: TaskRun | None, task_key: str) -> str:
            if parent is None:
                wanted = self.take_wish()
                if wanted is not None and self.on_wish is not None:
                    self.on_wish(wanted)
            return Scope.position(self, parent, task_key)

        self.wanted = request
        # In place of the method, so that task runs nobody wants to hold up need not look.
        self.position = position  # type: ignore[method-assign]

    def take_wish(self) -> Request | None:
        """The wish that has not been carried out yet, for the caller to do so, or to drop it."""
        self.__dict__.pop("position", None)
        request, self.wanted = self.wanted, None
        return request

    def track(self, value: Any, task_run_id: UUID) -> None:
        """Remember which task run a value came from."""
        if type(value) not in _UNTRACKED:
            self._values.add(value, task_run_id)

    def track_flow(self, value: Any, flow_run_id: UUID) -> None:
        """Remember which sub-flow run a value came from."""
        self.flows.add(flow_run_id)
        self.track(value, flow_run_id)

    @property
    def tracks(self) -> bool:
        """Whether any value is remembered."""
        return bool(self._values)

    def source_of(self, value: Any) -> UUID | None:
        """The task run that this very object came from, if it is remembered."""
        if type(value) in _UNTRACKED:
            return None
        return self._values.get(value)

    def close(self) -> None:
        """The run has ended."""
        self.closed = True
        if self.parent is not None:
            self.parent.stoppers.discard(self._stop_with_parent)
        if self._runner is not None:
            self._runner.close(wait=False)


class DetachedScope(Scope):
    """For tasks submitted outside any flow run: it lends them a runner, and nothing else of a flow run."""

    def __init__(self, make_runner: Callable[[], Runner]) -> None:
        super().__init__(UUID(int=0), make_runner=make_runner, shared=True)
        self.flow_run_id = None  # type: ignore[assignment]

    def track(self, value: Any, task_run_id: UUID) -> None:
        """Nothing is remembered: there is no end at which to forget it."""


class _TrackedValues:
    """Object identity -> task run, for the newest values, keeping alive only what cannot be referred to weakly."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[Any, UUID]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, value: Any, task_run_id: UUID) -> None:
        try:
            holder: Any = weakref.ref(value)
        except TypeError:
            holder = _Strong(value)
        with self._lock:
            self._known[id(value)] = (holder, task_run_id)
            if len(self._known) > _TRACKED_VALUES:
                self._known.popitem(last=False)

    def get(self, value: Any) -> UUID | None:
        known = self._known.get(id(value))
        if known is None:
            return None
        holder, task_run_id = known
        return task_run_id if holder() is value else None


class _Strong:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value
