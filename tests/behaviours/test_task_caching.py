"""When a task's body is not called because its result is known, and which results are kept."""

import datetime
import logging
import os
import threading
from uuid import uuid4

import pytest

from prefect_nb import flow, task, unmapped
from prefect_nb.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    CompoundCachePolicy,
)
from prefect_nb.exceptions import MissingResult
from prefect_nb.home import close_all
from prefect_nb.tasks import task_input_hash


class Calls:
    """How often a task's body was called. Counted outside the program, so that counting changes no cache key."""

    def __init__(self):
        self.name = f"TEST_CALLS_{uuid4().hex}"
        os.environ[self.name] = "0"

    @property
    def calls(self):
        return int(os.environ[self.name])


def count(name):
    number = int(os.environ[name]) + 1
    os.environ[name] = str(number)
    return number


@pytest.fixture
def work():
    return Calls()


def cached(work, **options):
    """A task that gives how often it was really called."""
    name = work.name

    @task(**options)
    def t(x=0, y=0):
        return count(name)

    return t


def names(*states):
    return [state.name for state in states]


def test_nothing_is_cached_by_default(work):
    t = cached(work)
    assert t.cache_policy == DEFAULT
    assert t.persist_result is None

    @flow
    def f():
        return {"states": [t(1, return_state=True), t(1, return_state=True)]}

    assert names(*f()["states"]) == ["Completed", "Completed"]
    assert work.calls == 2


def test_a_kept_result_is_a_hit_in_the_same_flow_run_only(work):
    t = cached(work, persist_result=True)

    @flow
    def f():
        return {"states": [t(1, return_state=True), t(1, return_state=True), t(2, return_state=True)]}

    first, second, other = f()["states"]
    assert names(first, second, other) == ["Completed", "Cached", "Completed"]
    assert second.is_completed()
    assert second.result() == first.result()
    f()
    assert work.calls == 4


def test_outside_a_flow_each_call_is_a_run_of_its_own(work):
    t = cached(work, persist_result=True)
    t(1)
    t(1)
    assert work.calls == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"cache_policy": INPUTS}, True),
        ({"cache_key_fn": lambda context, parameters: "k"}, True),
        ({"result_storage_key": "k"}, True),
        ({"result_serializer": "json"}, True),
        ({"result_storage": "somewhere"}, True),
        ({"cache_expiration": datetime.timedelta(days=1)}, None),
        ({"cache_policy": NO_CACHE}, None),
        ({"cache_policy": INPUTS, "persist_result": False}, False),
        ({"persist_result": True}, True),
    ],
)
def test_what_implies_that_results_are_kept(options, expected):
    assert task(**options)(lambda: None).persist_result is expected


@pytest.mark.parametrize("how", ["call", "submit", "map"])
def test_a_hit_does_not_call_the_body(work, how):
    t = cached(work, cache_policy=INPUTS)

    def run():
        if how == "map":
            return t.map([1]).result()[0]
        return t(1) if how == "call" else t.submit(1).result()

    @flow
    def f():
        return {"values": [run(), run()]}

    assert f() == {"values": [1, 1]}
    assert f() == {"values": [1, 1]}


def test_hooks_of_a_hit(work):
    fired = []

    def hook(task, run, state):
        fired.append((state.name, run.state_name))

    t = cached(work, cache_policy=INPUTS, on_completion=[hook], on_running=[hook])
    t(1)
    fired.clear()
    t(1)
    assert [state for state, _ in fired] == ["Running", "Cached"]


def test_refresh_cache_calls_and_overwrites(work):
    t = cached(work, cache_policy=INPUTS)
    assert [t(1), t(1)] == [1, 1]
    assert t.with_options(refresh_cache=True)(1) == 2
    assert t(1) == 2


