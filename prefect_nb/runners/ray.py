"""Work on a Ray cluster: one we start on this machine, or one that runs."""

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any

from prefect_nb.engine.commands import Outcome
from prefect_nb.engine.task_run import describe
from prefect_nb.exceptions import ConfigurationError, MissingResult
from prefect_nb.runners.aside import ASIDE_BYTES
from prefect_nb.runners.cluster import GRACE_SECONDS, TRIES, ClusterRunner, Flight, Letter, Order, perform

FETCH_SECONDS = 300.0
_STARTS = 3
# A task run says second of all that it was taken up. That has to get home even if the worker dies right away, or nobody
# would know that it did.
_FIRST_WORDS = 2
# How long an outcome waits for letters that were sent before it.
_LETTER_SECONDS = 5.0

remote_options: ContextVar[dict[str, Any]] = ContextVar("prefect_nb_ray_options", default={})  # noqa: B039 - never changed
"""Options of Ray's for the calls that are started here."""


def ray_module() -> Any:
    """Ray, set up so that a cluster we start listens on the loopback address only and tells nobody about us."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    return ray


@contextlib.contextmanager
def _on_loopback(ray: Any) -> Any:
    # There is no option for it: Ray takes 127.0.0.1 for a wish to be reachable from elsewhere, but on systems where it
    # supports one machine only.
    constants: Any = sys.modules[f"{ray.__name__}._private.ray_constants"]
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


_lock = threading.Lock()
_users = 0
_is_ours = False
_post: "Post | None" = None


def connect(address: str | None, options: dict[str, Any]) -> "Post":
    """Have this process connected to Ray: to the cluster at an address, to the one it is connected to, or to a new one.

    Raises:
        ConfigurationError: Ray does not start, or nobody answers at the address.
    """
    global _users, _is_ours, _post
    ray = ray_module()
    with _lock:
        if not ray.is_initialized():
            _start(ray, address, options)
            _is_ours = True
        if _post is None:
            _post = Post(ray)
        _users += 1
        return _post


def _start(ray: Any, address: str | None, options: dict[str, Any]) -> None:
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # we handle them
    is_new = address is None and "address" not in options and "RAY_ADDRESS" not in os.environ
    try:
        if is_new:
            _start_here(ray, {"include_dashboard": False, "configure_logging": False, **options})
        else:
            ray.init(**({"address": address} if address is not None else {}), **options)
    except Exception as error:
        where = "could not be started on this machine" if is_new else f"does not answer at {address!r}"
        raise ConfigurationError(
            f"Ray {where}: {describe(error)}. Check the address, and that Ray runs there."
        ) from error


def _start_here(ray: Any, options: dict[str, Any]) -> None:
    with _on_loopback(ray):
        for left in reversed(range(_STARTS)):
            try:
                ray.init(**options)
            except Exception as error:
                # Ray gives its processes half a minute, which a busy machine may exceed.
                if "timed out" not in str(error) or not left:
                    raise
                ray.shutdown()
            else:
                return


def disconnect() -> None:
    """The counterpart of `connect`: when the last of ours goes, a connection that we made ends, and a cluster with it."""
    global _users, _is_ours, _post
    with _lock:
        _users -= 1
        if _users > 0:
            return
        if _post is not None:
            _post.close()
            _post = None
        if _is_ours:
            _is_ours = False
            ray_module().shutdown()


class Mailbox:
    """An actor that workers send letters to and the runner takes them from."""

    def __init__(self) -> None:
        self._letters: list[tuple[int, Letter]] = []
        self._is_closed = False
        self._news = asyncio.Event()

    async def put(self, letter: tuple[int, Letter]) -> None:
        """Send a letter, with its number in its attempt."""
        self._letters.append(letter)
        self._news.set()

    async def take(self) -> list[tuple[int, Letter]] | None:
        """The letters since the last time, when there are any; None after `close`."""
        await self._news.wait()
        self._news.clear()
        letters, self._letters = self._letters, []
        if letters or not self._is_closed:
            return letters
        self._news.set()
        return None

    async def close(self) -> None:
        """No more letters will come."""
        self._is_closed = True
        self._news.set()


class Post:
    """The letters of one connection, from workers to the runners of this process."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        # Beside this process: the workers' node may go, the letters stay.
        self.mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self.run = ray.remote(run)
        self.readers: dict[str, Callable[[Letter], None]] = {}
        """Who hears of a flight, by its id."""
        self._next: dict[str, int] = {}
        self._early: dict[str, dict[int, Letter]] = {}
        self._thread = threading.Thread(target=self._collect, name="prefect_nb-ray-letters", daemon=True)
        self._thread.start()

    def shares_files(self) -> bool:
        """Whether all workers are on this machine."""
        nodes = {node["NodeManagerAddress"] for node in self._ray.nodes() if node["Alive"]}
        return nodes <= {"127.0.0.1", "::1", self._ray.util.get_node_ip_address()}

    def close(self) -> None:
        """No more letters are wanted."""
        with contextlib.suppress(Exception):
            self.mailbox.close.remote()
            self._thread.join(GRACE_SECONDS)
            self._ray.kill(self.mailbox)

    def _collect(self) -> None:
        while True:
            try:
                letters = self._ray.get(self.mailbox.take.remote())
            except Exception:
                return
            if letters is None:
                return
            for number, letter in letters:
                self._in_order(number, letter)

    def _in_order(self, number: int, letter: Letter) -> None:
        """An actor takes letters in any order; readers get those of an attempt in the order of sending."""
        id, attempt, *_ = letter
        reader = self.readers.get(id)
        if reader is None:  # the flight is over
            self.forget([attempt])
            return
        early = self._early.setdefault(attempt, {})
        early[number] = letter
        awaited = self._next.get(attempt, 1)
        while awaited in early:
            reader(early.pop(awaited))
            awaited += 1
        self._next[attempt] = awaited

    def forget(self, attempts: Iterable[str]) -> None:
        """These attempts are over."""
        for attempt in attempts:
            self._early.pop(attempt, None)
            self._next.pop(attempt, None)


