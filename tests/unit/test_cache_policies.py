"""Cache policies: their algebra, the keys they make, and the parts behind a key."""

import dataclasses
import threading
import types
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_nb.model.fingerprints import Unhashable, combine, explain
from prefect_nb.model.policies import (
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
    Inputs,
    TaskSource,
    exponential_backoff,
)

FLOW_RUN, TASK_RUN = uuid.UUID(int=1), uuid.UUID(int=2)


def add(x, y=1):
    return x + y


def multiply(x, y=1):
    return x * y


def context(fn=add, flow_run_id=FLOW_RUN, task_run_id=TASK_RUN):
    task_run = types.SimpleNamespace(id=task_run_id, flow_run_id=flow_run_id)
    return types.SimpleNamespace(task=types.SimpleNamespace(fn=fn), task_run=task_run)


def key(policy, ctx=None, inputs=None, parameters=None):
    return policy.compute_key(ctx or context(), inputs if inputs is not None else {"x": 1}, parameters or {})


class Fixed(CachePolicy):
    def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):
        return inputs.get("key")


POLICIES = st.sampled_from([INPUTS, INPUTS - "y", TASK_SOURCE, RUN_ID, FLOW_PARAMETERS, NONE, DEFAULT])


@given(POLICIES, POLICIES, POLICIES)
def test_addition_is_associative_and_its_order_does_not_matter_for_the_key(one, two, three):
    assert (one + two) + three == one + (two + three)
    assert key(one + two) == key(two + one)


@given(POLICIES)
def test_adding_no_cache_changes_nothing(policy):
    assert policy + NO_CACHE == policy == NO_CACHE + policy


@pytest.mark.parametrize(
    ("policy", "depends_on"),
    [
        (INPUTS, {"inputs"}),
        (TASK_SOURCE, {"source"}),
        (RUN_ID, {"run"}),
        (FLOW_PARAMETERS, {"parameters"}),
        (DEFAULT, {"inputs", "source", "run"}),
        (INPUTS + TASK_SOURCE, {"inputs", "source"}),
        (INPUTS - "x", set()),
        (DEFAULT - "x", {"source", "run"}),
        (TASK_SOURCE - "x", {"source"}),
    ],
)
def test_a_key_depends_on_what_its_policy_names_and_nothing_else(policy, depends_on):
    first = key(policy, inputs={"x": 1, "y": 1}, parameters={"p": 1})
    varied = {
        "inputs": key(policy, inputs={"x": 2, "y": 1}, parameters={"p": 1}),
        "source": key(policy, context(multiply), inputs={"x": 1, "y": 1}, parameters={"p": 1}),
        "run": key(policy, context(flow_run_id=uuid.UUID(int=9)), inputs={"x": 1, "y": 1}, parameters={"p": 1}),
        "parameters": key(policy, inputs={"x": 1, "y": 1}, parameters={"p": 2}),
    }
    assert {name for name, other in varied.items() if other != first} == depends_on
    assert key(policy, inputs={"y": 1, "x": 1}, parameters={"p": 1}) == first


@pytest.mark.parametrize("policy", [INPUTS, TASK_SOURCE, FLOW_PARAMETERS, DEFAULT])
def test_the_key_is_its_parts_combined(policy):
    arguments = (context(), {"x": [1]}, {"p": 2})
    parts = policy.parts(*arguments)
    assert policy.compute_key(*arguments) == combine(parts)
    assert policy.resolve(*arguments) == (combine(parts), parts)


def test_the_default_policy_is_inputs_source_and_run():
    assert DEFAULT == INPUTS + TASK_SOURCE + RUN_ID
    kinds = [part.kind for part in DEFAULT.parts(context(), {"x": 1}, {})]
    assert kinds == ["input", "source", "default", "run"]


def test_outside_a_flow_the_run_is_the_task_run():
    alone = context(flow_run_id=None)
    assert key(RUN_ID, alone) == key(RUN_ID, alone)
    assert key(RUN_ID, alone) != key(RUN_ID, context(flow_run_id=None, task_run_id=uuid.UUID(int=5)))
    assert RUN_ID.parts(alone, {}, {}) != RUN_ID.parts(context(flow_run_id=TASK_RUN), {}, {})


@pytest.mark.parametrize(
    "policy", [NONE, NO_CACHE, INPUTS, FLOW_PARAMETERS, CompoundCachePolicy(), CachePolicy.from_cache_key_fn(None)]
)
def test_without_anything_to_make_a_key_from_there_is_none(policy):
    assert key(policy, inputs={}) is None
    assert policy.resolve(context(), {}, {}) is None


def test_a_task_without_inputs_has_a_key_of_the_rest():
    assert key(INPUTS + TASK_SOURCE, inputs={}) == key(TASK_SOURCE, inputs={})


