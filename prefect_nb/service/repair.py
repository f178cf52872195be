"""Retrying and repairing flow runs in place: what will run again, and doing it. `execution.repairing` tells the rule."""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.execution import repairing
from prefect_nb.flows import Flow
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.service.flow_code import flow_of
from prefect_nb.service.history import settled_home
from prefect_nb.service.running import Finished, Watch, execute


class Preview(msgspec.Struct, frozen=True):
    """What a retry or repair will do with the task runs there are; sub-flow runs are told by what stands for them."""

    again: list[TaskRun]
    """Run again: they did not complete, were named, or depend on such."""
    lost: list[TaskRun]
    """Run again although they completed: their results were not kept, or are damaged."""
    reused: list[TaskRun]
    """Taken over."""


def preview(run: FlowRun, tasks: Sequence[str] = (), force: bool = False) -> Preview:
    """What `repair` (or `retry`, without tasks) would do.

    Raises:
        ObjectNotFound: it has no such task run.
        NotResumable: it is still running, or part of another run.
    """
    home = settled_home()
    home.ledger.commit()
    now = repairing.reopened(home, run.id, force)
    below = repairing.members(home.store, now.id)
    again = repairing.plan(below, [id for task in tasks for id in repairing.named(below, now, task)])
    found = Preview([], [], [])
    for task_run in below.task_runs.values():
        if task_run.kind == "cell":
            continue
        if task_run.id in again.unfit:
            found.again.append(task_run)
            continue
        child = below.flow_runs.get(task_run.id)
        result = task_run.result if child is None else child.result
        whole = result is not None and home.results.check(result)
        (found.reused if whole else found.lost).append(task_run)
    return found


def retry(run: FlowRun, force: bool = False, watch: Watch = nullcontext) -> Finished:
    """Run again, in this process and in the same flow run, what failed and what depends on it.

    Args:
        run: the flow run; it did not complete.
        force: take it over although its process lives; that process can write nothing more of it.
        watch: shows the progress.

    Raises:
        NotResumable: it completed, is still running, is part of another run, or its code cannot be found.
        ObjectNotFound, ScriptError, MissingFlowError, NotebookError: its code is gone, broken, or another one now.
        Fenced: a third process has taken it over.
    """
    flow = flow_of(run)
    return _go_on(flow, run, lambda: flow.retry(run.id, return_state=True, force=force), watch)


def repair(run: FlowRun, tasks: Sequence[str] = (), force: bool = False, watch: Watch = nullcontext) -> Finished:
    """As `retry`, also of a run that completed; these tasks run again besides, and what depends on them.

    Args:
        run: the flow run.
        tasks: names or ids of task runs, or names of tasks.
        force, watch: as for `retry`.

    Raises:
        ObjectNotFound: it has no such task run.
        NotResumable, ScriptError, MissingFlowError, NotebookError, Fenced: as `retry`.
    """
    flow = flow_of(run)
    return _go_on(flow, run, lambda: flow.repair(run.id, tasks, return_state=True, force=force), watch)


def _go_on(flow: Flow[..., Any], run: FlowRun, begin: Callable[[], Any], watch: Watch) -> Finished:
    def start(_flow: Flow[..., Any], began: Callable[[UUID], None]) -> Any:
        began(run.id)
        outcome = begin()
        return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    return execute(flow, start, watch)
