"""Names, argument orders and small answers that code written for Prefect relies on."""

import dataclasses
import datetime
import inspect
import logging
import sys
import uuid

import pytest

from prefect_nb import flow, get_run_logger, task
from prefect_nb.blocks.core import Block
from prefect_nb.cache_policies import (
    DEFAULT,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    CompoundCachePolicy,
    Inputs,
)
from prefect_nb.context import FlowRunContext, TaskRunContext
from prefect_nb.exceptions import ExternalSignal, SignatureMismatchError, TerminationSignal
from prefect_nb.futures import resolve_futures_to_results
from prefect_nb.logging.loggers import PrefectLogAdapter, disable_logger, flow_run_logger, task_run_logger
from prefect_nb.results import get_result_store
from prefect_nb.settings import PREFECT_TASKS_DEFAULT_RETRIES
from prefect_nb.states import Completed, Paused, Suspended


class Address(Block):
    street: str


@dataclasses.dataclass
class OneKey(CachePolicy):
    key: str = "k"

    def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):
        return self.key


class TestCachePolicies:
    def test_take_their_settings_when_they_are_made(self):
        made = Inputs(key_storage="keys", isolation_level="SERIALIZABLE", lock_manager="locks", exclude=["x"])
        assert (made.key_storage, made.isolation_level, made.lock_manager) == ("keys", "SERIALIZABLE", "locks")
        assert made == (INPUTS - "x").configure("keys", "locks", "SERIALIZABLE")
        assert CacheKeyFnPolicy(cache_key_fn=len, key_storage="keys").key_storage == "keys"
        assert CompoundCachePolicy(policies=[INPUTS, TASK_SOURCE], key_storage="keys").key_storage == "keys"
        assert list(inspect.signature(INPUTS.configure).parameters) == [
            "key_storage", "lock_manager", "isolation_level",
        ]  # fmt: skip

    def test_a_dataclass_of_the_users_own_has_the_settings_too(self):
        assert OneKey(key_storage="keys", key="z").configure(isolation_level="SERIALIZABLE").key == "z"
        assert OneKey("keys", key="z") == OneKey("keys", None, None, "z")

    def test_a_sum_has_one_policy_of_inputs_which_leaves_out_what_any_of_them_does(self):
        summed = (INPUTS - "a") + TASK_SOURCE + (INPUTS - "b")
        assert [p.exclude for p in summed.policies if isinstance(p, Inputs)] == [["a", "b"]]
        assert len(summed.policies) == 2

    def test_inputs_that_all_do_not_matter_share_a_key(self):
        def key(policy, **given):
            return policy.compute_key(None, given, {})

        assert key(INPUTS - "x", x=1) == key(INPUTS - "x", x=2) is not None
        assert key(INPUTS) is None

    def test_what_has_no_key_is_a_value_error(self):
        import threading

        with pytest.raises(ValueError, match="lock"):
            INPUTS.compute_key(None, {"x": threading.Lock()}, {})

    def test_the_run_id_is_the_key_of_run_id(self):
        @task
        def key():
            return RUN_ID.compute_key(TaskRunContext.get(), {}, {}), TaskRunContext.get().task_run.flow_run_id

        @flow
        def f():
            return key()

        found, run_id = f()
        assert found == str(run_id)

    def test_none_for_a_policy_switches_caching_off(self):
        ran = []

        @task(cache_policy=None, persist_result=True)
        def count():
            ran.append(1)
            return len(ran)

        @flow
        def f():
            return [count(), count(), count.with_options(cache_policy=DEFAULT)(), count.with_options(name="n")()]

        assert f() == [1, 2, 3, 4]
        assert task(cache_policy=INPUTS)(lambda: 1).with_options(cache_policy=None).cache_policy == NO_CACHE

    def test_a_key_function_knows_when_the_run_began(self):
        seen = []

        @task(cache_key_fn=lambda context, parameters: seen.append(context.start_time))
        def t():
            return 1

        t()
        assert isinstance(seen[0], datetime.datetime)


class TestResults:
    def test_a_completed_state_that_a_task_returned_is_cached(self):
        ran = []

        @task(cache_policy=INPUTS, persist_result=True)
        def t(x):
            ran.append(x)
            return Completed(message="done", data=x + 1)

        @flow
        def f():
            first, second = t(1, return_state=True), t(1, return_state=True)
            return first.name, first.message, first.result(), second.name, second.result()

        assert f() == ("Completed", "done", 2, "Cached", 2)
        assert ran == [1]

    def test_a_sub_flow_inherits_serializer_and_storage(self, tmp_path):
        def here():
            store = get_result_store()
            return type(store.serializer).__name__, store.result_storage

        @flow
        def inner():
            return here()

        @flow(result_serializer="json", result_storage=str(tmp_path))
        def outer():
            return inner()

        assert list(outer()) == ["JSONSerializer", str(tmp_path)]

    @pytest.mark.parametrize("of_flow", [None, True, False])
    @pytest.mark.parametrize("of_task", [None, True, False])
    def test_contexts_say_whether_results_are_kept(self, of_flow, of_task):
        @task(persist_result=of_task)
        def t():
            return TaskRunContext.get().persist_result

        @flow(persist_result=of_flow)
        def f():
            return FlowRunContext.get().persist_result, t()

        kept = of_flow is True
        assert tuple(f()) == (kept, kept if of_task is None else of_task)

    def test_a_context_has_the_result_store(self):
        @flow(result_serializer="json")
        def f():
            return type(FlowRunContext.get().result_store.serializer).__name__

        assert f() == "JSONSerializer"


