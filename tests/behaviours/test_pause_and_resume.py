"""A flow run waits for a person: paused in its process, or suspended without one."""

import asyncio
import logging
import threading
from typing import Any
from uuid import UUID, uuid4

import pydantic
import pytest
from answering import paused_run, somebody, until

from prefect_nb import (
    apause_flow_run,
    aresume_flow_run,
    flow,
    pause_flow_run,
    resume_flow_run,
    suspend_flow_run,
    task,
)
from prefect_nb.exceptions import (
    CancelledRun,
    FlowPauseTimeout,
    FlowRunWaitTimeout,
    NotPausedError,
    NotResumable,
    ObjectNotFound,
    Pause,
)
from prefect_nb.flow_runs import wait_for_flow_run
from prefect_nb.home import Home
from prefect_nb.input import RunInput
from prefect_nb.interfaces import RunQuery
from prefect_nb.service import control
from prefect_nb.states import StateType


class Approval(RunInput):
    approved: bool
    note: str = "none"


class Plain(pydantic.BaseModel):
    size: int


def newest(**query: Any) -> Any:
    home = Home.current()
    home.ledger.commit()
    return home.store.flow_runs(RunQuery(limit=1, **query))[0]


# Pausing


def test_a_paused_run_waits_until_it_is_resumed_and_goes_on(history: Any) -> None:
    @flow
    def waits() -> str:
        pause_flow_run()
        return "done"

    with somebody(lambda: resume_flow_run(paused_run().id)):
        assert waits() == "done"

    run = newest()
    assert history.states(run.id) == ["Pending", "Running", "Paused", "Running", "Completed"]
    assert run.run_count == 2


def test_the_time_spent_paused_does_not_count_as_running(history: Any) -> None:
    @flow
    def waits() -> None:
        pause_flow_run()

    def later() -> None:
        paused = paused_run()
        threading.Event().wait(0.3)
        resume_flow_run(paused.id)

    with somebody(later):
        waits()
    run = newest()
    assert run.end_us - run.start_us >= 300_000
    assert run.running_us <= run.end_us - run.start_us - 300_000


@pytest.mark.parametrize(
    ("form", "answer", "expected"),
    [
        (str, {"value": "yes"}, "yes"),
        (int, {"value": 4}, 4),
        (list[int], {"value": [1, 2]}, [1, 2]),
    ],
)
def test_the_answer_comes_back_as_what_was_asked_for(form: Any, answer: dict[str, Any], expected: Any) -> None:
    @flow
    def asks() -> Any:
        return pause_flow_run(wait_for_input=form)

    with somebody(lambda: resume_flow_run(paused_run().id, run_input=answer)):
        assert asks() == expected


def test_a_form_comes_back_filled_in() -> None:
    @flow
    def asks() -> Any:
        return pause_flow_run(wait_for_input=Approval)

    with somebody(lambda: resume_flow_run(paused_run().id, run_input={"approved": True})):
        answer = asks()
    assert isinstance(answer, Approval)
    assert answer.model_dump() == {"approved": True, "note": "none"}


def test_a_plain_pydantic_model_is_a_form_too() -> None:
    @flow
    def asks() -> Any:
        return pause_flow_run(Plain)

    with somebody(lambda: resume_flow_run(paused_run().id, {"size": 7})):
        answer = asks()
    assert isinstance(answer, Plain)
    assert answer.size == 7


def test_an_async_flow_awaits_the_answer_and_its_loop_goes_on() -> None:
    turns = []

    @flow
    async def asks() -> Any:
        async def beside() -> None:
            turns.append("beside")
            await aresume_flow_run(await asyncio.to_thread(lambda: paused_run().id), {"approved": False})

        other = asyncio.create_task(beside())
        answer = await pause_flow_run(wait_for_input=Approval)
        await other
        return answer

    assert asyncio.run(asks()).approved is False
    assert turns == ["beside"]


def test_the_awaited_twin_is_the_same() -> None:
    @flow
    async def asks() -> Any:
        return await apause_flow_run(wait_for_input=int, timeout=20)

    with somebody(lambda: resume_flow_run(paused_run().id, {"value": 2})):
        assert asyncio.run(asks()) == 2