def test_subtraction_reaches_the_inputs_of_a_sum_and_leaves_the_original_alone():
    narrowed = DEFAULT - "x" - "y"
    assert narrowed == Inputs(exclude=["y", "x"]) + TASK_SOURCE + RUN_ID
    assert DEFAULT == INPUTS + TASK_SOURCE + RUN_ID
    assert Inputs() == INPUTS != INPUTS - "x"
    assert key(INPUTS - "lock", inputs={"x": 1, "lock": threading.Lock()}) == key(INPUTS, inputs={"x": 1})
    with pytest.raises(TypeError, match="name of a parameter"):
        INPUTS - 1


def test_only_policies_can_be_added():
    with pytest.raises(TypeError):
        INPUTS + "x"


def test_configure_returns_a_copy():
    stored = INPUTS.configure(key_storage="keys", isolation_level="SERIALIZABLE")
    assert (stored.key_storage, stored.isolation_level, stored.lock_manager) == ("keys", "SERIALIZABLE", None)
    assert INPUTS.key_storage is None
    assert stored != INPUTS
    assert stored == Inputs().configure("keys", None, "SERIALIZABLE")
    assert stored.configure(key_storage="other").isolation_level == "SERIALIZABLE"


def test_a_sum_takes_over_the_settings_and_refuses_those_that_contradict():
    summed = INPUTS.configure(key_storage="keys") + TASK_SOURCE.configure(isolation_level="SERIALIZABLE")
    assert (summed.key_storage, summed.isolation_level) == ("keys", "SERIALIZABLE")
    assert (DEFAULT.configure(key_storage="keys") + FLOW_PARAMETERS).key_storage == "keys"
    for setting in ("key_storage", "isolation_level", "lock_manager"):
        with pytest.raises(ValueError, match=setting):
            INPUTS.configure(**{setting: "a"}) + TASK_SOURCE.configure(**{setting: "b"})


def test_a_key_function_makes_the_key_itself():
    policy = CachePolicy.from_cache_key_fn(lambda ctx, inputs: f"{ctx.task.fn.__name__}-{inputs['x']}")
    assert isinstance(policy, CacheKeyFnPolicy)
    assert key(policy) == "add-1"
    resolved, parts = policy.resolve(context(), {"x": 1}, {})
    assert resolved == "add-1"
    assert [(part.kind, part.name, part.detail) for part in parts] == [
        ("custom", "CacheKeyFnPolicy", {"value": "add-1"})
    ]


def test_a_key_function_is_asked_once_for_a_key_and_its_parts():
    asked = []
    policy = CachePolicy.from_cache_key_fn(lambda ctx, inputs: asked.append(1) or "k")
    policy.resolve(context(), {}, {})
    assert asked == [1]


def test_a_policy_of_the_users_own_needs_only_compute_key():
    assert key(Fixed(), inputs={"key": "k"}) == "k"
    assert Fixed().resolve(context(), {"key": "k"}, {})[0] == "k"
    summed = Fixed() + TASK_SOURCE
    assert key(summed, inputs={"key": "a"}) != key(summed, inputs={"key": "b"})
    assert [part.kind for part in summed.parts(context(), {"key": "a"}, {})] == ["custom", "source", "default"]


def test_one_summand_that_forbids_caching_forbids_it_for_all():
    assert key(Fixed() + TASK_SOURCE, inputs={}) is None


def test_a_dataclass_that_narrows_inputs_is_asked_for_its_own_key():
    @dataclasses.dataclass(eq=False)
    class Rounded(Inputs):
        digits: int = 1

        def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):
            return str(round(inputs["x"], self.digits))

    assert Rounded().resolve(context(), {"x": 1.04}, {})[0] == "1.0"
    assert Rounded(digits=2) != Rounded(digits=1) == Rounded()
    assert key(Rounded() + TASK_SOURCE, inputs={"x": 1.04}) == key(Rounded() + TASK_SOURCE, inputs={"x": 1.03})


def test_an_input_that_cannot_be_hashed_is_refused_by_name():
    with pytest.raises(Unhashable, match=r"^input x\[0\]: cannot hash _thread\.lock"):
        key(DEFAULT, inputs={"x": [threading.Lock()]})


def test_parts_of_two_runs_explain_why_the_second_ran():
    policy = INPUTS + TASK_SOURCE
    before = policy.parts(context(), {"x": 1}, {})
    assert explain(before, policy.parts(context(), {"x": 2}, {})) == "input `x`: was 1, is now 2"
    assert (
        explain(before, policy.parts(context(multiply), {"x": 1}, {})) == "ran because the function is now `multiply()`"
    )


def test_equality_is_by_configuration_and_policies_can_be_set_items():
    assert TaskSource() == TASK_SOURCE
    assert INPUTS != TASK_SOURCE
    assert len({Inputs(), INPUTS, TaskSource(), INPUTS - "x"}) == 3


@pytest.mark.parametrize(
    ("factor", "retries", "delays"), [(2, 3, [2, 4, 8]), (0.5, 2, [0.5, 1.0]), (10, 0, []), (0, 2, [0, 0])]
)
def test_exponential_backoff_doubles(factor, retries, delays):
    assert exponential_backoff(factor)(retries) == delays


def test_a_negative_backoff_is_refused():
    with pytest.raises(ValueError, match="negative"):
        exponential_backoff(-1)
