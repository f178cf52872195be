"""What every store does, whatever it keeps the history in."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prefect_nb.exceptions import ObjectNotFound, StoreUnavailable
from prefect_nb.interfaces import CacheEntry, Entry, KeyParts, LogLine, Owner, RunQuery, Store
from prefect_nb.model.events import FlowRunCreated, KeyComputed, Renamed, StateRecorded, TaskRunCreated, apply, fold
from prefect_nb.model.fingerprints import Part
from prefect_nb.model.runs import FlowRun, ResultReference, Run, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.store.log_limits import LogLimit
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

NOW = 1_790_000_000_000_000
ME, OTHER = uuid4(), uuid4()
_clock = count(NOW, 1000)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore.open(tmp_path / "home")
    yield opened
    problems = opened.check()
    opened.close()
    assert problems == []


def new_flow(name: str = "flow", **options: Any) -> Entry:
    fields: dict[str, Any] = {"flow_name": "train", "owner_id": ME, "created_us": next(_clock)} | options
    event = FlowRunCreated(FlowRun(id=uuid4(), name=name, state_id=uuid4(), **fields))
    run = apply(None, event)
    return Entry(run, event, run.id)


def new_task(flow: Run | None, name: str = "task", **options: Any) -> Entry:
    fields: dict[str, Any] = {"task_key": "clean-1", "dynamic_key": "0", "created_us": next(_clock)} | options
    run = TaskRun(id=uuid4(), name=name, state_id=uuid4(), flow_run_id=flow.id if flow else None, **fields)
    event = TaskRunCreated(run)
    return Entry(apply(None, event), event, run.flow_run_id)


def moved(entry: Entry, type_: StateType, name: str | None = None) -> Entry:
    event = StateRecorded(
        run_id=entry.run.id, type=type_, name=name or type_.value.capitalize(), at_us=next(_clock), state_id=uuid4()
    )
    return Entry(apply(entry.run, event), event, entry.flow_run_id)


def put(store: Store, entry: Entry, *types: StateType, name: str | None = None) -> Entry:
    """Write a new run and move it through these states, each in a transaction of its own."""
    store.write([entry], {})
    for type_ in types:
        entry = moved(entry, type_, name)
        store.write([entry], {})
    return entry


def row(store: Store, run: Run) -> Run | None:
    return store.flow_run(run.id) if isinstance(run, FlowRun) else store.task_run(run.id)


# -- writing


def test_the_row_is_the_fold_of_the_events_after_every_write(store: Store) -> None:
    flow = put(store, new_flow(parameters={"x": [1, {"y": None}]}, tags=("a", "b"), labels={"k": 1}))
    task = put(store, new_task(flow.run, task_inputs={"x": [{"id": "1"}]}))
    for type_ in (StateType.RUNNING, StateType.SCHEDULED, StateType.RUNNING, StateType.COMPLETED):
        task = moved(task, type_)
        store.write([task], {flow.run.id: 1})
        assert store.task_run(task.run.id) == task.run == fold(store.events(task.run.id))
    assert store.flow_run(flow.run.id) == flow.run == fold(store.events(flow.run.id))
    assert len(store.events(task.run.id)) == 5


def test_many_events_of_a_run_in_one_batch_leave_all_events_and_the_last_row(store: Store) -> None:
    flow = new_flow()
    task = new_task(flow.run)
    keyed = KeyComputed(task.run.id, next(_clock), "key")
    known = Entry(apply(task.run, keyed), keyed, flow.run.id)
    renamed = Renamed(task.run.id, next(_clock), "another")
    named = Entry(apply(known.run, renamed), renamed, flow.run.id)
    running = moved(named, StateType.RUNNING)
    done = moved(running, StateType.COMPLETED)
    assert store.write([flow, task, known, named, running, done], {flow.run.id: 1}) == set()
    assert store.task_run(task.run.id) == done.run
    assert done.run.name == "another"
    assert [type(event) for event in store.events(task.run.id)] == [
        TaskRunCreated,
        KeyComputed,
        Renamed,
        StateRecorded,
        StateRecorded,
    ]


def test_only_a_creation_makes_a_row(store: Store) -> None:
    task = new_task(None)
    other = new_task(None)
    store.write([moved(task, StateType.RUNNING), other], {})
    assert store.task_run(task.run.id) is None
    assert store.events(task.run.id) == []
    assert store.task_run(other.run.id) == other.run


def test_a_batch_that_was_written_already_may_be_written_again(store: Store) -> None:
    flow = put(store, new_flow())
    task = put(store, new_task(flow.run))
    running = moved(task, StateType.RUNNING)
    done = moved(running, StateType.COMPLETED)
    for batch in ([task, running], [task, running], [flow, task, running, done], [done]):
        assert store.write(batch, {flow.run.id: 1}) == set()
    assert store.task_run(task.run.id) == done.run
    assert len(store.events(task.run.id)) == 3


def test_what_does_not_follow_is_left_out_and_the_rest_is_written(store: Store) -> None:
    task, good = put(store, new_task(None)), put(store, new_task(None))
    running = moved(task, StateType.RUNNING)
    put(store, running)
    forked, gap = moved(task, StateType.FAILED), moved(moved(running, StateType.SCHEDULED), StateType.RUNNING)
    for stale in (forked, gap):
        good = moved(good, StateType.SCHEDULED)
        store.write([stale, moved(stale, StateType.COMPLETED), good], {})
        assert store.task_run(task.run.id) == running.run
        assert store.task_run(good.run.id) == good.run


def test_a_writer_with_another_epoch_writes_nothing_of_that_run(store: Store) -> None:
    stale, fresh = put(store, new_flow()), put(store, new_flow())
    earlier = put(store, new_task(stale.run))
    store.claim(stale.run.id, OTHER, next(_clock), 0)
    before = store.last_cursor()
    late, late_move, good = new_task(stale.run), moved(earlier, StateType.COMPLETED), new_task(fresh.run)
    result = ResultReference(sha256="0" * 64, size=3, serializer="json")
    caches = [CacheEntry(str(i), result, run.id, NOW) for i, run in enumerate((late.run, earlier.run, good.run))]
    parts = [KeyParts(run.id, "clean-1", [Part("source", "f", "1")]) for run in (late.run, earlier.run, good.run)]
    fences = {stale.run.id: 1, fresh.run.id: 1}
    fenced = store.write([late, late_move, moved(stale, StateType.COMPLETED), good], fences, caches, parts)
    assert fenced == {stale.run.id}
    assert [change.run_id for change in store.changes(before)] == [good.run.id]
    assert store.task_run(late.run.id) is None
    assert [store.cache_entry(key) is not None for key in "012"] == [False, False, True]
    assert [store.key_parts(item.task_run_id) is not None for item in parts] == [False, False, True]


def test_a_flow_run_that_has_no_row_yet_is_not_fenced(store: Store) -> None:
    flow = new_flow()
    assert store.write([flow], {flow.run.id: 1, uuid4(): 7}) == set()
    assert store.flow_run(flow.run.id) == flow.run


def test_an_ended_task_run_outside_any_flow_run_stays_as_it_ended(store: Store) -> None:
    task = put(store, new_task(None, owner_id=ME), StateType.RUNNING)
    store.crash([ME], next(_clock), "gone")
    late = moved(task, StateType.COMPLETED)
    later = moved(late, StateType.RUNNING)
    store.write([late], {})
    store.write([later], {})
    assert store.task_run(task.run.id).state_type is StateType.CRASHED  # type: ignore[union-attr]


def test_a_closed_store_refuses(store: Store, tmp_path: Path) -> None:
    other: Store = MemoryStore() if isinstance(store, MemoryStore) else SqliteStore.open(tmp_path / "other")
    other.close()
    other.close()
    with pytest.raises(StoreUnavailable):
        other.write([new_flow()], {})


# -- ownership


def test_a_row_is_rebuilt_from_its_events(store: Store) -> None:
    flow = put(store, new_flow(), StateType.RUNNING, StateType.COMPLETED)
    task = put(store, new_task(flow.run, tags=("a",)), StateType.RUNNING)
    events = [store.events(run.id) for run in (flow.run, task.run)]

    assert store.rebuild(flow.run.id)
    assert store.rebuild(task.run.id)

    assert (store.flow_run(flow.run.id), store.task_run(task.run.id)) == (flow.run, task.run)
    assert [store.events(run.id) for run in (flow.run, task.run)] == events
    assert store.write([moved(task, StateType.COMPLETED)], {flow.run.id: 1}) == set()
    assert store.check() == []


def test_without_events_there_is_nothing_to_rebuild(store: Store) -> None:
    assert not store.rebuild(uuid4())


def test_a_store_says_what_it_is(store: Store) -> None:
    assert store.describe()["store"] in ("memory", "SQLite")


def test_a_claim_raises_the_epoch_and_ends_what_was_open(store: Store) -> None:
    flow = put(store, new_flow(), StateType.RUNNING)
    running = put(store, new_task(flow.run), StateType.RUNNING)
    waiting = put(store, new_task(flow.run), StateType.PENDING, name="NotReady")
    done = put(store, new_task(flow.run), StateType.RUNNING, StateType.COMPLETED)
    claimed = store.claim(flow.run.id, OTHER, next(_clock), 2)
    assert (claimed.owner_id, claimed.epoch, claimed.recoveries) == (OTHER, 2, 2)
    assert claimed == store.flow_run(flow.run.id)
    assert claimed.state_type is StateType.RUNNING
    assert row(store, running.run).state_type is StateType.CRASHED  # type: ignore[union-attr]
    assert [row(store, entry.run) for entry in (waiting, done)] == [waiting.run, done.run]
    assert store.claim(flow.run.id, ME, next(_clock), 0).epoch == 3


def test_a_run_that_is_not_there_cannot_be_claimed(store: Store) -> None:
    with pytest.raises(ObjectNotFound, match=str(ME)):
        store.claim(ME, OTHER, NOW, 0)


def test_what_dead_owners_left_open_has_crashed(store: Store) -> None:
    for id in (ME, OTHER):
        store.add_owner(Owner(id, "host", "boot", 1, "x.lock", NOW))
    mine, others = put(store, new_flow(), StateType.RUNNING), put(store, new_flow(owner_id=OTHER), StateType.RUNNING)
    done = put(store, new_flow(), StateType.RUNNING, StateType.COMPLETED)
    task, elsewhere = put(store, new_task(mine.run), StateType.RUNNING), put(store, new_task(others.run, owner_id=ME))
    alone, waiting = (
        put(store, new_task(None, owner_id=ME)),
        put(store, new_task(mine.run), StateType.PENDING, name="NotReady"),
    )
    untouched = [others, done, waiting, put(store, new_task(others.run)), put(store, new_task(None, owner_id=OTHER))]
    request = store.add_request(mine.run.id, "pause", NOW, {})
    changed = store.crash([ME], next(_clock), "Its process ended.")
    assert {run.id for run in changed} == {entry.run.id for entry in (mine, task, elsewhere, alone)}
    for run in changed:
        assert (run.state_type, run.state_message, run.is_final) == (StateType.CRASHED, "Its process ended.", True)
        assert row(store, run) == run == fold(store.events(run.id))
    assert [row(store, entry.run) for entry in untouched] == [entry.run for entry in untouched]
    assert [owner.id for owner in store.owners()] == [OTHER]
    assert [one.id for one in store.open_requests([mine.run.id])] == [request.id], "whoever resumes it may see to that"
    assert store.write([moved(task, StateType.COMPLETED)], {mine.run.id: 1}) == {mine.run.id}
    assert store.crash([ME], next(_clock), "again") == []


def test_a_run_found_cancelling_is_cancelled_with_its_tasks(store: Store) -> None:
    flow = put(store, new_flow(), StateType.RUNNING, StateType.CANCELLING)
    task = put(store, new_task(flow.run), StateType.RUNNING)
    changed = store.crash([ME], next(_clock), "Its process ended.")
    assert {run.id: run.state_type for run in changed} == dict.fromkeys((flow.run.id, task.run.id), StateType.CANCELLED)
    assert store.flow_run(flow.run.id).epoch == 2  # type: ignore[union-attr]


def test_a_run_that_was_to_be_cancelled_is_cancelled_with_those_below_it(store: Store) -> None:
    root, other = put(store, new_flow(), StateType.RUNNING), put(store, new_flow(), StateType.RUNNING)
    child = put(store, new_flow(root_flow_run_id=root.run.id), StateType.RUNNING)
    task = put(store, new_task(child.run), StateType.RUNNING)
    store.add_request(root.run.id, "cancel", NOW, {"reason": "No longer wanted."})
    changed = {run.id: run for run in store.crash([ME], next(_clock), "Its process ended.")}
    for entry in (root, child, task):
        run = changed[entry.run.id]
        assert (run.state_type, run.state_message) == (StateType.CANCELLED, "No longer wanted.")
    assert changed[other.run.id].state_type is StateType.CRASHED
    assert store.open_requests([root.run.id]) == []


def test_nobody_dead_means_nothing_changes(store: Store) -> None:
    put(store, new_flow())
    assert store.crash([], NOW, "") == []


def test_owners_are_those_added_and_not_removed(store: Store) -> None:
    owners = [Owner(uuid4(), "host", "boot", pid, f"{pid}.lock", NOW + pid, "worker") for pid in (1, 2, 3)]
    for owner in owners:
        store.add_owner(owner)
    store.remove_owner(owners[1].id)
    store.remove_owner(uuid4())
    assert store.owners() == [owners[0], owners[2]]


def test_requests_are_open_until_settled(store: Store) -> None:
    flow, other = uuid4(), uuid4()
    first = store.add_request(flow, "cancel", NOW, {"why": "tired"})
    second = store.add_request(other, "pause", NOW, {})
    assert store.open_requests([flow, other]) == [first, second]
    assert store.open_requests([flow]) == [first]
    assert store.open_requests([]) == []
    assert first.details == {"why": "tired"}
    store.settle_request(first.id, "done")
    assert store.open_requests([flow, other]) == [second]


# -- reading


def _library(store: Store) -> dict[str, Entry]:
    one = put(store, new_flow("one", flow_name="train", tags=("a", "b")), StateType.RUNNING)
    two = put(
        store, new_flow("two", flow_name="score", kind="notebook", owner_id=OTHER), StateType.RUNNING, StateType.FAILED
    )
    three = put(store, new_flow("three", parent_flow_run_id=one.run.id, tags=("b",)), StateType.COMPLETED)
    clean = put(store, new_task(one.run, "100%_clean", tags=("x",)), StateType.COMPLETED)
    model = put(store, new_task(one.run, "Model", task_key="model-1", parent_id=clean.run.id), StateType.RUNNING)
    cell = put(store, new_task(two.run, "cell é", kind="cell"), StateType.COMPLETED, name="Cached")
    alone = put(store, new_task(None, "alone", owner_id=ME), StateType.CRASHED)
    names = ("one", "two", "three", "clean", "model", "cell", "alone")
    return dict(zip(names, (one, two, three, clean, model, cell, alone), strict=True))


S = StateType
FLOW_QUERIES: list[tuple[dict[str, Any], str]] = [
    ({}, "three two one"),
    ({"oldest_first": True}, "one two three"),
    ({"limit": 2}, "three two"),
    ({"limit": 0}, ""),
    ({"before": "three"}, "two one"),
    ({"before": "clean"}, ""),
    ({"ids": ("one", "two", "clean")}, "two one"),
    ({"state_types": (S.FAILED, S.RUNNING)}, "two one"),
    ({"state_types": (S.FAILED, S.COMPLETED)}, "three two"),
    ({"state_names": ("Failed",)}, "two"),
    ({"name_contains": "T"}, "three two"),
    ({"flow_name": "train"}, "three one"),
    ({"flow_name": "train", "state_types": (S.RUNNING,)}, "one"),
    ({"tags": ("b",)}, "three one"),
    ({"tags": ("b", "a")}, "one"),
    ({"tags": ("'; DROP TABLE flow_run",)}, ""),
    ({"kinds": ("notebook",)}, "two"),
    ({"owner_id": OTHER}, "two"),
    ({"flow_run_id": "one"}, "three"),
    ({"task_key": "model-1"}, "one"),
]
TASK_QUERIES: list[tuple[dict[str, Any], str]] = [
    ({}, "alone cell model clean"),
    ({"flow_run_id": "one"}, "model clean"),
    ({"flow_run_id": "one", "before": "model"}, "clean"),
    ({"flow_run_id": "one", "state_types": (S.RUNNING,)}, "model"),
    ({"parent_id": "clean"}, "model"),
    ({"flow_name": "score"}, "cell"),
    ({"task_key": "clean-1", "oldest_first": True}, "clean cell alone"),
    ({"state_names": ("Cached", "Crashed")}, "alone cell"),
    ({"name_contains": "%"}, "clean"),
    ({"name_contains": "0%_C"}, "clean"),
    ({"name_contains": "_"}, "clean"),
    ({"name_contains": "mODEL"}, "model"),
    ({"name_contains": "É"}, ""),
    ({"name_contains": "\\"}, ""),
    ({"tags": ("x",)}, "clean"),
    ({"kinds": ("cell", "flow")}, "cell"),
    ({"owner_id": ME}, "alone"),
]


def _asked(library: dict[str, Entry], fields: dict[str, Any]) -> RunQuery:
    def id_of(value: Any) -> Any:
        return library[value].run.id if isinstance(value, str) else value

    fields = {
        key: id_of(value) if key in ("before", "flow_run_id", "parent_id") else value for key, value in fields.items()
    }
    if "ids" in fields:
        fields["ids"] = tuple(id_of(value) for value in fields["ids"])
    return RunQuery(**fields)


def test_queries_find_flow_runs(store: Store) -> None:
    library = _library(store)
    for fields, expected in FLOW_QUERIES:
        found = store.flow_runs(_asked(library, fields))
        assert found == [library[name].run for name in expected.split()], fields


def test_queries_find_task_runs(store: Store) -> None:
    library = _library(store)
    for fields, expected in TASK_QUERIES:
        found = store.task_runs(_asked(library, fields))
        assert found == [library[name].run for name in expected.split()], fields


def test_pages_meet_without_gap_or_overlap_even_when_created_at_once(store: Store) -> None:
    flow = put(store, new_flow())
    tasks = [new_task(flow.run, created_us=NOW) for _ in range(7)]
    store.write(tasks, {})
    seen: list[UUID] = []
    before = None
    while page := store.task_runs(RunQuery(flow_run_id=flow.run.id, before=before, limit=3)):
        seen += [run.id for run in page]
        before = seen[-1]
    assert seen == sorted((task.run.id for task in tasks), reverse=True)


def test_a_run_is_found_by_id_prefix_or_name(store: Store) -> None:
    flow, task = put(store, new_flow("fox")), put(store, new_task(None, "fox"))
    for run in (flow.run, task.run):
        for text in (str(run.id), run.id.hex, str(run.id)[:8], str(run.id)[:11], run.id.hex[:7].upper()):
            assert store.resolve_run(text) == [run]
    assert store.resolve_run("fox") == [flow.run, task.run]
    for text in ("", "fo", str(flow.run.id)[:3], "----", "%", "zzzz", str(uuid4()), f"{flow.run.id}0"):
        assert store.resolve_run(text) == []


def test_at_most_20_runs_answer_to_a_name(store: Store) -> None:
    store.write([new_task(None, "same") for _ in range(25)], {})
    assert len(store.resolve_run("same")) == 20


def test_states_are_counted_by_name(store: Store) -> None:
    library = _library(store)
    assert store.count_task_states(library["one"].run.id) == {"Completed": 1, "Running": 1}
    assert store.count_task_states(library["two"].run.id) == {"Cached": 1}
    assert store.count_task_states(uuid4()) == {}


def test_changes_are_followed_by_cursor(store: Store) -> None:
    assert store.last_cursor() == 0
    flow = put(store, new_flow(), StateType.RUNNING)
    task = put(store, new_task(flow.run))
    first, *rest = store.changes(0)
    assert (first.run_id, first.number) == (flow.run.id, 0)
    assert [(change.run_id, change.number) for change in rest] == [(flow.run.id, 1), (task.run.id, 0)]
    assert store.changes(first.cursor) == rest
    assert store.changes(first.cursor, limit=1) == rest[:1]
    assert store.changes(store.last_cursor()) == []
    assert [change.event for change in store.changes(0)][:2] == store.events(flow.run.id)


def test_logs_are_filtered_and_followed(store: Store) -> None:
    flow, task = uuid4(), uuid4()
    lines = [
        LogLine(NOW, 20, "a", "plain\nand more\x00", flow, task),
        LogLine(NOW, 40, "b", "é 🦊", flow),
        LogLine(NOW, 10, "c", "nobody's"),
    ]
    store.write_logs(lines)
    store.write_logs([])
    got = store.logs()
    assert [line for _, line in got] == lines
    assert [line for _, line in store.logs(flow)] == lines[:2]
    assert [line for _, line in store.logs(task_run_id=task)] == lines[:1]
    assert [line for _, line in store.logs(flow, min_level=30)] == lines[1:2]
    assert store.logs(after=got[0][0]) == got[1:]
    assert store.logs(limit=1) == got[:1]
    assert store.logs(uuid4()) == []


@pytest.mark.parametrize("limit", [LogLimit(lines=10), LogLimit(bytes=100)])
@pytest.mark.parametrize("batch", [1, 7, 40])
def test_of_a_long_log_the_newest_lines_are_kept_and_one_counts_the_rest(
    store: Store, limit: LogLimit, batch: int
) -> None:
    store.log_limit = limit  # type: ignore[attr-defined]
    flow, task, alone = uuid4(), uuid4(), uuid4()
    others = [LogLine(NOW, 20, "a", "another run's", uuid4()), LogLine(NOW, 20, "a", "x" * 50, None, alone)]
    store.write_logs(others)
    lines = [LogLine(NOW + n, 20, "a", f"number {n:03}", flow, task if n % 2 else None) for n in range(40)]
    for start in range(0, 40, batch):
        store.write_logs(lines[start : start + batch])
    marker, *kept = [line for _, line in store.logs(flow)]
    assert kept == lines[-10:]
    assert marker.message.startswith("30 older lines were dropped here")
    assert marker.level == 30
    assert [line for _, line in store.logs(task_run_id=alone)] == others[1:]
    assert [line for _, line in store.logs()][:2] == others
    store.write_logs([LogLine(NOW, 20, "a", str(n) * 20, None, alone) for n in range(12)])
    assert len(store.logs(task_run_id=alone)) == (11 if limit.lines == 10 else 4)


def test_a_flow_keeps_its_id(store: Store) -> None:
    assert store.flow_id("a") == store.flow_id("a") != store.flow_id("b")


def test_a_cache_key_stands_for_its_newest_result(store: Store) -> None:
    assert store.cache_entry("k") is None
    task = put(store, new_task(None))
    result = ResultReference(sha256="0" * 64, size=3, serializer="json", expires_us=NOW, source=uuid4())
    old, new = (CacheEntry("k", replace(result, size=size), task.run.id, NOW) for size in (1, 2))
    store.write([], {}, [old])
    store.write([moved(task, StateType.COMPLETED)], {}, [new])
    assert store.cache_entry("k") == new
    store.forget_cache("k")
    store.forget_cache("unknown")
    assert store.cache_entry("k") is None


def test_key_parts_are_compared_with_the_run_before(store: Store) -> None:
    runs = [put(store, new_task(None)).run for _ in range(3)]
    kept = [KeyParts(run.id, "clean-1", [Part("source", "f", str(i))], hit=i == 1) for i, run in enumerate(runs)]
    store.write([], {}, parts=[kept[2], kept[0]])
    store.write([], {}, parts=[kept[1], KeyParts(uuid4(), "other", [])])
    assert [store.key_parts(run.id) for run in runs] == kept
    assert store.key_parts(uuid4()) is None
    assert store.previous_key_parts("clean-1", runs[2].id) == kept[1]
    assert store.previous_key_parts("clean-1", runs[0].id) is None
    assert store.previous_key_parts("clean-1", uuid4()) == kept[2]
    assert store.previous_key_parts("unknown", runs[2].id) is None


# -- any history

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["new", "move", "move", "move", "again", "skip", "claim", "crash", "alone"]),
        st.integers(0, 5),
        st.sampled_from(list(StateType)),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=_STEPS)
def test_both_stores_tell_the_same_history(steps: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    stores: list[Store] = [MemoryStore(), SqliteStore.open(tmp_path_factory.mktemp("any") / "home")]
    flow = new_flow()
    last: list[Entry] = [flow]
    batch: list[Entry] = [flow]

    def flush() -> None:
        fenced = [store.write(batch, {flow.run.id: 1}) for store in stores]
        assert fenced[0] == fenced[1]
        batch.clear()

    for step, which, type_, flushed in steps:
        at = which % len(last)
        if step in ("new", "alone"):
            last.append(new_task(flow.run if step == "new" else None, owner_id=ME))
            batch.append(last[-1])
        elif step == "move":
            last[at] = moved(last[at], type_)
            batch.append(last[at])
        elif step == "again":
            batch.append(last[at])
        elif step == "skip":
            last[at] = moved(last[at], type_)
        elif step == "crash":
            flush()
            changed = [{(run.id, run.events) for run in store.crash([ME], next(_clock), "gone")} for store in stores]
            assert changed[0] == changed[1]
        elif batch == []:
            assert len({store.claim(flow.run.id, ME, NOW, 0).epoch for store in stores}) == 1
        if flushed:
            flush()
    flush()
    everything = RunQuery(limit=1000)

    def picture(store: Store) -> Any:
        rows: list[Run] = [*store.flow_runs(everything), *store.task_runs(everything)]
        return [(run.id, run.state_name, run.events, run.run_count, len(store.events(run.id))) for run in rows]

    assert picture(stores[0]) == picture(stores[1])
    for store in stores:
        assert store.check() == []
        store.close()
