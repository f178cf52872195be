"""Where a task's result lies when the task names a key or a storage, and how it is found there again."""

# What goes wrong in these tests goes wrong at the end of a block.
# ruff: noqa: PT012

import pytest

from prefect_nb import flow, task
from prefect_nb.cache_policies import INPUTS
from prefect_nb.exceptions import ConfigurationError
from prefect_nb.transactions import transaction


class Broken(Exception):
    """What goes wrong in these tests."""


def files_of(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("policy", [None, INPUTS], ids=str)
def test_a_storage_key_is_filled_in_and_is_the_cache_key(tmp_path, policy):
    @task(result_storage_key="total-{parameters[x]}.json", result_storage=tmp_path, cache_policy=policy)
    def total(x):
        return x * 2

    @flow
    def f():
        return [total(x, return_state=True) for x in (1, 2, 1)]

    assert [(state.name, state.result()) for state in f()] == [("Completed", 2), ("Completed", 4), ("Cached", 2)]
    assert files_of(tmp_path) == ["total-1.json", "total-2.json"]
    assert [state.name for state in f()] == ["Cached"] * 3


def test_a_storage_key_sees_the_task_run_and_the_flow_run(tmp_path):
    @task(result_storage_key="{flow_run.flow_name}_{flow_run.name}_{task_run.task_name}_{task_run.name}", name="total")
    def total():
        return 1

    @flow(name="daily", flow_run_name="monday", result_storage=tmp_path)
    def f():
        return total(return_state=True).state_details.task_run_id

    assert files_of(tmp_path) == []
    run_id = f().hex
    assert f"daily_monday_total_total-{run_id[-3:]}" in files_of(tmp_path)


def test_a_storage_key_that_cannot_be_filled_in_fails_the_run(tmp_path):
    @task(result_storage_key="{nothing}", result_storage=tmp_path)
    def t():
        raise AssertionError("not called")

    state = t(return_state=True)
    assert state.is_failed()
    with pytest.raises(ConfigurationError, match="KeyError: 'nothing'"):
        state.result()


def test_a_key_that_leads_elsewhere_fails_the_run_and_writes_nothing(tmp_path):
    @task(result_storage_key="../{parameters[x]}", result_storage=tmp_path / "results")
    def t(x):
        raise AssertionError("not called")

    assert t("x", return_state=True).is_failed()
    assert not (tmp_path / "x").exists()


def test_in_a_transaction_it_is_written_at_the_commit(tmp_path):
    @task(result_storage_key="kept", result_storage=tmp_path)
    def t():
        return 1

    with pytest.raises(Broken), transaction():
        t()
        raise Broken
    assert files_of(tmp_path) == []
    with transaction():
        t()
        assert files_of(tmp_path) == []
    assert files_of(tmp_path) == ["kept"]


def test_keys_may_have_a_storage_of_their_own(tmp_path, history):
    keys, results = tmp_path / "keys", tmp_path / "results"

    @task(cache_policy=INPUTS.configure(key_storage=keys), result_storage=results)
    def t(x):
        return x

    @flow
    def f():
        return [t(x, return_state=True).name for x in (1, 2, 1)]

    assert f() == ["Completed", "Completed", "Cached"]
    assert len(files_of(keys)) == 2
    # Another policy finds them only where it looks.
    assert t.with_options(cache_policy=INPUTS)(1, return_state=True).name == "Completed"
    assert t(1, return_state=True).name == "Cached"


def test_a_rolled_back_key_is_forgotten_in_its_storage(tmp_path):
    @task(cache_policy=INPUTS.configure(key_storage=tmp_path / "keys"))
    def t(x):
        return x

    @task
    def outer():
        t(1)
        assert t(1, return_state=True).name == "Cached"
        raise Broken

    with pytest.raises(Broken):
        outer()
    assert t(1, return_state=True).name == "Completed"


def test_storage_and_serializer_come_from_the_flow_unless_a_task_or_sub_flow_has_its_own(tmp_path, history):
    here, there = tmp_path / "here", tmp_path / "there"

    @task(persist_result=True)
    def plain():
        return 1

    @task(result_storage=there, result_serializer="pickle")
    def own():
        return 2

    @flow(persist_result=True)
    def sub():
        plain()

    @flow(result_storage=there, persist_result=True)
    def sub_with_own():
        plain()

    @flow(result_storage=here, result_serializer="json")
    def f():
        plain()
        own()
        sub()
        sub_with_own()
        plain.submit().wait()

    f()
    kept = [(run.result.storage, run.result.serializer) for run in history.task_runs() if run.result is not None]
    assert [(str(here), "json"), (str(there), "pickle"), (str(here), "json"), (str(there), "json")] == kept[:4]
