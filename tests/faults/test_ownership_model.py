"""Three owners claim, write, crash and come back in any order: both stores agree with each other and with a small model."""

import itertools
import shutil
import tempfile
from pathlib import Path
from uuid import UUID, uuid4

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from prefect_nb.interfaces import Entry, Owner, RunQuery, Store
from prefect_nb.model.events import Event, FlowRunCreated, StateRecorded, TaskRunCreated, apply
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

OWNERS = [uuid4() for _ in range(3)]
_clock = itertools.count(1_000_000)
EVERY = RunQuery(limit=10_000, oldest_first=True)


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

    def teardown(self) -> None:
        for store in self.stores:
            assert store.check() == []
            store.close()
        shutil.rmtree(self.folder)

    def _write(self, owner: UUID, flow: UUID, run: Run | None, event: Event) -> Run:
        after = apply(run, event)
        epoch = self.held[owner, flow]
        is_mine = epoch == self.epochs[flow]
        fits = self.written.get(after.id, 0) == after.events - 1
        for store in self.stores:
            fenced = store.write([Entry(after, event, flow)], {flow: epoch})
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
        for run in before:
            if run.owner_id == owner and not run.is_final:
                self.epochs[run.id] += 1
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
    def the_epoch_is_the_models(self) -> None:
        for run in self.stores[1].flow_runs(EVERY):
            assert run.epoch == self.epochs[run.id]


TestOwnership = Ownership.TestCase
TestOwnership.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