def test_the_state_says_until_when_and_where_the_form_is() -> None:
    seen = []

    @flow
    def asks() -> None:
        pause_flow_run(wait_for_input=Approval.with_initial_data("# Look", note="as usual"), timeout=60)

    def look() -> None:
        run = paused_run()
        inputs = Home.current().store.inputs
        seen.append((run, {item.key: item.decoded_value for item in inputs.find(run.id, "")}))
        resume_flow_run(run.id, {"approved": True})

    with somebody(look):
        asks()
    [(run, kept)] = seen
    details = run.state.state_details
    assert run.state_name == "Paused"
    assert details.pause_key == "1"
    assert not details.pause_reschedule
    assert 55 < (details.pause_timeout - run.state.timestamp).total_seconds() <= 60
    assert details.run_input_keyset == {
        "description": "paused-1-description",
        "response": "paused-1-response",
        "schema": "paused-1-schema",
    }
    assert kept["paused-1-description"] == "# Look"
    assert kept["paused-1-schema"]["properties"]["note"]["default"] == "as usual"
    assert kept["paused-1-schema"]["required"] == ["approved"]


def test_an_answer_that_does_not_fit_is_refused_and_the_run_stays_paused() -> None:
    @flow
    def asks() -> Any:
        return pause_flow_run(wait_for_input=Approval)

    def answer() -> None:
        run = paused_run()
        with pytest.raises(RuntimeError, match=r"Validation failed.*'approved' is a required property"):
            resume_flow_run(run.id)
        with pytest.raises(RuntimeError, match="'perhaps' is not of type 'boolean'"):
            resume_flow_run(run.id, {"approved": "perhaps"})
        with pytest.raises(RuntimeError, match="'colour' was unexpected"):
            resume_flow_run(run.id, {"approved": True, "colour": "red"})
        assert paused_run().id == run.id
        resume_flow_run(run.id, {"approved": True})

    with somebody(answer):
        assert asks().approved


def test_nobody_answers_in_time() -> None:
    @flow
    def asks() -> None:
        pause_flow_run(timeout=0.05)  # type: ignore[arg-type]

    with pytest.raises(FlowPauseTimeout, match="never resumed"):
        asks()
    state = asks(return_state=True)
    assert state.is_failed()
    assert "never resumed" in state.message
    with pytest.raises(NotPausedError):
        resume_flow_run(newest().id)


def test_a_body_may_go_on_after_a_pause_that_timed_out(history: Any) -> None:
    @flow
    def asks_twice() -> int:
        with pytest.raises(FlowPauseTimeout):
            pause_flow_run(timeout=0.02)  # type: ignore[arg-type]
        return pause_flow_run(int)

    def answer() -> None:
        until(lambda: paused_run().state_details.pause_key == "2", "the second pause")
        resume_flow_run(paused_run().id, {"value": 3})

    with somebody(answer):
        assert asks_twice() == 3
    assert history.states(newest().id) == ["Pending", "Running", "Paused", "Running", "Paused", "Running", "Completed"]


def test_pausing_and_resuming_outside_a_run() -> None:
    with pytest.raises(RuntimeError, match="can only be paused from within a flow run"):
        pause_flow_run()
    with pytest.raises(RuntimeError, match="can only be suspended from within a flow run"):
        suspend_flow_run()
    with pytest.raises(ObjectNotFound):
        resume_flow_run(uuid4())


def test_only_a_paused_run_can_be_resumed() -> None:
    @flow
    def done() -> None:
        pass

    done()
    with pytest.raises(NotPausedError, match="isn't paused"):
        resume_flow_run(newest().id)


def test_of_two_who_answer_at_once_one_is_heard() -> None:
    @flow
    def asks() -> Any:
        return pause_flow_run(int)

    heard: list[int] = []

    def answer_often() -> None:
        id = paused_run().id
        together = threading.Barrier(8)

        def answer(number: int) -> None:
            together.wait()
            try:
                resume_flow_run(id, {"value": number})
            except NotPausedError:
                return
            heard.append(number)

        threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with somebody(answer_often):
        value = asks()
    assert heard == [value]