def test_futures_resolve_to_results():
    @task
    def add(x):
        return x + 1

    @task
    def fail():
        raise ValueError("no")

    @flow
    def f():
        found = resolve_futures_to_results({"a": [add.submit(1)], "b": 5})
        with pytest.raises(Exception, match="At least one result did not complete"):
            resolve_futures_to_results([fail.submit()])
        return found

    assert f(return_state=True).result(raise_on_failure=False) == {"a": [2], "b": 5}


def test_a_saved_block_is_given_by_reference():
    @flow
    def f(at: Address):
        return at.street

    name = f"a-{uuid.uuid4().hex[:8]}"
    saved = Address(street="High").save(name)
    assert f({"$ref": str(saved)}) == "High"
    assert f({"$ref": {"block_document_id": str(saved)}}) == "High"
    assert f({"street": "Low"}) == "Low"


@pytest.mark.parametrize("make", [Paused, Suspended])
def test_a_pause_in_seconds_ends_at_a_time(make):
    before = datetime.datetime.now(datetime.UTC)
    found = make(timeout_seconds=60).state_details
    assert datetime.timedelta(seconds=59) < found.pause_timeout - before < datetime.timedelta(seconds=120)
    assert found.pause_reschedule is (make is Suspended)
    with pytest.raises(ValueError, match="not both"):
        Paused(timeout_seconds=1, pause_expiration_time=before)


def test_validating_refuses_an_unknown_parameter():
    @flow
    def f(x: int):
        return x

    assert f.validate_parameters({"x": "3"}) == {"x": 3}
    with pytest.raises(SignatureMismatchError, match="y"):
        f.validate_parameters({"x": 1, "y": 2})


def test_options_that_are_empty_leave_what_was():
    t = task(name="t", description="about", task_run_name="run")(lambda: 1)
    f = flow(name="f", description="about", version="7")(lambda: 1)
    changed = t.with_options(name="", description="")
    assert (changed.name, changed.description) == ("t", "about")
    changed = f.with_options(name="", description="", version="")
    assert (changed.name, changed.description, changed.version) == ("f", "about", "7")
    assert t.with_options(task_run_name=None).task_run_name is None
    assert t.with_options(retries=1).task_run_name == "run"


def test_runs_and_states_are_found_where_prefect_has_them():
    from prefect_nb import states
    from prefect_nb.client.schemas import State
    from prefect_nb.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType, TaskRun

    assert State is states.State
    assert StateType is states.StateType
    assert states.StateType.COMPLETED in TERMINAL_STATES

    @task
    def t():
        return isinstance(TaskRunContext.get().task_run, TaskRun)

    @flow
    def f():
        return isinstance(FlowRunContext.get().flow_run, FlowRun), t()

    assert tuple(f()) == (True, True)


def test_a_delayed_run_takes_dependencies():
    assert task(lambda: 1).apply_async(dependencies={}).state.is_scheduled()


def test_a_termination_is_an_external_signal():
    assert issubclass(TerminationSignal, ExternalSignal)
    assert not issubclass(TerminationSignal, Exception)


def test_a_setting_object_tells_its_default_and_its_value_as_text():
    assert PREFECT_TASKS_DEFAULT_RETRIES.default() == 0
    assert str(PREFECT_TASKS_DEFAULT_RETRIES) == "0"


class TestLoggers:
    def test_prints_to_both_streams_are_logged_without_white_space_at_their_end(self, capsys, tmp_path):
        lines = []

        class Keeping(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())

        @flow(log_prints=True)
        def f():
            print("  out  \n")  # noqa: T201 - what is tested
            print("err", 2, file=sys.stderr)  # noqa: T201
            with (tmp_path / "text").open("w") as file:
                print("file", file=file)

        logger, handler = logging.getLogger("prefect.flow_runs"), Keeping()
        logger.addHandler(handler)
        try:
            f()
        finally:
            logger.removeHandler(handler)
        assert lines == ["  out", "err 2"]
        assert (tmp_path / "text").read_text() == "file\n"

    def test_a_child_logger_is_of_the_same_run(self):
        @flow
        def f():
            logger = get_run_logger()
            child = logger.getChild("part", {"more": 1})
            return (
                isinstance(logger, PrefectLogAdapter),
                child.logger.name,
                child.extra["more"],
                child.extra["flow_name"],
            )

        assert tuple(f()) == (True, f"{logging.getLogger('prefect.flow_runs').name}.part", 1, "f")

    def test_a_task_run_logger_is_told_its_flow_run(self):
        kept = []

        @task
        def t():
            return TaskRunContext.get().task_run

        @flow(name="night")
        def f():
            kept.append((FlowRunContext.get().flow_run, t()))

        f()
        flow_run, task_run = kept[0]
        extra = task_run_logger(task_run, flow_run=flow_run, flow=f, more=1).extra
        assert (extra["flow_run_name"], extra["flow_name"], extra["more"]) == (flow_run.name, "night", 1)
        assert "flow" not in extra
        assert flow_run_logger(flow_run).extra["flow_name"] == "night"

    def test_a_logger_is_silent_for_a_while(self):
        with disable_logger("some.logger"):
            assert logging.getLogger("some.logger").disabled
        assert not logging.getLogger("some.logger").disabled
