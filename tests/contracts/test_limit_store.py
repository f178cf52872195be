"""What every store does with concurrency limits and slots."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_nb.exceptions import Fenced, ObjectAlreadyExists
from prefect_nb.interfaces import Owner, Store
from prefect_nb.model.limits import Answer, Claim, Instant, Limit
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

ME, OTHER = uuid4(), uuid4()
SECOND = 1_000_000_000


def at(seconds: float, boot: str = "boot") -> Instant:
    return Instant(boot, int((1000 + seconds) * SECOND))


def register(store: Store, id: UUID) -> None:
    store.add_owner(Owner(id, "host", "boot", 1, f"/nowhere/{id}.lock", 0))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore.open(tmp_path / "home")
    register(opened, ME)
    register(opened, OTHER)
    yield opened
    opened.close()


def make(store: Store, name: str, limit: int, **options: Any) -> Limit:
    made = Limit(uuid4(), name, limit, created_us=1, updated_us=1, **options)
    store.limits.create(made)
    return made


def take(
    store: Store,
    *names: str,
    count: int = 1,
    owner: UUID = ME,
    now: Instant = at(0),  # noqa: B008 - a value
    dead: tuple[UUID, ...] = (),
    hold: UUID | None = None,
    **options: Any,
) -> Answer:
    return store.limits.take(Claim(hold or uuid4(), names, count, owner, **options), now, 5, dead)


# -- limits


def test_limits_are_found_by_name_and_by_id(store: Store) -> None:
    made = make(store, "database", 3, slot_decay_per_second=0.5, active=False)
    assert store.limits.find("database") == made
    assert store.limits.find(str(made.id)) == made
    assert store.limits.find("nothing") is None


def test_limits_are_listed_by_name(store: Store) -> None:
    for name in ("b", "tag:a", "a"):
        make(store, name, 1)
    assert [limit.name for limit in store.limits.all()] == ["a", "b", "tag:a"]


def test_there_is_one_limit_of_a_name(store: Store) -> None:
    make(store, "a", 1)
    other = make(store, "b", 1)
    with pytest.raises(ObjectAlreadyExists, match="'a'"):
        make(store, "a", 2)
    with pytest.raises(ObjectAlreadyExists, match="'a'"):
        store.limits.update(other.id, 9, name="a")
    assert [limit.limit for limit in store.limits.all()] == [1, 1]


def test_only_what_is_given_changes(store: Store) -> None:
    made = make(store, "a", 1, slot_decay_per_second=2.0)
    changed = store.limits.update(made.id, 9, limit=0, active=False)
    assert changed is not None
    assert changed == store.limits.find("a")
    assert (changed.limit, changed.active, changed.slot_decay_per_second, changed.updated_us) == (0, False, 2.0, 9)
    assert store.limits.update(uuid4(), 9, limit=1) is None


def test_a_limit_is_deleted_with_what_is_held_of_it(store: Store) -> None:
    made = make(store, "a", 1)
    take(store, "a")
    assert store.limits.delete(made.id)
    assert not store.limits.delete(made.id)
    assert store.limits.slots() == []


# -- slots


def test_slots_are_held_until_they_are_given_back(store: Store) -> None:
    made, hold = make(store, "a", 2), uuid4()
    assert take(store, "a", count=2, hold=hold, run_id=ME) == Answer(True)
    (slot,) = store.limits.slots(made.id)
    assert (slot.hold_id, slot.limit_id, slot.owner_id, slot.run_id) == (hold, made.id, ME, ME)
    assert (slot.count, slot.taken_us) == (2, 5)
    assert take(store, "a") == Answer(False)
    store.limits.give_back([hold])
    store.limits.give_back([hold])
    assert store.limits.slots() == []
    assert take(store, "a").granted


def test_several_limits_are_taken_together_or_not_at_all(store: Store) -> None:
    make(store, "a", 1)
    full = make(store, "b", 1)
    take(store, "b")
    assert not take(store, "a", "b").granted
    assert [slot.limit_id for slot in store.limits.slots()] == [full.id]
    assert take(store, "a").granted


def test_a_limit_that_is_not_active_or_not_there_is_done_without(store: Store) -> None:
    make(store, "off", 1, active=False)
    make(store, "on", 1)
    answer = take(store, "on", "off", "gone", count=1)
    assert answer.granted
    assert answer.missing == ("gone",)
    assert len(store.limits.slots()) == 1
    assert take(store, "off", count=5).granted
    assert take(store, "gone") == Answer(True, ("gone",))


def test_a_strict_claim_is_refused_for_good_where_a_limit_is_missing(store: Store) -> None:
    make(store, "on", 1)
    answer = take(store, "on", "gone", strict=True)
    assert not answer.granted
    assert answer.fault == "Concurrency limits ['gone'] must be created before acquiring slots"
    assert store.limits.slots() == []


def test_more_than_the_limit_is_refused_for_good(store: Store) -> None:
    make(store, "a", 1)
    make(store, "none", 0)
    assert "greater than the limit of 'a'" in take(store, "a", count=2).fault
    assert "greater than the limit of 'none'" in take(store, "none").fault


def test_the_slots_of_the_dead_are_free(store: Store) -> None:
    make(store, "a", 1)
    take(store, "a", owner=OTHER)
    assert not take(store, "a").granted
    assert take(store, "a", dead=(OTHER,)).granted
    assert [slot.owner_id for slot in store.limits.slots()] == [ME]


def test_settling_a_dead_owner_frees_its_slots_and_no_others(store: Store) -> None:
    make(store, "a", 2)
    take(store, "a", owner=OTHER)
    take(store, "a")
    store.crash([OTHER], 1, "gone")
    assert [slot.owner_id for slot in store.limits.slots()] == [ME]


def test_an_owner_that_others_took_for_dead_holds_and_takes_nothing(store: Store) -> None:
    make(store, "a", 1)
    take(store, "a", owner=OTHER)
    store.remove_owner(OTHER)
    assert take(store, "a").granted
    make(store, "b", 1)
    with pytest.raises(Fenced):
        take(store, "b", owner=OTHER)


def test_a_reset_frees_everything(store: Store) -> None:
    made = make(store, "a", 3, slot_decay_per_second=0.001)
    take(store, "a", owner=OTHER)
    take(store, "a")
    take(store, "a", decaying=True)
    assert store.limits.reset(made.id) == 2
    assert take(store, "a", count=3, decaying=True).granted


def test_slots_above_a_lowered_limit_stay_held(store: Store) -> None:
    made = make(store, "a", 3)
    holds = [uuid4() for _ in range(3)]
    for hold in holds:
        take(store, "a", hold=hold)
    store.limits.update(made.id, 9, limit=2)
    store.limits.give_back(holds[:1])
    assert not take(store, "a").granted
    store.limits.give_back(holds[1:2])
    assert take(store, "a").granted


# -- decay


def test_used_slots_come_back_by_decay(store: Store) -> None:
    make(store, "rate", 2, slot_decay_per_second=0.5)
    assert take(store, "rate", count=2, decaying=True).granted
    assert take(store, "rate", decaying=True, now=at(1)).wait == pytest.approx(1.0)
    assert take(store, "rate", decaying=True, now=at(2)).granted
    assert not take(store, "rate", decaying=True, now=at(3.9)).granted
    assert store.limits.slots() == []


def test_a_limit_without_decay_limits_no_rate(store: Store) -> None:
    make(store, "steady", 2)
    assert "do not have a decay configured: 'steady'" in take(store, "steady", decaying=True).fault


def test_held_and_used_slots_count_together(store: Store) -> None:
    make(store, "both", 2, slot_decay_per_second=1.0)
    take(store, "both")
    take(store, "both", decaying=True)
    assert take(store, "both").wait == pytest.approx(1.0)
    assert take(store, "both", now=at(1)).granted


@pytest.mark.parametrize(("boot", "seconds"), [("boot", -3600.0), ("another", -900.0), ("another", 3600.0)])
def test_a_clock_that_begins_anew_frees_nothing_and_blocks_nothing(store: Store, boot: str, seconds: float) -> None:
    make(store, "rate", 2, slot_decay_per_second=1.0)
    take(store, "rate", count=2, decaying=True)
    assert take(store, "rate", decaying=True, now=at(seconds, boot)).wait == pytest.approx(1.0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["take", "give back", "die", "tick"]),
            st.integers(1, 3),
            st.sampled_from(["a", "b", "ab", "r"]),
        ),
        max_size=25,
    )
)
def test_a_limit_is_never_exceeded(store: Store, steps: list[tuple[str, int, str]]) -> None:
    for limit in store.limits.all():
        store.limits.delete(limit.id)
    limits = {
        make(store, "a", 2).id: 2,
        make(store, "b", 3).id: 3,
        make(store, "r", 2, slot_decay_per_second=1.0).id: 2,
    }
    holds: list[UUID] = []
    now = 0
    for what, count, names in steps:
        if what == "take":
            holds.append(uuid4())
            decaying = names == "r" and count == 1
            owner = ME if count > 1 else OTHER
            take(store, *names, count=count, owner=owner, hold=holds[-1], now=at(now), decaying=decaying)
        elif what == "give back" and holds:
            store.limits.give_back([holds.pop(0)])
        elif what == "die":
            store.crash([OTHER], now, "gone")
            register(store, OTHER)
            assert OTHER not in {slot.owner_id for slot in store.limits.slots()}
        else:
            now += count
        for limit in store.limits.all():
            held = sum(slot.count for slot in store.limits.slots(limit.id))
            assert held + limit.in_use(at(now)) <= limits[limit.id] + 1e-6
