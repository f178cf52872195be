"""A kernel of one's own for one notebook: found, started, spoken to, interrupted, and always gone at the end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from prefect_nb.bodies.memory import Sampler
from prefect_nb.bodies.outputs import Message
from prefect_nb.bodies.verdict import Death, verdict
from prefect_nb.exceptions import KernelDied, NotebookError

DEFAULT_KERNEL = "python3"
STARTUP_SECONDS = 60.0
_TCP_ATTEMPTS = 3
_ASK_AGAIN_SECONDS = 0.5
# The path of a Unix socket may have 107 characters; the longest name in our folder needs 16 of them.
_LONGEST_FOLDER = 90
_LAST_WORDS = 2_000
_MANY_WORDS = 20_000
_FAULTS = "faults"
CONNECTION = "connection.json"
"""In a kernel's folder, once it was let go: where it listens, and the key that its messages are signed with."""
# Where the parts of a message on the wire are (after its signature), and when one is worth a look before decoding it.
_HEADER, _PARENT, _CONTENT = 1, 2, 4
_LARGE = 1_000_000
_LEAVE_SECONDS = 1.0
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def choose_kernel(notebook: Mapping[str, Any], asked: str | None) -> str:
    """The name of the kernel to run a notebook with: the one asked for, else the one it names, else `python3`.

    Raises:
        NotebookError: that kernel is not installed, or does not run Python.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    named = notebook["metadata"].get("kernelspec") or {}
    name = asked or named.get("name") or DEFAULT_KERNEL
    manager = KernelSpecManager()
    try:
        spec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        installed = sorted(manager.find_kernel_specs())
        who = "You ask for" if asked else "The notebook asks for"
        raise NotebookError(
            f"{who} the kernel {name!r}, which is not installed. Installed: {', '.join(installed) or 'none'}. Choose one "
            f"of these by kernel_name, or install {name!r} from its own environment: "
            f"python -m ipykernel install --user --name {name}"
        ) from None
    if spec.language.lower() != "python":
        raise NotebookError(
            f"The kernel {name!r} runs {spec.language}; notebooks are run as flows with Python kernels only."
        )
    return str(name)


class Kernel:
    """A kernel process. Everything is called on one thread; what it waits for, it waits for on that thread.

    Args:
        name: of the installed kernel.
        folder: where it runs.
        environment: of its process, whole.
        startup_seconds: how long it may take to answer.
    """

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], startup_seconds: float) -> None:
        self.name = name
        self.language_info: dict[str, Any] | None = None
        self.was_killed = False
        self._leaves = False
        self._folder = folder
        self._environment = environment
        self._startup_seconds = startup_seconds
        self._own(Path(tempfile.mkdtemp(prefix="prefect_nb-")))

    def _own(self, folder: Path) -> None:
        """Have this folder, until the kernel is closed or let go."""
        self.own_folder = folder
        self._open = contextlib.ExitStack()
        self._open.callback(shutil.rmtree, folder, ignore_errors=True)
        self._pid: int | None = None
        self._sampler: Sampler | None = None

    def start(self, given_up: Callable[[], bool]) -> None:
        """Start it and wait until it answers, or until `given_up()`.

        Raises:
            KernelDied: it did not start; the message has what it wrote to stderr.
        """
        transport = "ipc" if sys.platform != "win32" and len(str(self.own_folder)) <= _LONGEST_FOLDER else "tcp"
        for attempt in range(1, _TCP_ATTEMPTS + 1):
            self._launch(transport)
            try:
                self._await_ready(given_up)
                self._watch_faults()
                return
            except KernelDied:
                # A port can be taken between its choice and its use; a socket file cannot.
                if transport == "ipc" or attempt == _TCP_ATTEMPTS or "in use" not in self.last_words():
                    raise
                self._close_channels()

    def _launch(self, transport: str) -> None:
        import asyncio

        from jupyter_client.manager import AsyncKernelManager

        self._channels = contextlib.ExitStack()
        self._run: Callable[[Any], Any] = self._channels.enter_context(asyncio.Runner()).run
        manager: Any = AsyncKernelManager(
            kernel_name=self.name, transport=transport, connection_file=str(self.own_folder / "kernel.json")
        )
        self._manager = manager
        # A history file shared by all kernels would only be waited for.
        extra = ["--HistoryManager.hist_file=:memory:"] if "ipykernel" in " ".join(manager.kernel_spec.argv) else []
        with (self.own_folder / "output").open("ab") as output:
            try:
                self._run(
                    manager.start_kernel(
                        extra_arguments=extra, cwd=str(self._folder), env=dict(self._environment),
                        stdout=output, stderr=output,
                    )
                )  # fmt: skip
            except Exception as error:  # of the system, or of whoever provides the kernel
                raise KernelDied(
                    f"The kernel {self.name!r} cannot be started: {error}. Install it again "
                    f"(python -m ipykernel install --user --name {self.name}), or choose another by kernel_name."
                ) from error
        self._pid = manager.provisioner.pid
        self._sampler = None if self._pid is None else Sampler(self._pid)
        self._open_channels(manager.get_connection_info(session=True), parent=manager)

    def _open_channels(self, info: Mapping[str, Any], **options: Any) -> None:
        import zmq
        from jupyter_client.blocking.client import BlockingKernelClient

        context = zmq.Context()
        self._channels.callback(context.destroy, linger=100)
        client: Any = BlockingKernelClient(**info, **options, context=context)
        client.start_channels(stdin=False, hb=False)
        self._channels.callback(client.stop_channels)
        self._client = client
        self._poller = zmq.Poller()
        self._poller.register(client.shell_channel.socket, zmq.POLLIN)
        self._poller.register(client.iopub_channel.socket, zmq.POLLIN)

    def _await_ready(self, given_up: Callable[[], bool]) -> None:
        """Until the kernel has answered, and its output has been seen to arrive here."""
        deadline = time.monotonic() + self._startup_seconds
        answered = heard = False
        ask_at = 0.0
        asked: set[str] = set()
        while not (answered and heard) and not given_up():
            now = time.monotonic()
            if now > deadline:
                self.kill()
                raise KernelDied(
                    f"The kernel {self.name!r} did not answer within {self._startup_seconds:g} seconds.{self._quoted()}"
                )
            if now >= ask_at:
                asked.add(self._client.kernel_info())
                ask_at = now + _ASK_AGAIN_SECONDS
            for message in self.messages(0.05):
                if message["parent_header"].get("msg_id") in asked:
                    if message["msg_type"] == "kernel_info_reply":
                        answered = True
                        self.language_info = message["content"].get("language_info")
                    elif message["msg_type"] == "status":
                        heard = True
            if self.exit_code is not None:
                raise KernelDied(
                    f"The kernel {self.name!r} did not start: {describe_exit(self.exit_code)}.{self._quoted()}"
                )

    def _watch_faults(self) -> None:
        """Have Python write down where it was when compiled code crashes; done with it, forget who the parent is.

        Its stderr is a pipe that the kernel itself reads: what is written there at the very end is lost.
        """
        enabling = (
            f"import faulthandler, os\nfaulthandler.enable(open({str(self.own_folder / _FAULTS)!r}, 'w'))\n"
            # The kernel has read who its parent is; what its cells start has another.
            "os.environ.pop('JPY_PARENT_PID', None)"
        )
        self.execute(f"exec({enabling!r}, {{}})", {}, silent=True)

    # Speaking to it

    def execute(
        self,
        source: str,
        metadata: Mapping[str, Any],
        *,
        silent: bool = False,
        expressions: Mapping[str, str] | None = None,
    ) -> str:
        """Have it execute code, and then evaluate expressions whose values the reply has; returns the request's id."""
        content = {
            "code": source, "silent": silent, "store_history": not silent, "user_expressions": dict(expressions or {}),
            "allow_stdin": False, "stop_on_error": False,
        }  # fmt: skip
        message = self._client.session.msg("execute_request", content, metadata=dict(metadata))
        self._client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def messages(self, timeout: float, left_out: Callable[[str, int], bool] | None = None) -> Iterator[Message]:
        """The messages that are there, or that arrive first within `timeout` seconds; outputs before replies.

        Args:
            timeout: seconds.
            left_out: asked, before a very large piece of printed text is decoded, with the request it belongs to and
                its size, whether it is left out.
        """
        import zmq

        if self._sampler is not None:
            self._sampler.tick()
        if not self._poller.poll(int(timeout * 1000)):
            return
        for channel in (self._client.iopub_channel, self._client.shell_channel):
            session = channel.session
            while channel.socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                _, parts = session.feed_identities(channel.socket.recv_multipart())
                if left_out is not None and len(parts[_CONTENT]) > _LARGE:
                    header, parent = session.unpack(parts[_HEADER]), session.unpack(parts[_PARENT])
                    if header["msg_type"] == "stream" and left_out(parent.get("msg_id", ""), len(parts[_CONTENT])):
                        continue
                yield session.deserialize(parts)

    def leave(self, closing: str) -> str:
        """Have it execute this last code and then end by itself; returns the request's id.

        Asked to shut down from outside, ipykernel 7 sometimes waits for a thread that waits for it; told so by its own
        code, it does not.
        """
        self._leaves = True
        # It ends when this code has; asked first, it does so even if what follows fails.
        return self.execute("get_ipython().ask_exit()\n" + closing, {}, silent=True)

    def does(self, code: str, seconds: float) -> bool:
        """Have it execute code silently, and wait: whether that went well within so many seconds."""
        request, deadline = self.execute(code, {}, silent=True), time.monotonic() + seconds
        while time.monotonic() < deadline and self.exit_code is None:
            for message in self.messages(0.05):
                if message["msg_type"] == "execute_reply" and message["parent_header"].get("msg_id") == request:
                    return bool(message["content"].get("status") == "ok")
        return False

    def let_go(self) -> None:
        """Speak to it no more, but let it live: somebody else sees to it, and finds in its folder how to speak to it."""
        connection = self.own_folder / CONNECTION
        connection.touch(0o600)
        # A file of our own: Jupyter removes its own as soon as this process has no use for it.
        connection.write_bytes(msgspec.json.encode(self._connection()))
        process = getattr(self._manager.provisioner, "process", None)
        if process is not None:
            # Somebody has to take note of its end, or it stays in the table of processes.
            threading.Thread(target=process.wait, name="prefect_nb-reaper", daemon=True).start()
        self._close_channels()
        self._manager.context.destroy(linger=100)
        self._open.pop_all()

    # Its process

    @property
    def pid(self) -> int | None:
        """Its process, the leader of its group; None where there is none on this machine."""
        return self._pid

    def _connection(self) -> dict[str, Any]:
        info: dict[str, Any] = self._manager.get_connection_info()
        return {**info, "key": info["key"].decode()}

    @property
    def is_signalled(self) -> bool:
        """Whether it is interrupted by a signal, not by a message."""
        return bool(self._manager.kernel_spec.interrupt_mode == "signal")

    def explain_exit(self, doing: str = "") -> str:
        """Why its process ended.

        Args:
            doing: what it was doing, such as "while running `train`".
        """
        sampler = self._sampler
        return verdict(
            Death(
                exit_code=self.exit_code or 0,
                samples=() if sampler is None else tuple(sampler.samples),
                oom_kills=0 if sampler is None else sampler.oom_kills(),
                doing=doing,
                words=self._written(_FAULTS),
            )
        )

    @property
    def exit_code(self) -> int | None:
        """What its process ended with; negative for a signal; None while it lives."""
        provisioner = self._manager.provisioner
        if provisioner is None or not provisioner.has_process:
            return 0
        # Asked before every cell: a local process without the detour through an event loop.
        process = getattr(provisioner, "process", None)
        code: int | None = process.poll() if process is not None else self._run(provisioner.poll())
        return code

    def interrupt(self) -> None:
        """Interrupt what it executes."""
        self._run(self._manager.interrupt_kernel())

    def kill(self) -> None:
        """Kill it and every process it has started."""
        self.was_killed = True
        self._signal_group(getattr(signal, "SIGKILL", signal.SIGTERM))

    def last_words(self) -> str:
        """The end of what its process wrote to stdout and stderr."""
        return self._written("output")[-_LAST_WORDS:].strip()

    def _written(self, name: str) -> str:
        with contextlib.suppress(OSError):
            data = (self.own_folder / name).read_bytes()[-_MANY_WORDS:]
            return _ANSI.sub("", data.decode(errors="replace"))
        return ""

    def close(self, grace: float) -> None:
        """Ask it to end, wait up to `grace` seconds, and leave no process behind."""
        try:
            if self._pid is not None:
                self._shut_down(grace)
        finally:
            self._close_channels()
            self._open.close()

    def _shut_down(self, grace: float) -> None:
        if self._leaves:
            self._await_exit(_LEAVE_SECONDS)
        if self.exit_code is None and grace > 0:
            self._client.shutdown()
            self._await_exit(grace)
        if self.exit_code is None:
            self.was_killed = True
        # Also what it started and left behind: the group is the kernel's own.
        self._signal_group(getattr(signal, "SIGKILL", signal.SIGTERM))
        self._await_exit(5.0)
        self._forget()

    def _forget(self) -> None:
        self._run(self._manager.cleanup_resources())

    def _await_exit(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.exit_code is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._pid or 0, number)
            elif self.exit_code is None:
                os.kill(self._pid or 0, number)

    def _close_channels(self) -> None:
        if hasattr(self, "_channels"):
            self._channels.close()

    def _quoted(self) -> str:
        words = self.last_words()
        return f" It wrote:\n{words}" if words else ""


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    return verdict(Death(exit_code=code))
