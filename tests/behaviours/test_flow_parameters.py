"""Arguments of flows and tasks: bound, checked, converted, passed on."""

import dataclasses
import datetime
import threading
from typing import Any

import pydantic
import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import ParameterBindError, ParameterTypeError, ReservedArgumentError
from prefect_nb.states import StateType


class Model(pydantic.BaseModel):
    a: int
    b: str = "b"


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (int, "5", 5),
        (float, "0.5", 0.5),
        (float, 1, 1.0),
        (bool, "true", True),
        (list[int], ["1", 2], [1, 2]),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (tuple[int, str], ["1", "x"], (1, "x")),
        (set[int], [1, 1, 2], {1, 2}),
        (int | None, None, None),
        (datetime.date, "2024-05-01", datetime.date(2024, 5, 1)),
        (Model, {"a": "1"}, Model(a=1)),
        (list[Model], [{"a": 1}], [Model(a=1)]),
        (Point, {"x": "3"}, Point(3)),
        (Any, "5", "5"),
    ],
)
def test_flow_arguments_are_converted(annotation, given, expected):
    def f(x):
        return {"x": x}

    f.__annotations__["x"] = annotation
    got = flow(f)(given)["x"]
    assert got == expected
    assert type(got) is type(expected)


def test_variadic_arguments_are_converted():
    @flow
    def f(*args: int, **kwargs: float):
        return {"args": args, "kwargs": kwargs}

    assert f("1", 2, k="0.5") == {"args": (1, 2), "kwargs": {"k": 0.5}}


def test_task_arguments_are_never_converted():
    @task
    def t(x: int):
        return x

    assert t("5") == "5"


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_an_argument_that_does_not_fit(colour, history):
    ran = []

    if colour == "sync":

        @flow
        def f(x: int):
            ran.append(x)

        with pytest.raises(ParameterTypeError):
            f("nope")
        state = f("nope", return_state=True)
    else:

        @flow
        async def f(x: int):
            ran.append(x)

        with pytest.raises(ParameterTypeError):
            await f("nope")
        state = await f("nope", return_state=True)
    assert ran == []
    assert state.type is StateType.FAILED
    assert state.message.startswith("Validation of flow parameters failed with error:")
    assert "x" in state.message
    assert isinstance(await state.result(raise_on_failure=False), ParameterTypeError)
    assert [run.state_name for run in history.flow_runs()] == ["Failed", "Failed"]


@pytest.mark.parametrize("call", [lambda f, **k: f(**k), lambda f, **k: f(1, 2, **k), lambda f, **k: f(1, z=2, **k)])
@pytest.mark.parametrize("make", [flow, task])
@pytest.mark.parametrize("return_state", [False, True])
def test_missing_and_extra_arguments_raise_at_the_call_and_leave_no_run(call, make, return_state, history):
    @make
    def work(x):
        pass

    with pytest.raises(ParameterBindError):
        call(work, return_state=return_state)
    assert history.flow_runs() == []
    assert history.task_runs() == []


def test_a_bind_error_is_a_type_error():
    @flow
    def f(x):
        pass

    with pytest.raises(TypeError, match="x"):
        f()


def test_without_validation_nothing_is_converted():
    @flow(validate_parameters=False)
    def f(x: int):
        return x

    assert f("5") == "5"
    assert f("nope") == "nope"


@pytest.mark.parametrize("make", [flow, task])
def test_mutable_arguments_are_the_same_object(make):
    mine = {"rows": []}

    @make
    def work(x: dict, y):
        y.append(1)
        return {"same": x is mine}

    other = []
    assert work(mine, other) == {"same": True}
    assert other == [1]


@pytest.mark.parametrize("make", [flow, task])
def test_arguments_that_cannot_be_written_down_are_allowed(make):
    lock = threading.Lock()

    @make
    def work(x):
        return {"same": x is lock}

    assert work(lock) == {"same": True}


