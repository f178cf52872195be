"""Futures and states as arguments, `wait_for`, and what happens after an upstream failure."""

import dataclasses
import threading
from typing import Any

import pydantic
import pytest

from prefect_nb import allow_failure, flow, opaque, quote, task, unmapped
from prefect_nb.exceptions import UnfinishedRun
from prefect_nb.futures import PrefectFuture
from prefect_nb.states import Completed, Failed


@task
def give(x):
    return x


@task
def bad():
    raise ValueError("bad")


@dataclasses.dataclass
class Box:
    content: Any


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    content: Any


def ids(run, name):
    return [item["id"] for item in run.task_inputs.get(name, []) if item["input_type"] == "task_run"]


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (lambda future: future, 5),
        (lambda future: [future, 1], [5, 1]),
        (lambda future: (future,), (5,)),
        (lambda future: {"a": {"b": [future]}}, {"a": {"b": [5]}}),
        (lambda future: {future}, {5}),
        (lambda future: Box([future]), Box([5])),
        (lambda future: Model(content=future), Model(content=5)),
    ],
)
@pytest.mark.parametrize("how", ["call", "submit"])
def test_a_future_is_replaced_by_its_result_at_any_depth(wrap, expected, how):
    @flow
    def f():
        argument = wrap(give.submit(5))
        return {"got": give(argument) if how == "call" else give.submit(argument).result()}

    assert f()["got"] == expected


def test_the_callers_own_containers_are_left_alone():
    @flow
    def f():
        future = give.submit(5)
        mine = [future]
        give(mine)
        return {"untouched": mine[0] is future}

    assert f() == {"untouched": True}


@pytest.mark.parametrize("how", ["call", "submit"])
def test_a_completed_state_becomes_its_value(how):
    @flow
    def f():
        state = give(7, return_state=True)
        return {"got": give(state) if how == "call" else give.submit([state]).result()}

    assert f()["got"] in (7, [7])


def test_a_state_made_by_hand_becomes_its_value():
    assert give(Completed(data=3)) == 3


def test_a_task_after_a_failed_one_does_not_run(history):
    ran = []

    @task
    def after(x):
        ran.append(x)

    @flow
    def f():
        failed = bad.submit()
        future = after.submit(failed)
        future.wait()
        with pytest.raises(UnfinishedRun):
            future.result()
        return {"state": future.state, "upstream": failed.task_run_id}

    found = f()
    state = found["state"]
    assert ran == []
    assert (state.type.value, state.name) == ("PENDING", "NotReady")
    assert state.message == f"Upstream task run '{found['upstream']}' did not reach a 'COMPLETED' state."
    assert "NotReady" in [run.state_name for run in history.task_runs()]


def test_a_direct_call_after_a_failed_one_gives_none():
    @flow
    def f():
        failed = bad(return_state=True)
        state = give(failed, return_state=True)
        return {"value": give(failed), "name": state.name}

    assert f() == {"value": None, "name": "NotReady"}


@pytest.mark.parametrize("how", ["call", "submit"])
def test_wait_for_a_failed_one(how):
    @flow
    def f():
        failed = bad.submit()
        if how == "call":
            return {"name": give(1, wait_for=[failed], return_state=True).name}
        return {"name": give.submit(1, wait_for=[failed], return_state=True).name}

    assert f() == {"name": "NotReady"}


@pytest.mark.parametrize("how", ["call", "submit"])
def test_wait_for_an_allowed_failure_runs(how):
    @flow
    def f():
        failed = bad.submit()
        if how == "call":
            return {"value": give(1, wait_for=[allow_failure(failed)])}
        return {"value": give.submit(1, wait_for=[allow_failure(failed)]).result()}

    assert f() == {"value": 1}


@pytest.mark.parametrize("how", ["call", "submit"])
def test_an_allowed_failure_arrives_as_the_exception(how):
    @flow
    def f():
        failed = bad.submit()
        got = give(allow_failure(failed)) if how == "call" else give.submit(allow_failure(failed)).result()
        return {"got": got}

    got = f()["got"]
    assert isinstance(got, ValueError)
    assert str(got) == "bad"


