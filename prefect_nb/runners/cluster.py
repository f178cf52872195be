"""What the runners on clusters have in common: works on their way, the letters of those that run, their outcomes."""

import contextlib
import logging
import pickle
import queue
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from prefect_nb.engine.commands import Interrupted, Outcome, Raised, Returned
from prefect_nb.exceptions import CrashedRun, SerializationError
from prefect_nb.interfaces import Emit, Work
from prefect_nb.model.states import State
from prefect_nb.runners import aside
from prefect_nb.runners.carry import answer, pickle_work, unpickle_outcome
from prefect_nb.runners.threads import ThreadRunner

logger = logging.getLogger(__name__)

TRIES = 4
"""How often a work is begun at most, where each time the worker is lost that runs it."""
GRACE_SECONDS = 2.0
"""How long a work that is told to stop may take before it is ended by force."""
_TICK_SECONDS = 0.5

BEGUN, LINE, STAYS = b"B", b"L", b"S"
Letter = tuple[str, str, bytes, bytes]
"""From a worker: the flight's id, the attempt's, what it is, and what it says."""


class Order(msgspec.Struct, frozen=True):
    """What a worker has to know of a work beside the work itself."""

    id: str
    paths: list[str]
    """Where modules are found that this process can import."""
    may_stay: bool
    """Whether a large value may stay in the cluster."""


