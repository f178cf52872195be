"""Going on with a flow run in place - a retry or a repair: which of its task runs may not be taken over from before.

The rule. *Unfit* are task runs that did not complete, and those that were named. From them it spreads, through the whole
flow run with its sub-flow runs:

1. to what was computed from an unfit run: `task_inputs` name it, by a parameter or `wait_for`;
2. outwards: a task run (or sub-flow run) in whose body an unfit run was called has to be called itself for that;
3. inwards: what was called in the body of a run that is unfit for being named, or by 1. What was called in a run that
   failed, or is unfit by 2, is taken over if it completed.

Inputs are recorded for futures, states and objects; not for plain numbers and text, of which nobody can tell where they
came from. Therefore a completed run is, in addition, taken over only while its futures are those of the same runs, and
those of its arguments that its cache key knows are what they were.

A completed run whose result was not kept, or is damaged, is computed again, under its own id; what was computed from it
stays, for it was computed from the whole value. So is a task whose own code was changed: a run that did not complete
goes on under its id, one that completed stands in the history as it was, and the new code gets a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from prefect_nb.exceptions import NotResumable, ObjectNotFound
from prefect_nb.execution import clock, resuming
from prefect_nb.execution.again import Again, name_of
from prefect_nb.interfaces import RunQuery, Store
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType

if TYPE_CHECKING:
    from prefect_nb.execution.shapes import Surroundings

_EVERY = -1
_OUTSIDE = "__parents__"


class Members(msgspec.Struct, frozen=True):
    """Everything below a flow run: the sub-flow runs, at any depth, and the task runs of all of them."""

    task_runs: dict[UUID, TaskRun]
    flow_runs: dict[UUID, FlowRun]
    """Sub-flow runs by the id of the task run that stands for each."""


def members(store: Store, flow_run_id: UUID) -> Members:
    """Read everything below a flow run."""
    task_runs: dict[UUID, TaskRun] = {}
    flow_runs: dict[UUID, FlowRun] = {}
    waiting = [flow_run_id]
    while waiting:
        id = waiting.pop()
        query = RunQuery(flow_run_id=id, limit=_EVERY, oldest_first=True)
        # Of several runs at one place the newest counts: the others belong to earlier attempts of the flow.
        newest = {(run.task_key, run.dynamic_key): run for run in store.task_runs(query)}
        task_runs |= {run.id: run for run in newest.values()}
        for child in store.flow_runs(query):
            waiting.append(child.id)
            if child.parent_task_run_id is not None:
                flow_runs[child.parent_task_run_id] = child
    return Members(task_runs, flow_runs)


def plan(below: Members, named: Sequence[UUID] = ()) -> Again:
    """What may not be taken over, by the rule this module begins with."""
    runs = below.task_runs
    consumers = _consumers(runs)
    around = _around(below)
    inside: dict[UUID, list[UUID]] = {}
    for id, outer in around.items():
        inside.setdefault(outer, []).append(id)

    unfit: set[UUID] = set()
    renewed: set[UUID] = set()

    def spread(id: UUID, *, anew: bool) -> None:
        waiting = [(id, anew)]
        while waiting:
            id, anew = waiting.pop()
            if id in (renewed if anew else unfit):
                continue
            unfit.add(id)
            if anew:
                renewed.add(id)
                waiting += [(inner, True) for inner in inside.get(id, ())]
            waiting += [(consumer, True) for consumer in consumers.get(id, ())]
            if id in around:
                waiting.append((around[id], False))

    for id in named:
        spread(id, anew=True)
    open_or_failed = [run for run in runs.values() if run.state_type is not StateType.COMPLETED and run.kind != "cell"]
    for run in open_or_failed:
        spread(run.id, anew=False)
    completed = (id for id in renewed if runs[id].state_type is StateType.COMPLETED)
    places = {(run.flow_run_id, name_of(run.task_key), run.dynamic_key): run for run in open_or_failed}
    return Again(frozenset(unfit), frozenset(completed), tuple(named), places)


def _consumers(runs: dict[UUID, TaskRun]) -> dict[UUID, list[UUID]]:
    """By task run, the task runs that were given what came out of it."""
    found: dict[UUID, list[UUID]] = {}
    for run in runs.values():
        for parameter, sources in run.task_inputs.items():
            if parameter != _OUTSIDE:
                for source in sources:
                    if source.get("id"):
                        found.setdefault(UUID(source["id"]), []).append(run.id)
    return found


def _around(below: Members) -> dict[UUID, UUID]:
    """By task run, the task run in whose body it was called; at the top of a sub-flow, the one that stands for that."""
    stands_for = {child.id: dummy for dummy, child in below.flow_runs.items()}
    found: dict[UUID, UUID] = {}
    for run in below.task_runs.values():
        outer = run.parent_id or (stands_for.get(run.flow_run_id) if run.flow_run_id is not None else None)
        if outer in below.task_runs:
            found[run.id] = outer
    return found


class Begun(msgspec.Struct, frozen=True):
    """A flow run that was claimed to be gone on with."""

    run: FlowRun
    previous: resuming.TaskRuns
    again: Again


def retry(home: Surroundings, flow_run_id: UUID, force: bool) -> Begun:
    """Claim a run that did not complete.

    Raises:
        ObjectNotFound: no such run.
        NotResumable: it completed, is still running (and `force` is not given), or is part of another run.
    """
    run = reopened(home, flow_run_id, force)
    if run.state_type is StateType.COMPLETED:
        raise NotResumable(
            f"Flow run {run.name!r} completed; there is nothing to retry. "
            f"`prefect-nb flow-run repair {run.id} --task NAME` runs chosen tasks of it again."
        )
    return _begin(home, run, plan(members(home.store, run.id)))


def repair(home: Surroundings, flow_run_id: UUID, tasks: Sequence[str | UUID], force: bool) -> Begun:
    """Claim a run that has ended, to compute anew these tasks of it besides what failed.

    Raises:
        ObjectNotFound: no such run, or it has no such task run.
        NotResumable: it is still running (and `force` is not given), or is part of another run.
    """
    run = reopened(home, flow_run_id, force)
    below = members(home.store, run.id)
    return _begin(home, run, plan(below, [id for task in tasks for id in named(below, run, task)]))


def reopened(home: Surroundings, flow_run_id: UUID, force: bool) -> FlowRun:
    """A run that may be claimed.

    Raises:
        ObjectNotFound, NotResumable: as `retry`.
    """
    run = home.store.flow_run(flow_run_id)
    if run is None:
        raise ObjectNotFound(f"There is no flow run {flow_run_id}. `prefect-nb flow-run ls` lists them.")
    if not run.is_final and not force:
        raise NotResumable(
            f"Flow run {run.name!r} is {run.state_name}, and its process lives. "
            "Cancel it first, or take it over by force."
        )
    if run.parent_flow_run_id is not None:
        raise NotResumable(
            f"Flow run {run.name!r} is part of flow run {run.parent_flow_run_id}; retry or repair that one."
        )
    return run


def named(below: Members, run: FlowRun, task: str | UUID) -> list[UUID]:
    """The task runs that a name means: the run's own name or id, or else the task's (or sub-flow's), for all its runs.

    Raises:
        ObjectNotFound: none.
    """
    text = str(task)
    runs = below.task_runs.values()
    found = [one.id for one in runs if text in (one.name, str(one.id))]
    found = found or [one.id for one in runs if one.name.rpartition("-")[0] == text or _function(one.task_key) == text]
    found = found or [
        dummy for dummy, child in below.flow_runs.items() if text in (child.name, child.flow_name, str(child.id))
    ]
    if not found:
        names = sorted({one.name.rpartition("-")[0] or one.name for one in runs})
        listed = f" It has: {', '.join(names[:20])}." if names else ""
        raise ObjectNotFound(f"Flow run {run.name!r} has no task run {text!r}.{listed}")
    return found


def _function(task_key: str) -> str:
    return name_of(task_key).rpartition(".")[2]


def _begin(home: Surroundings, run: FlowRun, again: Again) -> Begun:
    # Asked for by a person: it is no recovery, of which there is a limit.
    claimed = home.store.claim(run.id, home.owner_id, clock.now_us(), run.recoveries)
    return Begun(claimed, resuming.task_runs_before(home, run.id), again)


class Repairable:
    """What a flow offers for runs of it that are to be gone on with in place."""

    def retry(self, flow_run_id: UUID, *, return_state: bool = False, force: bool = False) -> Any:
        """Run again what failed in a run of this flow and what depends on it, in the same flow run.

        Task runs that completed, their results kept, are taken over; `prefect_nb.execution.repairing` tells the rule.

        Args:
            flow_run_id: the run; one that did not complete.
            return_state: return the final `State` instead, and do not raise what the flow raised.
            force: take the run over although its process still lives; that process can write nothing more of it.

        Raises:
            ObjectNotFound: no such run.
            NotResumable: it completed, is still running, or is a sub-flow run.
        """
        return self._go_on(lambda home: retry(home, flow_run_id, force), return_state)

    def repair(
        self,
        flow_run_id: UUID,
        tasks: Iterable[str | UUID] = (),
        *,
        return_state: bool = False,
        force: bool = False,
    ) -> Any:
        """As `retry`, also of a run that completed: in addition, these tasks run again, and what depends on them.

        Args:
            flow_run_id: the run.
            tasks: names or ids of task runs, or names of tasks, for all their runs.
            return_state, force: as for `retry`.

        Raises:
            ObjectNotFound: no such run, or no such task in it.
            NotResumable: it is still running, or is a sub-flow run.
        """
        return self._go_on(lambda home: repair(home, flow_run_id, list(tasks), force), return_state)

    def _go_on(self, begin: Callable[[Surroundings], Begun], return_state: bool) -> Any:
        raise NotImplementedError
