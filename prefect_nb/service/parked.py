"""Kernels that are kept of failed notebook runs, and going on in them, or without them, from the cell that failed."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect_nb.bodies import adopted, parking
from prefect_nb.bodies.parking import Parked
from prefect_nb.exceptions import NotResumable, ObjectNotFound
from prefect_nb.execution import going_on, scripts, secrets
from prefect_nb.execution.going_on import Continuation
from prefect_nb.flows import Flow
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import FlowRun, to_datetime
from prefect_nb.model.states import StateType
from prefect_nb.service.history import find_flow_run, handle_of, settled_home
from prefect_nb.service.text import one_line
from prefect_nb.settings import get_settings

Tell = Callable[[str], None]


def kept_kernels() -> list[Parked]:
    """The kernels that are kept, the oldest first."""
    return parking.parked_kernels(get_settings().home)


def kept_kernel(flow_run_id: UUID) -> Parked | None:
    """The kernel that is kept for a run; None for none."""
    return parking.parked_kernel(get_settings().home, flow_run_id)


def kept_until(parked: Parked) -> datetime:
    """When it will end if nobody goes on in it, in local time."""
    until = to_datetime(parked.until_us)
    assert until is not None
    return until.astimezone()


def newest_failed() -> FlowRun:
    """The newest notebook run that failed or crashed.

    Raises:
        ObjectNotFound: there is none.
    """
    query = RunQuery(kinds=("notebook",), state_types=(StateType.FAILED, StateType.CRASHED), limit=1)
    found = settled_home().store.flow_runs(query)
    if not found:
        raise ObjectNotFound("No notebook run has failed. Name the run: `prefect-nb flow-run ls` lists them.")
    return found[0]


def drop_kernel(run: str) -> Parked:
    """End the kernel that is kept for a run.

    Args:
        run: the run's name, its id or the beginning of that.

    Raises:
        ObjectNotFound: there is no such run, or no kernel is kept for it.
    """
    found = find_flow_run(run)
    parked = kept_kernel(found.id)
    if parked is None:
        raise ObjectNotFound(
            f"No kernel is kept for flow run {found.name!r}. `prefect-nb kernel ls` lists those that are."
        )
    parking.drop(get_settings().home, parked)
    return parked


def drop_all() -> list[Parked]:
    """End every kernel that is kept."""
    found = kept_kernels()
    for parked in found:
        parking.drop(get_settings().home, parked)
    return found


def continue_in(
    flow: Flow[..., Any],
    run: FlowRun,
    *,
    from_cell: str | None = None,
    restart: bool = False,
    tell: Tell = lambda _: None,
) -> Continuation | None:
    """Prepare a notebook run's flow to go on from a cell: in its kept kernel, or with the variables that were kept.

    Args:
        flow: the run's, as its notebook is now.
        run: the run.
        from_cell: where to go on: a cell's number, counted from 1 among those that are executed, or its id.
        restart: from the top, in a new kernel.
        tell: is told what is going to happen, a sentence at a time.

    Returns:
        What was prepared; its kernel, if it has one, is now held by this process. None: the notebook runs from the top.

    Raises:
        NotResumable: it cannot go on like this; the message says why, and what to do instead.
    """
    if run.kind != "notebook":
        if from_cell is not None:
            raise NotResumable(f"Flow run {run.name!r} is no notebook run: it has no cells to go on from.")
        return None
    if from_cell is not None and restart:
        raise NotResumable("Either go on from a cell or restart from the top, not both.")
    home = settled_home()
    body: Any = flow.fn
    body.continuation = None
    script = scripts.read_script(home.path, run.id)
    if script is not None:
        body.kernel_name = script.kernel_name
    failure = None if restart else going_on.failure_of(home, run)
    if failure is None:
        if from_cell is not None:
            raise NotResumable(f"No cell of flow run {run.name!r} has completed: it can only run from the top.")
        tell("The notebook runs again from the top, in a new kernel.")
        return None
    recorded = secrets.all_parameters(home.cipher, run)
    given = {name: value for name, value in recorded.items() if name in flow.signature.names}
    _, parameters = flow.signature.call_args(body.checked({**flow.signature.defaults, **given}))
    parked = parking.parked_kernel(home.path, run.id)
    plan, kernel = None, None
    if parked is not None:
        plan = going_on.plan(failure, run, body.prepared(parameters), in_kept_kernel=True, from_cell=from_cell)
        kernel = adopted.adopt(home.path, parked)
    if kernel is None:
        plan = going_on.plan(failure, run, body.prepared(parameters), in_kept_kernel=False, from_cell=from_cell)
    if plan is None:
        if from_cell is not None:
            raise NotResumable(
                f"The kernel of flow run {run.name!r} is gone and none of its variables were kept: it can only run from the "
                "top (--restart)."
            )
        tell("The kernel is gone and no variables were kept: the notebook runs again from the top.")
        return None
    plan.kernel = kernel
    body.continuation = plan
    for sentence in (*plan.words, *_words(plan, failure)):
        tell(sentence)
    return plan


def _words(plan: Continuation, failure: going_on.Failure) -> list[str]:
    first, kept = plan.first, plan.first.number - 1
    number = f"{kept} of {len(plan.cells)} cells {'is' if kept == 1 else 'are'} kept"
    where = f"the run goes on from cell {first.number} ({one_line(first.name, 60)})"
    if plan.kernel is not None:
        return [f"{number}; {where} in the kept kernel, whose memory still holds changes made by the failed cell."]
    checkpoint = failure.checkpoint
    assert checkpoint is not None
    words = [
        f"The kernel is gone. {number}; {where} in a new kernel, with the variables kept after cell {checkpoint.cell_number}."
    ]
    if checkpoint.lost:
        words.append(f"Not kept, and not needed: {'; '.join(map(str, checkpoint.lost))}.")
    return words


def let_go(flow: Flow[..., Any], plan: Continuation | None) -> None:
    """Nothing is left behind of a continuation that the flow has not used, as it was refused in the end."""
    body: Any = flow.fn
    if plan is not None and body.continuation is plan and plan.kernel is not None:
        plan.kernel.close(0)


def next_step(run: FlowRun) -> str | None:
    """How to go on with a failed notebook run whose kernel is kept; None where none is."""
    parked = kept_kernel(run.id)
    if parked is None:
        return None
    return (
        f"kept until {kept_until(parked):%H:%M}; correct cell {parked.cell_number} and go on from there: "
        f"prefect-nb flow-run resume {handle_of(run)}"
    )
