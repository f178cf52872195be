"""Schemas of parameters and templates of names do only what they are for, whoever wrote them."""

import json
import socket
import sys
import time
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from prefect_nb.exceptions import ParameterTypeError
from prefect_nb.execution.definitions import templated_name
from prefect_nb.model.parameters import parameter_schema, validate

_connections: list[Any] = []
_hooked = False


def _audit(event: str, arguments: Any) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        _connections.append(arguments)


@pytest.fixture
def connections() -> list[Any]:
    """Every attempt to reach another machine."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    _connections.clear()
    return _connections


class Remote(BaseModel):
    model_config = ConfigDict(json_schema_extra={"$ref": "http://127.0.0.1:9/schema.json"})

    x: int = 1


class Tree(BaseModel):
    value: int = 0
    children: "list[Tree]" = []


class Picky(BaseModel):
    text: Annotated[str, Field(pattern=r"^(a+)+$")]


def test_a_reference_to_elsewhere_is_not_followed(connections: list[Any]):
    def body(a: Remote, b: Annotated[int, Field(json_schema_extra={"$ref": "http://127.0.0.1:9/other.json"})] = 1): ...

    parameter_schema(body)
    validate(body, {"a": {"x": 2}, "b": 3})

    assert connections == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    assert connections, "the hook hears nothing"


def test_a_schema_that_refers_to_itself():
    def body(tree: Tree): ...

    started = time.perf_counter()
    schema = parameter_schema(body)
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"children": [deep]}
    found = validate(body, {"tree": deep})

    assert time.perf_counter() - started < 1
    assert json.dumps(schema).count("#/definitions/Tree") >= 1
    assert found["tree"].children[0].children[0].value == 0


def test_a_value_that_refers_to_itself():
    def body(tree: Tree): ...

    loop: dict[str, Any] = {}
    loop["children"] = [loop]

    with pytest.raises(ParameterTypeError, match=r"[Rr]ecurs"):
        validate(body, {"tree": loop})


def test_an_evil_pattern():
    def body(picky: Picky): ...

    validate(body, {"picky": {"text": "aaa"}})
    started = time.perf_counter()
    with pytest.raises(ParameterTypeError):
        validate(body, {"picky": {"text": "a" * 5000 + "!"}})

    assert time.perf_counter() - started < 0.1


class Thing:
    name = "thing"
    _hidden = "CANARY"

    def __format__(self, spec: str) -> str:
        return f"<{spec}>"


@pytest.mark.parametrize(
    "template",
    [
        "{x.__class__}", "{x.__class__.__mro__[1].__subclasses__}", "{x._hidden}", "{x.__init__.__globals__[CANARY]}",
        "{x[__class__]}", "{x.name.__class__}", "{n:>99999999}", "{n:.99999999f}", "{n:{w}}", "{x!r:>10000}",
    ],
)  # fmt: skip
def test_what_a_template_may_not_do(template: str):
    with pytest.raises(ValueError, match=r"A name's template may not"):
        templated_name(template, {"x": Thing(), "n": 5, "w": 10**8}, "task_run_name")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("{n}-{x.name}", "5-thing"),
        ("{n:03d}", "005"),
        ("{d[key]} {l[0]}", "value first"),
        ("{n!r:>3}", "  5"),
        ("{{ ''.__class__ }}", "{ ''.__class__ }"),
        ("{{n}} {n}", "{n} 5"),
        ("{date:%Y}", None),
    ],
)
def test_what_it_may(template: str, expected: str | None):
    parameters = {"x": Thing(), "n": 5, "d": {"key": "value"}, "l": ["first"]}

    name = templated_name(template, parameters, "task_run_name")

    assert name == expected if expected is not None else len(name) == 4


@given(st.text(alphabet="{}.[]_!:x0'\" \\abcl", max_size=40))
def test_no_template_reaches_what_is_hidden(template: str):
    try:
        name = templated_name(template, {"x": Thing()}, "flow_run_name")
    except (ValueError, TypeError):
        return
    assert "CANARY" not in name
    assert "class" not in name.replace(template, "") or "class" in template
