"""Work on a Dask cluster: one we start on this machine, one at an address, or any cluster object of Dask's."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dask
import distributed

from prefect_nb.exceptions import ConfigurationError, MissingResult
from prefect_nb.interfaces import Work
from prefect_nb.runners.aside import ASIDE_BYTES
from prefect_nb.runners.cluster import GRACE_SECONDS, ClusterRunner, Flight, Letter, Order, perform

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
FETCH_SECONDS = 300.0
_BATCH = 64
# Dask warns of more in one message to the scheduler.
_SCATTERED_BYTES = 8 * 1024 * 1024
_CUT_OFF = "The connection to the Dask scheduler was lost."

# No pages for anybody, and only as much of old letters as Dask insists on.
_QUIET = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.admin.low-level-log-length": 100,
}


def local_cluster(**options: Any) -> Any:
    """A cluster on this machine that listens on the loopback address only: as a rule one process a core.

    Raises:
        ConfigurationError: it did not start.
    """
    if not {"n_workers", "threads_per_worker", "processes"} & options.keys():
        options["threads_per_worker"] = 1
    options = {"host": "127.0.0.1", "dashboard_address": None, "silence_logs": logging.CRITICAL, **options}
    if options["dashboard_address"] is None:
        # Even without a dashboard Dask opens its port: let it be one that is free.
        options["scheduler_kwargs"] = {"dashboard_address": "127.0.0.1:0", **options.get("scheduler_kwargs", {})}
    with dask.config.set(_QUIET):
        return start_cluster(distributed.LocalCluster, options)


def start_cluster(cluster_class: Callable[..., Any], options: dict[str, Any]) -> Any:
    """A cluster made by a class or function.

    Raises:
        ConfigurationError: it did not start.
    """
    try:
        return cluster_class(**options)
    except RuntimeError as error:
        raise ConfigurationError(
            f"The Dask cluster did not start: {error}. In a script, call the flow below "
            '`if __name__ == "__main__":`, as Dask\'s worker processes import the script.'
        ) from error


def connect(target: Any, options: dict[str, Any]) -> distributed.Client:
    """A client of the scheduler at an address, or of a cluster object.

    Raises:
        ConfigurationError: nobody answers there.
    """
    options = {"timeout": CONNECT_SECONDS, "set_as_default": False, **options}
    try:
        return distributed.Client(target, **options)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigurationError(
            f"No Dask scheduler answers at {target!r} within {options['timeout']} seconds: {error}. "
            "Check the address, and that the scheduler runs."
        ) from error


def begin_report(client: distributed.Client, path: str | None) -> Any:
    """Begin Dask's own report of what happens on the cluster; None for none."""
    if path is None:
        return None
    report = distributed.performance_report(filename=path)
    with client.as_current():
        report.__enter__()
    return report


def release(client: distributed.Client, report: Any, cluster: Any, hard: bool) -> None:
    """Close what was opened for a runner: the report, the connection, and the cluster if it is ours.

    Args:
        client: the connection.
        report: what `begin_report` returned.
        cluster: the cluster, or None for one that goes on.
        hard: whether calls that did not stop are left on its workers.
    """
    if report is not None:
        with client.as_current():
            report.__exit__(None, None, None)
    client.close()
    if cluster is not None:
        if hard:
            _kill_workers(cluster)
        close_cluster(cluster)


def close_cluster(cluster: Any) -> None:
    """End a cluster that we started."""
    cluster.close()


def _kill_workers(cluster: Any) -> None:
    """End the processes of a local cluster, which would wait for their calls otherwise."""
    for worker in dict(getattr(cluster, "workers", {})).values():
        pid = getattr(worker, "pid", None)
        if isinstance(worker, distributed.Nanny) and pid is not None:
            worker.auto_restart = False
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


