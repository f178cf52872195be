"""The composition root: one home directory opened as settings, store, results and ledger.

`Home.current()` is the process's home for the directory the settings name; it is opened on first use, found again after
a module reload, drained when the interpreter ends, and forgotten in a forked child.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import Fenced, PrefectException, StoreUnavailable
from prefect_nb.execution import (
    attachment,
    block_documents,
    clock,
    context,
    futures,
    kept,
    keys,
    logs,
    portal,
    repairing,
    task_controls,
    timeouts,
)
from prefect_nb.execution.ledger import Ledger
from prefect_nb.execution.limits import Limits
from prefect_nb.execution.resuming import task_runs_before
from prefect_nb.execution.scope import Scope
from prefect_nb.interfaces import CacheEntry, Cipher, Owner, Request, ResultStore, RunQuery, Store
from prefect_nb.model import redaction
from prefect_nb.model.runs import Run, TaskRun
from prefect_nb.settings import Settings, get_settings

DATABASE = "prefect_nb.db"
CRASH_MESSAGE = "The process that executed this run has ended."
_REAP_SECONDS = 1.0
_LOCK_CHECK_SECONDS = 5.0
_LINGER_SECONDS = 1.0


class Home:
    """Everything of one home directory that this process needs.

    Args:
        path: the directory; made if missing, for this user only.
        settings: as the environment says, unless given.

    Raises:
        StoreUnavailable, StoreDamaged: it cannot be opened; the message says what to do.
    """

    def __init__(self, path: Path, settings: Settings | None = None) -> None:
        from prefect_nb.results import ResultStores, local, records
        from prefect_nb.store import owners
        from prefect_nb.store.crash_points import crash_point
        from prefect_nb.store.encryption import KeyFileCipher
        from prefect_nb.store.key_locks import FileKeyLocks
        from prefect_nb.store.sqlite import SqliteStore

        local.crash_point = crash_point
        records.surroundings = _results_here
        self.path = path
        self.settings = settings or get_settings()
        self.store: Store = SqliteStore.open(path)
        self._files = ResultStores(
            path / "results",
            self.settings.results_default_serializer,
            largest=self.settings.results_max_bytes,
            trusting=self.settings.results_trust_unsigned,
            find_block=self._find_block,
        )
        self.results: ResultStore = self._files
        self.cipher: Cipher = KeyFileCipher(path, self.store.blocks)
        redaction.learn_environment(os.environ)
        self.ledger = Ledger(self.store, self.settings.commit_interval_ms / 1000)
        self.ledger.on_fenced.append(self._fenced)
        self.keys = keys.KeyTable(self.ledger, FileKeyLocks(path / "locks" / "keys"))
        self.limits = Limits(self.store.limits, lambda: self.owner_id, owners.boot_id, self.dead_owners)
        self.live: dict[UUID, Scope] = {}
        self._owner: Owner | None = None
        self._owner_lock: Any = None
        self._attached: tuple[attachment.Attachment, Scope] | None = None
        self._flow_ids: dict[str, UUID] = {}
        self._lock = threading.RLock()
        self._watcher: threading.Thread | None = None
        self._swept = False
        self._closed = False

    @classmethod
    def current(cls) -> Home:
        """This process's home for the directory the settings name; in a call carried here, the home it comes from."""
        stay = attachment.here.get() or attachment.only
        settings = get_settings() if stay is None else stay.origin.settings
        home = _homes.get(str(settings.home))
        if home is None or home._closed:
            with _homes_lock:
                home = _homes.get(str(settings.home))
                if home is None or home._closed:
                    if stay is not None:
                        _check_reachable(stay.origin)
                    home = cls(settings.home, settings)
                    _homes[str(settings.home)] = home
                    _drain_with_pool()
        if home.settings is not settings:
            home.settings = settings
            home._files.configure(
                settings.results_default_serializer, settings.results_max_bytes, settings.results_trust_unsigned
            )
        return home

    # Identity

    @property
    def host_id(self) -> str:
        """The machine this is."""
        from prefect_nb.store.owners import host_id

        return host_id()

    @property
    def owner_id(self) -> UUID:
        """This process as an owner of runs; registered on first use. Dead owners' runs are settled then, too."""
        if self._owner is None:
            with self._lock:
                if self._owner is None:
                    from prefect_nb.store.owners import OwnerLock

                    owner, self._owner_lock = OwnerLock.acquire(self.path, "engine")
                    self.store.add_owner(owner)
                    self._owner = owner
                    self.reap()
        return self._owner.id

    def flow_id(self, name: str) -> UUID:
        """The id of the flow of that name."""
        found = self._flow_ids.get(name)
        if found is None:
            found = self._flow_ids[name] = self.store.flow_id(name)
        return found

    def dead_owners(self) -> list[UUID]:
        """The registered owners whose processes have ended."""
        return [owner.id for owner in self._dead()]

    def _dead(self) -> list[Owner]:
        from prefect_nb.store.owners import is_alive

        own = self._owner.id if self._owner is not None else None
        return [owner for owner in self.store.owners() if owner.id != own and not is_alive(owner, own)]

    def reap(self) -> list[Run]:
        """Settle what dead processes left open: their runs become Crashed. Returns the runs changed."""
        from prefect_nb.store.owners import sweep

        dead = self._dead()
        if not dead and self._swept:
            return []
        ids = [owner.id for owner in dead]
        changed = self.store.crash(ids, clock.now_us(), CRASH_MESSAGE)
        sweep(self.path, ids)
        self._files.sweep([owner.pid for owner in dead])
        self._swept = True
        return changed

    # Results

    def result_store(self, storage: Any = None) -> ResultStore:
        """Where results go that are to be kept in this storage; see `results.ResultStores.at`.

        Args:
            storage: what `result_storage` was given; None: what the settings name, else the home's own folder.

        Raises:
            ConfigurationError: it is no storage, or its driver is not installed.
        """
        if storage is None:
            storage = self.settings.results_default_storage_block or self.settings.results_local_storage_path
        return self._files.at(storage)

    def _find_block(self, slug: str) -> Any:
        """The storage object saved under that name; None for none."""
        from prefect_nb.execution.blocks import UnknownBlockType, load_by_slug

        try:
            return load_by_slug(slug)
        except (ValueError, UnknownBlockType):
            return None

    # Cache

    def cache_entry(self, key: str) -> CacheEntry | None:
        """What a cache key stands for, entries not yet committed included."""
        if self.settings.tasks_disable_caching:
            return None
        return self.ledger.uncommitted_cache.get(key) or self.store.cache_entry(key)

    def forget_cache(self, key: str) -> None:
        """Drop a cache key whose result was damaged."""
        self.ledger.uncommitted_cache.pop(key, None)
        self.store.forget_cache(key)

    # Runs in this process

    def enter(self, scope: Scope, epoch: int) -> None:
        """A flow run starts here: write it under this epoch, and listen for requests."""
        self.ledger.own(scope.flow_run_id, epoch)
        scope.entered_us = clock.now_us()
        with self._lock:
            self.live[scope.flow_run_id] = scope
            self._start_watcher()

    def _start_watcher(self) -> None:
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="prefect_nb-watch", daemon=True)
            self._watcher.start()

    def leave(self, scope: Scope) -> None:
        """A flow run has ended here."""
        with self._lock:
            self.live.pop(scope.flow_run_id, None)
        scope.close()
        self.ledger.disown(scope.flow_run_id)

    def attached_scope(self) -> Scope | None:
        """The flow run this whole process belongs to, as a scope; None for none."""
        attached = attachment.current()
        if attached is None:
            return None
        stay = attachment.here.get() or attachment.only
        if stay is not None:
            return self._scope_of(stay, attached)
        if self._attached is None or self._attached[0] != attached:
            with self._lock:
                if self._attached is None or self._attached[0] != attached:
                    scope = _shared_scope(attached)
                    if attached.again:
                        scope.previous = task_runs_before(self, attached.flow_run_id)
                    if attached.named is not None:
                        below = repairing.members(self.store, attached.flow_run_id)
                        scope.again = repairing.plan(below, attached.named)
                    self.ledger.own(attached.flow_run_id, attached.epoch)
                    task_controls.prepare_main_thread()
                    self._attached = (attached, scope)
                    self._start_watcher()
        return self._attached[1]

    def _scope_of(self, stay: attachment.Stay, attached: attachment.Attachment) -> Scope:
        """What a call carried here starts belongs to."""
        if stay.scope is None:
            with self._lock:
                if stay.scope is None:
                    scope = _shared_scope(attached)
                    if attached.flow_run_id not in self.live:
                        self.ledger.own(attached.flow_run_id, attached.epoch)
                    stay.ledger, stay.scope = self.ledger, scope
        return stay.scope

    def current_cell(self) -> TaskRun | None:
        """In an attached process: the task run or cell that everything here is called in."""
        attached = attachment.current()
        if attached is None:
            return None
        if attached.parent is not None:
            return attached.parent
        return attachment.find_cell()

    def _fenced(self, flow_run_id: UUID) -> None:
        scope = self.live.get(flow_run_id)
        if scope is not None:
            scope.stop("Another process has taken this run over.")

    def _watch(self) -> None:
        """While flow runs live here, or task runs of one that lives elsewhere: requests, dead owners, our own lock."""
        reaped = checked = time.monotonic()
        while True:
            time.sleep(self.settings.request_poll_seconds)
            with self._lock:
                if not (self.live or self._attached) or self._closed:
                    self._watcher = None
                    return
                live = dict(self.live)
            try:
                if self._attached is not None:
                    self._take_task_requests(self._attached[1])
                if not live:
                    continue
                self._take_requests(live)
                now = time.monotonic()
                if now - reaped >= _REAP_SECONDS:
                    reaped = now
                    self.reap()
                    self._notice_takeovers(live)
                if now - checked >= _LOCK_CHECK_SECONDS and self._owner_lock is not None:
                    checked = now
                    self._owner_lock.holds()
            except PrefectException:
                logs.install()
                # The ledger reports what is wrong with the disk; the watch goes on.

    def _take_requests(self, live: dict[UUID, Scope]) -> None:
        for request in self.store.open_requests(list(live)):
            if request.kind == "cancel":
                self._cancel(live[request.flow_run_id], str(request.details.get("reason") or "Cancelled by request."))
                self.store.settle_request(request.id, "taken")
            elif request.kind in ("pause", "suspend"):
                live[request.flow_run_id].wish(request)
                self.store.settle_request(request.id, "taken")
            elif request.kind == "resume":
                held = live[request.flow_run_id].take_wish()
                self.store.settle_request(request.id, "taken" if held is not None else "refused")
            elif request.kind in task_controls.REQUESTS:
                self._settle_task_request(request, live[request.flow_run_id])

    def _cancel(self, scope: Scope, reason: str) -> None:
        scope.stop(reason)
        if scope.on_linger is not None:
            timeouts.call_later(_LINGER_SECONDS, scope.on_linger)

    def cancel_here(self, flow_run_id: UUID, reason: str) -> bool:
        """Cancel a flow run that this process executes; False where it executes none of that id."""
        scope = self.live.get(flow_run_id)
        if scope is not None:
            self._cancel(scope, reason)
        return scope is not None

    def control_task(self, task_run_id: UUID, wish: task_controls.Wish) -> task_controls.Answer | None:
        """Have a wish about a task run carried out that is under way in this process; None where it is not."""
        scopes = list(self.live.values())
        scopes += [scope for scope in (self._attached and self._attached[1], self.__dict__.get("_detached")) if scope]
        execution = task_controls.find(scopes, task_run_id)
        return None if execution is None else task_controls.control(execution, wish)

    def _take_task_requests(self, scope: Scope) -> None:
        """Of a flow run that another process owns: what concerns the task runs that are under way in this one."""
        for request in self.store.open_requests([scope.flow_run_id]):
            outcome = task_controls.take(scope, request) if request.kind in task_controls.REQUESTS else None
            if outcome is not None:
                self.store.settle_request(request.id, outcome)

    def _settle_task_request(self, request: Request, scope: Scope) -> None:
        outcome = task_controls.take(scope, request)
        if outcome is None:
            self.ledger.commit()
            run = self.store.task_run(task_controls.task_run_id_of(request))
            outcome = task_controls.too_late(run, request, scope.entered_us, clock.now_us())
        if outcome is not None:
            self.store.settle_request(request.id, outcome)

    def _notice_takeovers(self, live: dict[UUID, Scope]) -> None:
        """A run that writes nothing for long would learn only at its end that it is another's by now."""
        for run in self.store.flow_runs(RunQuery(ids=tuple(live), limit=len(live))):
            if run.epoch > self.ledger.epoch_of(run.id):
                self.ledger.fence(run.id)

    # The end

    def close(self) -> None:
        """Write everything, leave in good order. Raises what the ledger raises when that cannot be done."""
        if self._closed:
            return
        self._closed = True
        self.limits.close()
        try:
            self.ledger.close()
            if self._owner is not None:
                # Runs that other threads have not ended by now will never be ended by anybody.
                self.store.crash([self._owner.id], clock.now_us(), CRASH_MESSAGE)
        finally:
            if self._owner_lock is not None:
                self._owner_lock.release()
            self.store.close()