def test_an_expired_result_is_no_hit(work):
    t = cached(work, cache_policy=INPUTS, cache_expiration=datetime.timedelta(hours=1))
    gone = cached(work, cache_policy=INPUTS - "y", cache_expiration=datetime.timedelta(microseconds=1))
    assert names(t(1, return_state=True), t(1, return_state=True)) == ["Completed", "Cached"]
    assert names(gone(2, return_state=True), gone(2, return_state=True)) == ["Completed", "Completed"]


def test_a_longer_lived_record_under_the_same_key_counts(work):
    key = {"cache_key_fn": lambda context, parameters: "same"}
    long = cached(work, **key, cache_expiration=datetime.timedelta(days=1))
    short = cached(work, **key, cache_expiration=datetime.timedelta(microseconds=1))
    long()
    assert names(*[short(return_state=True) for _ in range(3)]) == ["Cached"] * 3


def test_cache_key_fn_sees_context_and_parameters(work):
    seen = []

    def key(context, parameters):
        seen.append((context.task.name, context.task_run.name, dict(parameters)))
        return f"key-{parameters['x']}"

    t = cached(work, cache_key_fn=key, name="mine")
    assert [t(1), t(1, y=5), t(2)] == [1, 1, 2]
    assert seen[1] == ("mine", "mine", {"x": 1, "y": 5})


def test_cache_key_fn_that_gives_none(work):
    t = cached(work, cache_key_fn=lambda context, parameters: None)
    assert [t(1), t(1)] == [1, 2]


def test_tasks_share_a_key(work):
    one = cached(work, cache_key_fn=lambda context, parameters: "shared")
    two = cached(work, cache_key_fn=lambda context, parameters: "shared")
    assert [one(), two()] == [1, 1]


def test_cache_key_fn_wins_over_a_policy(work, caplog):
    t = cached(work, cache_key_fn=lambda context, parameters: "k", cache_policy=NO_CACHE)
    assert isinstance(t.cache_policy, CacheKeyFnPolicy)
    assert "cache_key_fn" in caplog.text
    assert [t(1), t(2)] == [1, 1]


@pytest.mark.parametrize("options", [{"cache_key_fn": lambda context, parameters: "k"}, {"cache_policy": INPUTS}])
def test_persist_result_false_turns_caching_off(work, caplog, options):
    t = cached(work, persist_result=False, **options)
    assert t.cache_policy == NO_CACHE
    assert "persist_result=False" in caplog.text
    assert [t(1), t(1)] == [1, 2]


def test_a_key_fn_that_raises_means_no_caching(work, caplog):
    def key(context, parameters):
        raise RuntimeError("broken key")

    t = cached(work, cache_key_fn=key)
    assert [t(1), t(1)] == [1, 2]
    assert "broken key" in caplog.text


def test_inputs_alone(work):
    t = cached(work, cache_policy=INPUTS)
    assert [t(1), t(1), t(2), t(x=1), t(1, y=1)] == [1, 1, 2, 1, 3]


def test_an_excluded_input(work):
    t = cached(work, cache_policy=INPUTS - "y")
    assert [t(1, y=1), t(1, y=2), t(2)] == [1, 1, 2]


def test_an_input_excluded_from_a_sum(work):
    t = cached(work, cache_policy=INPUTS + TASK_SOURCE - "y")
    assert [t(1, y=1), t(1, y=2)] == [1, 1]


def test_flow_parameters(work):
    t = cached(work, cache_policy=FLOW_PARAMETERS)

    @flow
    def f(a):
        return t(object)

    assert [f(1), f(1), f(2)] == [1, 1, 2]


def test_run_id(work):
    t = cached(work, cache_policy=RUN_ID)

    @flow
    def f():
        return [t(1), t(2)]

    assert [f(), f()] == [[1, 1], [2, 2]]


def test_a_sum_needs_all_of_its_parts_to_be_equal(work):
    t = cached(work, cache_policy=INPUTS + RUN_ID)

    @flow
    def f():
        return [t(1), t(1), t(2)]

    assert [f(), f()] == [[1, 1, 2], [3, 3, 4]]


