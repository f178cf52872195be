"""Slots of concurrency limits: asking, waiting in line, giving back. A process needs no run for it.

Laws:
1. A hold is given back exactly when whoever asked for it says so; what cannot be given back now is tried again.
2. Equal claims (same limits, same number) of a process are served in the order in which they came. Unequal ones do not
   wait for each other: who holds one limit and wants another must never stand behind who wants both.
3. One thread, the doorman, asks again for the first of each line: at once when this process gives something back, else
   every 50-100 ms. It exists while somebody waits, so an event loop never asks the store itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from prefect_nb.exceptions import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    PrefectException,
    RunCancelled,
)
from prefect_nb.execution import blocking
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.ids import new_id
from prefect_nb.interfaces.limits import LimitStore
from prefect_nb.model.limits import TAG_PREFIX, Answer, Claim, Instant

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("prefect.concurrency")

RETRY_SECONDS = 1.0
"""What one of `max_retries` stands for."""
_POLL_SECONDS = 0.06
_DEAD_SECONDS = 0.25
_TAGS_SECONDS = 1.0
_SLICE_SECONDS = 0.1
_IDLE_SECONDS = 1.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Line = tuple[bool, tuple[str, ...], int]


class Hold:
    """Slots somebody asked for: waited for, held, or given up."""

    __slots__ = ("claim", "deadline", "error", "given_up", "late", "lock", "may_hold", "missing", "settled", "wake")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.lock = threading.Lock()
        self.deadline: float | None = None
        self.late: Exception | None = None
        self.wake: Callable[[], None] = _nothing
        self.settled = False
        """Whether it is decided: the slots are held, or `error` says why not."""
        self.error: Exception | None = None
        self.missing: tuple[str, ...] = ()
        self.may_hold = False
        self.given_up = False

    @property
    def line(self) -> Line:
        """Where it waits."""
        return (self.claim.decaying, tuple(sorted(self.claim.names)), self.claim.count)

    def limit_time(self, timeout_seconds: float | None, max_retries: int | None) -> None:
        """From now on it waits no longer than this."""
        waits: list[tuple[float, Exception]] = []
        if timeout_seconds is not None:
            late = f"Attempt to acquire concurrency slots timed out after {timeout_seconds} second(s)"
            waits.append((timeout_seconds, AcquireConcurrencySlotTimeoutError(late)))
        if max_retries is not None:
            waits.append((max_retries * RETRY_SECONDS, _unable(self.claim, "Locked")))
        if waits:
            seconds, self.late = min(waits, key=lambda pair: pair[0])
            self.deadline = time.monotonic() + seconds

    def is_given_up(self) -> bool:
        """Whether nobody wants it any more."""
        return self.given_up

    def check(self) -> None:
        """Raise why the slots are not held."""
        if self.error is not None:
            raise self.error


class Limits:
    """What this process holds and waits for in one home.

    Args:
        store: limits and slots.
        owner_id: this process as an owner.
        boot_id: this boot of the machine.
        dead_owners: the registered owners that are dead.
    """

    def __init__(
        self,
        store: LimitStore,
        owner_id: Callable[[], UUID],
        boot_id: Callable[[], str],
        dead_owners: Callable[[], Collection[UUID]],
    ) -> None:
        self._store = store
        self._owner_id = owner_id
        self._boot_id = boot_id
        self._dead_owners = dead_owners
        self._changed = threading.Condition()
        self._lines: dict[Line, deque[Hold]] = {}
        self._leaving: dict[UUID, Callable[[], None]] = {}
        self._stirred = False
        self._doorman: threading.Thread | None = None
        self._pid = os.getpid()
        self._closed = False
        self._tags: frozenset[str] = frozenset()
        self._tags_until = 0.0

    # Tags

    def limited_tags(self) -> frozenset[str]:
        """The tags that have a limit, as of at most a second ago."""
        if time.monotonic() >= self._tags_until:
            self._tags_until = time.monotonic() + _TAGS_SECONDS
            with contextlib.suppress(PrefectException):
                names = [limit.name for limit in self._store.all() if limit.name.startswith(TAG_PREFIX)]
                self._tags = frozenset(name.removeprefix(TAG_PREFIX) for name in names)
        return self._tags

    def changed(self) -> None:
        """Limits were changed here: look at them again, and let who waits ask again."""
        self._tags_until = 0.0
        self._stir()

    # Asking

    def claim(
        self,
        names: Sequence[str],
        count: int,
        *,
        run_id: UUID | None = None,
        decaying: bool = False,
        strict: bool = False,
    ) -> Hold:
        """Slots to ask for.

        Raises:
            ConcurrencySlotAcquisitionError: fewer than one.
        """
        claim = Claim(new_id(), tuple(dict.fromkeys(names)), count, self._owner_id(), run_id, decaying, strict)
        if count < 1:
            raise _unable(claim, "slots: Input should be greater than 0")
        return Hold(claim)

    def ask(self, hold: Hold) -> bool:
        """Ask on this thread, unless others wait for the same; whether it is settled (see `Hold.check`)."""
        with self._changed:
            if hold.line in self._lines:
                return False
        self._try(hold, ())
        if not hold.settled:
            dead = self._dead_owners()
            if dead:
                self._try(hold, dead)
        return hold.settled

    def line_up(self, hold: Hold, wake: Callable[[], None]) -> None:
        """Wait in line; `wake` is called once, by the doorman, when it is settled. It must be quick."""
        hold.wake = wake
        with self._changed:
            self._lines.setdefault(hold.line, deque()).append(hold)
        self._stir()

    def acquire(self, hold: Hold, stopping: Callable[[], str | None] = lambda: None) -> None:
        """Hold the slots, or raise why not; blocks this thread. Whatever comes of it: `release` afterwards.

        Args:
            hold: what is wanted, with its time limited.
            stopping: says why the run is being cancelled, if it is.

        Raises:
            ConcurrencySlotAcquisitionError: it cannot be had, or not within the retries.
            AcquireConcurrencySlotTimeoutError: it cannot be had in time.
            RunCancelled: the run is being cancelled.
        """
        if not self.ask(hold):
            settled = threading.Event()
            self.line_up(hold, settled.set)
            with blocking.waiting():
                # In slices: what is raised in a thread from outside arrives when it next moves.
                while not settled.wait(_SLICE_SECONDS):
                    reason = stopping()
                    if reason is not None:
                        raise RunCancelled(reason)
        hold.check()

    # Giving back

    def release(self, hold: Hold) -> None:
        """Give up what was asked for, held or not; idempotent."""
        if self._give_up(hold):
            with self._changed:
                self._leaving[hold.claim.hold_id] = _nothing
            self._give_back()
            self._stir()

    def leave(self, hold: Hold, told: Callable[[], None]) -> bool:
        """Have the doorman do what `release` does, and then call `told`; False where there is nothing to give back."""
        if not self._give_up(hold):
            return False
        with self._changed:
            self._leaving[hold.claim.hold_id] = told
        self._stir()
        return True

    def _give_up(self, hold: Hold) -> bool:
        """Whether there may be slots to give back."""
        if os.getpid() != self._pid:
            return False  # a forked child came to the end of its parent's block: nothing of this is its own
        self._leave_line(hold)
        with hold.lock:
            hold.given_up = True
            may_hold, hold.may_hold = hold.may_hold, False
        return may_hold

    def _give_back(self) -> None:
        """Free all that is to be freed. What cannot be now is tried again by the doorman."""
        with self._changed:
            leaving = dict(self._leaving)
        if not leaving:
            return
        try:
            if not self._closed:
                self._store.give_back(list(leaving))
        except PrefectException as error:
            logger.debug("Slots could not be given back yet: %s", error)
            return
        with self._changed:
            for id in leaving:
                self._leaving.pop(id, None)
        for told in leaving.values():
            told()

    def close(self) -> None:
        """The home is being closed: whoever waits asks once more and hears of it; what is held is freed by the store."""
        self._closed = True
        self._stir()

    # Serving

    def _try(self, hold: Hold, dead: Collection[UUID]) -> float | None:
        """Ask the store once. Seconds until decay alone makes room, if that is known."""
        with hold.lock:
            if hold.is_given_up():
                return None
            hold.may_hold = not hold.claim.decaying
        answer = self._store.take(hold.claim, self._now(), now_us(), dead)
        with hold.lock:
            given_up = hold.is_given_up()
            hold.may_hold = hold.may_hold and answer.granted
        if answer.granted and given_up:
            with self._changed:
                self._leaving[hold.claim.hold_id] = _nothing
            self._stir()
        elif answer.granted or answer.fault:
            hold.missing = answer.missing
            hold.error = _error_of(hold.claim, answer)
            hold.settled = True
        return answer.wait

    def _now(self) -> Instant:
        return Instant(self._boot_id(), time.clock_gettime_ns(_CLOCK))

    def _send_off(self, hold: Hold) -> None:
        self._leave_line(hold)
        try:
            hold.wake()
        except BaseException:
            logger.exception("Who waited for concurrency slots could not be told")

    def _is_first(self, hold: Hold) -> bool:
        with self._changed:
            line = self._lines.get(hold.line)
            return line is not None and line[0] is hold

    def _leave_line(self, hold: Hold) -> None:
        with self._changed:
            line = self._lines.get(hold.line)
            if line is None or hold not in line:
                return
            line.remove(hold)
            if not line:
                del self._lines[hold.line]
        self._stir()

    def _stir(self) -> None:
        """Have the doorman look now."""
        with self._changed:
            if not self._lines and not self._leaving:
                return
            self._stirred = True
            self._changed.notify_all()
            if self._doorman is None or not self._doorman.is_alive():
                self._doorman = threading.Thread(target=self._serve, name="prefect_nb-limits", daemon=True)
                self._doorman.start()

    def _serve(self) -> None:
        """The doorman's work, while there is any."""
        looked = 0.0
        while True:
            with self._changed:
                if not (self._stirred or self._lines or self._leaving):
                    self._changed.wait(_IDLE_SECONDS)
                    if not self._stirred:
                        self._doorman = None
                        return
                self._stirred = False
            self._give_back()
            dead: Collection[UUID] = ()
            if time.monotonic() - looked >= _DEAD_SECONDS:
                looked = time.monotonic()
                with contextlib.suppress(Exception):
                    dead = self._dead_owners()
            pause = self._serve_lines(dead)
            with self._changed:
                if not self._stirred:
                    self._changed.wait(pause)

    def _serve_lines(self, dead: Collection[UUID]) -> float:
        """Ask for the first of each line, and send away who has waited too long; seconds until the next look."""
        with self._changed:
            heads = [line[0] for line in self._lines.values()]
            limited = [hold for line in self._lines.values() for hold in line if hold.deadline is not None]
        pause = _POLL_SECONDS
        for hold in heads:
            try:
                wait = self._try(hold, dead)
            except Exception as error:
                hold.error, hold.settled = error, True
            else:
                pause = min(pause, _POLL_SECONDS if wait is None else max(wait, 0.001))
            if hold.settled:
                self._send_off(hold)
        for hold in limited:
            if hold.settled or (hold not in heads and self._is_first(hold)):
                continue  # who has become the first just now is asked for once, however late it is
            left = (hold.deadline or 0.0) - time.monotonic()
            if left > 0:
                pause = min(pause, left)
                continue
            hold.error, hold.settled = hold.late, True
            self._send_off(hold)
        return pause


async def until_held(limits: Limits, hold: Hold) -> None:
    """As `Limits.acquire`, without blocking the event loop."""
    import asyncio

    loop, settled = asyncio.get_running_loop(), asyncio.Event()
    limits.line_up(hold, lambda: _tell(loop, settled.set))
    await settled.wait()
    hold.check()


async def until_free(limits: Limits, hold: Hold) -> None:
    """As `Limits.release`, without blocking the event loop."""
    import asyncio

    loop, free = asyncio.get_running_loop(), asyncio.Event()
    if limits.leave(hold, lambda: _tell(loop, free.set)):
        await free.wait()


def _error_of(claim: Claim, answer: Answer) -> Exception | None:
    if answer.granted:
        return None
    if answer.missing and claim.strict:
        return ConcurrencySlotAcquisitionError(answer.fault)
    return _unable(claim, answer.fault)


def _unable(claim: Claim, why: str) -> ConcurrencySlotAcquisitionError:
    return ConcurrencySlotAcquisitionError(f"Unable to acquire concurrency slots on {list(claim.names)!r}: {why}")


def _tell(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    """Call this on an event loop, if there still is one."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(action)


def _nothing() -> None:
    """Nobody has to be told."""
