"""`task.map`: one run an element."""

import pytest

from prefect_nb import allow_failure, flow, quote, tags, task, unmapped
from prefect_nb.exceptions import MappingLengthMismatch, MappingMissingIterable, ParameterBindError, UnfinishedRun
from prefect_nb.futures import PrefectFuture, PrefectFutureList
from prefect_nb.states import State


@task
def add(a, b=10):
    return a + b


@task
def double(x):
    if x == "bad":
        raise ValueError("bad")
    return x * 2


def mapped(make):
    """What `make()` gives inside a flow, its futures resolved."""

    @flow
    def f():
        return {"got": make().result()}

    return f()["got"]


def test_one_future_an_element_in_order():
    @flow
    def f():
        futures = double.map([1, 2, 3])
        assert isinstance(futures, PrefectFutureList)
        assert isinstance(futures, list)
        assert all(isinstance(future, PrefectFuture) for future in futures)
        futures.wait()
        return {"n": len(futures), "values": futures.result(), "each": [future.result() for future in futures]}

    assert f() == {"n": 3, "values": [2, 4, 6], "each": [2, 4, 6]}


def test_lengths_that_differ():
    @flow
    def f():
        add.map([1, 2], [1, 2, 3])

    with pytest.raises(MappingLengthMismatch, match=r"2.*3"):
        f()


def test_nothing_to_iterate_over():
    @flow
    def f():
        add.map(1, 2)

    with pytest.raises(MappingMissingIterable):
        f()


def test_only_unmapped_iterables_are_nothing_to_iterate_over():
    @flow
    def f():
        double.map(unmapped([1, 2]))

    with pytest.raises(MappingMissingIterable):
        f()


def test_scalars_go_to_every_run():
    assert mapped(lambda: add.map([1, 2, 3], 5)) == [6, 7, 8]


@pytest.mark.parametrize(("text", "expected"), [("ab", ["1ab", "2ab"]), (b"ab", [b"1ab", b"2ab"])])
def test_text_and_bytes_are_scalars(text, expected):
    items = ["1", "2"] if isinstance(text, str) else [b"1", b"2"]

    assert mapped(lambda: add.map(items, text)) == expected


def test_text_alone_cannot_be_mapped():
    @flow
    def f():
        double.map("abc")

    with pytest.raises(MappingMissingIterable):
        f()


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ({"a": 1, "b": 2}, ["aa", "bb"]),
        ({3}, [6]),
        ((x for x in (1, 2)), [2, 4]),
        (range(3), [0, 2, 4]),
        ((1, 2), [2, 4]),
        ([], []),
    ],
)
def test_what_is_iterated(items, expected):
    assert mapped(lambda: double.map(items)) == expected


def test_an_empty_map_starts_nothing(history):
    @flow
    def f():
        assert double.map([]) == []

    f()
    assert history.task_runs() == []


def test_a_future_of_a_list():
    @task
    def numbers():
        return [1, 2, 3]

    assert mapped(lambda: double.map(numbers.submit())) == [2, 4, 6]


def test_a_state_of_a_list():
    @task
    def numbers():
        return [1, 2, 3]

    assert mapped(lambda: double.map(numbers(return_state=True))) == [2, 4, 6]


def test_two_futures_of_lists():
    @task
    def numbers(n):
        return [n, n + 1]

    assert mapped(lambda: add.map(numbers.submit(1), numbers.submit(10))) == [11, 13]


def test_a_failed_future_of_a_list():
    @flow
    def f():
        double.map(double.submit("bad"))

    with pytest.raises(ValueError, match="bad"):
        f()


def test_return_state_gives_states():
    @flow
    def f():
        states = double.map([1, "bad"], return_state=True)
        assert all(isinstance(state, State) for state in states)
        return {"names": [state.name for state in states]}

    assert f() == {"names": ["Completed", "Failed"]}


def test_defaults_are_not_iterated():
    @task
    def count(x, among=(1, 2, 3)):
        return x + len(among)

    assert mapped(lambda: count.map([1, 2])) == [4, 5]


