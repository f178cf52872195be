"""What `prefect_nb.states` offers beside the states themselves; results of states in coroutines."""

import asyncio

import pytest

from prefect_nb import flow, runtime, task
from prefect_nb.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    InfrastructurePending,
    Paused,
    Pending,
    StateGroup,
    StateType,
    Submitting,
    exception_to_crashed_state,
    exception_to_failed_state,
    get_state_exception,
    raise_state_exception,
)
from prefect_nb.utilities.annotations import allow_failure, quote, unmapped


class TestResultsInCoroutines:
    async def test_a_coroutine_awaits_the_result_of_a_state(self):
        state = Completed(data=1)
        assert await state.result() == 1
        assert await state.aresult() == 1

    async def test_plain_code_under_a_running_loop_gets_the_value(self):
        def helper():
            return Completed(data=1).result()

        assert helper() == 1

    async def test_failures_are_raised_when_awaited(self):
        state = Failed(data=ValueError("bad"))
        with pytest.raises(ValueError, match="bad"):
            await state.result()
        assert isinstance(await state.result(raise_on_failure=False), ValueError)

    async def test_in_an_async_flow(self):
        @task
        async def one():
            return 1

        @flow
        async def main():
            state = await one(return_state=True)
            return await state.result()

        assert await main() == 1

    async def test_a_futures_result_is_plain_in_both_colours(self):
        @task
        def one():
            return 1

        @flow
        async def main():
            return one.submit().result()

        assert await main() == 1


class TestExceptionsOfStates:
    @pytest.mark.parametrize("state", [Completed(), Pending(), Paused()])
    def test_only_states_that_ended_badly_have_one(self, state):
        with pytest.raises(ValueError, match="Expected failed or crashed state"):
            get_state_exception(state)
        raise_state_exception(state)

    @pytest.mark.parametrize("state", [Failed(message="m"), Crashed(message="m"), Cancelled(message="m")])
    def test_one_is_made_of_the_message(self, state):
        assert str(get_state_exception(state)) == "m"
        with pytest.raises(type(get_state_exception(state))):
            raise_state_exception(state)

    def test_that_of_an_inner_state_is_found(self):
        inner = Failed(data=[Completed(), Failed(data=KeyError("k"))])
        assert isinstance(get_state_exception(inner), KeyError)

    def test_other_data_is_no_exception(self):
        with pytest.raises(TypeError, match="cannot be resolved into an exception"):
            get_state_exception(Failed(data=4))

    async def test_exceptions_become_states(self):
        failed = await exception_to_failed_state(ValueError("x"))
        assert (failed.type, failed.message) == (StateType.FAILED, "ValueError: x")
        assert exception_to_failed_state.sync(ValueError("x"), message="While trying:").message == (
            "While trying: ValueError: x"
        )
        crashed = await exception_to_crashed_state(asyncio.CancelledError())
        assert (crashed.type, crashed.message) == (
            StateType.CRASHED,
            "Execution was cancelled by the runtime environment.",
        )
        assert "interrupt signal" in (await exception_to_crashed_state(KeyboardInterrupt())).message

    def test_the_exception_being_handled_is_taken(self):
        try:
            int("now")
        except ValueError:
            assert exception_to_failed_state().message.startswith("ValueError: invalid literal")
        with pytest.raises(ValueError, match="no active exception"):
            exception_to_failed_state()


def test_groups_of_states_are_counted():
    group = StateGroup([Completed(), Failed(), Crashed(), Pending(), Cancelled(), Paused()])
    assert (group.total_count, group.fail_count, group.cancelled_count, group.paused_count) == (6, 2, 1, 1)
    assert (group.final_count, group.not_final_count) == (4, 2)
    assert group.any_failed()
    assert group.any_cancelled()
    assert group.any_paused()
    assert not group.all_final()
    assert not group.all_completed()
    assert group.counts_message().startswith("total=6, not_final=2, 'COMPLETED'=1")
    assert StateGroup([Completed()]).all_completed()


def test_names_of_pending():
    assert (Submitting().type, Submitting().name) == (StateType.PENDING, "Submitting")
    assert (InfrastructurePending().type, InfrastructurePending().name) == (
        StateType.PENDING,
        "InfrastructurePending",
    )


def test_copies():
    state = Completed(message="m", data=1)
    copy = state.model_copy(update={"message": "n"})
    assert (copy.message, copy.data, state.message) == ("n", 1, "m")
    copy.state_details.cache_key = "k"
    assert state.state_details.cache_key is None
    assert state.fresh_copy().timestamp is None


def test_marks_have_their_own_module():
    assert unmapped([1]).value == [1]
    assert quote("x").unquote() == "x"
    assert allow_failure(1).value == 1


class TestFactsFromTheEnvironment:
    def test_texts_numbers_and_times(self, monkeypatch):
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", "abc")
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", "7")
        monkeypatch.setenv("PREFECT__RUNTIME__TASK_RUN__NAME", "tt")
        monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", "nightly")
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__SCHEDULED_START_TIME", "2026-01-02T03:04:05")
        assert runtime.flow_run.id == "abc"
        assert runtime.flow_run.run_count == 7
        assert runtime.task_run.name == "tt"
        assert runtime.deployment.name == "nightly"
        assert runtime.flow_run.scheduled_start_time.isoformat() == "2026-01-02T03:04:05+00:00"

    def test_they_win_over_the_run(self, monkeypatch):
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__FLOW_NAME", "pretended")

        @flow
        def main():
            return runtime.flow_run.flow_name

        assert main() == "pretended"

    def test_facts_of_your_own(self, monkeypatch):
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__NEW_KEY", "foobar")
        assert runtime.flow_run.new_key == "foobar"
        with pytest.raises(AttributeError):
            _ = runtime.flow_run.other_key

    def test_lists_and_dicts_cannot_be_said(self, monkeypatch):
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__TAGS", "a,b")
        monkeypatch.setenv("PREFECT__RUNTIME__TASK_RUN__PARAMETERS", "{}")
        with pytest.raises(ValueError, match="cannot be mocked"):
            _ = runtime.flow_run.tags
        with pytest.raises(ValueError, match="cannot be mocked"):
            _ = runtime.task_run.parameters