class DaskRunner(ClusterRunner):
    """A `Runner` on a Dask cluster.

    Args:
        client: a connection to it.
        shares_files: whether the workers are on this machine.
        release: called at the end; with True where calls that did not stop are left on workers.
    """

    name = "dask"

    def __init__(
        self, client: distributed.Client, shares_files: bool, release: Callable[[bool], None] = lambda _: None
    ) -> None:
        super().__init__(shares_files)
        self.client = client
        self._release_cluster = release
        self._topic = f"prefect_nb-{uuid.uuid4().hex}"
        self._come: list[Flight] = []
        self._shared: dict[str, Any] = {}
        self._sharing = threading.Lock()
        self._left_behind = False
        client.subscribe_topic(self._topic, lambda event: self._news.put(partial(self._hear, event[1])))

    def _send(self, flight: Flight, data: bytes, places: list[Any]) -> None:
        call: Any = data if len(data) <= ASIDE_BYTES else self._placed(data)
        flight.ticket = future = self.client.submit(
            run,
            call,
            places,
            flight.order(self.paths),
            self._topic,
            key=f"prefect_nb-{flight.id}-{flight.tries}",
            pure=False,
        )
        future.add_done_callback(lambda future: self._news.put(partial(self._arrived, flight, future)))
        if flight.stopped:
            self.client.cancel([future], force=True)

    def put(self, data: bytes) -> Any:
        """Keep bytes on a worker, once for each content as long as the runner is open."""
        import xxhash

        digest = xxhash.xxh3_128_hexdigest(data)
        with self._sharing:
            known = self._shared.get(digest)
            if known is None or known.status in ("lost", "cancelled", "error"):
                known = self._shared[digest] = self._placed(data)
            return known

    def _placed(self, data: bytes) -> Any:
        """A future of bytes. Unless they are many, the scheduler has them too, and they survive the worker's death."""
        if len(data) > _SCATTERED_BYTES:
            with contextlib.suppress(TimeoutError):  # there are no workers yet
                return self.client.scatter(data, hash=False)
        parts = [
            self.client.submit(_itself, data[start : start + _SCATTERED_BYTES], pure=False)
            for start in range(0, len(data), _SCATTERED_BYTES)
        ]
        return parts[0] if len(parts) == 1 else self.client.submit(_joined, parts, pure=False)

    def fetch(self, place: Any) -> bytes:
        """Gather what a future stands for.

        Raises:
            MissingResult: it is gone.
        """
        try:
            data: bytes = place.result(timeout=FETCH_SECONDS)
        except Exception as error:
            raise MissingResult(f"{type(error).__name__}: {error}") from error
        return data

    # What comes back

    def _arrived(self, flight: Flight, future: Any) -> None:
        """A future is done, on the listening thread, after all the letters of its work."""
        if future is not flight.ticket:
            return
        if future.status == "finished":
            if flight.stays:
                self._stayed(flight, future)
            else:
                self._come.append(flight)
                if len(self._come) >= _BATCH:
                    self._gather()
        elif future.status == "error":
            self._failed(flight, future.exception())
        else:
            self._again(flight, "The call was cancelled by the cluster, or its workers or scheduler were lost.")
        if self._come and self._news.empty():
            self._gather()

    def _tick(self) -> None:
        if self._is_cut_off():  # and then nobody is called back
            for flight in list(self._flights.values()):
                self._crashed(flight, _CUT_OFF)
        elif self._come:
            self._gather()

    def _is_cut_off(self) -> bool:
        return self.client.status in ("closing", "closed")

    def _again(self, flight: Flight, why: str) -> None:
        if self._is_cut_off():
            self._crashed(flight, _CUT_OFF)
        else:
            super()._again(flight, why)

    def _gather(self) -> None:
        come, self._come = self._come, []
        asyncio.run_coroutine_threadsafe(self._gather_all(come), self.client.loop.asyncio_loop)

    async def _gather_all(self, flights: list[Flight]) -> None:
        try:
            outcomes = await self.client.gather([flight.ticket for flight in flights], asynchronous=True)
        except Exception:
            for flight in flights:
                try:
                    self._end(flight, await flight.ticket)
                except Exception as error:
                    self._failed(flight, error)
            return
        for flight, outcome in zip(flights, outcomes, strict=True):
            self._end(flight, outcome)

    def _failed(self, flight: Flight, error: Any) -> None:
        if isinstance(error, distributed.scheduler.KilledWorker):
            self._crashed(
                flight, f"The worker process died while it ran this call, on each of several workers: {error}"
            )
        elif isinstance(error, distributed.client.FutureCancelledError | asyncio.CancelledError):
            self._again(flight, f"The call was lost with its workers: {error}")
        else:
            self._crashed(flight, f"The call could not be made on the cluster: {type(error).__name__}: {error}")

    # The end

    def _stop(self, flights: list[Flight]) -> None:
        with contextlib.suppress(Exception):
            waiting = [flight.ticket for flight in flights if flight.attempt is None and flight.ticket is not None]
            self.client.cancel(waiting, force=True)
            # All of them: what is cancelled as waiting may begin just now.
            self.client.run(stop, [flight.id for flight in flights], on_error="ignore", wait=False)
        left = self._ended(flights, GRACE_SECONDS)
        if left:
            self._left_behind = True
            with contextlib.suppress(Exception):
                self.client.cancel([flight.ticket for flight in left if flight.ticket is not None], force=True)
            for flight in self._ended(flights, GRACE_SECONDS):
                self._crashed(flight, "The call was cancelled; its worker does not answer.")

    def _release(self) -> None:
        self._shared.clear()
        with contextlib.suppress(Exception):  # the connection may be lost
            self.client.unsubscribe_topic(self._topic)
        self._release_cluster(self._left_behind)


# On a worker

_works: dict[str, Work] = {}
_stopped: deque[str] = deque(maxlen=10_000)
"""Calls that may still be waiting here, or on their way."""


@contextlib.contextmanager
def _stoppable(id: str, work: Work) -> Iterator[None]:
    _works[id] = work
    try:
        if id in _stopped:
            _interrupt(work)
        yield
    finally:
        del _works[id]


def run(call: bytes, held: list[bytes], order: Order, topic: str) -> bytes:
    """The task of Dask's that makes one call; its outcome."""
    worker = distributed.get_worker()

    def send(letter: Letter) -> None:
        worker.log_event(topic, letter)

    _, outcome, _ = perform(call, held, order, send, partial(_stoppable, order.id))
    return outcome


def _itself(data: bytes) -> bytes:
    return data


def _joined(parts: list[bytes]) -> bytes:
    return b"".join(parts)


async def stop(ids: list[str]) -> None:
    """Interrupt these calls where they are made here, as far as they can be; those to come are not made.

    A coroutine, as Dask waits for the answers of functions, and a worker may have none to give.
    """
    _stopped.extend(ids)
    for id in ids:
        if id in _works:
            _interrupt(_works[id])


def _interrupt(work: Work) -> None:
    interrupt = getattr(work, "stop", None)
    if interrupt is not None:
        interrupt()
