"""What a flow returns decides how its run ends, and what the caller gets."""

import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import Abort, CancelledRun, FailedRun
from prefect_nb.states import Cancelled, Completed, Failed, Paused, Pending, State, StateType


@task
def good(x=1):
    return x


@task
def bad():
    raise ValueError("bad")


def test_plain_data_is_returned_as_the_same_object():
    data = {"rows": [1, 2]}

    @flow
    def f():
        return data

    assert f() is data
    assert f(return_state=True).is_completed()


@pytest.mark.parametrize("value", [None, 0, "", [], (), {}, set()])
def test_empty_values_complete_and_come_back(value):
    @flow
    def f():
        return value

    state = f(return_state=True)
    assert state.is_completed()
    assert state.result() == value
    assert f() == value


def test_a_failed_task_nobody_looked_at_does_not_fail_the_flow():
    @flow
    def f():
        bad.submit()

    assert f() is None
    assert f(return_state=True).is_completed()


def test_a_failed_state_that_is_not_returned_does_not_fail_the_flow():
    @flow
    def f():
        assert bad(return_state=True).is_failed()

    assert f(return_state=True).is_completed()


def test_an_exception_in_the_body_fails_the_flow_and_is_raised():
    @flow
    def f():
        bad()

    with pytest.raises(ValueError, match=r"^bad$"):
        f()
    state = f(return_state=True)
    assert state.is_failed()
    assert state.message == "Flow run encountered an exception: ValueError: bad"
    with pytest.raises(ValueError, match=r"^bad$"):
        state.result()


def test_the_very_exception_is_raised():
    error = ValueError("this one")

    @flow
    def f():
        raise error

    with pytest.raises(ValueError, match="this one") as caught:
        f()
    assert caught.value is error


def test_one_failed_future_fails_the_flow():
    @flow
    def f():
        return bad.submit()

    with pytest.raises(ValueError, match=r"^bad$"):
        f()
    state = f(return_state=True)
    assert state.is_failed()
    assert state.message == "1/1 states failed."


def test_one_failed_task_state_fails_the_flow():
    @flow
    def f():
        return bad(return_state=True)

    state = f(return_state=True)
    assert (state.type, state.message) == (StateType.FAILED, "1/1 states failed.")


@pytest.mark.parametrize("give", [lambda: good.submit(7), lambda: good(7, return_state=True)])
def test_one_completed_future_or_state_comes_back_as_a_state(give):
    @flow
    def f():
        return give()

    value = f()
    assert isinstance(value, State)
    assert value.result() == 7
    assert f(return_state=True).is_completed()


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_collection_of_completed_futures_comes_back_as_states(kind):
    @flow
    def f():
        return kind([good.submit(1), good.submit(2)])

    value = f()
    assert type(value) is kind
    assert all(isinstance(item, State) for item in value)
    assert [item.result() for item in value] == [1, 2]
    assert f(return_state=True).message == "All states completed."


def test_a_future_list_comes_back_as_states():
    @flow
    def f():
        return good.map([1, 2, 3])

    assert [state.result() for state in f()] == [1, 2, 3]


def test_one_of_two_failed():
    @flow
    def f():
        return [good.submit(), bad.submit()]

    state = f(return_state=True)
    assert (state.type, state.message) == (StateType.FAILED, "1/2 states failed.")
    with pytest.raises(ValueError, match=r"^bad$"):
        state.result()
    assert [state.name for state in f()] == ["Completed", "Failed"]  # the caller gets what the body returned


def test_a_dict_that_holds_a_failed_state_is_data():
    @flow
    def f():
        return {"x": bad(return_state=True)}

    state = f(return_state=True)
    assert state.is_completed()
    assert state.result()["x"].is_failed()


def test_a_mixed_list_is_data():
    @flow
    def f():
        return [1, bad(return_state=True)]

    assert f(return_state=True).is_completed()
    assert f()[0] == 1


