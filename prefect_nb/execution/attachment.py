"""What this process as a whole belongs to: the notebook run whose kernel it is, or the flow run whose worker it is.

Task runs started here outside any flow of this process become part of that run. The run's owner lives elsewhere; its
epoch travels along, so that this process is fenced off together with its owner.
"""

from __future__ import annotations

import os
import sys
from uuid import UUID

import msgspec

from prefect_nb.model.runs import TaskRun

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


def encode(attachment: Attachment) -> str:
    """An attachment as text for the environment of a child process."""
    return msgspec.json.encode(attachment).decode()


_explicit: Attachment | None = None


def attach(attachment: Attachment | None) -> None:
    """Belong to this run from now on."""
    global _explicit
    _explicit = attachment


def current() -> Attachment | None:
    """The run this process belongs to, from `attach` or the environment; None for none."""
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