def test_an_unmapped_iterable_goes_whole():
    @task
    def count(x, among):
        return x + len(among)

    assert mapped(lambda: count.map([1, 2], among=unmapped([7, 8, 9]))) == [4, 5]


def test_an_unmapped_default():
    @task
    def count(x, among=unmapped([1, 2, 3])):  # noqa: B008
        return x + len(among)

    assert mapped(lambda: count.map([1, 2])) == [4, 5]


def test_an_unmapped_future_is_resolved():
    @flow
    def f():
        return {"got": add.map([1, 2], unmapped(double.submit(5))).result()}

    assert f() == {"got": [11, 12]}


def test_missing_arguments():
    @task
    def two(a, b):
        return a, b

    @flow
    def f():
        two.map([1, 2])

    with pytest.raises(ParameterBindError):
        f()


def test_unexpected_arguments():
    @flow
    def f():
        double.map([1], nope=[2])

    with pytest.raises(TypeError):
        f()


def test_variadic_arguments():
    @task
    def collect(*args, **kwargs):
        return args, kwargs

    assert mapped(lambda: collect.map([1, 2], [3, 4], k=[5, 6])) == [((1, 2), {"k": 5}), ((3, 4), {"k": 6})]


def test_one_failed_element_stops_only_its_child():
    @flow
    def f():
        first = double.map([1, "bad", 3])
        second = double.map(first)
        second.wait()
        return {"names": [future.state.name for future in second]}

    assert f() == {"names": ["Completed", "NotReady", "Completed"]}


def test_result_of_a_list_with_a_failure():
    @flow
    def f():
        futures = double.map([1, "bad"])
        with pytest.raises(ValueError, match="bad"):
            futures.result()
        return {"got": futures.result(raise_on_failure=False)}

    value, error = f()["got"]
    assert value == 2
    assert isinstance(error, ValueError)


def test_result_of_a_list_with_a_run_that_never_started():
    @flow
    def f():
        double.map([double.submit("bad")]).result()

    with pytest.raises(UnfinishedRun):
        f()


def test_allowed_failures_are_mapped():
    @task
    def name(x):
        return type(x).__name__

    @flow
    def f():
        return {"got": name.map(allow_failure(double.map([1, "bad"]))).result()}

    assert f() == {"got": ["int", "ValueError"]}


def test_quoted_elements_are_not_searched():
    @task
    def look(x):
        return isinstance(x, PrefectFuture)

    @flow
    def f():
        return {"got": look.map(quote([double.submit(1), double.submit(2)])).result()}

    assert f() == {"got": [True, True]}


def test_wait_for_and_tags_apply_to_every_child(history):
    @flow
    def f():
        failed = double.submit("bad")
        with tags("mapped"):
            futures = double.map([1, 2], wait_for=[failed])
        futures.wait()
        return {"names": [future.state.name for future in futures]}

    assert f() == {"names": ["NotReady", "NotReady"]}
    children = [run for run in history.task_runs() if run.state_name == "NotReady"]
    assert [run.tags for run in children] == [("mapped",), ("mapped",)]


def test_a_map_of_async_tasks():
    @task
    async def adouble(x):
        return x * 2

    assert mapped(lambda: adouble.map([1, 2, 3])) == [2, 4, 6]


def test_maps_in_tasks():
    @task
    def outer():
        return double.map([1, 2]).result()

    @flow
    def f():
        return {"got": outer.submit().result()}

    assert f() == {"got": [2, 4]}


def test_a_map_outside_any_flow():
    assert double.map([1, 2]).result() == [2, 4]


def test_each_child_is_a_run(history):
    @flow
    def f():
        double.map([1, 2, 3]).wait()

    f()
    runs = history.task_runs()
    assert len({run.id for run in runs}) == 3
    assert len({run.dynamic_key for run in runs}) == 3
    assert {run.state_name for run in runs} == {"Completed"}