def test_an_allowed_failure_inside_a_container():
    @flow
    def f():
        return {"got": give([allow_failure(bad.submit()), give.submit(1)])}

    got = f()["got"]
    assert isinstance(got[0], ValueError)
    assert got[1] == 1


def test_an_allowed_success_arrives_as_its_value():
    @flow
    def f():
        return {"got": give(allow_failure(give.submit(3)))}

    assert f() == {"got": 3}


def test_an_allowed_state_that_failed():
    assert isinstance(give(allow_failure(Failed(data=ValueError("x")))), ValueError)


def test_quote_is_not_searched():
    @task
    def look(x):
        return isinstance(x[0], PrefectFuture)

    @flow
    def f():
        return {"future": look(quote([give.submit(1)]))}

    assert f() == {"future": True}


def test_quote_does_not_wait_for_what_is_in_it():
    @task
    def look(x):
        return "ran"

    @flow
    def f():
        return {"value": look(quote([bad.submit()]))}

    assert f() == {"value": "ran"}


def test_opaque_resolves_the_top_only():
    @flow
    def f():
        return {"value": give(opaque(give.submit([1, 2])))}

    assert f() == {"value": [1, 2]}


def test_wait_for_may_hold_other_things():
    @flow
    def f():
        return {"value": give(1, wait_for=[1, "x", None, give.submit(1)])}

    assert f() == {"value": 1}


def test_wait_for_orders_runs(history):
    release = threading.Event()
    order = []

    @task
    def first():
        release.wait(30)
        order.append("first")

    @task
    def second():
        order.append("second")

    @flow
    def f():
        one = first.submit()
        two = second.submit(wait_for=[one])
        release.set()
        two.wait()

    f()
    assert order == ["first", "second"]
    runs = {run.task_key.split("-")[0].split(".")[-1]: run for run in history.task_runs()}
    assert ids(runs["second"], "wait_for") == [str(runs["first"].id)]


def test_a_future_given_to_a_sub_flow_is_resolved():
    @flow
    def child(x: int):
        return x + 1

    @flow
    def parent():
        return {"value": child(give.submit(1))}

    assert parent() == {"value": 2}


def test_a_state_given_to_a_sub_flow_is_resolved():
    @flow
    def child(x):
        return x

    @flow
    def parent():
        return {"value": child([give(4, return_state=True)])}

    assert parent() == {"value": [4]}


@pytest.mark.parametrize("how", ["argument", "wait_for"])
def test_a_sub_flow_after_a_failed_task_does_not_run(how, history):
    ran = []

    @flow
    def child(x=None):
        ran.append(x)

    @flow
    def parent():
        failed = bad.submit()
        if how == "argument":
            child(failed)
        else:
            child(wait_for=[failed])

    with pytest.raises(UnfinishedRun):
        parent()
    assert ran == []
    assert "NotReady" in [run.state_name for run in history.flow_runs()]


def test_a_sub_flow_may_take_an_allowed_failure():
    @flow
    def child(x=None):
        return "ran"

    @flow
    def parent():
        return {"value": child(wait_for=[allow_failure(bad.submit())])}

    assert parent() == {"value": "ran"}


def test_no_hooks_for_a_run_that_never_started():
    fired = []

    def hook(*args):
        fired.append(args)

    @task(on_completion=[hook], on_failure=[hook], on_running=[hook])
    def after(x):
        return x

    @flow
    def f():
        after.submit(bad.submit()).wait()

    f()
    assert fired == []


def test_a_value_that_came_from_a_task_records_where_from(history):
    @task
    def make():
        return {"rows": [1]}

    @task
    def use(table):
        return table

    @flow
    def f():
        use(make())

    f()
    made, used = history.task_runs()
    assert ids(used, "table") == [str(made.id)]


@pytest.mark.parametrize("constant", [None, True, 5, "text"])
def test_small_constants_record_nothing(constant, history):
    @flow
    def f():
        give(give(constant))

    f()
    assert [ids(run, "x") for run in history.task_runs()] == [[], []]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"k": x}])