def test_the_algebra():
    assert isinstance(INPUTS + TASK_SOURCE, CompoundCachePolicy)
    assert NONE is NO_CACHE
    assert INPUTS + NO_CACHE == INPUTS
    assert NO_CACHE + INPUTS == INPUTS
    assert NO_CACHE + NO_CACHE == NO_CACHE
    assert DEFAULT == INPUTS + TASK_SOURCE + RUN_ID
    assert INPUTS - "a" != INPUTS
    assert INPUTS - "a" - "b" == INPUTS - "b" - "a"
    with pytest.raises(TypeError):
        INPUTS - 1
    with pytest.raises(TypeError):
        INPUTS + "x"


def test_a_policy_of_ones_own(work):
    class Fixed(CachePolicy):
        def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):
            return f"fixed-{inputs['x'] % 2}"

    t = cached(work, cache_policy=Fixed())
    assert [t(1), t(3), t(2)] == [1, 1, 2]


def test_configure_gives_a_copy():
    configured = INPUTS.configure(isolation_level="SERIALIZABLE")
    assert configured is not INPUTS
    assert configured.isolation_level == "SERIALIZABLE"
    assert INPUTS.isolation_level is None


def test_an_input_without_a_digest_runs_uncached_and_says_so(work, caplog):
    t = cached(work, cache_policy=INPUTS)
    lock = threading.Lock()
    assert names(t(lock, return_state=True), t(lock, return_state=True)) == ["Completed", "Completed"]
    assert any(record.levelno >= logging.WARNING and "not cached" in record.message for record in caplog.records)


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
def test_empty_results_are_kept_too(value):
    calls = []

    @task(cache_key_fn=lambda context, parameters: "empty")
    def t():
        calls.append(1)
        return value

    assert [t(), t()] == [value, value]
    assert len(calls) == 1


def test_a_changed_body_is_another_key():
    def make(text):
        namespace = {}
        exec(f"def t(x):\n    return {text}", namespace)
        return task(cache_policy=TASK_SOURCE + INPUTS)(namespace["t"])

    assert make("x + 1")(1) == 2
    assert make("x + 1")(1, return_state=True).name == "Cached"
    state = make("x + 2")(1, return_state=True)
    assert (state.name, state.result()) == ("Completed", 3)


def test_task_input_hash(work):
    t = cached(work, cache_key_fn=task_input_hash)
    assert [t(1), t(1), t(2)] == [1, 1, 2]


@pytest.mark.parametrize("prefix", ["PREFECT_NB_", "PREFECT_"])
def test_the_switch_that_refreshes_everything(work, monkeypatch, prefix):
    t = cached(work, cache_policy=INPUTS)
    t(1)
    monkeypatch.setenv(f"{prefix}TASKS_REFRESH_CACHE", "true")
    assert t(1) == 2


def test_the_switch_that_disables_caching(work, monkeypatch):
    t = cached(work, cache_policy=INPUTS)
    t(1)
    monkeypatch.setenv("PREFECT_TASKS_DISABLE_CACHING", "true")
    assert [t(1), t(1)] == [2, 3]
    monkeypatch.delenv("PREFECT_TASKS_DISABLE_CACHING")
    assert t(1) == 1


def test_the_switch_that_makes_no_cache_the_default(monkeypatch):
    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_NO_CACHE", "true")
    assert task(lambda: None).cache_policy == NO_CACHE
    assert task(cache_policy=INPUTS)(lambda: None).cache_policy == INPUTS


def test_a_result_that_cannot_be_kept_completes_with_a_warning(caplog, history):
    @task(persist_result=True)
    def t():
        return threading.Lock()

    state = t(return_state=True)
    assert state.name == "Completed"
    assert hasattr(state.result(), "acquire")
    assert any(record.levelname == "WARNING" and "not kept" in record.message for record in caplog.records)
    run = history.task_run(state.state_details.task_run_id)
    assert run.result is None
    assert run.result_note


