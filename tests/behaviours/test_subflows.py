"""Flows called in flows."""

import pytest

from prefect_nb import flow, runtime, task
from prefect_nb.states import State, StateType


@task
def one():
    return 1


def test_a_sub_flow_gives_its_value():
    @flow
    def child(x: int):
        return x + one()

    @flow
    def parent():
        return child("2")

    assert parent() == 3


def test_a_failing_child_fails_its_parent_with_the_same_exception(history):
    error = ValueError("child")

    @flow
    def child():
        raise error

    @flow
    def parent():
        child()

    with pytest.raises(ValueError, match="child") as caught:
        parent()
    assert caught.value is error
    assert {run.flow_name: run.state_type for run in history.flow_runs()} == {
        "parent": StateType.FAILED,
        "child": StateType.FAILED,
    }


def test_a_failing_child_with_return_state_leaves_the_parent_alone():
    @flow
    def child():
        raise ValueError

    @flow
    def parent():
        state = child(return_state=True)
        assert isinstance(state, State)
        return {"child": state.type}

    assert parent() == {"child": StateType.FAILED}


def test_a_parent_that_returns_its_childs_failed_state_fails():
    @flow
    def child():
        raise ValueError("child")

    @flow
    def parent():
        return child(return_state=True)

    state = parent(return_state=True)
    assert (state.type, state.message) == (StateType.FAILED, "1/1 states failed.")
    with pytest.raises(ValueError, match="child"):
        parent()


def test_a_child_has_a_task_run_that_stands_for_it(history):
    @flow
    def child():
        return 5

    @flow
    def parent():
        child()

    parent()
    runs = {run.flow_name: run for run in history.flow_runs()}
    (dummy,) = history.task_runs()
    assert dummy.flow_run_id == runs["parent"].id
    assert runs["child"].parent_task_run_id == dummy.id
    assert dummy.state_name == "Completed"
    assert dummy.state.state_details.child_flow_run_id == runs["child"].id
    assert dummy.name == "child"


@pytest.mark.parametrize("outcome", ["Completed", "Failed"])
def test_the_task_run_follows_the_childs_states(outcome, history):
    @flow
    def child():
        if outcome == "Failed":
            raise ValueError

    @flow
    def parent():
        child(return_state=True)

    parent()
    (dummy,) = history.task_runs()
    assert history.states(dummy.id) == ["Pending", "Running", outcome]


def test_ancestors(history):
    seen = {}

    @flow
    def grandchild():
        seen["grandchild"] = (runtime.flow_run.parent_flow_run_id, runtime.flow_run.root_flow_run_id)

    @flow
    def child():
        seen["child"] = (runtime.flow_run.parent_flow_run_id, runtime.flow_run.root_flow_run_id)
        grandchild()

    @flow
    def parent():
        seen["parent"] = (runtime.flow_run.parent_flow_run_id, runtime.flow_run.root_flow_run_id)
        child()

    parent()
    ids = {run.flow_name: str(run.id) for run in history.flow_runs()}
    assert seen == {
        "parent": (None, ids["parent"]),
        "child": (ids["parent"], ids["parent"]),
        "grandchild": (ids["child"], ids["parent"]),
    }


def test_tasks_belong_to_the_flow_run_they_are_called_in(history):
    @flow
    def child():
        one()

    @flow
    def parent():
        one()
        child()
        one()

    parent()
    ids = {run.flow_name: run.id for run in history.flow_runs()}
    owners = [run.flow_run_id for run in history.task_runs(kinds=("task",))]
    assert owners == [ids["parent"], ids["child"], ids["parent"]]


def test_a_childs_parameters_are_checked():
    from prefect_nb.exceptions import ParameterTypeError

    @flow
    def child(x: int):
        pass

    @flow
    def parent():
        child("nope")

    with pytest.raises(ParameterTypeError):
        parent()


async def test_an_async_child_of_an_async_parent():
    @flow
    async def child(x):
        return x * 2

    @flow
    async def parent():
        return await child(2)

    assert await parent() == 4


async def test_async_children_side_by_side(history):
    import asyncio

    @flow
    async def child(x):
        await asyncio.sleep(0)
        return x

    @flow
    async def parent():
        return await asyncio.gather(*[child(n) for n in range(5)])

    assert await parent() == [0, 1, 2, 3, 4]
    parent_run = next(run for run in history.flow_runs() if run.flow_name == "parent")
    assert {run.parent_flow_run_id for run in history.flow_runs()} == {None, parent_run.id}


def test_a_flow_that_calls_itself():
    @flow
    def count(n):
        return n if n == 0 else count(n - 1) + 1

    assert count(3) == 3


def test_the_same_child_several_times(history):
    @flow
    def child(n):
        return n

    @flow
    def parent():
        return [child(n) for n in range(3)]

    assert parent() == [0, 1, 2]
    assert len({run.dynamic_key for run in history.task_runs()}) == 3


def test_a_child_in_a_submitted_task(history):
    @flow
    def child():
        return one()

    @task
    def outer():
        return child()

    @flow
    def parent():
        return {"value": outer.submit().result()}

    assert parent() == {"value": 1}
    runs = {run.flow_name: run for run in history.flow_runs()}
    assert runs["child"].parent_flow_run_id == runs["parent"].id


def test_a_resumed_parent_does_not_run_a_kept_child_again(history):
    counts = {"child": 0, "other": 0, "parent": 0}

    @flow(persist_result=True)
    def kept():
        counts["child"] += 1
        return "kept"

    @flow
    def not_kept():
        counts["other"] += 1

    @flow
    def parent():
        counts["parent"] += 1
        value = kept()
        not_kept()
        if counts["parent"] == 1:
            raise ValueError
        return value

    state = parent(return_state=True)
    assert parent.resume(state.state_details.flow_run_id) == "kept"
    assert counts == {"child": 1, "other": 2, "parent": 2}


def test_a_value_of_a_sub_flow_remembers_the_run_it_came_from(history):
    @flow
    def child():
        return {"a": 1}

    @task
    def use(x, y=None):
        pass  # what it returned would come from it, not from the sub-flow

    @flow
    def parent():
        value = child()
        use(value)
        use(child(return_state=True), y=[value])

    parent()
    children = {str(run.id) for run in history.flow_runs() if run.flow_name == "child"}
    for run in history.task_runs():
        if run.task_key.endswith("use") or ".use-" in run.task_key:
            for sources in run.task_inputs.values():
                assert {source["input_type"] for source in sources} == {"flow_run"}
                assert {source["id"] for source in sources} <= children
    assert any("x" in run.task_inputs for run in history.task_runs())
