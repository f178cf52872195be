"""Calling a task: its value, its states, and what `result()` gives."""

import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import CancelledRun, CrashedRun, FailedRun, PausedRun, UnfinishedRun
from prefect_nb.futures import PrefectFuture
from prefect_nb.states import (
    AwaitingConcurrencySlot,
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Late,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    State,
    StateType,
    Suspended,
    exception_to_failed_state,
    get_state_exception,
    is_state,
    raise_state_exception,
)


@task
def add(a, b=1):
    return a + b


@task
def bad():
    raise ValueError("bad")


def in_flow(fn):
    """Call `fn` inside a flow; gives what it gave, whatever it is."""
    box = []

    @flow
    def around():
        box.append(fn())

    around()
    return box[0]


@pytest.fixture(params=["outside a flow", "inside a flow"])
def call(request):
    return in_flow if request.param == "inside a flow" else lambda fn: fn()


def test_a_call_gives_the_value(call):
    assert call(lambda: add(1, b=2)) == 3


def test_return_state_gives_the_state(call):
    state = call(lambda: add(1, return_state=True))
    assert state.is_completed()
    assert (state.name, state.type) == ("Completed", StateType.COMPLETED)
    assert state.result() == 2


def test_a_failing_call_raises_the_exception(call):
    with pytest.raises(ValueError, match=r"^bad$"):
        call(bad)


def test_a_failing_call_with_return_state(call):
    state = call(lambda: bad(return_state=True))
    assert (state.type, state.name) == (StateType.FAILED, "Failed")
    assert state.message == "Task run encountered an exception ValueError: bad"
    with pytest.raises(ValueError, match=r"^bad$"):
        state.result()
    assert isinstance(state.result(raise_on_failure=False), ValueError)


@pytest.mark.parametrize("make", [Failed, Crashed, Cancelled, Completed])
def test_a_returned_state_is_the_runs_state_and_comes_back(call, make):
    @task
    def t():
        return make(message="by hand")

    state = call(t)
    assert is_state(state)
    assert (state.type, state.message) == (make().type, "by hand")


@pytest.mark.parametrize("make", [Paused, Pending, Running, Scheduled])
def test_a_returned_state_that_is_no_end_fails_the_run(call, make):
    @task
    def t():
        return make()

    state = call(lambda: t(return_state=True))
    assert state.is_failed()
    assert "not final" in state.message


def test_a_returned_failed_state_is_retried():
    calls = []

    @task(retries=2)
    def t():
        calls.append(1)
        return Failed(message="not yet")

    assert t().is_failed()
    assert len(calls) == 3


def test_a_returned_completed_state_carries_its_data(call):
    @task
    def t():
        return Completed(data=4)

    state = call(t)
    assert isinstance(state, State)
    assert state.result() == 4
    assert call(lambda: t(return_state=True)).result() == 4


def test_a_submitted_task_that_returns_a_state():
    @task
    def t():
        return Completed(message="fine", data=4)

    @flow
    def f():
        future = t.submit()
        return {"value": future.result(), "message": future.state.message}

    assert f() == {"value": 4, "message": "fine"}


def test_a_task_that_returns_a_future_hands_it_on():
    @task
    def outer():
        return add.submit(1)

    @flow
    def f():
        future = outer()
        assert isinstance(future, PrefectFuture)
        return {"value": future.result()}

    assert f() == {"value": 2}


def test_an_exception_instance_is_data(call):
    @task
    def t():
        return KeyError("just a value")

    state = call(lambda: t(return_state=True))
    assert state.is_completed()
    assert isinstance(call(t), KeyError)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (Failed, FailedRun),
        (Crashed, CrashedRun),
        (Cancelled, CancelledRun),
        (Paused, PausedRun),
        (Pending, UnfinishedRun),
        (Running, UnfinishedRun),
        (Scheduled, UnfinishedRun),
        (Cancelling, UnfinishedRun),
    ],
)
def test_result_of_a_state_without_a_value_raises(make, error):
    with pytest.raises(error):
        make().result()


def test_result_of_an_unfinished_state_says_where_the_run_is():
    with pytest.raises(UnfinishedRun, match=r"^Run is in PENDING state, its result is not available.$"):
        Pending().result()


def test_result_of_an_unfinished_state_raises_even_when_failures_are_not_raised():
    with pytest.raises(UnfinishedRun):
        Running().result(raise_on_failure=False)


@pytest.mark.parametrize("data", [ValueError("x"), [Failed(data=ValueError("x"))], Failed(data=ValueError("x"))])
def test_a_failed_state_raises_the_exception_it_carries(data):
    with pytest.raises(ValueError, match="x"):
        Failed(data=data).result()


def test_a_failed_state_with_text_raises_it():
    with pytest.raises(FailedRun, match=r"^words$"):
        Failed(data="words").result()


