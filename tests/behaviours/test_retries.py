"""Further attempts after a failure, of tasks and of flows."""

import pytest

from prefect_nb import flow, runtime, task
from prefect_nb.context import FlowRunContext, TaskRunContext
from prefect_nb.states import StateType
from prefect_nb.tasks import exponential_backoff


class Flaky:
    """Fails a number of times, then gives "done"."""

    def __init__(self, failures, error=ValueError):
        self.failures = failures
        self.error = error
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"failure {self.calls}")
        return "done"


@pytest.mark.parametrize("how", ["call", "submit", "outside"])
def test_a_task_that_succeeds_in_the_end(how, history):
    work = Flaky(2)

    @task(retries=2)
    def t():
        return work()

    @flow
    def f():
        return {"value": t() if how == "call" else t.submit().result()}

    value = t() if how == "outside" else f()["value"]
    assert value == "done"
    assert work.calls == 3
    (run,) = history.task_runs()
    assert (run.state_name, run.run_count) == ("Completed", 3)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_task_that_never_succeeds(retries):
    work = Flaky(100)
    hooked = []

    @task(retries=retries, on_failure=[lambda task, run, state: hooked.append(state.message)])
    def t():
        return work()

    with pytest.raises(ValueError, match=f"^failure {retries + 1}$"):
        t()
    assert work.calls == retries + 1
    assert hooked == [f"Task run encountered an exception ValueError: failure {retries + 1}"]


def test_immediate_retries_go_through_retrying(history):
    work = Flaky(2)

    @task(retries=2)
    def t():
        return work()

    t()
    (run,) = history.task_runs()
    assert history.states(run.id) == ["Pending", "Running", "Retrying", "Retrying", "Completed"]


@pytest.mark.parametrize("how", ["call", "submit"])
def test_delayed_retries_go_through_awaiting_retry(how, history):
    work = Flaky(1)

    @task(retries=1, retry_delay_seconds=0.01)
    def t():
        return work()

    @flow
    def f():
        t() if how == "call" else t.submit().wait()

    f()
    (run,) = history.task_runs()
    assert history.states(run.id) == ["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]
    awaiting = next(event for event in history.store.events(run.id) if getattr(event, "name", "") == "AwaitingRetry")
    assert awaiting.type is StateType.SCHEDULED


def test_a_task_sees_which_attempt_it_is():
    counts = []

    @task(retries=2)
    def t():
        counts.append((runtime.task_run.run_count, TaskRunContext.get().task_run.run_count))
        raise ValueError

    t(return_state=True)
    assert counts == [(1, 1), (2, 2), (3, 3)]


def test_the_condition_says_no():
    work = Flaky(5)
    asked = []

    def condition(task, run, state):
        asked.append((task.name, run.run_count, type(state.data)))
        return False

    @task(retries=3, retry_condition_fn=condition)
    def t():
        return work()

    assert t(return_state=True).is_failed()
    assert work.calls == 1
    assert asked == [("t", 1, ValueError)]


def test_the_condition_says_yes_and_then_no():
    work = Flaky(5)

    @task(retries=3, retry_condition_fn=lambda task, run, state: work.calls < 3)
    def t():
        return work()

    assert t(return_state=True).is_failed()
    assert work.calls == 3


def test_the_condition_may_read_the_result():
    work = Flaky(5, KeyError)

    def condition(task, run, state):
        try:
            state.result()
        except KeyError:
            return False
        return True

    @task(retries=3, retry_condition_fn=condition)
    def t():
        return work()

    t(return_state=True)
    assert work.calls == 1


def test_a_condition_that_raises_means_no():
    work = Flaky(5)

    def condition(task, run, state):
        raise RuntimeError("broken")

    @task(retries=3, retry_condition_fn=condition)
    def t():
        return work()

    state = t(return_state=True)
    assert work.calls == 1
    assert "failure 1" in state.message


async def test_an_async_condition():
    work = Flaky(5)

    async def condition(task, run, state):
        return work.calls < 2

    @task(retries=3, retry_condition_fn=condition)
    async def t():
        return work()

    assert (await t(return_state=True)).is_failed()
    assert work.calls == 2


def test_a_condition_must_be_callable():
    with pytest.raises(TypeError, match="retry_condition_fn"):
        task(retry_condition_fn="no")(lambda: None)


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (None, [0, 0, 0]),
        (2, [2, 2, 2]),
        (0.5, [0.5, 0.5, 0.5]),
        ([1, 3], [1, 3, 3]),
        ([1, 2, 3, 4], [1, 2, 3]),
        (exponential_backoff(2), [2, 4, 8]),
        (lambda retries: [n * 10 for n in range(retries)], [0, 10, 20]),
    ],
)
def test_delays(delay, expected, monkeypatch):
    from prefect_nb.execution import delays as waits

    slept = []
    monkeypatch.setattr(waits, "sleep", lambda execution, seconds: slept.append(seconds))

    @task(retries=3, retry_delay_seconds=delay)
    def t():
        raise ValueError

    t(return_state=True)
    assert slept == [seconds for seconds in expected if seconds]