def test_a_future_records_where_from(wrap, history):
    @flow
    def f():
        give.submit(wrap(give.submit(1))).wait()

    f()
    first, second = history.task_runs()
    assert ids(second, "x") == [str(first.id)]


def test_several_futures_in_one_argument(history):
    @flow
    def f():
        give.submit([give.submit(1), give.submit(2)]).wait()

    f()
    one, two, last = history.task_runs()
    assert set(ids(last, "x")) == {str(one.id), str(two.id)}


def test_a_nested_task_records_its_parent(history):
    @task
    def inner():
        return 1

    @task
    def outer():
        return inner()

    @flow
    def f():
        outer()

    f()
    first, second = history.task_runs()
    assert ids(second, "__parents__") == [str(first.id)]
    assert second.parent_id == first.id


@pytest.mark.parametrize("how", ["call", "submit", "map"])
def test_tasks_in_tasks(how):
    @task
    def outer():
        if how == "call":
            return give(1)
        if how == "submit":
            return give.submit(1).result()
        return give.map([1]).result()[0]

    @flow
    def f():
        return {"called": outer(), "submitted": outer.submit().result()}

    assert f() == {"called": 1, "submitted": 1}


def test_a_flow_in_a_task(history):
    @flow
    def child():
        return give(2)

    @task
    def outer():
        return child()

    @flow
    def parent():
        return {"value": outer()}

    assert parent() == {"value": 2}
    inner, outer_run = sorted(history.flow_runs(), key=lambda run: run.flow_name)
    assert inner.parent_flow_run_id == outer_run.id


def test_failure_travels_down_the_chain():
    @flow
    def f():
        a = bad.submit()
        b = give.submit(a)
        c = give.submit(b)
        c.wait()
        return {"b": b.state.name, "c": c.state.name}

    assert f() == {"b": "NotReady", "c": "NotReady"}


@pytest.mark.parametrize("wait_for", [lambda f: f, lambda f: [f], lambda f: (f,), lambda f: {f}, lambda f: iter([f])])
@pytest.mark.parametrize("how", ["call", "submit", "map", "flow"])
def test_wait_for_takes_one_or_several(wait_for, how):
    @flow
    def child():
        return "ran"

    @flow
    def f():
        failed = bad.submit()
        if how == "call":
            return {"names": [give(1, wait_for=wait_for(failed), return_state=True).name]}
        if how == "submit":
            return {"names": [give.submit(1, wait_for=wait_for(failed), return_state=True).name]}
        if how == "map":
            return {"names": [state.name for state in give.map([1, 2], wait_for=wait_for(failed), return_state=True)]}
        return {"names": [child(wait_for=wait_for(failed), return_state=True).name]}

    assert set(f()["names"]) == {"NotReady"}


def test_a_flow_that_is_called_with_futures_and_states_resolves_them():
    @flow
    def f(x: int, y):
        return x, y

    assert f(give.submit("5"), [Completed(data=6)]) == (5, [6])


def test_an_upstream_value_that_does_not_fit():
    @flow
    def child(x: int):
        pass

    @flow
    def parent():
        state = child(give.submit("nope"), return_state=True)
        return {"type": state.type.value, "message": state.message}

    found = parent()
    assert found["type"] == "FAILED"
    assert found["message"].startswith("Validation of flow parameters failed with error:")


def test_a_quoted_return_value():
    @flow
    def f():
        return quote(bad(return_state=True))

    assert f().unquote().is_failed()


async def test_async_tasks_wait_for_futures():
    @task
    async def agive(x):
        return x

    @flow
    async def f():
        failed = bad.submit()
        return {
            "value": await agive(give.submit(1)),
            "none": await agive(failed),
            "error": await agive(allow_failure(failed)),
        }

    found = await f()
    assert found["value"] == 1
    assert found["none"] is None
    assert isinstance(found["error"], ValueError)


def test_unmapped_around_an_ordinary_argument_is_taken_off():
    @flow
    def f():
        return {"value": give.map([[1], [2]]).result(), "whole": give(unmapped(5))}

    assert f() == {"value": [[1], [2]], "whole": 5}
