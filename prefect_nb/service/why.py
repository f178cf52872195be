"""Why a task run computed its result, or did not: a hit, or the first difference from an earlier run.

`why(...)` is given whatever stands for a task run - a snapshot, future, state, id, name, or the task itself - and answers
in words. For a flow run it answers for each of its task runs.
"""

import difflib
from collections.abc import Iterable
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from prefect_nb.exceptions import ObjectNotFound
from prefect_nb.execution.clock import now_us
from prefect_nb.execution.futures import PrefectFuture
from prefect_nb.execution.replay import moment
from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.interfaces import KeyParts, RunQuery, Store
from prefect_nb.model.events import KeyComputed
from prefect_nb.model.fingerprint_parts import Difference, Part, differences
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import State
from prefect_nb.service import history
from prefect_nb.service.text import ago, one_line
from prefect_nb.tasks import Task

R = TypeVar("R", FlowRun, TaskRun)

HIT, MISS, FIRST, UNCACHED, NOT_RUN = "hit", "miss", "first", "uncached", "not run"

_COMPARED = 50
"""With so many earlier runs of the same code, and of other code, a run is compared; the likest is what it is told from."""
_RECENT = 200


class Answer(msgspec.Struct, frozen=True):
    """Why one task run computed its result, or did not."""

    run: TaskRun
    kind: str
    """"hit", "miss", "first", "uncached" or "not run"."""
    reason: str
    """In words, on one line."""
    other: TaskRun | None = None
    """The run whose result was taken, or which this one was compared with."""
    differences: tuple[str, ...] = ()
    """Everything in which it differs from that one, the first first."""

    def __str__(self) -> str:
        return f"{one_line(self.run.name)}: {self.reason}"

    __repr__ = __str__


class Answers(list[Answer]):
    """Answers for several task runs."""

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "No task runs."

    __repr__ = __str__


def why(what: Any = None) -> Answer | Answers:
    """Why a task run computed its result, or why it did not have to.

    Args:
        what: a task run, its id or name, its future or state, or a task (meaning its newest run). A flow run or a flow,
            or a list of futures: one answer for each task run. None: the newest task run with all others of its flow run.

    Raises:
        ObjectNotFound: there is no such run.
        ConfigurationError: the beginning of an id fits several.
        TypeError: it stands for no run.
    """
    home = history.settled_home()
    home.ledger.commit()
    found = _newest(home.store) if what is None else _resolve(home.store, what)
    if isinstance(found, TaskRun):
        return _explained(home, found)
    if isinstance(found, FlowRun):
        return Answers(_explained(home, run) for run in _task_runs_of(found.id))
    return Answers(_explained(home, run) for run in found)


def _task_runs_of(flow_run_id: UUID) -> list[TaskRun]:
    ids = (flow_run_id, *(run.id for run in history.descendants(flow_run_id)))
    return [run for id in ids for run in history.all_task_runs(id, kinds=("task",))]


def _newest(store: Store) -> TaskRun | FlowRun | list[TaskRun]:
    newest = store.task_runs(RunQuery(kinds=("task",), limit=1))
    if not newest:
        raise ObjectNotFound("No task has run here yet.")
    flow_run = store.flow_run(newest[0].flow_run_id) if newest[0].flow_run_id is not None else None
    if flow_run is None:
        return newest[0]
    return (flow_run.root_flow_run_id and store.flow_run(flow_run.root_flow_run_id)) or flow_run


def _resolve(store: Store, what: Any) -> TaskRun | FlowRun | list[TaskRun]:
    match what:
        case TaskRun() | FlowRun():
            return what
        case PrefectFuture():
            return _by_id(store, what.task_run_id)
        case State():
            id = what.state_details.task_run_id or what.state_details.flow_run_id
            if id is None:
                raise ObjectNotFound("This state belongs to no run.")
            return _by_id(store, id)
        case UUID():
            return _by_id(store, what)
        case str():
            return _by_text(store, what)
        case Task():
            return _of_task(store, what)
        case Flow():
            return _newest_of(store.flow_runs(RunQuery(flow_name=what.name, limit=1)), f"Flow {what.name!r}")
        case list() | tuple():
            found = [_resolve(store, item) for item in what]
            return [run for run in found if isinstance(run, TaskRun)]
    id = getattr(what, "id", None)
    if isinstance(id, UUID):
        return _by_id(store, id)
    raise TypeError(
        f"why() was given {type(what).__name__}, which stands for no run. Give a run, future, state or task."
    )


