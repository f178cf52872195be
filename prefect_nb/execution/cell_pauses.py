"""Pausing a notebook run between two of its cells, as somebody asked from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect_nb.bodies.cells import End
from prefect_nb.exceptions import FlowPauseTimeout, RunCancelled
from prefect_nb.execution import logs, pausing

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import RecordingFlow


def between(execution: RecordingFlow) -> End | None:
    """On the loop's thread, while no cell runs: wait if the run is to be paused. How the notebook ends instead, if so."""
    wish = execution.scope.take_wish() if execution.scope.wanted is not None else None
    if wish is None:
        return None
    try:
        with logs.sent_to(execution.home.ledger.log):
            pausing.carry_out(execution, wish)
    except RunCancelled as error:
        return End("stopped", str(error))
    except FlowPauseTimeout as error:
        return End("failed", str(error))
    return None
