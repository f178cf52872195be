"""Variables: set, get, unset, and what may be one."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_nb import flow, task
from prefect_nb.variables import Variable


@pytest.mark.parametrize("value", ["text", "", 1, 1.5, True, None, {"a": [1, {"b": None}]}, [1, "two"]])
def test_a_value_comes_back(value):
    made = Variable.set("v", value)
    assert (made.name, made.value, made.tags) == ("v", value, [])
    assert Variable.get("v", default="nothing") == value


def test_a_tuple_comes_back_as_a_list():
    assert Variable.set("v", (1, (2,))).value == [1, [2]]
    assert Variable.get("v") == [1, [2]]


def test_a_missing_one():
    assert Variable.get("missing") is None
    assert Variable.get("missing", default=7) == 7
    assert Variable.get("missing", {"a": 1}) == {"a": 1}
    assert Variable.get("Not A Name") is None


def test_it_is_replaced_only_when_asked():
    Variable.set("v", 1, tags=["a"])
    with pytest.raises(ValueError, match=r"Variable 'v' already exists. Use `overwrite=True` to update it."):
        Variable.set("v", 2)
    assert Variable.get("v") == 1
    assert Variable.set("v", 3, tags=["b", "c"], overwrite=True).tags == ["b", "c"]
    assert Variable.set("v", 4, overwrite=True).tags == []
    assert Variable.get("v") == 4


def test_unset():
    Variable.set("v", 1)
    assert Variable.unset("v") is True
    assert Variable.unset("v") is False
    assert Variable.get("v") is None


@pytest.mark.parametrize("name", ["Upper", "a b", "a.b", "é", "a\n", "../x", "٣"])
def test_a_bad_name(name):
    with pytest.raises(
        ValueError, match="Variable name must only contain lowercase letters, numbers, and dashes or underscores"
    ):
        Variable.set(name, 1)


@given(st.text())
def test_a_name_is_plain_or_refused(name):
    try:
        Variable.set(name, 1, overwrite=True)
    except ValueError:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")


def test_the_longest_name():
    Variable.set("x" * 255, 1)
    with pytest.raises(ValueError, match="255"):
        Variable.set("x" * 256, 1)


@pytest.mark.parametrize("value", [object(), b"x", {1, 2}, {"a": object()}, {1: 2}])
def test_what_json_cannot_express(value):
    with pytest.raises(ValueError, match="Variable value must be serializable to JSON"):
        Variable.set("v", value)
    assert Variable.get("v") is None


def test_not_a_number_and_the_longest_value():
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        Variable.set("v", float("nan"))
    Variable.set("v", "x" * 4998)
    with pytest.raises(ValueError, match="Variable value must be less than 5000 characters"):
        Variable.set("v", "x" * 4999, overwrite=True)


async def test_in_coroutines():
    @flow
    async def f():
        await Variable.set("v", 1, tags=["t"])
        assert await Variable.get("v") == 1
        assert (await Variable.aset("v", 2, overwrite=True)).value == 2
        assert await Variable.aget("v") == 2
        assert await Variable.aget("w", default=3) == 3
        assert await Variable.unset("v")
        assert not await Variable.aunset("v")

    await f()


def test_runs_and_processes_share_them():
    @task
    def t():
        return Variable.get("v")

    @flow
    def f():
        Variable.set("v", {"rate": 0.1})
        return t.submit().result()

    assert f() == {"rate": 0.1}
    code = "from prefect_nb.variables import Variable; print(Variable.get('v'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == (
        "{'rate': 0.1}\n"
    )
