"""What a pool's worker must do before it waits for other runs: give its place to the work it waits for."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect_nb.interfaces import Runner

_here = threading.local()


@contextmanager
def working_in(runner: Runner) -> Iterator[None]:
    """Around work that a runner does on this thread."""
    outer = getattr(_here, "runner", None)
    _here.runner = runner
    try:
        yield
    finally:
        _here.runner = outer


def waiting() -> AbstractContextManager[Any]:
    """Around a wait for other runs."""
    runner = getattr(_here, "runner", None)
    blocked = getattr(runner, "blocked", None)
    return blocked() if blocked is not None else nullcontext()