def test_a_pause_that_was_answered_is_not_asked_again_when_the_flow_is_retried(history: Any) -> None:
    attempts = []

    @flow(retries=1)
    def asks() -> Any:
        answer = pause_flow_run(int)
        attempts.append(answer)
        if len(attempts) == 1:
            raise ValueError("once")
        return answer

    with somebody(lambda: resume_flow_run(paused_run().id, {"value": 5})):
        assert asks() == 5
    assert attempts == [5, 5]
    assert history.states(newest().id).count("Paused") == 1


def test_pauses_with_the_same_key_are_one_and_others_are_numbered() -> None:
    @flow
    def asks() -> Any:
        return pause_flow_run(int, key="size"), pause_flow_run(int, key="size"), pause_flow_run(int)

    def answer() -> None:
        resume_flow_run(paused_run().id, {"value": 1})
        until(lambda: paused_run().state_details.pause_key == "3", "the third pause")
        resume_flow_run(paused_run().id, {"value": 2})

    with somebody(answer):
        assert asks() == (1, 1, 2)


def test_a_paused_run_can_be_cancelled() -> None:
    @flow
    def asks() -> None:
        pause_flow_run()

    with somebody(lambda: control.cancel(paused_run())), pytest.raises(CancelledRun):
        asks()
    assert newest().state_name == "Cancelled"


def test_a_paused_async_run_can_be_cancelled() -> None:
    @flow
    async def asks() -> None:
        await pause_flow_run()

    with somebody(lambda: control.cancel(paused_run())), pytest.raises(CancelledRun):
        asyncio.run(asks())
    assert newest().state_name == "Cancelled"


def test_a_sub_flow_pauses_by_itself(history: Any) -> None:
    @flow
    def inner() -> Any:
        return pause_flow_run(str)

    @flow
    def outer() -> Any:
        return inner()

    def answer() -> None:
        run = paused_run()
        assert run.flow_name == "inner"
        resume_flow_run(run.id, {"value": "a"})

    with somebody(answer):
        assert outer() == "a"
    assert "Paused" not in history.states(newest(flow_name="outer").id)


def test_a_task_pauses_its_flow_run() -> None:
    @task
    def asks() -> Any:
        return pause_flow_run(str)

    @flow
    def work() -> Any:
        return asks.submit().result()

    with somebody(lambda: resume_flow_run(paused_run().id, {"value": "b"})):
        assert work() == "b"


def test_what_the_run_does_is_in_its_log(history: Any) -> None:
    @flow
    def waits() -> None:
        pause_flow_run()

    with somebody(lambda: resume_flow_run(paused_run().id)):
        waits()
    messages = [line.message for line in history.logs(flow_run_id=newest().id)]
    assert any("Pausing flow" in message for message in messages)
    assert any("Resuming flow" in message for message in messages)


# Pausing from outside


def test_a_run_asked_to_pause_does_so_before_its_next_task_run(history: Any) -> None:
    ran = []
    begun, asked = threading.Event(), threading.Event()

    @task
    def step(number: int) -> None:
        ran.append(number)

    @flow
    def work() -> None:
        step(0)
        begun.set()
        asked.wait(20)
        step(1)

    def pause() -> None:
        begun.wait(20)
        run = newest()
        request = control.pause(run, "pause", wait=0)
        until(lambda: not Home.current().store.open_requests([run.id]), "the request is taken")
        assert not request.state.is_paused()
        asked.set()
        paused = paused_run()
        assert ran == [0]
        resume_flow_run(paused.id)

    with somebody(pause):
        work()
    assert ran == [0, 1]
    assert history.states(newest().id) == ["Pending", "Running", "Paused", "Running", "Completed"]


