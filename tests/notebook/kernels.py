"""A real kernel to run cells in, and what came of each."""

import contextlib
import queue
import re
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from jupyter_client.manager import KernelManager

TIMEOUT = 60.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Outcome:
    """What one cell left behind."""

    def __init__(self) -> None:
        self.status = ""
        self.stdout = ""
        self.stderr = ""
        self.displays: list[dict[str, Any]] = []
        """Bundles under the cell, as a front end has them at the end: updates are applied."""
        self.value: str | None = None
        self.ename = ""
        self.evalue = ""
        self.traceback = ""
        self._places: dict[str, int] = {}

    @property
    def html(self) -> str:
        return "\n".join(bundle.get("text/html", "") for bundle in self.displays)

    def take(self, message: dict[str, Any]) -> None:
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                setattr(self, content["name"], getattr(self, content["name"]) + content["text"])
            case "display_data":
                display_id = content.get("transient", {}).get("display_id")
                if display_id is not None:
                    self._places[display_id] = len(self.displays)
                self.displays.append(content["data"])
            case "update_display_data":
                self.displays[self._places[content["transient"]["display_id"]]] = content["data"]
            case "execute_result":
                self.value = content["data"]["text/plain"]
            case "error":
                self.ename, self.evalue = content["ename"], content["evalue"]
                self.traceback = _ANSI.sub("", "\n".join(content["traceback"]))

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if value and not name.startswith("_")}
        return f"Outcome({shown})"


class Kernel:
    """A kernel with the extension loaded."""

    def __init__(self, environment: dict[str, str]) -> None:
        # A folder of its own for the sockets: their default place is shared by all kernels started from one folder.
        self._folder = TemporaryDirectory(prefix="pnb-")
        self._manager = KernelManager(transport="ipc", connection_file=f"{self._folder.name}/kernel.json")
        self._of_others: deque[dict[str, Any]] = deque(maxlen=500)
        command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self._manager.kernel_spec.argv = command
        self._manager.start_kernel(env=environment)
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=TIMEOUT)
        self.run("%load_ext prefect_nb")

    def run(self, code: str, *, fails: bool = False, store_history: bool = True, watched: bool = False) -> Outcome:
        """Run a cell to its end; it must succeed, or with `fails` it must not."""
        outcome = self.end_of(self.start(code, store_history=store_history, watched=watched))
        assert outcome.status == ("error" if fails else "ok"), outcome
        return outcome

    def start(self, code: str, *, store_history: bool = True, watched: bool = False) -> str:
        """Have the kernel begin with a cell; returns the request's id. `watched`: as a front end with a person does."""
        if not watched:
            return self._client.execute(code, store_history=store_history, allow_stdin=False)
        content = {"code": code, "silent": False, "store_history": store_history, "allow_stdin": True}
        message = self._client.session.msg("execute_request", content, metadata={"cellId": uuid.uuid4().hex})
        self._client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def later(self, request: str, outcome: Outcome, until: Callable[[Outcome], bool]) -> Outcome:
        """What a cell that has ended leaves afterwards, until that is enough."""
        deadline = time.monotonic() + TIMEOUT
        for message in self._of_others:
            if message["parent_header"].get("msg_id") == request:
                outcome.take(message)
        while not until(outcome):
            message = self._client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") == request:
                outcome.take(message)
        return outcome

    def end_of(self, request: str, until: str | None = None, so_far: Outcome | None = None) -> Outcome:
        """What the cell left; with `until`, what it has left when this stands in its stdout (go on with `so_far`)."""
        outcome, deadline = so_far or Outcome(), time.monotonic() + TIMEOUT
        while True:
            message = self._client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") != request:
                self._of_others.append(message)
                continue
            outcome.take(message)
            if until is not None and until in outcome.stdout:
                return outcome
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while True:
            reply = self._client.get_shell_msg(timeout=max(0.1, deadline - time.monotonic()))
            if reply["parent_header"].get("msg_id") == request:
                outcome.status = reply["content"]["status"]
                return outcome

    def interrupt(self) -> None:
        """As the stop button does."""
        self._manager.interrupt_kernel()

    def reset(self) -> None:
        """Forget what earlier cells defined, as far as they are the user's."""
        self.run("%reset -f", store_history=False)
        with contextlib.suppress(queue.Empty):
            while True:
                self._client.get_iopub_msg(timeout=0)

    def close(self) -> None:
        """End the kernel."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._folder.cleanup()
