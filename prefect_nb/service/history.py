"""Reading the history: find runs, list them, show what belongs to them.

Every read first settles what dead processes left behind, so a crashed run shows as Crashed at once.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from prefect_nb.exceptions import ConfigurationError, ObjectNotFound
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery, Store
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.service.text import bytes_text, did_you_mean, nearest, one_line

NAMED_STATES: dict[str, StateType] = {
    **{type_.value.capitalize(): type_ for type_ in StateType},
    "Late": StateType.SCHEDULED,
    "AwaitingRetry": StateType.SCHEDULED,
    "AwaitingConcurrencySlot": StateType.SCHEDULED,
    "NotReady": StateType.PENDING,
    "Retrying": StateType.RUNNING,
    "Cached": StateType.COMPLETED,
    "Skipped": StateType.COMPLETED,
    "TimedOut": StateType.FAILED,
    "RecoveryLimit": StateType.FAILED,
    "Suspended": StateType.PAUSED,
    "NotRun": StateType.CANCELLED,
}
"""State names the engine gives, with their types; a flow may return states of any other name."""

R = TypeVar("R", FlowRun, TaskRun)

STAND_IN = "subflow"
"""The kind of a task run that stands for a child flow run in its parent."""

_RECENT = 200
_PAST_RUNS = 10
_PREVIEW_BYTES = 4096


class Node(msgspec.Struct, frozen=True):
    """A task run, cell or child flow run with the ones called in it."""

    run: Run
    children: list["Node"]


def settled_home() -> Home:
    """The current home, dead owners' runs settled."""
    home = Home.current()
    home.reap()
    return home


def flow_runs(
    *,
    states: Sequence[str] = (),
    flow: str | None = None,
    tags: Sequence[str] = (),
    limit: int = 20,
    name: str | None = None,
) -> list[FlowRun]:
    """The newest flow runs that fit, newest first.

    Args:
        states: types or names of states, in any case; a run in any of them fits.
        flow: the flow's name.
        tags: a run must have all of them.
        limit: at most so many.
        name: text that the run's name contains.

    Raises:
        ConfigurationError: a state nothing is in, spelled much like one there is.
        ObjectNotFound: no flow of that name has ever run.
    """
    home = settled_home()
    types, names = _states(states)
    query = RunQuery(state_types=types, flow_name=flow, tags=tuple(tags), limit=limit, name_contains=name)
    found = _in_states(home.store.flow_runs, query, types, names)
    if not found:
        _explain_states(states)
        if flow is not None:
            _explain_flow(home, flow)
    return found


def task_runs(
    *,
    flow_run: FlowRun | None = None,
    states: Sequence[str] = (),
    tags: Sequence[str] = (),
    limit: int = 50,
) -> list[TaskRun]:
    """The newest task runs (and cells) that fit, newest first; the arguments are those of `flow_runs`.

    Raises:
        ConfigurationError: a state nothing is in, spelled much like one there is.
    """
    home = settled_home()
    types, names = _states(states)
    parent = flow_run.id if flow_run is not None else None
    query = RunQuery(flow_run_id=parent, state_types=types, tags=tuple(tags), limit=limit)
    found = _in_states(home.store.task_runs, query, types, names)
    if not found:
        _explain_states(states)
    return found


def find_flow_run(text: str, settled: bool = True) -> FlowRun:
    """The flow run of this id, beginning of an id (4 characters or more), or exact name.

    Args:
        text: id, beginning of an id, or name.
        settled: have runs that dead processes left open settled first.

    Raises:
        ObjectNotFound: there is none; the message names those spelled alike.
        ConfigurationError: there are several; the message lists them.
    """
    home = settled_home() if settled else Home.current()
    return _find(home, text, FlowRun, "flow", "task", lambda store: store.flow_runs(RunQuery(limit=_RECENT)))


def find_task_run(text: str) -> TaskRun:
    """The task run of this id, beginning of an id, or exact name; raises as `find_flow_run` does."""
    recent = RunQuery(limit=_RECENT)
    return _find(settled_home(), text, TaskRun, "task", "flow", lambda store: store.task_runs(recent))


def _find(home: Home, text: str, kind: type[R], word: str, other: str, recent: Callable[[Store], Iterable[Run]]) -> R:
    runs = home.store.resolve_run(text)
    found = _the_one(text, [run for run in runs if isinstance(run, kind)], word)
    if found is not None:
        return found
    if runs:
        raise ObjectNotFound(
            f"{one_line(text)!r} is a {other} run, not a {word} run. "
            f"Look at it with `prefect-nb {other}-run inspect {runs[0].id}`."
        )
    near = did_you_mean(text, (run.name for run in recent(home.store)))
    raise ObjectNotFound(
        f"There is no {word} run with the id or name {one_line(text)!r}.{near} `prefect-nb {word}-run ls` lists them."
    )


def handle_of(run: FlowRun) -> str:
    """What to call the run by: its name, or its id where several have that name."""
    same = [other for other in Home.current().store.resolve_run(run.name) if isinstance(other, FlowRun)]
    return run.name if [other.id for other in same] == [run.id] else str(run.id)


def all_task_runs(flow_run_id: UUID, kinds: Sequence[str] = ()) -> list[TaskRun]:
    """Every task run (and cell) of a flow run, oldest first."""
    query = RunQuery(flow_run_id=flow_run_id, kinds=tuple(kinds), oldest_first=True, limit=-1)
    return Home.current().store.task_runs(query)