def test_a_hit_survives_the_end_of_the_process(work):
    t = cached(work, cache_policy=INPUTS)
    assert t(1) == 1
    close_all()
    assert t(1, return_state=True).name == "Cached"
    assert t(1) == 1


def test_a_hit_across_flow_runs_gives_equal_data_not_shared_data():
    @task(cache_key_fn=lambda context, parameters: "table")
    def t():
        return {"rows": [1, 2]}

    first = t()
    close_all()
    second = t()
    assert first == second
    second["rows"].append(3)
    assert first == {"rows": [1, 2]}


@pytest.mark.parametrize("serializer", ["pickle", "json", "compressed/pickle", "compressed/json"])
def test_serializers_by_name(serializer, work):
    t = cached(work, cache_policy=INPUTS, result_serializer=serializer)
    assert t(1) == 1
    close_all()
    assert t(1) == 1


def test_a_flow_that_keeps_results_makes_its_tasks_keep_theirs(work):
    t = cached(work)
    no = cached(Calls(), persist_result=False)

    @flow(persist_result=True)
    def f():
        return [t(1), t(1), no(1), no(1)]

    assert f() == [1, 1, 1, 2]


def test_a_sub_flow_inherits_too(work):
    t = cached(work)

    @flow
    def child():
        return [t(1), t(1)]

    @flow(persist_result=True)
    def parent():
        return child()

    assert parent() == [1, 1]


def test_a_flow_that_says_no_does_not_overrule_its_tasks(work):
    t = cached(work, persist_result=True)

    @flow(persist_result=False)
    def f():
        return [t(1), t(1)]

    assert f() == [1, 1]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PREFECT_RESULTS_PERSIST_BY_DEFAULT", "true", [1, 1]),
        ("PREFECT_TASKS_DEFAULT_PERSIST_RESULT", "true", [1, 1]),
        ("PREFECT_RESULTS_PERSIST_BY_DEFAULT", "false", [1, 2]),
    ],
)
def test_settings_that_keep_results(work, monkeypatch, variable, value, expected):
    monkeypatch.setenv(variable, value)
    t = cached(work)

    @flow
    def f():
        return [t(1), t(1)]

    assert f() == expected


def test_a_kept_flow_result_is_found_in_the_history(history):
    @flow(persist_result=True)
    def f():
        return 5

    state = f(return_state=True)
    assert history.flow_run(state.state_details.flow_run_id).result is not None
    assert state.result() == 5


def test_a_result_that_was_not_kept_is_missing_elsewhere(history):
    from prefect_nb.execution.kept import NotKept
    from prefect_nb.states import Completed

    with pytest.raises(MissingResult, match="persist_result"):
        Completed(data=NotKept("Not kept: give `persist_result=True`.")).result()


def test_a_failed_run_is_not_cached(work):
    @task(cache_policy=INPUTS)
    def t(x):
        if count(work.name) == 1:
            raise ValueError
        return "done"

    assert t(1, return_state=True).is_failed()
    assert t(1) == "done"
    assert t(1, return_state=True).name == "Cached"


def test_mapped_children_hit_each_on_its_own(work):
    t = cached(work, cache_policy=INPUTS)

    @flow
    def f():
        return {"values": t.map([1, 2], unmapped(0)).result()}

    t(1, 0)
    assert sorted(f()["values"]) == [1, 2]
    assert work.calls == 2


async def test_async_tasks_are_cached(work):
    @task(cache_policy=INPUTS)
    async def t(x):
        return count(work.name)

    assert [await t(1), await t(1), await t(2)] == [1, 1, 2]


def test_upstream_results_are_part_of_the_key(work):
    t = cached(work, cache_policy=INPUTS)

    @task
    def source(n):
        return n

    @flow
    def f(n):
        return {"value": t.submit(source.submit(n)).result()}

    assert [f(1)["value"], f(1)["value"], f(2)["value"]] == [1, 1, 2]