def test_completed_by_hand_gives_its_data():
    assert Completed(data=1).result() == 1
    assert Completed().result() is None


def test_a_state_as_text():
    assert str(Completed(message="x")) == "Completed('x')"
    assert str(Completed()) == "Completed()"
    shown = repr(Completed(message="x", data=1))
    assert "message='x'" in shown
    assert "type=COMPLETED" in shown
    assert "result=1" in shown


@pytest.mark.parametrize(
    ("make", "name", "type_"),
    [
        (Scheduled, "Scheduled", "SCHEDULED"),
        (Late, "Late", "SCHEDULED"),
        (AwaitingRetry, "AwaitingRetry", "SCHEDULED"),
        (AwaitingConcurrencySlot, "AwaitingConcurrencySlot", "SCHEDULED"),
        (Pending, "Pending", "PENDING"),
        (Running, "Running", "RUNNING"),
        (Retrying, "Retrying", "RUNNING"),
        (Paused, "Paused", "PAUSED"),
        (Suspended, "Suspended", "PAUSED"),
        (Cancelling, "Cancelling", "CANCELLING"),
        (Cancelled, "Cancelled", "CANCELLED"),
        (Completed, "Completed", "COMPLETED"),
        (Failed, "Failed", "FAILED"),
        (Crashed, "Crashed", "CRASHED"),
    ],
)
def test_names_and_types(make, name, type_):
    state = make()
    assert (state.name, state.type, state.type.value) == (name, StateType(type_), type_)
    assert make(name="Other").name == "Other"
    assert state.is_final() == (type_ in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


def test_a_state_made_by_hand_has_a_time():
    assert Completed().timestamp.tzinfo is not None


def test_get_and_raise_state_exception():
    error = ValueError("e")
    assert get_state_exception(Failed(data=error)) is error
    assert isinstance(get_state_exception(Cancelled()), CancelledRun)
    with pytest.raises(ValueError, match=r"^e$"):
        raise_state_exception(Failed(data=error))
    raise_state_exception(Completed())
    with pytest.raises(ValueError, match="Expected failed or crashed state"):
        get_state_exception(Completed())


def test_exception_to_failed_state():
    state = exception_to_failed_state(ValueError("e"), message="Oh:")
    assert state.is_failed()
    assert state.message == "Oh: ValueError: e"
    assert isinstance(state.data, ValueError)


def test_a_call_outside_a_flow_is_a_run_of_its_own(history):
    state = add(1, return_state=True)
    details = state.state_details
    assert details.flow_run_id is None
    run = history.task_run(details.task_run_id)
    assert (run.name, run.flow_run_id, run.state_name) == ("add", None, "Completed")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt, "Execution was aborted by an interrupt signal."),
        (SystemExit, "Execution was aborted by Python system exit call."),
    ],
)
def test_interrupts_and_exits_propagate_and_crash(history, error, message):
    @task
    def t():
        raise error

    @flow
    def f():
        t(return_state=True)

    with pytest.raises(error):
        f(return_state=True)
    (task_run,) = history.task_runs()
    (flow_run,) = history.flow_runs()
    assert (task_run.state_type, task_run.state_message) == (StateType.CRASHED, message)
    assert flow_run.state_type is StateType.CRASHED


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_and_exits_propagate_outside_a_flow(history, error):
    @task
    def t():
        raise error

    with pytest.raises(error):
        t(return_state=True)
    assert [run.state_type for run in history.task_runs()] == [StateType.CRASHED]


def test_states_are_in_order_and_attempts_are_counted(history):
    failures = [1, 1]

    @task(retries=2)
    def t():
        if failures:
            raise ValueError(failures.pop())
        return "done"

    state = t(return_state=True)
    run = history.task_run(state.state_details.task_run_id)
    assert run.run_count == 3
    times = [event.at_us for event in history.store.events(run.id) if hasattr(event, "at_us")]
    assert times == sorted(set(times))


def test_the_first_run_counts_one(history):
    state = add(1, return_state=True)
    assert history.task_run(state.state_details.task_run_id).run_count == 1


def test_the_state_knows_its_runs():
    @flow
    def f():
        state = add(1, return_state=True)
        return {"task": state.state_details.task_run_id, "flow": state.state_details.flow_run_id}

    state = f(return_state=True)
    ids = state.result()
    assert ids["task"] is not None
    assert ids["flow"] == state.state_details.flow_run_id


async def test_async_tasks_follow_the_same_rules():
    @task
    async def fails():
        raise ValueError("bad")

    @task
    async def gives(x):
        return x

    assert await gives(1) == 1
    assert await (await gives(1, return_state=True)).result() == 1
    with pytest.raises(ValueError, match="bad"):
        await fails()
    assert (await fails(return_state=True)).is_failed()