def test_a_run_asked_to_suspend_leaves_its_body_before_its_next_task_run() -> None:
    ran = []
    begun, asked = threading.Event(), threading.Event()

    @task(persist_result=True)
    def step(number: int) -> int:
        ran.append(number)
        return number

    @flow
    def work() -> int:
        step(0)
        begun.set()
        asked.wait(20)
        return step(1)

    def suspend() -> None:
        begun.wait(20)
        run = newest()
        suspend_flow_run(flow_run_id=run.id)
        until(lambda: not Home.current().store.open_requests([run.id]), "the request is taken")
        asked.set()

    with somebody(suspend), pytest.raises(Pause):
        work()
    assert newest().state_name == "Suspended"
    assert ran == [0]
    assert work.resume(newest().id) == 1
    assert ran == [0, 1]


# Suspending


def test_a_suspended_run_ends_its_work_and_goes_on_with_its_finished_tasks_kept(history: Any) -> None:
    ran = []

    @task(persist_result=True)
    def costly() -> int:
        ran.append("costly")
        return 40

    @flow
    def asks() -> int:
        base = costly()
        answer = suspend_flow_run(wait_for_input=Approval)
        return base + 2 * answer.approved

    with pytest.raises(Pause) as raised:
        asks()
    assert raised.value.state.name == "Suspended"
    run = newest()
    details = run.state.state_details
    assert (run.state_type, run.state_name, details.pause_reschedule) == (StateType.PAUSED, "Suspended", True)
    assert details.run_input_keyset["response"] == "suspended-1-response"

    with pytest.raises(RuntimeError, match="'approved' is a required property"):
        asks.resume(run.id)
    assert newest().state_name == "Suspended"

    assert asks.resume(run.id, run_input={"approved": True}) == 42
    assert ran == ["costly"]
    assert history.states(run.id) == ["Pending", "Running", "Suspended", "Pending", "Running", "Completed"]
    assert newest().recoveries == 0


def test_the_hooks_of_a_suspended_run_wait_for_its_end() -> None:
    called: list[str] = []

    def hook(kind: str) -> Any:
        return lambda _flow, _run, _state: called.append(kind)

    @flow(on_completion=[hook("completion")], on_failure=[hook("failure")], on_crashed=[hook("crashed")])
    def asks() -> None:
        suspend_flow_run()

    with pytest.raises(Pause):
        asks(return_state=True)
    assert called == []
    asks.resume(newest().id)
    assert called == ["completion"]


def test_resume_flow_run_goes_on_with_a_suspended_run_here() -> None:
    @flow
    def asks() -> str:
        return str(suspend_flow_run(str))

    with pytest.raises(Pause):
        asks()
    run = newest()
    assert resume_flow_run(run.id, {"value": "x"}) is None  # type: ignore[func-returns-value]
    assert newest().state_name == "Completed"
    with pytest.raises(NotPausedError):
        resume_flow_run(run.id)


def test_an_async_flow_is_suspended_and_resumed() -> None:
    @flow
    async def asks() -> int:
        return (await suspend_flow_run(int)) + 1

    with pytest.raises(Pause):
        asyncio.run(asks())
    assert asyncio.run(asks.resume(newest().id, run_input={"value": 1})) == 2


def test_a_run_may_be_suspended_several_times() -> None:
    @flow
    def asks() -> list[int]:
        return [suspend_flow_run(int), suspend_flow_run(int)]

    with pytest.raises(Pause):
        asks()
    resume_flow_run(newest().id, {"value": 1})
    assert newest().state.state_details.pause_key == "2"
    assert asks.resume(newest().id, run_input={"value": 2}) == [1, 2]


def test_submitted_tasks_end_before_a_run_is_suspended() -> None:
    go_on = threading.Event()
    done = []

    @task(persist_result=True)
    def slow() -> None:
        go_on.wait(20)
        done.append("slow")

    @flow
    def asks() -> None:
        slow.submit()
        threading.Timer(0.05, go_on.set).start()
        suspend_flow_run()

    with pytest.raises(Pause):
        asks()
    assert done == ["slow"]
    [run] = Home.current().store.task_runs(RunQuery(flow_run_id=newest().id))
    assert run.state_name == "Completed"
    asks.resume(newest().id)
    assert done == ["slow"]


