"""One computation per cache key: who computes a key now, and who waits for that.

A run that finds no result for its key takes the key, and gives it back when its result can be found or is not to come.
Runs that want the same key meanwhile wait, and then look again. Between processes the lock of a `KeyLocks` is held; the
system frees it when its holder dies.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from typing import Any, Protocol

from prefect_nb.exceptions import PrefectException
from prefect_nb.execution.ledger import Ledger
from prefect_nb.interfaces.history import Entry
from prefect_nb.interfaces.key_locks import KeyLocks

logger = logging.getLogger("prefect_nb.keys")

_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 10.0

held: ContextVar[frozenset[str]] = ContextVar("prefect_nb_held_keys", default=frozenset())
"""The keys that the runs around this code compute. Waiting for one of them would be waiting for oneself."""


class Wanting(Protocol):
    """A run that wants a key."""

    alone: bool
    """It is to compute without taking the key, because waiting might never end."""
    body_thread: int | None
    """Where its body is, while it has a key."""
    held_around: frozenset[str]
    """The keys that the runs around it compute."""
    enclosing: Any
    """The transaction it is part of."""


class _Waiter:
    __slots__ = ("held", "run", "since", "wake")

    def __init__(self, run: Wanting, wake: Callable[[], None]) -> None:
        self.run = run
        self.wake = wake
        self.held = run.held_around
        self.since = time.monotonic()


class _Claim:
    """A key that is being computed: by a run of this process, or (`owner` None) by another process."""

    __slots__ = ("locks", "owner", "waiters")

    def __init__(self, owner: Wanting | None, locks: Sequence[KeyLocks]) -> None:
        self.owner = owner
        self.locks = locks
        self.waiters: deque[_Waiter] = deque()


class KeyTable:
    """The keys that runs of this process compute or wait for.

    Args:
        ledger: whose commits make results visible to other processes.
        locks: between the processes of one home.
    """

    def __init__(self, ledger: Ledger, locks: KeyLocks) -> None:
        self.locks = locks
        self._ledger = ledger
        self._guard = threading.Lock()
        self._claims: dict[str, _Claim] = {}
        # Computed here, but not yet committed: other processes would not find the result.
        self._leaving: dict[str, Sequence[KeyLocks]] = {}
        self._poller: threading.Thread | None = None
        self._told_of_failure = False
        ledger.observers.append(self)
        ledger.on_fenced.append(lambda _id: self._unlock_committed())

    def take(self, key: str, run: Wanting, locks: Sequence[KeyLocks]) -> bool:
        """Whether this run has the key now: nobody had it, or it was handed to the run while it waited.

        Args:
            key: the key.
            run: who wants to compute it.
            locks: what has to be held of other processes for that.
        """
        with self._guard:
            claim = self._claims.get(key)
            if claim is None:
                claim = self._claims[key] = _Claim(None, locks)
                still_locked = self._leaving.pop(key, None)
                if still_locked is not None:
                    claim.owner, claim.locks = run, still_locked
            if claim.owner is None and self._lock(key, claim.locks):
                claim.owner = run
            return claim.owner is run

    def wait(self, key: str, run: Wanting, wake: Callable[[], None], thread: int | None = None) -> bool:
        """Have `wake` called, once, when it is worth looking again; False if it is now.

        Args:
            key: the key that another run has.
            run: who waits; it may find itself the key's owner afterwards, or `alone`.
            wake: must be quick.
            thread: the thread that the wait blocks, if it does.
        """
        with self._guard:
            claim = self._claims.get(key)
            if claim is None or claim.owner is run:
                return False
            waiter = _Waiter(run, wake)
            if _hinders(run, claim.owner, thread) or (waiter.held and self._is_circle(key, waiter.held)):
                run.alone = True
                return False
            claim.waiters.append(waiter)
            if claim.owner is None and self._poller is None:
                self._poller = threading.Thread(target=self._poll, name="prefect_nb-keys", daemon=True)
                self._poller.start()
            return True

    def leave(self, key: str, run: Wanting) -> None:
        """The run does not wait any more; a key handed to it meanwhile goes to the next."""
        with self._guard:
            claim = self._claims.get(key)
            if claim is None:
                return
            if claim.owner is not run:
                claim.waiters = deque(waiter for waiter in claim.waiters if waiter.run is not run)
                return
        self.release(key, run, kept=False)

    def release(self, key: str, run: Wanting, *, kept: bool) -> None:
        """The run is done with its key.

        Args:
            key: the key; nothing happens if the run does not have it.
            run: who had it.
            kept: whether the result can be found under it now, by this process; by others after the next commit.
        """
        with self._guard:
            claim = self._claims.get(key)
            if claim is None or claim.owner is not run:
                return
            if kept or not claim.waiters:
                del self._claims[key]
                woken = list(claim.waiters)
                if kept and claim.locks:
                    self._leaving[key] = claim.locks
                else:
                    self._unlock(key, claim.locks)
            else:
                woken = [claim.waiters.popleft()]
                claim.owner = woken[0].run
        if kept:
            self._unlock_committed()
        _wake(woken)

    def committed(self, entries: Sequence[Entry]) -> None:  # noqa: ARG002
        """What was kept is visible to other processes now (the ledger calls this)."""
        if self._leaving:
            self._unlock_committed()

    def _unlock_committed(self) -> None:
        with self._guard:
            for key in [key for key in self._leaving if key not in self._ledger.uncommitted_cache]:
                self._unlock(key, self._leaving.pop(key))

    def _is_circle(self, key: str, around: frozenset[str]) -> bool:
        """Whether whoever has the key waits, in the end, for one of these keys."""
        seen: set[str] = set()
        to_see = [key]
        while to_see:
            current = to_see.pop()
            if current in around:
                return True
            if current not in seen:
                seen.add(current)
                to_see += [
                    name for name, claim in self._claims.items() if any(current in w.held for w in claim.waiters)
                ]
        return False

    def _lock(self, key: str, locks: Sequence[KeyLocks]) -> bool:
        taken: list[KeyLocks] = []
        try:
            for lock in locks:
                if not lock.try_lock(key):
                    self._unlock(key, taken)
                    return False
                taken.append(lock)
        except (OSError, PrefectException) as error:
            self._unlock(key, taken)
            if not self._told_of_failure:
                self._told_of_failure = True
                logger.warning("Cache keys cannot be locked, so several processes may compute one at once: %s", error)
        return True

    def _unlock(self, key: str, locks: Sequence[KeyLocks]) -> None:
        for lock in locks:
            try:
                lock.unlock(key)
            except (OSError, ValueError, PrefectException) as error:
                logger.warning("The lock on cache key %r could not be given back: %s", key, error)

    def _poll(self) -> None:
        """While runs here wait for other processes: whether these still have the keys."""
        while True:
            time.sleep(_POLL_SECONDS)
            with self._guard:
                foreign = {key: claim for key, claim in self._claims.items() if claim.owner is None}
                woken: list[_Waiter] = []
                for key, claim in foreign.items():
                    if not claim.waiters:
                        del self._claims[key]
                    elif self._lock(key, claim.locks):
                        woken.append(claim.waiters.popleft())
                        claim.owner = woken[-1].run
                    else:
                        woken += _impatient(claim)
                if not foreign:
                    self._poller = None
                    return
            _wake(woken)


def enter(run: Wanting, key: str) -> Token[frozenset[str]]:
    """The run's body, which computes the key, is about to be called here."""
    run.body_thread = threading.get_ident()
    return held.set(run.held_around | {key})


