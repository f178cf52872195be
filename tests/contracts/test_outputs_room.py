"""What every store does with the outputs of task runs."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from prefect_nb.interfaces import Output, OutputSummary, Store
from prefect_nb.interfaces.outputs import CLEAR
from prefect_nb.store.memory import MemoryStore
from prefect_nb.store.sqlite import SqliteStore

NOW = 1_790_000_000_000_000
FLOW, OTHER_FLOW, TASK, LATER, ELSEWHERE = (uuid4() for _ in range(5))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore.open(tmp_path / "home")
    yield opened
    opened.close()


def out(number: int, data: str, task=TASK, kind: str = "stdout", flow=FLOW) -> Output:
    return Output(task, number, NOW + number, kind, data, flow)


def test_outputs_come_back_in_order_by_task_run(store: Store) -> None:
    first, second, third = out(0, "a\n"), out(1, "b\n", kind="stderr"), out(2, "{}", kind="display")
    other = out(0, "x\n", LATER)
    store.outputs.write([second, other])
    store.outputs.write([])
    store.outputs.write([first, third])

    assert store.outputs.read(TASK) == [first, second, third]
    assert store.outputs.read(LATER) == [other]
    assert store.outputs.read(uuid4()) == []


def test_they_are_read_in_pages(store: Store) -> None:
    every = [out(number, str(number)) for number in range(10)]
    store.outputs.write(every)

    assert store.outputs.read(TASK, after=3, limit=4) == every[4:8]


def test_another_output_with_the_same_number_takes_its_place(store: Store) -> None:
    store.outputs.write([out(0, "10 %"), out(1, "next")])
    store.outputs.write([out(0, "20 %"), out(0, "30 %")])

    assert [one.data for one in store.outputs.read(TASK)] == ["30 %", "next"]


def test_a_clear_drops_what_came_before_it_and_nothing_else(store: Store) -> None:
    store.outputs.write([out(0, "old"), out(1, "old"), out(0, "kept", LATER)])
    store.outputs.write([out(2, "", kind=CLEAR), out(3, "new")])

    assert [one.data for one in store.outputs.read(TASK)] == ["new"]
    assert [one.data for one in store.outputs.read(LATER)] == ["kept"]


def test_numbers_go_on_after_the_last(store: Store) -> None:
    store.outputs.write([out(0, "a"), out(7, "b"), out(0, "c", LATER)])

    assert store.outputs.next_numbers([TASK, LATER, ELSEWHERE]) == {TASK: 8, LATER: 1}
    assert store.outputs.next_numbers([uuid4() for _ in range(1200)]) == {}


def test_summaries_of_flow_runs_in_the_order_of_their_first_output(store: Store) -> None:
    store.outputs.write([out(5, "{}", LATER, "display"), out(6, "z", LATER)])
    store.outputs.write([out(0, "a"), out(1, "b"), out(2, "c", ELSEWHERE, flow=OTHER_FLOW)])

    assert store.outputs.summaries([FLOW]) == [OutputSummary(TASK, 2, 0), OutputSummary(LATER, 2, 1)]
    assert len(store.outputs.summaries([FLOW, OTHER_FLOW])) == 3
    assert store.outputs.summaries([]) == []


def test_text_that_is_no_unicode_and_task_runs_outside_any_flow_run(store: Store) -> None:
    store.outputs.write([out(0, "\ud800 größer", flow=None)])

    (kept,) = store.outputs.read(TASK)
    assert kept.data.endswith(" größer")
    assert kept.flow_run_id is None


def test_they_outlive_the_process(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "home")
    store.outputs.write([out(0, "kept\n")])
    store.close()

    again = SqliteStore.open(tmp_path / "home")
    assert [one.data for one in again.outputs.read(TASK)] == ["kept\n"]
    again.close()
