"""What this process as a whole belongs to: the notebook run whose kernel it is, or the flow run whose worker it is.

Task runs started here outside any flow of this process become part of that run. The run's owner lives elsewhere; its
epoch travels along, so that this process is fenced off together with its owner.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from prefect_nb.model.runs import TaskRun
from prefect_nb.settings import Settings

if TYPE_CHECKING:
    from prefect_nb.execution.ledger import Ledger
    from prefect_nb.execution.scope import Scope

VARIABLE = "PREFECT_NB_ATTACH"
CELL = "prefect_nb_cell_run"
"""The key of a cell's run in the metadata of the request that executes it."""


class Attachment(msgspec.Struct, frozen=True):
    """A flow run owned by another process."""

    flow_run_id: UUID
    epoch: int
    parent: TaskRun | None = None
    """The task run that everything here is called in, where it is always the same one."""
    durable: bool = False
    persist: bool | None = None
    again: bool = False
    """Whether the run was begun before: task runs of it that completed, their results kept, are not run again."""
    depth: int = 0
    """How many flow runs enclose that one."""
    named: tuple[UUID, ...] | None = None
    """On a retry or repair: the task runs that were asked for by name."""


def encode(attachment: Attachment) -> str:
    """An attachment as text for the environment of a child process."""
    return msgspec.json.encode(attachment).decode()


_explicit: Attachment | None = None


def attach(attachment: Attachment | None) -> None:
    """Belong to this run from now on."""
    global _explicit
    _explicit = attachment


class Origin(msgspec.Struct, frozen=True):
    """Where a call that has been carried here comes from: its settings, machine and process."""

    settings: Settings
    host_id: str
    pid: int


class Stay:
    """One call that has been carried here, for as long as it runs: what it starts becomes part of its flow run."""

    __slots__ = ("attachment", "ledger", "origin", "scope")

    def __init__(self, attachment: Attachment | None, origin: Origin) -> None:
        self.attachment = attachment
        self.origin = origin
        # Of the home, once a run was started there.
        self.scope: Scope | None = None
        self.ledger: Ledger | None = None


here: ContextVar[Stay | None] = ContextVar("prefect_nb_stay", default=None)
"""The carried call that this code runs in."""
only: Stay | None = None
"""For threads that a body starts by itself: the carried call, if there is just one in this process."""
_stays: list[Stay] = []
_lock = threading.Lock()


@contextmanager
def staying(attachment: Attachment | None, origin: Origin) -> Iterator[Stay]:
    """Around the body of a call that has been carried here."""
    stay = Stay(attachment, origin)
    token = here.set(stay)
    # A cluster may call in the flow's own process, too, where other threads have nothing to do with it.
    elsewhere = origin.pid != os.getpid()
    if elsewhere:
        _count(stay, +1)
    try:
        yield stay
    finally:
        if elsewhere:
            _count(stay, -1)
        here.reset(token)


def _count(stay: Stay, change: int) -> None:
    global only
    with _lock:
        if change > 0:
            _stays.append(stay)
        else:
            _stays.remove(stay)
        only = _stays[0] if len(_stays) == 1 else None


def current() -> Attachment | None:
    """The run this code or process belongs to: of a carried call, from `attach`, from the environment; None for none."""
    stay = here.get() or only
    if stay is not None:
        return stay.attachment
    if _explicit is not None:
        return _explicit
    text = os.environ.get(VARIABLE)
    return msgspec.json.decode(text, type=Attachment) if text else None


_newest: tuple[str, TaskRun | None] = ("", None)


def find_cell() -> TaskRun | None:
    """In a kernel that executes a notebook run: the run of the cell that executes now. None elsewhere.

    Whoever executes the notebook sends the cell's run along with its source, as metadata of the request.
    """
    global _newest
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return None
    request = kernel.get_parent("shell") or {}
    id = request.get("header", {}).get("msg_id", "")
    if id != _newest[0]:
        sent = request.get("metadata", {}).get(CELL)
        _newest = (id, None if sent is None else msgspec.convert(sent, TaskRun))
    return _newest[1]