def test_exponential_backoff():
    assert exponential_backoff(backoff_factor=2)(3) == [2, 4, 8]
    assert exponential_backoff(10)(5) == [10, 20, 40, 80, 160]


def test_computed_delays_can_be_read():
    work = task(retries=3, retry_delay_seconds=exponential_backoff(2))(lambda: None)
    assert work.retry_delay_seconds == [2, 4, 8]
    assert work.with_options(retries=2).retry_delay_seconds == [2, 4]


def test_too_many_delays():
    with pytest.raises(ValueError, match="50"):
        task(retries=51, retry_delay_seconds=[1.0] * 51)(lambda: None)
    many = task(retries=60, retry_delay_seconds=exponential_backoff(1))(lambda: None)
    assert len(many.retry_delay_seconds) == 50  # the last one serves for the rest
    task(retries=50, retry_delay_seconds=[1.0] * 50)(lambda: None)


def test_negative_jitter():
    with pytest.raises(ValueError, match=r"`retry_jitter_factor` must be >= 0."):
        task(retry_jitter_factor=-1)(lambda: None)


def test_jitter_spreads_the_delays(monkeypatch):
    from prefect_nb.execution import delays as waits

    slept = []
    monkeypatch.setattr(waits, "sleep", lambda execution, seconds: slept.append(seconds))

    @task(retries=40, retry_delay_seconds=10, retry_jitter_factor=0.5)
    def t():
        raise ValueError

    t(return_state=True)
    assert len(set(slept)) > 1
    assert all(5 <= seconds <= 15 for seconds in slept)


def test_settings_give_the_defaults(monkeypatch):
    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", "2")
    monkeypatch.setenv("PREFECT_FLOWS_DEFAULT_RETRIES", "1")
    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS", "3")
    monkeypatch.setenv("PREFECT_FLOWS_DEFAULT_RETRY_DELAY_SECONDS", "4")

    @task
    def t():
        pass

    @flow
    def f():
        pass

    assert (t.retries, t.retry_delay_seconds) == (2, 3)
    assert (f.retries, f.retry_delay_seconds) == (1, 4)
    assert task(retries=0, retry_delay_seconds=0)(lambda: None).retries == 0
    assert task(retries=0, retry_delay_seconds=0)(lambda: None).retry_delay_seconds == 0
    assert flow(retries=0)(lambda: None).retries == 0
    assert t.with_options(retries=0).retries == 0


def test_a_flow_that_succeeds_in_the_end(history):
    work = Flaky(2)
    counts = []

    @flow(retries=2)
    def f():
        counts.append((runtime.flow_run.run_count, FlowRunContext.get().flow_run.run_count))
        return work()

    assert f() == "done"
    (run,) = history.flow_runs()
    assert counts == [(1, 1), (2, 2), (3, 3)]
    assert history.states(run.id) == ["Pending", "Running", "Running", "Running", "Completed"]