class RayRunner(ClusterRunner):
    """A `Runner` on the Ray cluster this process is connected to.

    Args:
        post: the connection.
        release: called at the end.
    """

    name = "ray"

    def __init__(self, post: Post, release: Callable[[], None] = lambda: None) -> None:
        super().__init__(post.shares_files())
        self._ray = ray_module()
        self._post = post
        self._release_cluster = release
        self._shared: dict[str, Any] = {}
        self._sharing = threading.Lock()
        self._late: dict[str, tuple[Flight, Any, float]] = {}

    def _send(self, flight: Flight, data: bytes, places: list[Any]) -> None:
        call: Any = data if len(data) <= ASIDE_BYTES else self._ray.put(data)
        options = {"max_retries": TRIES - 1, "name": "prefect_nb", **remote_options.get(), "num_returns": 2}
        self._post.readers[flight.id] = lambda letter: self._news.put(partial(self._hear, letter))
        order = flight.order(self.paths)
        flight.ticket = refs = self._post.run.options(**options).remote(call, order, self._post.mailbox, *places)
        refs[0].future().add_done_callback(lambda head: self._news.put(partial(self._arrived, flight, refs, head)))
        if flight.stopped:
            self._ray.cancel(refs[0])

    def put(self, data: bytes) -> Any:
        """Put bytes into the object store, once for each content as long as the runner is open."""
        import xxhash

        digest = xxhash.xxh3_128_hexdigest(data)
        with self._sharing:
            if digest not in self._shared:
                self._shared[digest] = self._ray.put(data)
            return self._shared[digest]

    def fetch(self, place: Any) -> bytes:
        """Get an object.

        Raises:
            MissingResult: it is gone.
        """
        try:
            data: bytes = self._ray.get(place, timeout=FETCH_SECONDS)
        except Exception as error:
            raise MissingResult(f"{type(error).__name__}: {error}") from error
        return data

    # What comes back

    def _hear(self, letter: Letter) -> None:
        super()._hear(letter)
        late = self._late.get(letter[0])
        if late is not None:
            flight, head, _ = late
            if self._has_all_letters(flight, head):
                self._settle(flight, head)

    def _arrived(self, flight: Flight, refs: Any, head: Any) -> None:
        """A call is done, on the listening thread; its letters may be still on their way."""
        if refs is not flight.ticket:
            return
        error = head.exception()
        if error is not None:
            self._failed(flight, error)
        elif self._has_all_letters(flight, head.result()):
            self._settle(flight, head.result())
        else:
            self._late[flight.id] = (flight, head.result(), time.monotonic() + _LETTER_SECONDS)

    @staticmethod
    def _has_all_letters(flight: Flight, head: Any) -> bool:
        attempt, count, _ = head
        return bool(flight.attempt == attempt and flight.letters >= count)

    def _tick(self) -> None:
        for flight, head, until in list(self._late.values()):
            if time.monotonic() > until:
                self._settle(flight, head)

    def _settle(self, flight: Flight, head: Any) -> None:
        self._late.pop(flight.id, None)
        _, _, outcome = head
        if outcome is None:
            self._stayed(flight, flight.ticket[1])
        else:
            self._end(flight, outcome)

    def _end(self, flight: Flight, outcome: Outcome | bytes) -> None:
        self._post.readers.pop(flight.id, None)
        self._post.forget([*flight.former, flight.attempt] if flight.attempt is not None else [])
        super()._end(flight, outcome)

    def _failed(self, flight: Flight, error: BaseException) -> None:
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.TaskCancelledError):
            self._crashed(flight, "The call was cancelled.")
        elif isinstance(error, exceptions.WorkerCrashedError | exceptions.NodeDiedError | exceptions.OutOfMemoryError):
            self._crashed(flight, f"The worker process died while it ran this call, {TRIES} times: {error}")
        elif isinstance(error, exceptions.ObjectLostError | exceptions.ObjectFetchTimedOutError):
            self._shared.clear()
            self._again(flight, f"A value this call needs was lost with its worker: {error}")
        else:
            self._crashed(flight, f"The call could not be made on the cluster: {type(error).__name__}: {error}")

    # The end

    def _stop(self, flights: list[Flight]) -> None:
        for force, seconds in ((False, GRACE_SECONDS), (True, GRACE_SECONDS)):
            for flight in self._ended(flights, 0):
                if flight.ticket is not None:
                    with contextlib.suppress(Exception):
                        self._ray.cancel(flight.ticket[0], force=force)
            if not self._ended(flights, seconds):
                return
        for flight in self._ended(flights, 0):
            self._crashed(flight, "The call was cancelled; its worker does not answer.")

    def _release(self) -> None:
        self._shared.clear()
        self._release_cluster()


# On a worker


def run(call: bytes, order: Order, mailbox: Any, *held: bytes) -> tuple[tuple[str, int, bytes | None], bytes | None]:
    """The task of Ray's that makes one call.

    Returns:
        The attempt, how many letters it sent and its outcome; and the outcome again, where it stays in the cluster.
    """
    count = 0

    def send(letter: Letter) -> None:
        nonlocal count
        count += 1
        sent = mailbox.put.remote((count, letter))
        if count == _FIRST_WORDS:
            ray_module().get(sent)

    attempt, outcome, stays = perform(call, held, order, send)
    return ((attempt, count, None), outcome) if stays else ((attempt, count, outcome), None)