def test_results_that_were_not_kept_are_named_when_a_run_is_suspended(history: Any) -> None:
    @task(task_run_name="forgotten")
    def forgotten() -> None:
        pass

    @task(persist_result=True, task_run_name="remembered")
    def remembered() -> None:
        pass

    @flow
    def asks() -> None:
        forgotten()
        remembered()
        suspend_flow_run()

    with pytest.raises(Pause):
        asks()
    [warning] = [line for line in history.logs(flow_run_id=newest().id) if line.level == logging.WARNING]
    assert "'forgotten'" in warning.message
    assert "remembered" not in warning.message


@pytest.mark.parametrize("options", [{"persist_result": True}, {"durable": True}])
def test_nothing_is_lost_where_everything_is_kept(history: Any, options: dict[str, Any]) -> None:
    @task
    def step() -> int:
        return 1

    @flow
    def inner() -> int:
        return step()

    @flow(**options)
    def asks() -> int:
        suspended = step() + inner()
        suspend_flow_run()
        return suspended

    with pytest.raises(Pause):
        asks()
    assert not [line for line in history.logs(flow_run_id=newest(flow_name="asks").id) if line.level == logging.WARNING]
    assert asks.resume(newest(flow_name="asks").id) == 2
    assert {run.run_count for run in history.task_runs(kinds=("task",))} == {1}


def test_tasks_and_sub_flows_are_not_suspended() -> None:
    @task
    def asks_in_task() -> None:
        suspend_flow_run()

    @flow
    def with_task() -> None:
        asks_in_task()

    @flow
    def inner() -> None:
        suspend_flow_run()

    @flow
    def outer() -> None:
        inner()

    with pytest.raises(RuntimeError, match="Cannot suspend task runs"):
        with_task()
    with pytest.raises(RuntimeError, match="Cannot suspend subflows"):
        outer()


def test_it_may_be_too_late_to_resume_a_suspended_run() -> None:
    @flow
    def asks() -> None:
        suspend_flow_run(timeout=0)

    with pytest.raises(Pause):
        asks()
    with pytest.raises(FlowPauseTimeout, match="can no longer be resumed"):
        resume_flow_run(newest().id)
    assert newest().state_name == "Failed"
    assert "never resumed" in newest().state_message


def test_a_suspended_run_can_be_cancelled() -> None:
    @flow
    def asks() -> None:
        suspend_flow_run()

    with pytest.raises(Pause):
        asks()
    assert control.cancel(newest()).state_name == "Cancelled"
    with pytest.raises(NotPausedError):
        resume_flow_run(newest().id)


def test_a_run_that_has_ended_cannot_be_suspended() -> None:
    @flow
    def done() -> None:
        pass

    done()
    with pytest.raises(RuntimeError, match="terminal state COMPLETED"):
        suspend_flow_run(flow_run_id=newest().id)


def test_a_run_whose_code_is_gone_stays_suspended() -> None:
    def suspended() -> UUID:
        @flow
        def asks() -> None:
            suspend_flow_run()

        with pytest.raises(Pause):
            asks()
        return newest().id

    from prefect_nb.execution import pausing

    id = suspended()
    pausing.suspended_here.clear()
    with pytest.raises((NotResumable, Exception)):
        resume_flow_run(id)
    assert newest().state_name == "Suspended"


def test_waiting_for_a_run_to_end() -> None:
    @flow
    def asks() -> None:
        pause_flow_run()

    async def wait() -> Any:
        run = await asyncio.to_thread(paused_run)
        with pytest.raises(FlowRunWaitTimeout, match="exceeded watch timeout of 0 seconds"):
            await wait_for_flow_run(run.id, timeout=0)
        resume_flow_run.sync(run.id)  # type: ignore[attr-defined]
        return await wait_for_flow_run(run.id, timeout=20)

    ended = []
    with somebody(lambda: ended.append(asyncio.run(wait()))):
        asks()
    assert ended[0].state_name == "Completed"
    with pytest.raises(ObjectNotFound):
        asyncio.run(wait_for_flow_run(uuid4()))
