"""Somebody who answers while a flow run waits: a thread beside the test."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import StateType

LIMIT_SECONDS = 30.0


def until(look: Callable[[], Any], what: str) -> Any:
    """What `look()` says once it says something."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)
    return found


def paused_run() -> FlowRun:
    """The flow run that is paused, as soon as there is one."""
    store = Home.current().store
    runs = until(lambda: store.flow_runs(RunQuery(state_types=(StateType.PAUSED,))), "a paused flow run")
    return runs[0]


@contextmanager
def somebody(act: Callable[[], Any]) -> Iterator[None]:
    """Beside the block, `act()` is done; what goes wrong in it fails the test."""
    errors: list[BaseException] = []

    def go() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)
            for scope in list(Home.current().live.values()):  # nobody will answer any more
                scope.stop("What was done beside it failed.")

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        thread.join(LIMIT_SECONDS)
    assert not thread.is_alive()
    if errors:
        raise errors[0]
