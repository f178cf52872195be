"""Commands from the page to runs of this kernel: buttons that work while the cell is busy.

A message is `{"command": "skip", "run": "<id, hex>", "seq": 7}`; the answer `{"answer": true, "seq": 7, "ok": ..., "message":
...}`. They come by the live panel's comm, or by a comm that a front end opens to the target `prefect_nb.commands`. The
kernel handles them on a thread beside the cell (a subshell) where the front end asks for that, as JupyterLab does, or
between two steps of a cell that awaits.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Mapping
from typing import Any
from uuid import UUID

logger = logging.getLogger("prefect_nb.notebook")

TARGET = "prefect_nb.commands"
_REASON = "from the notebook"
_PATIENCE_SECONDS = 1.0


def handle(message: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one message and answer it; never raises, displays nothing, and takes no longer than a second.

    Args:
        message: `command` ("cancel", "pause", "resume", "skip", "retry"), `run` (the id of a flow run or task run, hex)
            and `seq`, which comes back with the answer.
    """
    answers: list[tuple[bool, str]] = []
    # The history may have to be written, which can take its time; the thread that this is called on may be the cell's.
    context = contextvars.copy_context()
    worker = threading.Thread(
        target=context.run,
        args=(lambda: answers.append(_carried_out(message)),),
        name="prefect_nb-command",
        daemon=True,
    )
    worker.start()
    worker.join(_PATIENCE_SECONDS)
    ok, words = answers[0] if answers else (True, "Asked; the history is busy, so this takes a moment.")
    return {"answer": True, "seq": message.get("seq"), "ok": ok, "message": words}


def _carried_out(message: Mapping[str, Any]) -> tuple[bool, str]:
    try:
        return _command(message)
    except Exception as error:
        logger.debug("The command %r failed: %s", message, error, exc_info=error)
        return False, f"That did not work: {error}"


def _command(message: Mapping[str, Any]) -> tuple[bool, str]:
    from prefect_nb.home import Home
    from prefect_nb.service.task_control import command

    try:
        run_id = UUID(hex=str(message.get("run")))
    except ValueError:
        return False, f"{str(message.get('run'))[:80]!r} is not the id of a run."
    home = Home.current()
    kind = str(message.get("command"))[:40]
    if run_id in home.live or home.store.flow_run(run_id) is not None:
        return command(kind, flow_run_id=run_id, reason=_REASON)
    return command(kind, task_run_id=run_id, reason=_REASON)


def honour_subshell(comm: Any) -> None:
    """Have messages of this comm handled on the subshell that the front end names.

    ipykernel 7.4 handles them where the comm was last written to, which for a widget of a cell is the shell that this
    very cell keeps busy. Other versions have no such method.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default


def listen(shell: Any) -> None:
    """Take commands by comms that front ends open; does nothing where there is no kernel."""
    manager = getattr(getattr(shell, "kernel", None), "comm_manager", None)
    if manager is not None:
        manager.register_target(TARGET, _opened)


def _opened(comm: Any, _message: Any) -> None:
    honour_subshell(comm)

    def answer(message: Mapping[str, Any]) -> None:
        data = message.get("content", {}).get("data")
        if isinstance(data, dict) and "command" in data:
            comm.send(handle(data))

    comm.on_msg(answer)