def _shared_scope(attached: attachment.Attachment) -> Scope:
    from prefect_nb.execution.task_runners import ThreadPoolTaskRunner

    return Scope(
        attached.flow_run_id,
        durable=attached.durable,
        persist=attached.persist,
        make_runner=ThreadPoolTaskRunner().open,
        shared=True,
        depth=attached.depth,
    )


def _check_reachable(origin: attachment.Origin) -> None:
    """For a call carried here: that its home is the one of that path here.

    Raises:
        StoreUnavailable: it is on another machine, or not to be seen from here.
    """
    from prefect_nb.store.owners import host_id

    path = origin.settings.home
    if origin.host_id != host_id() or not (path / DATABASE).exists():
        raise StoreUnavailable(
            f"This task runs where its flow's history, {path}, cannot be reached, so tasks and flows that it calls "
            "cannot be recorded. Call their functions themselves (`.fn(...)`), or call the tasks in the flow."
        )


_REGISTRY = "_prefect_nb_homes"
_homes: dict[str, Home] = getattr(sys, _REGISTRY, None) or {}
setattr(sys, _REGISTRY, _homes)
_homes_lock = threading.Lock()


def close_all() -> None:
    """Close every home of this process."""
    for home in list(_homes.values()):
        home.close()
    _homes.clear()


