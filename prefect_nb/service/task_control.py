"""Commands to a run that is going on: cancel, pause and resume a flow run; cancel, skip and retry a task run.

Whoever gives them clicks a button or types a line, perhaps a moment too late: the answer is always words, never an
exception.
"""

from __future__ import annotations

import time
from typing import Literal, get_args
from uuid import UUID

from prefect_nb.exceptions import PrefectException
from prefect_nb.execution import task_controls
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.task_controls import Answer, Wish
from prefect_nb.home import Home
from prefect_nb.interfaces import Request
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.service import control, history
from prefect_nb.service.text import one_line

Kind = Literal["cancel", "pause", "resume", "skip", "retry"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_LOOK_SECONDS = 0.05
_OF_TASKS = "Only task runs are skipped; cancel the flow run, or skip one of its task runs."


def command(
    kind: str,
    *,
    flow_run_id: UUID | None = None,
    task_run_id: UUID | None = None,
    reason: str | None = None,
    wait: float = 0.0,
) -> Answer:
    """Have something done with a run, in this process at once, in another one within 0.2 seconds.

    Args:
        kind: "cancel", "pause" or "resume" a flow run; "cancel", "skip" or "retry" a task run.
        flow_run_id: which flow run.
        task_run_id: which task run, instead.
        reason: who asks, for the state that comes of it, such as "from the notebook"; default: "by request".
        wait: seconds to wait for another process to say what it has done; what was asked stays asked when they are over.

    Returns:
        Whether it is being done, and in words what is done or why it is not. Nothing is raised for a run that has ended,
        is unknown, or cannot do that.
    """
    if kind not in KINDS:
        return Answer(False, f"There is no command {one_line(str(kind))!r}; there are {', '.join(KINDS)}.")
    try:
        if task_run_id is not None:
            return _to_task(kind, task_run_id, reason, wait)
        if flow_run_id is not None:
            return _to_flow(kind, flow_run_id, reason, wait)
    except (PrefectException, RuntimeError) as error:
        return Answer(False, str(error))
    return Answer(False, f"Which run to {kind} was not said.")


def find_open_task_run(text: str) -> TaskRun:
    """The task run of this id, beginning of an id, or name; of several of a name, the one that has not ended.

    Raises:
        ObjectNotFound, ConfigurationError: as `history.find_task_run`.
    """
    found = history.settled_home().store.resolve_run(text)
    still_open = [run for run in found if isinstance(run, TaskRun) and not run.is_final and run.kind != "cell"]
    return still_open[0] if len(still_open) == 1 else history.find_task_run(text)


# Task runs


def _to_task(kind: str, id: UUID, reason: str | None, wait: float) -> Answer:
    if kind not in task_controls.KINDS:
        return Answer(False, f"A task run cannot be told to {kind}, its flow run can.")
    home = Home.current()
    message = task_controls.message_of(kind, reason)
    answer = home.control_task(id, Wish(kind, message))
    if answer is not None and answer.ok:
        return answer
    home.ledger.commit()
    home.reap()
    run = home.store.task_run(id)
    if run is None:
        return answer or Answer(False, f"There is no task run {id}. `prefect-nb task-run ls` lists them.")
    flow_run = home.store.flow_run(run.flow_run_id) if run.flow_run_id is not None else None
    refusal = _refusal(kind, run, flow_run)
    if refusal is not None:
        return Answer(False, refusal)
    if answer is not None:
        return answer
    assert flow_run is not None
    if flow_run.id in home.live and not home.live[flow_run.id].shared and flow_run.kind != "notebook":
        return Answer(False, task_controls.out_of_reach(run))
    request = home.store.add_request(flow_run.id, f"{kind}-task", now_us(), task_controls.details_of(id, message))
    return _outcome(home, request, run, wait)


def _refusal(kind: str, run: TaskRun, flow_run: FlowRun | None) -> str | None:
    """Why nothing is to be done with a task run that the history knows."""
    name = one_line(run.name)
    if run.kind == "cell":
        return f"{name!r} is a cell of a notebook run, and no task run. `prefect-nb flow-run cancel` ends the notebook."
    if run.kind == history.STAND_IN:
        return f"Task run {name!r} stands for a child flow run; say it to that one."
    if run.is_final:
        words = task_controls.ended_already(run)
        return words if kind != "retry" else f"{words} {_how_to_retry(run, flow_run)}"
    if flow_run is None:
        return f"Task run {name!r} belongs to no flow run, so only the process that runs it can {kind} it."
    if flow_run.is_final or run.state_name == "NotReady":
        return f"Task run {name!r} will not run: it is {run.state_name}."
    return None


def _how_to_retry(run: TaskRun, flow_run: FlowRun | None) -> str:
    """A task run that failed has told those who depend on it so: to run it again, they have to be run again as well."""
    if flow_run is None:
        return "Call the task again."
    name = history.handle_of(flow_run)
    if flow_run.entrypoint is None and flow_run.kind != "notebook":  # no other process knows its code
        return "Run the flow again where it is defined."
    if run.state.is_completed():
        return f"`prefect-nb flow-run repair {name} --task {run.id}` runs it again, and what depends on it."
    first = "" if flow_run.is_final else "What depends on it has heard so. Once the flow run has ended, "
    return f"{first}`prefect-nb flow-run retry {name}` runs again what failed, and what depends on it."


def _outcome(home: Home, request: Request, run: TaskRun, wait: float) -> Answer:
    """What another process made of a request."""
    deadline = time.monotonic() + wait
    while True:
        outcome = home.store.request_outcome(request.id)
        if outcome is not None:
            return task_controls.answer_of(outcome)
        if time.monotonic() >= deadline:
            verb = request.kind.partition("-")[0]
            return Answer(True, f"Task run {run.name!r}: asked to {verb}; its process has not done so yet.")
        time.sleep(_LOOK_SECONDS)
        home.reap()
        now = home.store.task_run(run.id)
        if now is not None and now.is_final:
            outcome = home.store.request_outcome(request.id) or task_controls.outcome_of(
                Answer(False, task_controls.ended_already(now))
            )
            home.store.settle_request(request.id, outcome)
            return task_controls.answer_of(outcome)


# Flow runs


def _to_flow(kind: str, id: UUID, reason: str | None, wait: float) -> Answer:
    home = Home.current()
    home.ledger.commit()
    home.reap()
    run = home.store.flow_run(id)
    if run is None:
        return Answer(False, f"There is no flow run {id}. `prefect-nb flow-run ls` lists them.")
    name = one_line(run.name)
    if kind == "skip":
        return Answer(False, _OF_TASKS)
    if kind == "retry":
        handle = history.handle_of(run)
        how = f"`prefect-nb flow-run retry {handle}` runs again what failed"
        return Answer(
            False, f"{how}." if run.is_final else f"Flow run {name!r} is still going on; once it has ended, {how}."
        )
    if kind == "resume":
        return _resume(home, run)
    if run.is_final:
        return Answer(False, f"Flow run {name!r} has ended already: it is {run.state_name}.")
    if kind == "cancel":
        message = f"Cancelled {reason or 'by request'}."
        if not home.cancel_here(id, message):
            control.cancel(run, wait, message)
        return Answer(True, f"Flow run {name!r} is being cancelled.")
    return _pause(home, run, wait)


def _pause(home: Home, run: FlowRun, wait: float) -> Answer:
    name = one_line(run.name)
    scope = home.live.get(run.id)
    if run.state.is_paused():
        return Answer(False, f"Flow run {name!r} is {run.state_name} already.")
    if scope is not None:
        asked = {"timeout": None, "key": f"asked-{now_us()}", "keyset": None}
        scope.wish(Request(0, run.id, "pause", now_us(), asked))
    else:
        run = control.pause(run, "pause", wait)
    if run.state.is_paused():
        return Answer(True, f"Flow run {name!r} is {run.state_name}.")
    before = "cell" if run.kind == "notebook" else "task run"
    return Answer(True, f"Flow run {name!r} pauses before its next {before}.")


def _resume(home: Home, run: FlowRun) -> Answer:
    name = one_line(run.name)
    if control.waits_in_its_process(run):
        control.answer(run)
        return Answer(True, f"Flow run {name!r} goes on.")
    if run.state.is_paused():
        return Answer(False, f"Flow run {name!r} has no process; `prefect-nb flow-run resume {name}` goes on with it.")
    if run.is_final:
        return Answer(False, f"Flow run {name!r} has ended already: it is {run.state_name}.")
    scope = home.live.get(run.id)
    if scope is None:
        home.store.add_request(run.id, "resume", now_us(), {})
        return Answer(True, f"Flow run {name!r} is not paused yet; its process was told not to.")
    if scope.take_wish() is not None:
        return Answer(True, f"Flow run {name!r} is not paused after all.")
    return Answer(False, f"Flow run {name!r} is not paused.")