def _by_id(store: Store, id: UUID) -> TaskRun | FlowRun:
    found = store.task_run(id) or store.flow_run(id)
    if found is None:
        raise ObjectNotFound(f"There is no run {id}.")
    return found


def _by_text(store: Store, text: str) -> TaskRun | FlowRun:
    """A run by its id, the beginning of its id, or its name; or the newest run of the task of that name."""
    named = [run for run in store.resolve_run(text) if run.name == text]
    if named:
        return max(named, key=lambda run: (isinstance(run, TaskRun), run.created_us))
    recent = store.task_runs(RunQuery(name_contains=text, kinds=("task",), limit=_RECENT))
    of_task = [run for run in recent if run.name.rpartition("-")[0] == text]
    if of_task:
        return of_task[0]
    if any(isinstance(run, FlowRun) for run in store.resolve_run(text)):
        return history.find_flow_run(text)
    return history.find_task_run(text)


def _of_task(store: Store, task: Task[Any, Any]) -> TaskRun:
    return _newest_of(store.task_runs(RunQuery(task_key=task.task_key, limit=1)), f"Task {task.name!r}")


def _newest_of(runs: list[R], whose: str) -> R:
    if not runs:
        raise ObjectNotFound(f"{whose} has not run yet.")
    return runs[0]


# One task run


def _explained(home: Home, run: TaskRun) -> Answer:
    store = home.store
    if run.kind != "task":
        words = "stands for a sub-flow run" if run.kind == history.STAND_IN else f"is a {run.kind}"
        return Answer(run, UNCACHED, f"not cached because: it {words}; its task runs are cached one by one")
    if run.state_name == "Cached":
        return _hit(store, run)
    known = store.key_parts(run.id)
    if known is None:
        return _without_key(run)
    if not known.parts:
        return Answer(run, UNCACHED, f"not cached because: {one_line(known.note or 'it has no cache key', 300)}")
    if known.note is not None:
        return Answer(run, MISS, f"miss: {_noted(known.note, run)}")
    return compared(store, run, known)


def _hit(store: Store, run: TaskRun) -> Answer:
    source = run.result.source if run.result is not None else None
    other = store.task_run(source) if source is not None else None
    if other is None:
        return Answer(run, HIT, "hit: a result with the same cache key was kept before")
    kept = other.end_us or other.created_us
    return Answer(run, HIT, f"hit: same as {called(other)} (kept {ago(kept, now_us())})", other)


def _without_key(run: TaskRun) -> Answer:
    if run.run_count == 0:
        message = f": {one_line(run.state_message, 200)}" if run.state_message else ""
        return Answer(run, NOT_RUN, f"did not run: it is {run.state_name}{message}")
    if run.result is not None:
        return Answer(
            run, UNCACHED, "not cached because: its cache policy is NONE; its result is kept for resuming only"
        )
    if run.result_note:
        return Answer(run, UNCACHED, f"not cached because: {one_line(run.result_note, 300)}")
    return Answer(
        run,
        UNCACHED,
        "not cached because: its results are not kept (neither persist_result=True nor a cache policy other than NONE)",
    )


def _noted(note: str, run: TaskRun) -> str:
    word, _, rest = note.partition(" ")
    if word == "expired" and rest.isdecimal():
        return f"the kept result had expired ({ago(int(rest), run.created_us)})"
    if word == "damaged:":
        return f"the kept result cannot be used (damaged): {one_line(rest, 300)}"
    if word == "changed:":
        return f"the kept result is of another time: {one_line(rest, 300)}"
    return f"not looked for because: {one_line(note, 300)}"