def perform(
    data: bytes,
    held: Sequence[bytes],
    order: Order,
    send: Callable[[Letter], None],
    around: Callable[[Any], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> tuple[str, bytes, bool]:
    """On a worker: one attempt at a work. Its id, the outcome as bytes, and whether that stays in the cluster.

    Args:
        data: the work.
        held: the values put aside for it.
        order: what to know of it.
        send: how letters get home; they arrive there in order.
        around: entered with the work while it is called.
    """
    attempt = uuid.uuid4().hex
    send((order.id, attempt, BEGUN, b""))
    sys.path.extend(path for path in order.paths if path not in sys.path)

    def emit(line: Any) -> None:
        send((order.id, attempt, LINE, pickle.dumps(line)))

    outcome, result = answer(data, emit, held, around)
    stays = (
        order.may_stay
        and len(result) > aside.HELD_BYTES
        and type(outcome) is Returned
        and not isinstance(outcome.value, State)  # the engine has to see it
    )
    if stays:
        send((order.id, attempt, STAYS, b""))
    return attempt, result, stays


class Flight:
    """One work, from `start` to its outcome."""

    __slots__ = ("attempt", "done", "emit", "former", "id", "letters", "stays", "stopped", "ticket", "tries", "work")

    def __init__(self, work: Work, done: Callable[[Outcome], None], emit: Emit) -> None:
        self.id = uuid.uuid4().hex
        self.work = work
        self.done = done
        self.emit = emit
        self.ticket: Any = None
        """What the cluster gave for it."""
        self.attempt: str | None = None
        """The attempt that counts; None until the first has begun."""
        self.former: set[str] = set()
        self.letters = 0
        self.stays = False
        """Whether the attempt's value stays in the cluster."""
        self.tries = 1
        self.stopped = False

    def order(self, paths: list[str]) -> Order:
        """What a worker has to know of it."""
        return Order(self.id, paths, may_stay=not getattr(self.work, "comes_home", False))


class ClusterRunner:
    """A `Runner` on the workers of a cluster.

    What a lost worker was at is begun again elsewhere, and only the newest attempt is heard. Subclasses say how work
    gets there (`_send`), how it is stopped (`_stop`), how values are kept there (`put`, `fetch`) and what to give back
    at the end (`_release`).

    Args:
        shares_files: whether the workers are on this machine.
    """

    name = "cluster"
    remote = True

    def __init__(self, shares_files: bool) -> None:
        self.shares_files = shares_files
        self.paths = list(sys.path) if shares_files else []
        self._flights: dict[str, Flight] = {}
        self._held: weakref.WeakSet[aside.Held] = weakref.WeakSet()
        self._news: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._changed = threading.Condition(threading.RLock())
        self._closed = self._released = False
        # One thread hears the workers; others hand outcomes back, as what comes of one may wait for the next.
        self._hands = ThreadRunner(thread_name=f"prefect_nb-{self.name}-outcome")
        self._ear = threading.Thread(target=self._listen, name=f"prefect_nb-{self.name}", daemon=True)
        self._ear.start()

    # The port

    def start(self, work: Work, done: Callable[[Outcome], None], emit: Emit) -> None:
        """Call `work` on a worker as soon as there is room, then `done(outcome)` on a thread of this process.

        Raises:
            RuntimeError: the runner is closed.
        """
        flight = Flight(work, done, emit)
        with self._changed:
            if self._closed:
                raise RuntimeError("This runner is closed; open another one for more work.")
            self._flights[flight.id] = flight
        self._launch(flight)

    def close(self, wait: bool = True) -> None:
        """Take no more work; with `wait`, until what was started is done. Then let go of the cluster.

        Without, it lets go at once if nothing is on its way, else when the last outcome has come.
        """
        with self._changed:
            self._closed = True
            if wait:
                self._changed.wait_for(lambda: not self._flights)
            elif self._flights:
                threading.Thread(target=self.close, name=f"prefect_nb-{self.name}-close", daemon=True).start()
                return
        self._hands.close(wait)
        self._let_go()

    def stop(self, work: Work) -> None:
        """Stop this work, as `kill` stops every one. Returns at once."""
        self._kill([flight for flight in list(self._flights.values()) if flight.work is work])

    def kill(self) -> None:
        """Stop every work: what has not begun will not, what runs is interrupted. Returns at once."""
        self._kill(list(self._flights.values()))

    def _kill(self, flights: list[Flight]) -> None:
        for flight in flights:
            flight.stopped = True
        if flights:
            threading.Thread(
                target=self._stop, args=(flights,), name=f"prefect_nb-{self.name}-stop", daemon=True
            ).start()

    # What a cluster does

    def _send(self, flight: Flight, data: bytes, places: list[Any]) -> None:
        """Give a packed work to the cluster; `_end`, `_stayed`, `_again` or `_crashed` is called for it later."""
        raise NotImplementedError

    def _stop(self, flights: list[Flight]) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError

    def put(self, data: bytes) -> Any:
        """Keep bytes in the cluster; the same bytes are kept once. Returns their place."""
        raise NotImplementedError

    def fetch(self, place: Any) -> bytes:
        """The bytes at a place."""
        raise NotImplementedError

    # What comes of it

    def _launch(self, flight: Flight) -> None:
        try:
            data, places = aside.pack(flight.work, self, pickle_work)
            self._send(flight, data, places)
        except SerializationError as error:
            self._end(flight, Raised(error))
        except Exception as error:
            self._crashed(flight, f"The {self.name} cluster did not take this call: {error}")

    def _again(self, flight: Flight, why: str) -> None:
        """Send a work once more, unless that has been tried often enough."""
        if flight.stopped or flight.tries >= TRIES:
            self._crashed(flight, why)
        else:
            flight.tries += 1
            self._launch(flight)

    def _hear(self, letter: Letter) -> None:
        """A letter from a worker, on the listening thread."""
        id, attempt, kind, text = letter
        flight = self._flights.get(id)
        if flight is None or attempt in flight.former:
            return
        if attempt != flight.attempt:
            if flight.attempt is not None:
                flight.former.add(flight.attempt)
            flight.attempt, flight.letters, flight.stays = attempt, 0, False
        flight.letters += 1
        if kind == STAYS:
            flight.stays = True
        elif kind == LINE:
            try:
                flight.emit(pickle.loads(text))
            except Exception:
                logger.exception("A log line from a worker could not be kept")

    def _stayed(self, flight: Flight, place: Any) -> None:
        """A work has returned a value that has stayed in the cluster."""
        held = aside.Held(self, place, _value_of)
        with self._changed:
            self._held.add(held)
        self._end(flight, Returned(held))

    def _crashed(self, flight: Flight, message: str) -> None:
        """The cluster has no outcome for it."""
        self._end(flight, Interrupted(CrashedRun(message), message))

    def _end(self, flight: Flight, outcome: Outcome | bytes) -> None:
        """Hand an outcome back; the first counts."""
        with self._changed:
            if self._flights.pop(flight.id, None) is None:
                return
            self._hands.start(
                lambda _: unpickle_outcome(outcome) if isinstance(outcome, bytes) else outcome,
                flight.done,
                flight.emit,
            )
            self._changed.notify_all()

    def _ended(self, flights: list[Flight], seconds: float) -> list[Flight]:
        """Those that have not ended so many seconds from now."""

        def left() -> list[Flight]:
            return [flight for flight in flights if flight.id in self._flights]

        with self._changed:
            self._changed.wait_for(lambda: not left(), seconds)
            return left()

    def _listen(self) -> None:
        while True:
            try:
                news = self._news.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                self._tick()
                continue
            if news is None:
                return
            try:
                news()
            except Exception:
                logger.exception("News of the %s cluster could not be taken in", self.name)

    def _tick(self) -> None:
        """Called now and then while nothing comes."""

    def _let_go(self) -> None:
        with self._changed:
            if self._released:
                return
            self._released = True
            held = list(self._held)
        for value in held:  # somebody may still ask for it, and there will be no cluster then
            value.come_home()
        self._news.put(None)
        try:
            self._release()
        except Exception:
            logger.exception("The %s cluster was not closed in good order", self.name)


def _value_of(data: bytes) -> Any:
    outcome = unpickle_outcome(data)
    if isinstance(outcome, Returned):
        return outcome.value
    raise getattr(outcome, "error", None) or RuntimeError("it is no value any more")