def tree(flow_run_id: UUID) -> list[Node]:
    """What was called in a flow run as a forest, oldest first: each run under the one it was called in.

    A child flow run stands where the task run is that stands for it in its parent.
    """
    task_runs = all_task_runs(flow_run_id)
    called_by: dict[UUID | None, list[FlowRun]] = {}
    for child in child_flow_runs(flow_run_id):
        called_by.setdefault(child.parent_task_run_id, []).append(child)
    nodes = {run.id: [Node(child, tree(child.id)) for child in called_by.pop(run.id, [])] for run in task_runs}
    for run in task_runs:
        nodes[run.id] = nodes[run.id] or [Node(run, [])]
    roots: list[Node] = []
    for run in task_runs:
        above = nodes.get(run.parent_id) if run.parent_id is not None else None
        (above[-1].children if above else roots).extend(nodes[run.id])
    roots += [Node(child, tree(child.id)) for children in called_by.values() for child in children]
    return roots


def walk(nodes: Sequence[Node], depth: int = 0) -> Iterator[tuple[int, Node]]:
    """The nodes of a forest with their depths, each before those below it."""
    for node in nodes:
        yield depth, node
        yield from walk(node.children, depth + 1)


def child_flow_runs(flow_run_id: UUID) -> list[FlowRun]:
    """The flow runs called in a flow run, oldest first."""
    return Home.current().store.flow_runs(RunQuery(flow_run_id=flow_run_id, oldest_first=True, limit=-1))


def descendants(flow_run_id: UUID) -> list[FlowRun]:
    """The flow runs called in a flow run, and those called in these, and so on."""
    found = child_flow_runs(flow_run_id)
    for run in found:  # grows while it is walked through
        found += child_flow_runs(run.id)
    return found


def count_states(flow_run_id: UUID) -> tuple[dict[str, int], dict[str, int]]:
    """State name -> number, of a flow run's cells and of its task runs, those of its child flow runs included.

    The task runs that stand for child flow runs are not counted: they compute nothing.
    """
    cells = Counter(run.state_name for run in all_task_runs(flow_run_id, kinds=("cell",)))
    tasks: Counter[str] = Counter()
    for id in (flow_run_id, *(run.id for run in descendants(flow_run_id))):
        others = all_task_runs(id, kinds=("cell", STAND_IN))
        tasks += Counter(Home.current().store.count_task_states(id)) - Counter(run.state_name for run in others)
    return dict(cells), dict(tasks)


def usual_us(flow_name: str) -> int | None:
    """How long the flow's last completed runs took (the median, microseconds); None if there are none."""
    query = RunQuery(flow_name=flow_name, state_types=(StateType.COMPLETED,), limit=_PAST_RUNS)
    past = Home.current().store.flow_runs(query)
    lengths = [run.end_us - run.start_us for run in past if run.start_us is not None and run.end_us is not None]
    return int(statistics.median(lengths)) if lengths else None


def result_text(run: Run) -> str | None:
    """What can be said of a run's kept result without loading it; None if none was kept. JSON is shown as it is."""
    reference = run.result
    if reference is None:
        return f"not kept: {run.result_note}" if run.result_note else None
    about = f"{reference.serializer}, {bytes_text(reference.size)}"
    if reference.serializer != "json" or reference.size > _PREVIEW_BYTES:
        return f"kept ({about})"
    try:
        value = Home.current().results.get(reference)
    except Exception as error:  # whatever is wrong with it is what there is to say
        return f"cannot be read: {error}"
    return f"{one_line(repr(value), 400)} ({about})"


def _the_one(text: str, runs: Sequence[R], kind: str) -> R | None:
    exact = [run for run in runs if str(run.id) == text.lower()] or [run for run in runs if run.name == text]
    candidates = exact or runs
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    lines = "\n".join(f"  {run.id}  {run.state_name:<10} {one_line(run.name)}" for run in candidates)
    raise ConfigurationError(f"{one_line(text)!r} may be any of {len(candidates)} {kind} runs; give the id:\n{lines}")


def _states(words: Sequence[str]) -> tuple[tuple[StateType, ...], tuple[str, ...]]:
    """Types, and names of states that are no types."""
    known = {name.casefold(): name for name in NAMED_STATES}
    types = {word.upper() for word in words} & {type_.value for type_ in StateType}
    names = [known.get(word.casefold(), word) for word in words if word.upper() not in types]
    return tuple(StateType(type_) for type_ in sorted(types)), tuple(names)


def _in_states(read: Any, query: RunQuery, types: tuple[StateType, ...], names: tuple[str, ...]) -> list[Any]:
    """A query asks for types *and* names; people mean either."""
    if not names:
        return list(read(query))
    by_name = read(msgspec.structs.replace(query, state_types=(), state_names=names))
    if not types:
        return list(by_name)
    merged = {run.id: run for run in (*by_name, *read(query))}
    ordered = sorted(merged.values(), key=lambda run: (run.created_us, run.id.bytes), reverse=True)
    return ordered[: query.limit] if query.limit >= 0 else ordered


def _explain_states(words: Sequence[str]) -> None:
    for word in words:
        if word.casefold() not in {name.casefold() for name in NAMED_STATES} and nearest(word, NAMED_STATES):
            raise ConfigurationError(f"No run is in a state {one_line(word)!r}.{did_you_mean(word, NAMED_STATES)}")


def _explain_flow(home: Home, flow: str) -> None:
    if home.store.flow_runs(RunQuery(flow_name=flow, limit=1)):
        return
    known = {run.flow_name for run in home.store.flow_runs(RunQuery(limit=_RECENT))}
    raise ObjectNotFound(
        f"No flow named {one_line(flow)!r} has run here.{did_you_mean(flow, known)} "
        "`prefect-nb flow-run ls` shows the flows that have."
    )