def compared(store: Store, run: TaskRun, known: KeyParts) -> Answer:
    """Why a run with these parts of its key is computed, told by the earlier run that is most like it."""
    earlier = store.earlier_key_parts(known.task_key, run.id, _COMPARED)
    if not earlier:
        return Answer(run, FIRST, "first run of this task")
    found = [(differences(before.parts, known.parts), before) for before in earlier]
    query = RunQuery(ids=tuple(before.task_run_id for before in earlier), limit=len(earlier))
    runs = {one.id: one for one in store.task_runs(query)}
    # Runs of the same flow run differ because they were meant to; those of an earlier one tell what has changed.
    siblings = {id for id, one in runs.items() if one.flow_run_id is not None and one.flow_run_id == run.flow_run_id}
    differing, nearest = min(found, key=lambda pair: (len(pair[0]), pair[1].task_run_id in siblings))
    other = runs.get(nearest.task_run_id)
    if not differing:
        return Answer(
            run, MISS, f"miss: same code and inputs as {called(other)}, {_unusable(store, run, other)}", other
        )
    told = tuple(_words(store, difference) for difference in differing)
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    since = f"; compared with {called(other)}" if other is not None else ""
    return Answer(run, MISS, f"miss: {told[0]}{more}{since}", other, told)


def _unusable(store: Store, run: TaskRun, other: TaskRun | None) -> str:
    """Why the result of a run with the same key was not there to be taken."""
    if other is None:
        return "which is no longer in the history"
    looked_us = max((e.at_us for e in store.events(run.id) if isinstance(e, KeyComputed)), default=run.created_us)
    if other.state_type.value != "COMPLETED":
        return f"which is {other.state_name}: nothing was kept of it"
    if other.end_us is None or other.end_us > looked_us:
        return "which was still running then"
    if other.result is None:
        note = f" ({one_line(other.result_note, 200)})" if other.result_note else ""
        return f"whose result was not kept{note}"
    return "whose kept result was gone"


def called(run: TaskRun | None) -> str:
    """A run in a sentence: `'clean-1a2' of 14:02`."""
    return "an earlier run" if run is None else f"'{one_line(run.name)}' of {moment(run.start_us or run.created_us)}"


def _words(store: Store, difference: Difference) -> str:
    kind, name, was, now, words = difference
    words = words.removeprefix("ran because ")
    if kind == "run":
        return (
            "another flow run; RUN_ID is part of the default policy, INPUTS + TASK_SOURCE shares results between runs"
        )
    if was is None or now is None:
        return words
    if kind in ("source", "helper") and not _is_library(now):
        whose = "its code" if kind == "source" else f"helper `{name}`"
        line = _changed_line(store, was, now)
        return f"{whose} changed ({line})" if line else f"{whose} changed"
    if was.detail and now.detail and "value" in was.detail and "value" in now.detail and kind != "custom":
        return f"{kind.replace('_', ' ')} `{name}` is {now.detail['value']}, was {was.detail['value']}"
    return words


def _is_library(part: Part) -> bool:
    return part.detail is not None and "library" in part.detail


def _changed_line(store: Store, was: Part, now: Part) -> str:
    """The first line in which two versions of a function differ, where both are known."""
    texts = [store.source_text(_digest(part)) for part in (was, now)]
    if texts[0] is None or texts[1] is None or texts[0] == texts[1]:
        return ""
    removed, added = _first_change(texts[0].splitlines(), texts[1].splitlines())
    if removed and added:
        return f"line `{one_line(removed)}` -> `{one_line(added)}`"
    return f"new line `{one_line(added)}`" if added else f"line `{one_line(removed)}` is gone"


def _digest(part: Part) -> str:
    return part.digest if part.kind == "source" else (part.detail or {}).get("source", "")


def _first_change(before: list[str], after: list[str]) -> tuple[str, str]:
    for tag, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            return _one(before[i:j]), _one(after[k:m])
    return "", ""


def _one(lines: Iterable[str]) -> str:
    return next((line.strip() for line in lines if line.strip()), "")


def document(answer: Answer) -> dict[str, Any]:
    """An answer for programs."""
    other = answer.other
    return {
        "task_run": {"id": str(answer.run.id), "name": answer.run.name},
        "kind": answer.kind,
        "reason": answer.reason,
        "other": None if other is None else {"id": str(other.id), "name": other.name},
        "differences": list(answer.differences),
    }