def test_the_history_has_a_placeholder_for_what_cannot_be_written_down(history):
    @flow
    def f(x, y):
        pass

    f(threading.Lock(), 1)
    (run,) = history.flow_runs()
    assert run.parameters["y"] == 1
    assert "lock" in str(run.parameters["x"])


@pytest.mark.parametrize("name", ["return_state", "wait_for"])
@pytest.mark.parametrize("make", [flow, task])
def test_reserved_names(make, name):
    namespace = {}
    exec(f"def work({name}): pass", namespace)
    with pytest.raises(ReservedArgumentError, match=name):
        make(namespace["work"])


@pytest.mark.parametrize("make", [flow, task])
def test_kinds_of_parameters(make):
    @make
    def work(a, /, b, c=3, *args, d, e=5, **kwargs):
        return {"got": (a, b, c, args, d, e, kwargs)}

    assert work(1, 2, d=4) == {"got": (1, 2, 3, (), 4, 5, {})}
    assert work(1, 2, 3, 7, 8, d=4, e=6, z=9) == {"got": (1, 2, 3, (7, 8), 4, 6, {"z": 9})}
    assert work(1, b=2, d=4) == {"got": (1, 2, 3, (), 4, 5, {})}


@pytest.mark.parametrize("how", ["call", "submit", "map"])
def test_kinds_of_parameters_of_submitted_tasks(how):
    @task
    def t(a, /, b=2, *, c=3):
        return (a, b, c)

    @flow
    def f():
        if how == "map":
            return {"got": t.map([1], c=[5]).result()[0]}
        return {"got": t(1, c=5) if how == "call" else t.submit(1, c=5).result()}

    assert f() == {"got": (1, 2, 5)}


def test_the_history_has_validated_names_with_defaults(history):
    @flow
    def f(x: int, y=2, *, z: str = "z"):
        pass

    f(1)
    (run,) = history.flow_runs()
    assert run.parameters == {"x": 1, "y": 2, "z": "z"}


def test_none_as_a_default_that_the_annotation_does_not_allow():
    @flow
    def f(x: int = None):  # noqa: RUF013
        return {"x": x}

    assert f() == {"x": None}
    assert f(None) == {"x": None}


def test_a_default_that_needs_conversion():
    @flow
    def f(x: Model = Model(a=1)):  # noqa: B008
        return x.a

    assert f() == 1


def test_annotations_as_text():
    @flow
    def f(x: "int", y: "list[Model]"):
        return {"x": x, "y": y}

    assert f("1", [{"a": 2}]) == {"x": 1, "y": [Model(a=2)]}


def test_a_class_without_validation_of_its_own():
    class Thing:
        pass

    @flow
    def f(x: Thing):
        return {"x": x}

    thing = Thing()
    assert f(thing)["x"] is thing
    with pytest.raises(ParameterTypeError):
        f("nope")


def test_every_wrong_argument_is_named():
    @flow
    def f(x: int, y: int):
        pass

    with pytest.raises(ParameterTypeError) as caught:
        f("a", "b")
    assert " x" in str(caught.value)
    assert " y" in str(caught.value)


def test_the_schema_says_position_and_default():
    @flow
    def f(x: int, y: str = "hello"):
        """Do it.

        Args:
            x: how many
        """

    from prefect_nb.model.parameters import parameter_schema

    schema = f.parameter_openapi_schema if hasattr(f, "parameter_openapi_schema") else parameter_schema(f.fn)
    assert schema["required"] == ["x"]
    assert schema["properties"]["x"]["position"] == 0
    assert schema["properties"]["y"]["default"] == "hello"


def test_validate_parameters_as_a_method():
    @flow
    def f(x: int):
        pass

    assert f.validate_parameters({"x": "5"}) == {"x": 5}


def test_an_exception_out_of_a_custom_validator():
    class Picky(pydantic.BaseModel):
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def positive(cls, value):
            if value < 0:
                raise ValueError("must be positive")
            return value

    @flow
    def f(p: Picky):
        return p.x

    assert f({"x": 1}) == 1
    with pytest.raises(ParameterTypeError, match="must be positive"):
        f({"x": -1})
