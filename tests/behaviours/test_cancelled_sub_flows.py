"""Cancelling a sub-flow run ends that run, and not the flow around it."""

import threading
import time

import pytest

from prefect_nb import flow
from prefect_nb.exceptions import CancelledRun
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.service import control


def cancel_when_running(name: str) -> threading.Thread:
    """From another thread: cancel the flow run of that flow as soon as it runs."""

    def cancel() -> None:
        home = Home.current()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = home.store.flow_runs(RunQuery(flow_name=name, limit=1))
            if found and found[0].state_name == "Running":
                control.cancel(found[0], wait=0, reason="No longer wanted.")
                return
            time.sleep(0.01)

    thread = threading.Thread(target=cancel)
    thread.start()
    return thread


@pytest.mark.parametrize("waits", [lambda: threading.Event().wait(30), lambda: time.sleep(30)], ids=["event", "sleep"])
def test_the_flow_around_it_goes_on(waits):
    @flow
    def inner():
        waits()

    @flow
    def outer():
        try:
            inner()
        except CancelledRun as error:
            return f"went on: {error}"

    canceller = cancel_when_running("inner")
    state = outer(return_state=True)
    canceller.join()

    assert state.is_completed(), state
    assert "No longer wanted." in state.result()
    home = Home.current()
    home.ledger.commit()
    (child,) = home.store.flow_runs(RunQuery(flow_name="inner", limit=1))
    assert child.state_name == "Cancelled"


def test_the_one_around_it_can_still_be_cancelled():
    @flow
    def inner():
        threading.Event().wait(30)

    @flow
    def outer():
        try:
            inner()
        except CancelledRun:
            second = cancel_when_running("outer")
            threading.Event().wait(30)
            second.join()

    canceller = cancel_when_running("inner")
    started = time.monotonic()
    state = outer(return_state=True)
    canceller.join()

    assert state.is_cancelled(), state
    assert time.monotonic() - started < 25
