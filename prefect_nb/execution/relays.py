"""What a body in another process prints, sent to where its flow run is watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import msgspec

from prefect_nb.execution import taps

_TOGETHER_SECONDS = 0.02
_TOGETHER_CHARACTERS = 8 * 1024


class Printed(msgspec.Struct, frozen=True):
    """Text that a carried call printed to "stdout" or "stderr"."""

    kind: str
    text: str


class Relay:
    """Around one carried call: takes what it prints and sends it off, a little at a time.

    Args:
        emit: sends a `Printed`.
    """

    def __init__(self, emit: Callable[[Any], None]) -> None:
        self._emit = emit
        self._lock = threading.RLock()
        self._kind = ""
        self._pieces: list[str] = []
        self._waiting = 0
        self._sent = float("-inf")
        self._token = _relay.set(self)
        taps.listen(_relaying)

    def close(self) -> None:
        """The call is over."""
        taps.leave(_relaying)
        _relay.reset(self._token)
        self._send()

    def take(self, kind: str, text: str) -> None:
        """Send this off, now or with what comes next."""
        with self._lock:
            if kind != self._kind:
                self._send()
                self._kind = kind
            self._pieces.append(text)
            self._waiting += len(text)
            if self._waiting > _TOGETHER_CHARACTERS or time.monotonic() > self._sent + _TOGETHER_SECONDS:
                self._send()

    def _send(self) -> None:
        with self._lock:
            if self._pieces:
                text = "".join(self._pieces)
                self._pieces.clear()
                self._waiting = 0
                self._emit(Printed(self._kind, text))
                self._sent = time.monotonic()


class _Relaying:
    def text(self, kind: str, text: str) -> bool:
        relay = _relay.get()
        if relay is None:
            return False
        relay.take(kind, text)
        return True

    def display(self, data: Any, metadata: Any, options: dict[str, Any]) -> None:
        """Nobody can see it here, and the text that stands for it is printed."""

    def clear(self, wait: bool) -> bool:  # noqa: ARG002 - IPython's
        return False


_relaying = _Relaying()
_relay: ContextVar[Relay | None] = ContextVar("prefect_nb_relay", default=None)
