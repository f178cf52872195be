"""A flow run of any process as a view: rebuilt from the history, and live while the run goes on."""

import contextvars
import logging
import threading
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect_nb.exceptions import PrefectException
from prefect_nb.execution.clock import now_us
from prefect_nb.home import Home
from prefect_nb.interfaces import Change, Store
from prefect_nb.model.events import apply
from prefect_nb.model.runs import FlowRun, Run
from prefect_nb.notebook.html import mimebundle_of
from prefect_nb.notebook.picture import Picture
from prefect_nb.notebook.view import LiveView, make_view
from prefect_nb.notebook.view_board import Board
from prefect_nb.notebook.view_facts import Facts
from prefect_nb.service import artifacts, history, metrics

logger = logging.getLogger("prefect_nb.notebook")

_POLL = 0.25
_REAP_EVERY = 8
"""Looks at the changes between two at whether the run's process still lives."""

_PAGE = 1000
_LOOKS = 3

_watchers: dict[UUID, threading.Event] = {}
"""What ends the view of each run that is watched: one is enough."""


def bundle_of_run(run: FlowRun) -> dict[str, str]:
    """A flow run with everything below it, as it is now, for any front end."""
    home = Home.current()
    home.ledger.commit()
    board = Board(run.id)
    board.put(_everything(home.store, run))
    board.put_artifacts(artifacts.of_runs(board.flow_run_ids))
    facts = Facts()
    picture = board.picture(now_us())
    for _ in range(_LOOKS):
        if not facts.look(picture):
            break
    return mimebundle_of(_reported(picture, run, facts), facts.last_lines(board.flow_run_ids))


def watch(run: FlowRun) -> bool:
    """Show a flow run that goes on, live, below the cell that is executed; returns at once.

    The view follows what any process writes of the run, and folds when the run has ended.

    Returns:
        Whether it is shown; there is no live view outside a notebook.
    """
    view = make_view(run.id)
    if view is None or not view.is_live:
        return False
    home = Home.current()
    home.ledger.commit()
    cursor = home.store.last_cursor()
    runs = {one.id: one for one in _everything(home.store, run)}
    view.board.put(runs.values())
    over = _watchers.pop(run.id, None)
    if over is not None:
        over.set()
    over = _watchers[run.id] = threading.Event()
    view.start()
    context = contextvars.copy_context()  # what the thread displays belongs under this cell
    threading.Thread(
        target=context.run, args=(_follow, home, view, cursor, runs, over), name="prefect_nb-watch", daemon=True
    ).start()
    return True


def _follow(home: Home, view: LiveView, cursor: int, runs: dict[UUID, Run], over: threading.Event) -> None:
    looks = 0
    while not over.wait(_POLL):
        looks += 1
        try:
            if looks % _REAP_EVERY == 0:
                home.reap()
            while changes := home.store.changes(cursor, _PAGE):
                view.board.put(filter(None, [_after(change, runs) for change in changes]))
                cursor = changes[-1].cursor
        except PrefectException as error:
            logger.debug("Flow run %s could not be followed: %s", view.board.flow_run_id, error)
        now = view.board.run(view.board.flow_run_id)
        if now is None or now.is_final:
            break
    if _watchers.get(view.board.flow_run_id) is over:
        del _watchers[view.board.flow_run_id]
    view.finish()


def _after(change: Change, runs: dict[UUID, Run]) -> Run | None:
    """The run after a change; None where it is of another flow run, or in the snapshot already."""
    before = runs.get(change.run_id)
    if change.number != (before.events if before is not None else 0):
        return None
    runs[change.run_id] = run = apply(before, change.event)
    return run


def _everything(store: Store, run: FlowRun) -> list[Run]:
    """The newest snapshots of the run and all below it, each flow run before what it called."""
    found: list[Run] = [store.flow_run(run.id) or run, *history.descendants(run.id)]
    return found + [task_run for one in list(found) for task_run in history.all_task_runs(one.id)]


def _reported(picture: Picture, run: FlowRun, facts: Facts) -> Picture:
    from msgspec.structs import replace

    lines: Sequence[Any] = [line for group in metrics.series(run).values() for line in group]
    flow_run_ids = [run.id, *(child.id for child in picture.children)]
    printed = facts.printed(flow_run_ids)
    return replace(picture, metrics=lines, usual_us=facts.usual_us, remarks=facts.remarks, printed=printed)
