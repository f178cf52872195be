"""Taps on what this process shows - `sys.stdout`, `sys.stderr`, IPython's displays - while anybody listens.

A stream gets a tap put in its place, also in handlers of `logging` that hold it already. (IPython puts a `write` of its
own on the stream itself for as long as a cell takes, and what a detached run shows may come from several cells.)
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Protocol


class Listener(Protocol):
    """Who is told. It finds out for itself whose code is showing something: it is called on that code's thread."""

    def text(self, kind: str, text: str) -> bool:
        """Something is about to be written to "stdout" or "stderr".

        Returns:
            Whether the listener takes it, so that it is not written.
        """
        ...

    def display(self, data: Any, metadata: Any, options: dict[str, Any]) -> None:
        """A bundle is about to be published with these options of IPython's, which may be changed here."""
        ...

    def clear(self, wait: bool) -> bool:
        """What was shown so far is about to be cleared; returns whether the listener sees to that."""
        ...


class _Tap:
    """A stream that tells the listeners what is written to it, and passes on what none of them takes."""

    def __init__(self, stream: Any, kind: str) -> None:
        self._stream = stream
        self._kind = kind

    def write(self, text: str) -> Any:
        taken = False
        if isinstance(text, str):
            for listener in _listeners:
                if listener.text(self._kind, text):
                    taken = True
        return len(text) if taken else self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_lock = threading.Lock()
_counts: Counter[Listener] = Counter()
_listeners: tuple[Listener, ...] = ()
_undo: list[Callable[[], None]] = []


def listen(listener: Listener) -> None:
    """Tell this listener from now on, until `leave` was called as often."""
    global _listeners
    with _lock:
        _counts[listener] += 1
        _listeners = tuple(_counts)
        untapped = [kind for kind in ("stdout", "stderr") if not isinstance(getattr(sys, kind), _Tap | None)]
        _undo.extend(map(_tap_stream, untapped))
        shell = shell_here()
        if shell is not None and not hasattr(vars(shell.display_pub).get("publish"), "is_tap"):
            _undo.append(_tap_displays(shell.display_pub))


def leave(listener: Listener) -> None:
    """Tell this listener no more; the last who leaves takes the taps off."""
    global _listeners
    with _lock:
        _counts[listener] -= 1
        if _counts[listener] <= 0:
            del _counts[listener]
        _listeners = tuple(_counts)
        if not _listeners:
            while _undo:
                _undo.pop()()


def shell_here() -> Any:
    """The IPython shell of this process; None for none."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _tap_stream(kind: str) -> Callable[[], None]:
    stream = getattr(sys, kind)
    tap = _Tap(stream, kind)
    setattr(sys, kind, tap)
    for handler in _handlers_on(stream):
        handler.stream = tap

    def undo() -> None:
        if getattr(sys, kind) is tap:  # somebody else may have put their own there meanwhile
            setattr(sys, kind, stream)
        for handler in _handlers_on(tap):
            handler.stream = stream

    return undo


def _handlers_on(stream: Any) -> Iterator[logging.StreamHandler[Any]]:
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if isinstance(handler, logging.StreamHandler) and vars(handler).get("stream") is stream:
            yield handler


def _tap_displays(publisher: Any) -> Callable[[], None]:
    publish, clear_output = publisher.publish, publisher.clear_output

    def tapped_publish(data: Any, metadata: Any = None, *args: Any, **options: Any) -> Any:
        for listener in _listeners:
            listener.display(data, metadata, options)
        return publish(data, metadata, *args, **options)

    def tapped_clear(wait: bool = False) -> Any:
        taken = [listener.clear(wait) for listener in _listeners]
        return None if any(taken) else clear_output(wait)

    tapped_publish.is_tap = True  # type: ignore[attr-defined]
    publisher.publish, publisher.clear_output = tapped_publish, tapped_clear

    def undo() -> None:
        if publisher.__dict__.get("publish") is tapped_publish:
            del publisher.publish, publisher.clear_output

    return undo
