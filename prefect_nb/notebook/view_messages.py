"""What the live panel asks of the kernel, and who answers.

A message is `{"command": ..., "seq": n, ...}`; the answer goes back as `{"answer": true, "seq": n, "ok": ..., ...}`. With
ipykernel 7 an answer is made on a thread beside the busy cell: whoever makes it neither waits nor displays.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

logger = logging.getLogger("prefect_nb.notebook")

Message = Mapping[str, Any]
Answer = dict[str, Any]
Handler = Callable[[Message], Answer]


def answer(message: Any, own: Mapping[str, Handler]) -> Answer | None:
    """The answer to a message of a panel; None where it is not one of ours.

    Args:
        message: as it came from the page.
        own: the commands of this one panel, by name. `details` is everybody's; the rest goes to `commands.handle`.
    """
    if not isinstance(message, dict) or not isinstance(message.get("command"), str):
        return None
    command = message["command"]
    try:
        handler = own.get(command) or COMMANDS.get(command) or _control
        answered = handler(message)
    except Exception as error:
        logger.debug("The panel's command %r failed: %s", command, error, exc_info=error)
        answered = {"ok": False, "message": f"That did not work: {error}"}
    return {**answered, "answer": True, "seq": message.get("seq")}


def _details(message: Message) -> Answer:
    from prefect_nb.notebook.view_details import details

    return {"ok": True, "details": details(UUID(hex=message["run"]))}


def _control(message: Message) -> Answer:
    from prefect_nb.notebook.commands import handle

    return handle(message)


COMMANDS: dict[str, Handler] = {"details": _details}
"""Commands that any panel understands, by name."""
