"""A kernel that another process started and kept, gone on with in this one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from prefect_nb.bodies import parking
from prefect_nb.bodies.kernels import CONNECTION, Kernel
from prefect_nb.bodies.memory import Sampler
from prefect_nb.bodies.parking import Parked
from prefect_nb.bodies.verdict import UNSEEN
from prefect_nb.exceptions import KernelDied

_CONNECT_SECONDS = 15.0


def adopt(home: Path, parked: Parked) -> AdoptedKernel | None:
    """Take a kept kernel and hold it: it ends when this process does.

    Args:
        home: the home directory.
        parked: what is kept.

    Returns:
        The kernel, ready; None if somebody else has taken it, or it does not answer any more (then it is ended).
    """
    if not parking.take(home, parked):
        return None
    kernel = AdoptedKernel(parked)
    try:
        kernel.hold()
    except KernelDied:
        kernel.close(0)
        return None
    finally:
        parking.release_keeper(home, parked)
    return kernel


class AdoptedKernel(Kernel):
    """The kernel; this process is not its parent, so how it ends is not to be learnt.

    Args:
        parked: what is kept.
    """

    def __init__(self, parked: Parked) -> None:
        self.name = parked.kernel_name
        self.language_info = parked.language_info
        self.was_killed = False
        self._leaves = False
        self._startup_seconds = _CONNECT_SECONDS
        self._parked = parked
        self._own(Path(parked.folder))
        self._pid = parked.kernel_pid
        self._sampler = Sampler(parked.kernel_pid)
        self._channels = contextlib.ExitStack()
        self.environment: Mapping[str, str] = {}
        """Variables that are set in it when it starts to be gone on with."""

    def hold(self) -> None:
        """Connect to it and have it live as long as this process.

        Raises:
            KernelDied: it does not answer.
        """
        try:
            info = json.loads((self.own_folder / CONNECTION).read_text())
            pipe = parking.new_pipe(self.own_folder)
        except (OSError, ValueError) as error:
            raise KernelDied(f"The kept kernel's folder is gone: {error}") from error
        self._channels.callback(os.close, os.open(pipe, os.O_RDWR))
        keys = ("transport", "ip", "shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")
        self._open_channels({name: info[name] for name in keys})
        self._client.session.key = info["key"].encode()
        self._await_ready(lambda: False)
        if not parking.is_held(self, pipe):
            raise KernelDied("The kept kernel does not answer.")

    def start(self, given_up: Callable[[], bool]) -> None:  # noqa: ARG002
        """It runs already; it is told whose it is now.

        Raises:
            KernelDied: it does not answer.
        """
        variables = f"import os; os.environ.update({dict(self.environment)!r})"
        if not self.does(f"exec({variables!r}, {{}})", _CONNECT_SECONDS):
            raise KernelDied("The kept kernel does not answer any more.")

    @property
    def is_signalled(self) -> bool:
        """Whether it is interrupted by a signal, not by a message."""
        return self._parked.signalled

    @property
    def exit_code(self) -> int | None:
        """None while it lives, then `UNSEEN`."""
        return None if self._parked.is_alive else UNSEEN

    def interrupt(self) -> None:
        """Interrupt what it executes."""
        if self.is_signalled:
            self._signal_group(signal.SIGINT)
        else:
            self._client.control_channel.send(self._client.session.msg("interrupt_request", {}))

    def let_go(self) -> None:
        """Speak to it no more, but let it live: somebody else sees to it."""
        self._close_channels()
        self._open.pop_all()

    def _forget(self) -> None:
        """Nothing of it is this process's to clean up but its folder."""
