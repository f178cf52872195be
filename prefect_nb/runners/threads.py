"""A pool of threads, small and quick, that lets its threads wait for each other's work."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from prefect_nb.engine.commands import Outcome
from prefect_nb.interfaces import Emit, Work
from prefect_nb.runners.carry import call

logger = logging.getLogger(__name__)

DEFAULT_MAX_WORKERS = 250
# Short work is done sooner by few threads, which need not fight over the interpreter; so a pool in which these are at
# work puts more to it only where its line has stood still.
_FEW_THREADS = 4
_PATIENCE_SECONDS = 0.001

Job = tuple[Work, Callable[[Outcome], None], Emit]


class ThreadRunner:
    """A `Runner` on threads of this process.

    Threads are made when there is work for them, used again, and end when idle; they are daemons, so none keeps the
    interpreter alive. Work that finds no free place waits in line and starts in order.

    Args:
        max_workers: how much work runs at once; None: 250.
        idle_seconds: how long a thread without work stays.
        thread_name: threads are named `<thread_name>-<n>`.
    """

    name = "threads"
    remote = False

    def __init__(
        self, max_workers: int | None = None, idle_seconds: float = 10.0, thread_name: str = "prefect_nb"
    ) -> None:
        self.max_workers = DEFAULT_MAX_WORKERS if max_workers is None else max_workers
        if self.max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        self._idle_seconds = idle_seconds
        self._thread_name = thread_name
        self._lock = threading.Lock()
        self._line: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._threads: set[threading.Thread] = set()
        self._active = 0
        self._made = 0
        self._closed = False
        self._watched = False
        self._blocked_here = threading.local()

    def start(self, work: Work, done: Callable[[Outcome], None], emit: Emit) -> None:
        """Call `work` on a thread as soon as there is room, then `done(outcome)` there.

        Raises:
            RuntimeError: the runner is closed, or the system gives it not even one thread.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("This runner is closed; open another one for more work.")
            self._line.append((work, done, emit))
            try:
                self._start_waiting()
            except RuntimeError:
                self._line.pop()
                raise

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Around a wait for other work of this pool: meanwhile the waiting thread does not count against `max_workers`.

        On any other thread it changes nothing.
        """
        if getattr(self._blocked_here, "is_free", True):
            yield
            return
        self._blocked_here.is_free = True
        with self._lock:
            self._active -= 1
            self._start_waiting(eager=True)
        try:
            yield
        finally:
            with self._lock:
                self._active += 1
            self._blocked_here.is_free = False

    def close(self, wait: bool = True) -> None:
        """Take no more work; what was started, in line or not, still runs. With `wait`, until it is done."""
        with self._lock:
            self._closed = True
            for worker in self._idle:
                worker.hand(None)
            self._idle.clear()
        while wait and (threads := self._other_threads()):
            for thread in threads:
                thread.join()

    def _other_threads(self) -> set[threading.Thread]:
        with self._lock:
            return self._threads - {threading.current_thread()}

    def _start_waiting(self, eager: bool = False) -> None:
        """Give the work in line to threads, as far as there is room. The lock is held."""
        while self._line and self._active < self.max_workers:
            if not eager and self._active >= _FEW_THREADS:
                self._watch_line()
                return
            if self._idle:
                self._idle.pop().hand(self._line.popleft())
            elif not self._start_thread(self._line[0]):
                return
            else:
                self._line.popleft()
            self._active += 1

    def _watch_line(self) -> None:
        if self._watched:
            return
        with contextlib.suppress(RuntimeError):  # no more threads to be had: those there are come to the line in time
            threading.Thread(target=self._watch, name=f"{self._thread_name}-watch", daemon=True).start()
            self._watched = True

    def _watch(self) -> None:
        """Make more threads once the line does not move: what runs takes long, or waits for something."""
        head: Job | None = None
        while True:
            time.sleep(_PATIENCE_SECONDS)
            with self._lock:
                if not self._line or self._active >= self.max_workers:
                    self._watched = False
                    return
                if self._line[0] is head:
                    self._start_waiting(eager=True)
                else:
                    head = self._line[0]

    def _start_thread(self, job: Job) -> bool:
        """False where the system gives no more threads: then those there are come to the job in time."""
        self._made += 1
        thread = threading.Thread(
            target=self._live, args=(_Worker(job),), name=f"{self._thread_name}-{self._made}", daemon=True
        )
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.discard(thread)
            if not self._threads:
                raise
            return False
        return True

    def _live(self, worker: "_Worker") -> None:
        """A thread's life: jobs until there is none for a while, or no more to come."""
        self._blocked_here.is_free = False
        while worker.job is not None:
            _perform(*worker.job)
            worker.job = None
            if not self._take_from_line(worker):
                self._wait_in_idleness(worker)
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _take_from_line(self, worker: "_Worker") -> bool:
        """False where there is nothing to take: the worker is idle now, or without a job if the runner is closed."""
        with self._lock:
            self._active -= 1
            if self._line and self._active < self.max_workers:
                self._active += 1
                worker.job = self._line.popleft()
                return True
            if self._closed:
                worker.wake.release()
            else:
                self._idle.append(worker)
            return False

    def _wait_in_idleness(self, worker: "_Worker") -> None:
        """Until a job is in the worker's hand, or None for the end."""
        if not worker.wake.acquire(timeout=self._idle_seconds):
            with self._lock:
                if worker in self._idle:
                    self._idle.remove(worker)
                    return
            worker.wake.acquire()  # it was handed something just now


class _Worker:
    """One thread's hand: the job it holds, and what wakes it."""

    __slots__ = ("job", "wake")

    def __init__(self, job: Job) -> None:
        self.job: Job | None = job
        self.wake = threading.Lock()
        self.wake.acquire()

    def hand(self, job: Job | None) -> None:
        self.job = job
        self.wake.release()


def _perform(work: Work, done: Callable[[Outcome], None], emit: Emit) -> None:
    outcome = call(work, emit)
    try:
        done(outcome)
    except BaseException:
        logger.exception("A run's outcome could not be handed back")