def test_a_flow_that_never_succeeds():
    work = Flaky(9)

    @flow(retries=1)
    def f():
        return work()

    with pytest.raises(ValueError, match="failure 2"):
        f()
    assert work.calls == 2


def test_a_flow_retry_with_a_delay(history):
    work = Flaky(1)

    @flow(retries=1, retry_delay_seconds=0.01)
    def f():
        return work()

    assert f() == "done"
    (run,) = history.flow_runs()
    assert history.states(run.id) == ["Pending", "Running", "AwaitingRetry", "Running", "Completed"]


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_a_flow_retry_runs_completed_tasks_again(colour):
    counts = {"t": 0, "f": 0}

    @task
    def t():
        counts["t"] += 1

    def body():
        t()
        counts["f"] += 1
        if counts["f"] == 1:
            raise ValueError

    if colour == "sync":
        flow(retries=1)(body)()
    else:

        @flow(retries=1)
        async def f():
            body()

        await f()
    assert counts == {"t": 2, "f": 2}


def test_a_flow_retry_does_not_run_kept_tasks_again():
    counts = {"t": 0, "f": 0}

    @task(persist_result=True)
    def t():
        counts["t"] += 1
        return "kept"

    @flow(retries=1)
    def f():
        value = t()
        counts["f"] += 1
        if counts["f"] == 1:
            raise ValueError
        return value

    assert f() == "kept"
    assert counts == {"t": 1, "f": 2}


def test_a_flow_retry_runs_a_failed_child_again():
    counts = {"child": 0, "parent": 0}

    @flow
    def child():
        counts["child"] += 1
        if counts["child"] == 1:
            raise ValueError
        return "ok"

    @flow(retries=1)
    def parent():
        counts["parent"] += 1
        return child()

    assert parent() == "ok"
    assert counts == {"child": 2, "parent": 2}


def test_a_flow_retry_does_not_run_a_kept_child_again():
    counts = {"child": 0, "parent": 0}

    @flow(persist_result=True)
    def child():
        counts["child"] += 1
        return "kept"

    @flow(retries=1)
    def parent():
        counts["parent"] += 1
        value = child()
        if counts["parent"] == 1:
            raise ValueError
        return value

    assert parent() == "kept"
    assert counts == {"child": 1, "parent": 2}


def test_task_and_flow_retries_together():
    work = Flaky(3)

    @task(retries=1)
    def t():
        return work()

    @flow(retries=1)
    def f():
        return t()

    assert f() == "done"
    assert work.calls == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_crash_is_not_retried(error):
    work = Flaky(1, error)

    @task(retries=3)
    def t():
        return work()

    with pytest.raises(error):
        t()
    assert work.calls == 1


def test_a_task_that_waits_for_its_retry_does_not_hold_a_worker():
    from prefect_nb.task_runners import ThreadPoolTaskRunner

    order = []
    work = Flaky(1)

    @task(retries=1, retry_delay_seconds=0.05)
    def flaky():
        work()
        order.append("flaky")

    @task
    def plain():
        order.append("plain")

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def f():
        flaky.submit()
        plain.submit()

    f()
    assert order == ["plain", "flaky"]


async def test_async_tasks_are_retried(history):
    work = Flaky(2)

    @task(retries=2, retry_delay_seconds=0.001)
    async def t():
        return work()

    @flow
    async def f():
        return await t()

    assert await f() == "done"
    (run,) = history.task_runs()
    assert history.states(run.id).count("Retrying") == 2


def test_the_delay_hidden_behind_zero_is_immediate(history):
    work = Flaky(1)

    @task(retries=1, retry_delay_seconds=0)
    def t():
        return work()

    t()
    (run,) = history.task_runs()
    assert "AwaitingRetry" not in history.states(run.id)