def leave(run: Wanting, token: Token[frozenset[str]]) -> None:
    """The body is over."""
    run.body_thread = None
    held.reset(token)


def _hinders(run: Wanting, owner: Wanting | None, thread: int | None) -> bool:
    """Whether the owner cannot end as long as the run waits."""
    if owner is None:
        return False
    if thread is not None and owner.body_thread == thread:
        return True
    inside, other = run.enclosing, owner.enclosing
    return inside is not None and other is not None and inside.root is other.root


def _impatient(claim: _Claim) -> list[_Waiter]:
    """Those who have waited long for another process and have keys themselves, for which it may be waiting."""
    latest = time.monotonic() - _PATIENCE_SECONDS
    tired = [waiter for waiter in claim.waiters if waiter.held and waiter.since < latest]
    for waiter in tired:
        claim.waiters.remove(waiter)
        waiter.run.alone = True
    return tired


def _wake(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        try:
            waiter.wake()
        except Exception:
            logger.exception("A run that waited for a cache key could not go on")


class ManagerLocks:
    """The locks of a `LockManager` that a cache policy names, as `KeyLocks`."""

    def __init__(self, manager: Any, holder: str) -> None:
        self._manager = manager
        self._holder = holder

    def try_lock(self, key: str) -> bool:
        """Take the lock if it is free; whether we have it."""
        if self._manager.is_locked(key):
            return False
        return bool(self._manager.acquire_lock(key, self._holder, acquire_timeout=0.01))

    def unlock(self, key: str) -> None:
        """Give it back."""
        self._manager.release_lock(key, self._holder)
