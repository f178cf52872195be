"""What the rooms of the shell need of each other, as protocols, so that none has to import the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from prefect_nb.engine.commands import Ending
from prefect_nb.engine.task_run import Steps, TaskPlan
from prefect_nb.execution.keys import KeyTable
from prefect_nb.execution.ledger import Ledger
from prefect_nb.execution.limits import Limits
from prefect_nb.execution.scope import Scope
from prefect_nb.interfaces import CacheEntry, Cipher, ResultStore, Store
from prefect_nb.model.fingerprint_parts import Part
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.model.states import State
from prefect_nb.settings import Settings


class Surroundings(Protocol):
    """A home directory, as runs see it."""

    path: Path
    store: Store
    ledger: Ledger
    results: ResultStore
    limits: Limits
    settings: Settings
    cipher: Cipher
    keys: KeyTable

    @property
    def host_id(self) -> str:
        """The machine this is."""
        ...

    @property
    def owner_id(self) -> UUID:
        """This process as an owner of runs."""
        ...

    def result_store(self, storage: Any = None) -> ResultStore:
        """Where results go that are to be kept in this storage; None: the default one."""
        ...

    def cache_entry(self, key: str) -> CacheEntry | None:
        """What a cache key stands for."""
        ...

    def forget_cache(self, key: str) -> None:
        """Drop a cache key whose result was damaged."""
        ...

    def attached_scope(self) -> Scope | None:
        """The flow run this whole process belongs to, as a scope; None for none."""
        ...

    def current_cell(self) -> TaskRun | None:
        """The cell that everything in this process is called in now."""
        ...

    def reap(self) -> list[Run]:
        """Settle what dead processes left open."""
        ...


class TaskShell(Protocol):
    """A task run, as its body and its cache key see it."""

    task: Any
    run: TaskRun
    parameters: dict[str, Any]
    persist: bool


class FlowShell(Protocol):
    """A flow run, as its body sees it."""

    flow: Any
    run: FlowRun
    parameters: dict[str, Any]
    task_runner: Any
    persist: bool
    log_prints: bool


class RecordingFlow(FlowShell, Protocol):
    """A flow run with what is needed to pause it."""

    home: Surroundings
    scope: Scope

    def record(self, state: State[Any]) -> State[Any]:
        """Record a state."""
        ...


class RecordingTask(TaskShell, Protocol):
    """A task run with what is needed to record something of it."""

    home: Surroundings
    ledger: Ledger
    scope: Scope | None
    flow: Any
    id: UUID
    state: State[Any] | None
    returned: Any
    note: str | None
    cache_key: str | None
    key_held: str | None
    held_around: frozenset[str]
    enclosing: Any
    """The transaction it is part of."""
    transaction: Any
    """The one that its attempt is, if somebody has asked for it."""
    key_parts: list[Part] | None
    """What its cache key was made of, while it waits for the key."""
    alone: bool
    body_thread: int | None
    outputs: Any
    log_prints: bool
    persist: bool
    plan: TaskPlan
    lock: AbstractContextManager[Any]

    parent: TaskRun | None
    wait_for: Any
    dynamic_key: str
    steps: Steps
    future: Any
    wish: Any
    """What somebody wishes of it: `task_controls.Wish`."""
    waker: Callable[[], Any] | None
    body_on: int | None

    def templated_name(self) -> str:
        """The run's name by the task's `task_run_name`."""
        ...

    @property
    def has_returned(self) -> bool:
        """Whether the body was called and came to its end."""
        ...

    def stopped(self) -> Ending | None:
        """An outcome, if the run is to end."""
        ...

    def abandon(self, state: State[Any]) -> None:
        """End the run in this state although its body may still be running."""
        ...

    def expires_us(self) -> int | None:
        """When a result kept now stops counting as a cache hit."""
        ...