def _drain_at_exit() -> None:
    # Exit code 0 promises that every row is there.
    try:
        close_all()
    except Exception as error:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.write(f"prefect_nb: the history could not be written completely: {error}\n")
            sys.stderr.flush()
        os._exit(74)


def _drain_with_pool() -> None:
    """A process made by multiprocessing may end without the interpreter's own last steps."""
    if "multiprocessing.process" not in sys.modules:
        return
    from multiprocessing import process, util

    if process.parent_process() is not None:
        util.Finalize(None, _drain_at_exit, exitpriority=0)


def _forget_all() -> None:
    """A forked child has nothing of its parent's: it opens the home for itself when it needs one."""
    global _homes_lock
    _homes_lock = threading.Lock()
    for home in _homes.values():
        home._closed = True
        home.ledger.forget()
    _homes.clear()
    context.forget()
    futures.forget()
    logs.emit_to.set(None)
    portal.forget()
    timeouts.forget()


atexit.register(_drain_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _results_here() -> Any:
    """What the run this is asked in says of results."""
    from prefect_nb.results.records import Surroundings

    home = Home.current()
    flow, task = context.current_flow.get(), context.current_task.get()
    storage = serializer = persist = None
    if flow is not None:
        scope = flow.execution.scope
        storage, serializer, persist = scope.result_storage, scope.result_serializer, flow.persist_result
    if task is not None:
        storage = storage if task.task.result_storage is None else task.task.result_storage
        serializer = task.task.result_serializer or serializer
        persist = task.execution.persist
    return Surroundings(home._files, storage, serializer, persist)


kept.results_here = lambda: Home.current().results

RootHook = Callable[[Home, UUID], Callable[[], None] | None]
block_documents.current_home = Home.current
root_hooks: list[RootHook] = []
"""Called when a flow run starts that no other of this process encloses; what they return is called when it has ended."""

__all__ = ["CRASH_MESSAGE", "DATABASE", "Fenced", "Home", "close_all", "root_hooks"]