def test_a_state_made_by_hand_is_the_final_state():
    @flow
    def f():
        return Completed(message="all well", data={"n": 1})

    state = f(return_state=True)
    assert (state.name, state.message) == ("Completed", "all well")
    assert state.result() == {"n": 1}
    assert f() == {"n": 1}


def test_a_state_made_by_hand_keeps_its_name(history):
    @flow
    def f():
        return Completed(name="Skipped")

    state = f(return_state=True)
    assert (state.type, state.name) == (StateType.COMPLETED, "Skipped")
    assert history.flow_run(state.state_details.flow_run_id).state_name == "Skipped"


def test_a_failed_state_made_by_hand_raises_its_message():
    @flow
    def f():
        return Failed(message="nope")

    with pytest.raises(FailedRun, match=r"^nope$"):
        f()
    assert f(return_state=True).message == "nope"


def test_a_cancelled_state_made_by_hand_raises_and_fires_no_hook():
    fired = []

    @flow(on_cancellation=[lambda *args: fired.append(args)])
    def f():
        return Cancelled()

    with pytest.raises(CancelledRun):
        f()
    assert f(return_state=True).is_cancelled()
    assert fired == []


def test_a_cancelled_state_among_others():
    @flow
    def f():
        return [good(return_state=True), Cancelled()]

    state = f(return_state=True)
    assert (state.type, state.message) == (StateType.CANCELLED, "1/2 states cancelled.")


def test_a_paused_state_among_others():
    @flow
    def f():
        return [good(return_state=True), Paused()]

    assert f(return_state=True).is_paused()


def test_cancelled_weighs_more_than_failed():
    @flow
    def f():
        return [bad(return_state=True), Cancelled(), good(return_state=True)]

    assert f(return_state=True).message == "1/3 states cancelled."


def test_a_future_that_never_started():
    @flow
    def f():
        return good.submit(bad.submit())

    state = f(return_state=True)
    assert (state.type, state.message) == (StateType.FAILED, "1/1 states are not final.")


def test_a_failed_future_and_one_that_never_started():
    @flow
    def f():
        failed = bad.submit()
        return [failed, good.submit(failed)]

    state = f(return_state=True)
    assert (state.type, state.message) == (StateType.FAILED, "1/2 states failed.")


def test_an_exception_instance_is_data():
    @flow
    def f():
        return ValueError("just a value")

    value = f()
    assert isinstance(value, ValueError)
    assert f(return_state=True).is_completed()


def test_returning_pending_is_refused_and_leaves_no_running_run(history):
    @flow
    def f():
        return Pending()

    with pytest.raises(Abort, match="PENDING"):
        f()
    assert [run.state_type for run in history.flow_runs()] == [StateType.FAILED]


def test_submitted_tasks_are_waited_for(history):
    import threading

    release = threading.Event()
    ended = []

    @task
    def slow():
        release.wait(30)
        ended.append(True)

    @flow
    def f():
        slow.submit()
        release.set()

    f()
    assert ended == [True]
    assert [run.state_name for run in history.task_runs()] == ["Completed"]


def test_a_returned_failed_future_is_not_retried_and_a_raised_exception_is():
    calls = []

    @flow(retries=2)
    def returns():
        calls.append("returns")
        return bad.submit()

    @flow(retries=2)
    def raises():
        calls.append("raises")
        raise ValueError("bad")

    assert returns(return_state=True).is_failed()
    assert raises(return_state=True).is_failed()
    assert calls == ["returns", "raises", "raises", "raises"]


def test_what_a_final_state_says_is_what_the_history_says(history):
    @flow
    def f():
        return [good.submit(), bad.submit()]

    state = f(return_state=True)
    run = history.flow_run(state.state_details.flow_run_id)
    assert (run.state_type, run.state_name, run.state_message) == (state.type, state.name, state.message)


async def test_async_flows_follow_the_same_rules():
    @flow
    async def data():
        return 5

    @flow
    async def futures():
        return [good.submit(1), bad.submit()]

    @flow
    async def raises():
        raise KeyError("k")

    assert await data() == 5
    assert (await futures(return_state=True)).message == "1/2 states failed."
    with pytest.raises(KeyError):
        await raises()
