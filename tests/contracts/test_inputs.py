"""What every store does with the inputs of flow runs."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from prefect_nb.exceptions import Fenced, ObjectAlreadyExists, ObjectNotFound
from prefect_nb.interfaces import Entry, Owner, Store
from prefect_nb.interfaces.inputs import FlowRunInput, PauseEnd
from prefect_nb.model.events import FlowRunCreated, StateRecorded, apply
from prefect_nb.model.runs import FlowRun
from prefect_nb.model.states import StateDetails, StateType
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

NOW = 1_790_000_000_000_000
ME = uuid4()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore.open(tmp_path / "home")
    yield opened
    problems = opened.check()
    opened.close()
    assert problems == []


@pytest.fixture
def run(store: Store) -> FlowRun:
    return new_run(store)


def new_run(store: Store) -> FlowRun:
    event = FlowRunCreated(FlowRun(id=uuid4(), name="a", flow_name="f", owner_id=ME, state_id=uuid4(), created_us=NOW))
    created = apply(None, event)
    assert isinstance(created, FlowRun)
    store.write([Entry(created, event, created.id)], {})
    return created


def item(run_id: UUID, key: str, value: str = "1", **fields: Any) -> FlowRunInput:
    return FlowRunInput(id=uuid4(), flow_run_id=run_id, key=key, value=value, created_us=NOW, **fields)


def ended(run: FlowRun, state_id: UUID, key: str | None = "1", outcome: str = "resumed") -> PauseEnd:
    return PauseEnd(state_id=state_id, flow_run_id=run.id, key=key, outcome=outcome, at_us=NOW)


def test_an_input_comes_back_whole(store: Store, run: FlowRun) -> None:
    kept = item(run.id, "a", '{"x":["\\u00e9",null]}', sender="s")
    store.inputs.add(kept)
    assert store.inputs.read(run.id, "a") == kept
    assert kept.decoded_value == {"x": ["é", None]}
    assert store.inputs.read(run.id, "b") is None
    assert store.inputs.read(uuid4(), "a") is None


def test_a_key_is_used_once_unless_replaced(store: Store, run: FlowRun) -> None:
    first, second = item(run.id, "a", "1"), item(run.id, "a", "2")
    store.inputs.add(first)
    with pytest.raises(ObjectAlreadyExists):
        store.inputs.add(second)
    assert store.inputs.read(run.id, "a") == first
    store.inputs.add(second, replace=True)
    assert store.inputs.read(run.id, "a") == second
    store.inputs.add(item(new_run(store).id, "a"))


def test_there_is_no_input_without_its_run(store: Store) -> None:
    with pytest.raises(ObjectNotFound):
        store.inputs.add(item(uuid4(), "a"))


def test_inputs_are_found_by_prefix_oldest_first(store: Store, run: FlowRun) -> None:
    for key in ("b-2", "a-1", "b-1", "b%"):
        store.inputs.add(item(run.id, key))
    store.inputs.add(item(new_run(store).id, "b-0"))

    def keys(*args: Any) -> list[str]:
        return [found.key for found in store.inputs.find(run.id, *args)]

    assert keys("b-") == ["b-2", "b-1"]
    assert keys("") == ["b-2", "a-1", "b-1", "b%"]
    assert keys("b%") == ["b%"]
    assert keys("b-", 1) == ["b-2"]
    assert keys("b-", 1, {"b-2"}) == ["b-1"]


def test_an_input_is_dropped(store: Store, run: FlowRun) -> None:
    store.inputs.add(item(run.id, "a"))
    assert store.inputs.delete(run.id, "a")
    assert not store.inputs.delete(run.id, "a")
    assert store.inputs.find(run.id, "") == []


def test_a_pause_ends_once_and_its_answer_is_kept_with_that(store: Store, run: FlowRun) -> None:
    state_id = uuid4()
    assert store.inputs.pause_end(state_id) is None
    first = ended(run, state_id)
    assert store.inputs.end_pause(first, item(run.id, "r", '"yes"'))
    assert not store.inputs.end_pause(ended(run, state_id, outcome="timed out"), item(run.id, "r", '"no"'))
    assert store.inputs.pause_end(state_id) == first
    answer = store.inputs.read(run.id, "r")
    assert answer is not None
    assert answer.value == '"yes"'


def test_of_many_who_end_a_pause_one_succeeds(store: Store, run: FlowRun) -> None:
    state_id, together, won = uuid4(), threading.Barrier(6), []

    def end(number: int) -> None:
        together.wait()
        if store.inputs.end_pause(ended(run, state_id), item(run.id, "r", str(number))):
            won.append(number)

    threads = [threading.Thread(target=end, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer = store.inputs.read(run.id, "r")
    assert answer is not None
    assert [answer.decoded_value] == won


def test_the_keys_that_were_answered(store: Store, run: FlowRun) -> None:
    store.inputs.end_pause(ended(run, uuid4(), "a"))
    store.inputs.end_pause(ended(run, uuid4(), "b", "timed out"))
    store.inputs.end_pause(ended(run, uuid4(), None))
    assert store.inputs.answered(run.id) == {"a"}
    assert store.inputs.answered(new_run(store).id) == frozenset()


# Claiming, and what waits without a process


def test_of_many_who_claim_a_run_at_its_epoch_one_succeeds(store: Store, run: FlowRun) -> None:
    together, won = threading.Barrier(6), []

    def claim(owner_id: UUID) -> None:
        together.wait()
        try:
            won.append(store.claim(run.id, owner_id, NOW, 0, run.epoch).owner_id)
        except Fenced:
            return

    threads = [threading.Thread(target=claim, args=(uuid4(),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    now = store.flow_run(run.id)
    assert now is not None
    assert [now.owner_id] == won
    assert now.epoch == run.epoch + 1


@pytest.mark.parametrize(("reschedule", "state"), [(True, StateType.PAUSED), (False, StateType.CRASHED)])
def test_a_suspended_run_outlives_its_owner_and_a_paused_one_does_not(
    store: Store, run: FlowRun, reschedule: bool, state: StateType
) -> None:
    store.add_owner(Owner(ME, "h", "b", 1, "l", NOW))
    details = StateDetails(pause_reschedule=reschedule)
    event = StateRecorded(run.id, StateType.PAUSED, "Paused", NOW + 1, uuid4(), details=details)
    store.write([Entry(apply(run, event), event, run.id)], {})
    assert len(store.crash([ME], NOW + 2, "gone")) == (0 if reschedule else 1)
    now = store.flow_run(run.id)
    assert now is not None
    assert now.state_type is state
    assert store.owners() == []
