"""Three owners claim, write, take slots, keep results, crash and come back in any order: both stores agree with each
other and with a small model."""

import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from prefect_nb.exceptions import Fenced
from prefect_nb.interfaces import CacheEntry, Entry, Owner, RunQuery, Store
from prefect_nb.model.events import Event, FlowRunCreated, StateRecorded, TaskRunCreated, apply
from prefect_nb.model.limits import Claim, Instant, Limit
from prefect_nb.model.runs import FlowRun, ResultReference, Run, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

OWNERS = [uuid4() for _ in range(3)]
_clock = itertools.count(1_000_000)
EVERY = RunQuery(limit=10_000, oldest_first=True)
LIMIT = 3


class Ownership(RuleBasedStateMachine):
    """The model: who holds which epoch of which flow run. An owner writes what it last knew, as a stopped one does."""

    flows = Bundle("flows")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.stores: list[Store] = [MemoryStore(), SqliteStore.open(self.folder / "home")]
        self.epochs: dict[UUID, int] = {}
        self.held: dict[tuple[UUID, UUID], int] = {}
        self.known: dict[tuple[UUID, UUID], Run] = {}
        self.written: dict[UUID, int] = {}
        self.registered: set[UUID] = set()
        self.limit = Limit(id=uuid4(), name="narrow", limit=LIMIT, created_us=1, updated_us=1)
        self.slots: dict[UUID, tuple[UUID, int]] = {}
        self.cached: dict[str, UUID] = {}
        self.asked: dict[UUID, int] = {}
        for store in self.stores:
            store.limits.create(self.limit)

    def teardown(self) -> None:
        for store in self.stores:
            assert store.check() == []
            store.close()
        shutil.rmtree(self.folder)

    def _write(self, owner: UUID, flow: UUID, run: Run | None, event: Event, caches: Sequence[CacheEntry] = ()) -> Run:
        after = apply(run, event)
        epoch = self.held[owner, flow]
        is_mine = epoch == self.epochs[flow]
        fits = self.written.get(after.id, 0) == after.events - 1
        for store in self.stores:
            fenced = store.write([Entry(after, event, flow)], {flow: epoch}, caches)
            assert fenced == (set() if is_mine else {flow})
        if is_mine and fits:
            self.written[after.id] = after.events
        return after

    @rule(target=flows, owner=st.sampled_from(OWNERS))
    def begin(self, owner: UUID) -> UUID:
        self._register(owner)
        flow = FlowRun(id=uuid4(), name="flow", owner_id=owner, state_id=uuid4(), created_us=next(_clock), events=1)
        self.epochs[flow.id] = self.held[owner, flow.id] = 1
        self.known[owner, flow.id] = self._write(owner, flow.id, None, FlowRunCreated(flow))
        return flow.id

    def _register(self, owner: UUID) -> None:
        if owner not in self.registered:
            self.registered.add(owner)
            for store in self.stores:
                store.add_owner(Owner(owner, "host", "boot", 1, "lock", next(_clock)))

    @rule(owner=st.sampled_from(OWNERS), flow=flows, type_=st.sampled_from(list(StateType)))
    def move(self, owner: UUID, flow: UUID, type_: StateType) -> None:
        """Whoever has ever owned the run goes on with it, whether it still does or not."""
        if (owner, flow) not in self.held:
            return
        event = StateRecorded(flow, type_, type_.value.capitalize(), next(_clock), uuid4())
        self.known[owner, flow] = self._write(owner, flow, self.known[owner, flow], event)

    @rule(owner=st.sampled_from(OWNERS), flow=flows, type_=st.sampled_from(list(StateType)))
    def run_task(self, owner: UUID, flow: UUID, type_: StateType) -> None:
        if (owner, flow) not in self.held:
            return
        task = TaskRun(id=uuid4(), name="task", flow_run_id=flow, state_id=uuid4(), created_us=next(_clock), events=1)
        created = self._write(owner, flow, None, TaskRunCreated(task))
        event = StateRecorded(task.id, type_, type_.value.capitalize(), next(_clock), uuid4())
        self._write(owner, flow, created, event)

    @rule(owner=st.sampled_from(OWNERS), flow=flows)
    def claim(self, owner: UUID, flow: UUID) -> None:
        self._register(owner)
        if not self.written.get(flow):
            return
        at = next(_clock)
        claimed = [store.claim(flow, owner, at, 1) for store in self.stores]
        self.epochs[flow] += 1
        assert {run.epoch for run in claimed} == {self.epochs[flow]}
        self.held[owner, flow] = self.epochs[flow]
        self.known[owner, flow] = claimed[0]
        self._take_note()

    @rule(owner=st.sampled_from(OWNERS), count=st.integers(1, LIMIT))
    def take_slots(self, owner: UUID, count: int) -> None:
        hold = uuid4()
        claim = Claim(hold, ("narrow",), count, owner)
        now, at = Instant("boot", next(_clock)), next(_clock)
        if owner not in self.registered:
            if LIMIT - sum(number for _, number in self.slots.values()) >= count:
                for store in self.stores:
                    with pytest.raises(Fenced):
                        store.limits.take(claim, now, at)
            return
        answers = [store.limits.take(claim, now, at).granted for store in self.stores]
        fits = LIMIT - sum(number for _, number in self.slots.values()) >= count
        assert answers == [fits, fits]
        if fits:
            self.slots[hold] = (owner, count)

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def give_slots_back(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(sorted(self.slots)))
        for store in self.stores:
            store.limits.give_back([hold])
        del self.slots[hold]

    @rule(owner=st.sampled_from(OWNERS), flow=flows, key=st.sampled_from(["a", "b"]))
    def complete_a_cached_task(self, owner: UUID, flow: UUID, key: str) -> None:
        """The cache changes in the transaction of the task's end, or not at all."""
        if (owner, flow) not in self.held:
            return
        task = TaskRun(id=uuid4(), name="task", flow_run_id=flow, state_id=uuid4(), created_us=next(_clock), events=1)
        created = self._write(owner, flow, None, TaskRunCreated(task))
        result = ResultReference(sha256=uuid4().hex * 2, size=1, serializer="json")
        event = StateRecorded(task.id, StateType.COMPLETED, "Completed", next(_clock), uuid4(), result=result)
        self._write(owner, flow, created, event, [CacheEntry(key, result, task.id, event.at_us)])
        if self.held[owner, flow] == self.epochs[flow]:
            self.cached[key] = task.id

    @rule(key=st.sampled_from(["a", "b"]))
    def forget_a_key(self, key: str) -> None:
        for store in self.stores:
            store.forget_cache(key)
        self.cached.pop(key, None)

    @rule(flow=flows)
    def ask_to_cancel(self, flow: UUID) -> None:
        at = next(_clock)
        for store in self.stores:
            store.add_request(flow, "cancel", at, {"reason": "Asked."})
        self.asked[flow] = self.asked.get(flow, 0) + 1

    @rule(owner=st.sampled_from(OWNERS))
    def leave_in_good_order(self, owner: UUID) -> None:
        """Its runs have ended; so have its slots, whoever looks next."""
        mine = [run for run in self.stores[0].flow_runs(EVERY) if run.owner_id == owner and not run.is_final]
        if owner not in self.registered or mine or any(who == owner for who, _ in self.slots.values()):
            return
        self.registered.discard(owner)
        for store in self.stores:
            store.remove_owner(owner)

    @rule(owner=st.sampled_from(OWNERS))
    def die(self, owner: UUID) -> None:
        """Everybody takes the owner for dead; it may come back, as one that was only stopped would."""
        if owner not in self.registered:
            return
        self.registered.discard(owner)
        before = self.stores[0].flow_runs(EVERY)
        at = next(_clock)
        changed = [{(run.id, run.events) for run in store.crash([owner], at, "gone")} for store in self.stores]
        assert changed[0] == changed[1]
        self.slots = {hold: held for hold, held in self.slots.items() if held[0] != owner}
        after = {run.id: run for run in self.stores[1].flow_runs(EVERY)}
        for run in before:
            if run.owner_id == owner and not run.is_final:
                self.epochs[run.id] += 1
                was_asked = self.asked.pop(run.id, 0) > 0 or run.state_type is StateType.CANCELLING
                assert after[run.id].state_type is (StateType.CANCELLED if was_asked else StateType.CRASHED)
        for run in self.stores[1].flow_runs(EVERY):
            assert run.is_final or run.owner_id != owner
            assert not run.is_final or run.owner_id != owner or self._open_tasks(run.id) == []
        self._take_note()

    def _open_tasks(self, flow: UUID) -> list[str]:
        tasks = self.stores[1].task_runs(RunQuery(flow_run_id=flow, limit=10_000))
        return [task.name for task in tasks if not task.is_final]

    def _take_note(self) -> None:
        for run in (*self.stores[0].flow_runs(EVERY), *self.stores[0].task_runs(EVERY)):
            self.written[run.id] = run.events

    @invariant()
    def both_stores_say_the_same(self) -> None:
        pictures = [
            [
                (run.id, run.state_type, run.events, getattr(run, "epoch", None), run.owner_id)
                for run in (*store.flow_runs(EVERY), *store.task_runs(EVERY))
            ]
            for store in self.stores
        ]
        assert pictures[0] == pictures[1]
        assert {id: events for id, _, events, _, _ in pictures[0]} == self.written

    @invariant()
    def slots_are_never_more_than_the_limit(self) -> None:
        for store in self.stores:
            held = {slot.hold_id: (slot.owner_id, slot.count) for slot in store.limits.slots()}
            assert held == self.slots
            assert sum(count for _, count in held.values()) <= LIMIT

    @invariant()
    def a_key_stands_for_the_last_result_committed_under_it(self) -> None:
        for store in self.stores:
            entries = {key: store.cache_entry(key) for key in ("a", "b")}
            assert {key: entry.task_run_id for key, entry in entries.items() if entry is not None} == self.cached

    @invariant()
    def the_epoch_is_the_models(self) -> None:
        for run in self.stores[1].flow_runs(EVERY):
            assert run.epoch == self.epochs[run.id]


TestOwnership = Ownership.TestCase
TestOwnership.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


@pytest.mark.soak
def test_many_more_steps() -> None:
    run_state_machine_as_test(Ownership, settings=settings(max_examples=400, stateful_step_count=50, deadline=None))
