"""Cancelling, skipping and beginning anew single task runs while their flow goes on."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from prefect_nb import Task, allow_failure, flow, task
from prefect_nb.exceptions import CancelledRun
from prefect_nb.execution import task_controls
from prefect_nb.home import Home
from prefect_nb.interfaces import Request
from prefect_nb.model.runs import TaskRun
from prefect_nb.service import doctor
from prefect_nb.service.task_control import command
from prefect_nb.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

SECONDS = 30.0
PROMPT = 3.0
"""How long, on a busy machine, what acts at once may take."""


def eventually(condition: Callable[[], Any], what: str = "") -> Any:
    deadline = time.monotonic() + SECONDS
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)
    return answer


@pytest.fixture
def beside() -> Iterator[Callable[..., Any]]:
    """Run something on another thread, as whoever clicks is; its outcome is asked for at the end."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


class Gate:
    """Bodies that say they have begun and then wait; counts how often each began."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begun(self, name: str = "body") -> int:
        file = self.folder / name
        return len(file.read_text()) if file.exists() else 0

    def opened(self) -> None:
        (self.folder / "open").touch()


def wait_at(folder: Path, name: str = "body") -> str:
    """To be called in a body: begins, and waits until the gate is open."""
    with (folder / name).open("a") as file:
        file.write(".")
    while not (folder / "open").exists():
        time.sleep(0.01)
    return "done"


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    folder = tmp_path / "gate"
    folder.mkdir()
    return Gate(folder)


@task
def waiting(folder: Path, name: str = "body") -> str:
    return wait_at(folder, name)


@task
async def awaiting(folder: Path, name: str = "body") -> str:
    with (folder / name).open("a") as file:
        file.write(".")
    while not (folder / "open").exists():  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.01)
    return "done"


@task
def after(value: Any) -> Any:
    return ("after", value)


RUNNERS = {
    "threads": (ThreadPoolTaskRunner, waiting),
    "processes": (ProcessPoolTaskRunner, waiting),
    "async": (ThreadPoolTaskRunner, awaiting),
}


@pytest.fixture(params=list(RUNNERS))
def kind(request: pytest.FixtureRequest) -> tuple[Any, Task[Any, Any]]:
    return RUNNERS[request.param]


def say(kind: str, task_run_id: UUID) -> str:
    """Give a command that is carried out; what is answered."""
    answer = command(kind, task_run_id=task_run_id)
    assert answer.ok, answer
    return answer.message


# A running body


def test_a_running_task_is_cancelled_and_the_flow_goes_on(kind: Any, gate: Gate, history: Any) -> None:
    runner, body = kind

    @flow(task_runner=runner(max_workers=3))
    def work() -> Any:
        stuck = body.submit(gate.folder)
        dependent = after.submit(stuck)
        eventually(gate.begun)
        began = time.monotonic()
        assert (
            say("cancel", stuck.task_run_id)
            == f"Task run {history.task_run(stuck.task_run_id).name!r} is being cancelled."
        )
        stuck.wait()
        assert time.monotonic() - began < PROMPT
        with pytest.raises(CancelledRun, match=r"Cancelled by request\."):
            stuck.result()
        dependent.wait()
        return [stuck.state.name, dependent.state.name, after(1)]

    assert work() == ["Cancelled", "NotReady", ("after", 1)]
    assert gate.begun() == 1
    assert [run.state_name for run in history.flow_runs()] == ["Completed"]
    (stopped,) = [run for run in history.task_runs() if run.state_name == "Cancelled"]
    assert stopped.state_message == "Cancelled by request."
    assert doctor.examine().healthy


def test_a_running_task_is_skipped_and_what_depends_on_it_gets_none(kind: Any, gate: Gate, history: Any) -> None:
    runner, body = kind

    @flow(task_runner=runner(max_workers=3))
    def work() -> Any:
        stuck = body.submit(gate.folder)
        dependent = after.submit(stuck)
        eventually(gate.begun)
        assert "is being skipped" in say("skip", stuck.task_run_id)
        return [stuck.result(), stuck.state.name, dependent.result()]

    assert work() == [None, "Skipped", ("after", None)]
    (skipped,) = [run for run in history.task_runs() if run.state_name == "Skipped"]
    assert (skipped.state_type, skipped.state_message) == ("COMPLETED", "Skipped by request.")


def test_a_stuck_attempt_is_begun_anew_and_takes_no_retry(kind: Any, gate: Gate, history: Any) -> None:
    runner, body = kind

    @flow(task_runner=runner(max_workers=3))
    def work() -> Any:
        stuck = body.submit(gate.folder)
        for times in (1, 2):
            eventually(lambda times=times: gate.begun() == times)
            assert "is stopped and begun anew" in say("retry", stuck.task_run_id)
        eventually(lambda: gate.begun() == 3)
        gate.opened()
        return stuck.result()

    assert work() == "done"
    (run,) = history.task_runs()
    assert run.state_name == "Completed"
    assert run.run_count == 3
    assert history.states(run.id) == ["Pending", "Running", "Running", "Running", "Completed"]


def test_an_attempt_begun_anew_leaves_the_retries_as_they_were(gate: Gate, history: Any) -> None:
    @task(retries=1)
    def failing() -> None:
        wait_at(gate.folder)
        raise ValueError("broken")

    @flow
    def work() -> Any:
        stuck = failing.submit()
        eventually(gate.begun)
        say("retry", stuck.task_run_id)
        eventually(lambda: gate.begun() == 2)
        gate.opened()
        stuck.wait()

    work()
    (run,) = history.task_runs()
    assert history.states(run.id) == ["Pending", "Running", "Running", "Retrying", "Failed"]


# Directly called


@pytest.mark.parametrize("wish", ["cancel", "skip", "retry"])
def test_a_task_that_the_flow_calls_is_stopped_where_it_blocks_the_main_thread(
    wish: str, gate: Gate, history: Any, beside: Any
) -> None:
    @task
    def blocking() -> str:
        with (gate.folder / "body").open("a") as file:
            file.write(".")
        if (gate.folder / "open").exists():
            return "done"
        time.sleep(SECONDS)  # one system call, not many small ones
        return "never"

    def click() -> None:
        eventually(gate.begun)
        (run,) = eventually(lambda: history.task_runs(state_names=("Running",)))
        gate.opened()
        say(wish, run.id)

    @flow
    def work() -> Any:
        clicked = beside(click)
        began = time.monotonic()
        state = blocking(return_state=True)
        clicked.result()
        assert time.monotonic() - began < SECONDS / 2
        return state.name, state.result(raise_on_failure=False) if state.is_completed() else None, after(1)

    expected = {"cancel": ("Cancelled", None), "skip": ("Skipped", None), "retry": ("Completed", "done")}
    assert work() == (*expected[wish], ("after", 1))


def test_a_cancelled_call_raises_what_a_cancelled_run_raises(gate: Gate, history: Any, beside: Any) -> None:
    def click() -> None:
        eventually(gate.begun)
        (run,) = eventually(lambda: history.task_runs(state_names=("Running",)))
        say("cancel", run.id)

    @flow
    def work() -> str:
        clicked = beside(click)
        with pytest.raises(CancelledRun, match="by request"):
            waiting(gate.folder)
        clicked.result()
        return "went on"

    assert work() == "went on"


def test_in_an_async_flow_too(gate: Gate, history: Any, beside: Any) -> None:
    def click(wish: str, name: str) -> None:
        eventually(lambda: gate.begun(name))
        (run,) = eventually(lambda: history.task_runs(state_names=("Running",)))
        say(wish, run.id)

    @flow
    async def work() -> Any:
        clicked = beside(click, "cancel", "one")
        state = await awaiting(gate.folder, "one", return_state=True)
        clicked.result()
        clicked = beside(click, "skip", "two")
        second = await awaiting(gate.folder, "two")
        clicked.result()
        asyncio.current_task()
        assert asyncio.current_task().cancelling() == 0
        return state.name, second

    assert asyncio.run(work()) == ("Cancelled", None)


def test_of_two_awaited_side_by_side_only_the_one_is_cancelled(gate: Gate, history: Any, beside: Any) -> None:
    def click() -> None:
        eventually(lambda: gate.begun("a") and gate.begun("b"))
        runs = eventually(lambda: len(r := history.task_runs(state_names=("Running",))) == 2 and r)
        say("skip", runs[0].id)
        gate.opened()

    @flow
    async def work() -> Any:
        clicked = beside(click)
        values = await asyncio.gather(awaiting(gate.folder, "a"), awaiting(gate.folder, "b"))
        clicked.result()
        return sorted(values, key=str)

    assert asyncio.run(work()) == [None, "done"]


def test_a_task_called_in_a_task_takes_the_wish_alone(gate: Gate, history: Any) -> None:
    @task
    def outer() -> str:
        return f"inner gave {waiting(gate.folder)}"

    @flow
    def work() -> Any:
        future = outer.submit()
        eventually(gate.begun)
        (inner,) = [run for run in history.task_runs() if run.parent_id is not None]
        say("skip", inner.id)
        return future.result()

    assert work() == "inner gave None"


def test_what_a_cancelled_task_has_called_is_cancelled_with_it(gate: Gate, history: Any) -> None:
    @task
    def outer() -> str:
        return waiting(gate.folder)

    @flow
    def work() -> Any:
        future = outer.submit()
        eventually(gate.begun)
        say("cancel", future.task_run_id)
        future.wait()
        return future.state.name

    assert work() == "Cancelled"
    inner = next(run for run in history.task_runs() if run.parent_id is not None)
    assert (inner.state_name, inner.state_message) == ("Cancelled", "The task run that called it was stopped.")


def test_a_body_that_is_nearly_always_in_finalizers_is_stopped(gate: Gate) -> None:
    """What is raised in them is lost, so it has to be raised again."""

    class Garbage:
        def __del__(self) -> None:
            for _ in range(2_000):
                pass

    @task
    def littering() -> str:
        (gate.folder / "body").write_text(".")
        while not (gate.folder / "open").exists():
            for _ in range(1_000):
                Garbage()
        return "not stopped"

    @flow
    def work() -> Any:
        future = littering.submit()
        eventually(gate.begun)
        say("cancel", future.task_run_id)
        future.wait(PROMPT)
        name = future.state.name
        gate.opened()
        return name, future.state.message

    assert work() == ("Cancelled", "Cancelled by request.")


# One that waits


@pytest.mark.parametrize(("wish", "ends"), [("cancel", "Cancelled"), ("skip", "Skipped")])
def test_one_in_line_for_a_worker_never_starts(kind: Any, wish: str, ends: str, gate: Gate, history: Any) -> None:
    runner, body = kind

    @flow(task_runner=runner(max_workers=1))
    def work() -> Any:
        first = waiting.submit(gate.folder, "first")
        eventually(lambda: gate.begun("first"))
        second = body.submit(gate.folder, "second", wait_for=[first] if body.isasync else None)
        say(wish, second.task_run_id)
        second.wait(PROMPT)
        name = second.state.name
        gate.opened()
        return name, first.result()

    assert work() == (ends, "done")
    assert gate.begun("second") == 0
    waited = [run for run in history.task_runs() if run.state_name == ends]
    assert history.states(waited[0].id) == ["Pending", ends]


@pytest.mark.parametrize(("wish", "ends"), [("cancel", "Cancelled"), ("skip", "Skipped")])
def test_one_that_waits_for_what_it_depends_on_never_starts(wish: str, ends: str, gate: Gate, history: Any) -> None:
    @flow
    def work() -> Any:
        first = waiting.submit(gate.folder)
        eventually(gate.begun)
        second = after.submit(first)
        third = after.submit(allow_failure(second))
        say(wish, second.task_run_id)
        second.wait(PROMPT)
        name = second.state.name
        third.wait()
        gate.opened()
        return name, first.result(), third.state.is_completed()

    assert work() == (ends, "done", True)


def test_a_call_that_waits_for_what_it_depends_on_is_cancelled(gate: Gate, history: Any, beside: Any) -> None:
    def click() -> None:
        run = eventually(lambda: next((r for r in history.task_runs() if r.name.startswith("after")), None))
        say("cancel", run.id)

    @flow
    def work() -> Any:
        first = waiting.submit(gate.folder)
        clicked = beside(click)
        state = after(first, return_state=True)
        clicked.result()
        gate.opened()
        return state.name

    assert work() == "Cancelled"


@pytest.mark.parametrize("where", ["submitted", "called", "awaited"])
@pytest.mark.parametrize(("wish", "ends"), [("cancel", "Cancelled"), ("skip", "Skipped"), ("retry", "Completed")])
def test_the_wait_before_a_retry_is_cut_short(wish: str, ends: str, where: str, history: Any, beside: Any) -> None:
    calls: list[int] = []

    def body() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not yet")
        return "done"

    async def async_body() -> str:
        return body()

    failing = task(retries=1, retry_delay_seconds=SECONDS * 4, name="failing")(
        async_body if where == "awaited" else body
    )

    def click() -> None:
        (run,) = eventually(lambda: history.task_runs(state_names=("AwaitingRetry",)))
        said = say(wish, run.id)
        assert wish != "retry" or "its next attempt begins" in said

    def called() -> Any:
        clicked = beside(click)
        future = failing.submit()
        clicked.result()
        future.wait(SECONDS)
        return future.state

    @flow
    def work() -> Any:
        if where == "submitted":
            return called().name
        clicked = beside(click)
        state = failing(return_state=True)
        clicked.result()
        return state.name

    @flow
    async def async_work() -> Any:
        clicked = beside(click)
        state = await failing(return_state=True)
        clicked.result()
        return state.name

    assert (asyncio.run(async_work()) if where == "awaited" else work()) == ends
    assert len(calls) == (2 if wish == "retry" else 1)


def test_one_that_waits_under_a_limit_is_cancelled(gate: Gate, history: Any) -> None:
    from prefect_nb.service import limits

    limits.create_limit("tag:narrow", 1)
    narrow = waiting.with_options(tags=["narrow"])

    @flow
    def work() -> Any:
        first = narrow.submit(gate.folder, "first")
        eventually(lambda: gate.begun("first"))
        second = narrow.submit(gate.folder, "second")
        eventually(lambda: second.state.name == "AwaitingConcurrencySlot")
        say("cancel", second.task_run_id)
        second.wait(PROMPT)
        name = second.state.name
        gate.opened()
        return name, first.result()

    assert work() == ("Cancelled", "done")
    assert gate.begun("second") == 0


def test_one_that_waits_for_its_cache_key_is_skipped(gate: Gate, history: Any) -> None:
    cached = waiting.with_options(cache_key_fn=lambda *_: "the key", persist_result=True)

    @flow
    def work() -> Any:
        first = cached.submit(gate.folder)
        eventually(gate.begun)
        second = cached.submit(gate.folder)
        eventually(lambda: history.task_run(second.task_run_id))
        say("skip", second.task_run_id)
        second.wait(PROMPT)
        name = second.state.name
        gate.opened()
        return name, first.result(), cached.submit(gate.folder).result()

    assert work() == ("Skipped", "done", "done")
    assert gate.begun() == 1


# Refusals


def test_what_comes_too_late_is_answered_in_words(history: Any) -> None:
    @task
    def failing() -> None:
        raise ValueError("broken")

    @flow
    def work() -> Any:
        good, bad = after.submit(1), failing.submit()
        good.wait()
        bad.wait()
        dependent = after.submit(bad)
        dependent.wait()
        return [
            command("cancel", task_run_id=good.task_run_id),
            command("retry", task_run_id=bad.task_run_id),
            command("skip", task_run_id=dependent.task_run_id),
            command("skip", task_run_id=UUID(int=1)),
            command("pause", task_run_id=good.task_run_id),
            command("burn", task_run_id=good.task_run_id),
        ]

    answers = work()
    assert not any(answer.ok for answer in answers)
    ended, failed, not_ready, unknown, paused, nonsense = (answer.message for answer in answers)
    assert "has ended already: it is Completed" in ended
    assert "has ended already: it is Failed" in failed
    assert "prefect-nb flow-run retry" in failed
    assert "Once the flow run has ended" in failed
    assert "will not run: it is NotReady" in not_ready
    assert "There is no task run 00000000" in unknown
    assert "its flow run can" in paused
    assert "There is no command 'burn'" in nonsense


def test_a_failed_task_of_a_run_that_has_ended_is_retried_with_the_run(history: Any) -> None:
    @task
    def failing() -> None:
        raise ValueError("broken")

    @flow
    def work() -> None:
        failing()

    work(return_state=True)
    (flow_run,), (run,) = history.flow_runs(), history.task_runs()
    answer = command("retry", task_run_id=run.id)
    assert not answer.ok
    assert f"`prefect-nb flow-run retry {flow_run.name}` runs again what failed" in answer.message
    assert not command("cancel", flow_run_id=flow_run.id).ok


def test_one_that_has_not_begun_cannot_be_begun_anew(gate: Gate) -> None:
    @flow
    def work() -> Any:
        first = waiting.submit(gate.folder)
        second = after.submit(first)
        answer = command("retry", task_run_id=second.task_run_id)
        gate.opened()
        return answer, second.result()

    answer, value = work()
    assert not answer.ok
    assert "there is nothing to begin anew" in answer.message
    assert value == ("after", "done")


def test_the_first_wish_counts_and_says_so(gate: Gate) -> None:
    @task
    def stubborn() -> str:
        while not (gate.folder / "open").exists():
            try:
                wait_at(gate.folder)
            except BaseException:
                continue
        return "done"

    @flow
    def work() -> Any:
        future = stubborn.submit()
        eventually(gate.begun)
        say("cancel", future.task_run_id)
        answer = command("skip", task_run_id=future.task_run_id)
        gate.opened()
        return answer, future.result()

    answer, value = work()
    assert not answer.ok
    assert "is being cancelled already" in answer.message
    assert value == "done", "what the body returned all the same is its result"


def test_a_body_that_does_not_stop_is_left_behind(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_nb.execution.task_controls.GRACE_SECONDS", 0.2)

    @task
    def stubborn() -> str:
        while not (gate.folder / "open").exists():
            try:
                wait_at(gate.folder)
            except BaseException:
                continue
        return "too late"

    @flow
    def work() -> Any:
        future = stubborn.submit()
        eventually(gate.begun)
        say("skip", future.task_run_id)
        dependent = after.submit(future)
        value = dependent.result()
        gate.opened()
        return value, future.state

    value, state = work()
    assert value == ("after", None)
    assert state.name == "Skipped"
    assert "was left behind" in state.message


# From another process


def test_a_request_of_another_process_is_taken_and_answered(gate: Gate, history: Any) -> None:
    """As the store has it: whoever writes it there is not this process as far as the run is concerned."""
    store = Home.current().store

    @flow
    def work() -> Any:
        future = waiting.submit(gate.folder)
        eventually(gate.begun)
        (run,) = history.flow_runs()
        details = {"task_run_id": future.task_run_id.hex, "message": "Cancelled by somebody."}
        request = store.add_request(run.id, "cancel-task", time.time_ns() // 1000, details)
        future.wait(PROMPT)
        taken = eventually(lambda: store.request_outcome(request.id))
        late = store.add_request(run.id, "skip-task", time.time_ns() // 1000, details)
        return future.state, taken, eventually(lambda: store.request_outcome(late.id))

    state, taken, late = work()
    assert (state.name, state.message) == ("Cancelled", "Cancelled by somebody.")
    assert taken.startswith("taken: ")
    assert late.startswith("refused: ")
    assert "has ended already: it is Cancelled" in late


def test_a_request_that_lay_there_since_before_a_resume_is_refused() -> None:
    run = TaskRun(id=UUID(int=5), name="late")
    request = Request(1, UUID(int=6), "cancel-task", 100, task_controls.details_of(run.id, "Cancelled."))
    outcome = task_controls.too_late(run, request, entered_us=200, now_us=300)
    assert outcome is not None
    assert "asked before its flow run was begun again" in outcome
    assert task_controls.too_late(run, request, entered_us=50, now_us=300) is None, "its kernel may know of it"
    assert "There is no such task run" in str(task_controls.too_late(None, request, 50, 300))
    assert "cannot be reached" in str(task_controls.too_late(run, request, 50, 10_000_000))


@task
def calls_inside(folder: Path) -> Any:
    return waiting(folder)


def test_what_a_worker_process_called_is_not_reached_by_itself(gate: Gate, history: Any) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def work() -> Any:
        outer = calls_inside.submit(gate.folder)
        eventually(gate.begun)
        inner = eventually(lambda: next((run for run in history.task_runs() if run.parent_id is not None), None))
        answer = command("skip", task_run_id=inner.id)
        gate.opened()
        return answer, outer.result()

    answer, value = work()
    assert not answer.ok
    assert "called in a worker process" in answer.message
    assert value == "done"


# Pausing the flow run


def test_a_pause_that_is_taken_back_never_happens(history: Any) -> None:
    @flow
    def work() -> Any:
        (run,) = eventually(history.flow_runs)
        paused = command("pause", flow_run_id=run.id)
        resumed = command("resume", flow_run_id=run.id)
        again = command("resume", flow_run_id=run.id)
        return paused, resumed, again, after(1)

    paused, resumed, again, value = work()
    assert paused.ok
    assert "pauses before its next task run" in paused.message
    assert resumed.ok
    assert not again.ok
    assert value == ("after", 1)
    (run,) = history.flow_runs()
    assert "Paused" not in history.states(run.id)


def test_a_flow_run_is_paused_resumed_and_cancelled_by_commands(history: Any, beside: Any) -> None:
    halfway = threading.Event()

    def click(id: UUID) -> list[Any]:
        assert command("pause", flow_run_id=id).ok
        halfway.set()
        eventually(lambda: history.flow_run(id).state_name == "Paused")
        resumed = command("resume", flow_run_id=id)
        eventually(lambda: history.flow_run(id).state_name == "Running")
        return [resumed, command("cancel", flow_run_id=id, reason="by the test")]

    @flow
    def work() -> None:
        (run,) = eventually(history.flow_runs)
        clicked.append(beside(click, run.id))
        halfway.wait(SECONDS)
        after(1)
        time.sleep(SECONDS)

    clicked: list[Any] = []
    with pytest.raises(CancelledRun, match="Cancelled by the test"):
        work()
    assert all(answer.ok for answer in clicked[0].result())
    (run,) = history.flow_runs()
    assert history.states(run.id) == ["Pending", "Running", "Paused", "Running", "Cancelled"]
