"""Binding, validation, schema, mapping and command-line values of parameters."""

import dataclasses
import datetime
import enum
import functools
import inspect
import io
import math
import pickle
import subprocess
import sys
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from prefect_nb.exceptions import (
    MappingLengthMismatch,
    MappingMissingIterable,
    ParameterBindError,
    ParameterTypeError,
    ReservedArgumentError,
    SignatureMismatchError,
)
from prefect_nb.model.annotations import allow_failure, quote, unmapped
from prefect_nb.model.parameters import (
    Signature,
    check_reserved,
    is_iterable,
    parameter_schema,
    parse_cli_parameters,
    parse_cli_value,
    split_map_arguments,
    validate,
)


class Point(BaseModel):
    x: int
    y: int = 0


class Colour(enum.Enum):
    RED = "red"


class Thing:
    pass


class Pair(NamedTuple):
    a: int
    b: int


@dataclasses.dataclass
class Size:
    width: int


def one(x): ...
def two(a, b=1): ...
def positional_only(a, b=2, /, c=3): ...
def keyword_only(a, *, b, c=3): ...
def variadic(a, *args, b=2, **kwargs): ...
def mixed(p, /, q, *rest, k, m=5, **more): ...
def nothing(): ...


class TestBind:
    @pytest.mark.parametrize("fn", [one, two, positional_only, keyword_only, variadic, mixed, nothing])
    @given(
        args=st.lists(st.integers(), max_size=5).map(tuple),
        kwargs=st.dictionaries(st.sampled_from(list("abcxkpqm")), st.integers(), max_size=4),
    )
    def test_binds_exactly_what_python_binds_and_call_args_undoes_it(self, fn, args, kwargs):
        reference = inspect.signature(fn)
        signature = Signature.of(fn)
        try:
            expected = reference.bind(*args, **kwargs)
        except TypeError:
            with pytest.raises(ParameterBindError, match=fn.__name__):
                signature.bind(args, kwargs)
            return
        expected.apply_defaults()
        bound = signature.bind(args, kwargs)
        assert bound == dict(expected.arguments)
        assert list(bound) == list(reference.parameters)
        call_args, call_kwargs = signature.call_args(bound)
        assert signature.bind(call_args, call_kwargs) == bound
        assert signature.bind_names(bound) == bound

    def test_values_keep_their_identity(self):
        value = [1]
        assert Signature.of(one).bind((value,), {})["x"] is value
        assert Signature.of(one).bind((), {"x": value})["x"] is value

    @pytest.mark.parametrize(
        ("fn", "args", "kwargs", "words"),
        [
            (two, (), {}, ["two(a, b=1)", "missing a required argument: 'a'"]),
            (keyword_only, (), {}, ["missing required arguments: 'a', 'b'"]),
            (two, (1,), {"c": 2}, ["two", "unexpected keyword argument 'c'"]),
            (two, (1, 2, 3), {}, ["too many positional arguments: it takes 2, 3 were given"]),
            (one, (1, 2), {}, ["too many positional arguments: it takes 1, 2 were given"]),
            (two, (1,), {"a": 2}, ["'two': multiple values for argument 'a'"]),
            (positional_only, (), {"a": 2}, ["'a' is positional-only"]),
        ],
    )
    def test_errors_name_the_function_and_the_argument(self, fn, args, kwargs, words):
        with pytest.raises(ParameterBindError) as caught:
            Signature.of(fn).bind(args, kwargs)
        for word in words:
            assert word in str(caught.value)

    def test_a_misspelt_name_gets_the_nearest(self):
        def search(depth, width=1): ...

        with pytest.raises(ParameterBindError, match="did you mean 'depth'"):
            Signature.of(search).bind((), {"dept": 2})

    def test_supplied_leaves_defaults_out(self):
        assert Signature.of(two).bind_supplied((5,), {}) == {"a": 5}

    def test_by_name_reaches_positional_only_and_variadic(self):
        bound = Signature.of(mixed).bind_names({"p": 1, "q": 2, "rest": [3], "k": 4, "z": 9})
        assert bound == {"p": 1, "q": 2, "rest": (3,), "k": 4, "m": 5, "more": {"z": 9}}
        with pytest.raises(ParameterBindError, match="must be given as a list"):
            Signature.of(variadic).bind_names({"a": 1, "args": "text"})
        with pytest.raises(ParameterBindError, match="unexpected keyword argument 'bb'"):
            Signature.of(two).bind_names({"a": 1, "bb": 1})

    def test_call_args_leaves_missing_names_to_defaults_and_refuses_unknown(self):
        args, kwargs = Signature.of(keyword_only).call_args({"a": 1, "b": 2})
        assert (args, kwargs) == ((1,), {"b": 2})
        assert Signature.of(two).call_args({"b": 2}) == ((), {"b": 2})
        with pytest.raises(SignatureMismatchError, match="no parameter 'c'"):
            Signature.of(two).call_args({"a": 1, "c": 2})

    def test_methods_partials_callables_and_builtins(self):
        class Model:
            def fit(self, data, epochs=3): ...

            def __call__(self, data): ...

        assert Signature.of(Model().fit).bind((1,), {}) == {"data": 1, "epochs": 3}
        assert Signature.of(Model()).bind((1,), {}) == {"data": 1}
        assert Signature.of(functools.partial(two, 1)).bind((), {"b": 4}) == {"b": 4}
        assert Signature.of(max).bind((1, 2), {"key": None}) == {"args": (1, 2), "kwargs": {"key": None}}

    def test_is_built_once_per_function_and_does_not_keep_it_alive(self):
        import gc
        import weakref

        def local(x: int): ...

        assert Signature.of(local) is Signature.of(local)
        gone = weakref.ref(local)
        del local
        gc.collect()
        assert gone() is None

    def test_pickles_without_the_globals_of_its_module(self):
        copy = pickle.loads(pickle.dumps(Signature.of(two)))
        assert copy.bind((3,), {}) == {"a": 3, "b": 1}

    @pytest.mark.parametrize("name", ["return_state", "wait_for"])
    def test_reserved_names_are_refused(self, name):
        namespace: dict[str, Any] = {}
        exec(f"def f(a, *, {name}=None): ...", namespace)
        with pytest.raises(ReservedArgumentError, match=name):
            check_reserved(namespace["f"])
        check_reserved(two)


class TestValidate:
    def test_coerces_by_annotation(self):
        def f(n: int, p: Point, when: datetime.date, *args: int, path: Path, **kwargs: float): ...

        bound = Signature.of(f).bind(("5", {"x": "1"}, "2024-02-03", "7", 8), {"path": "a/b", "z": "1.5"})
        assert validate(f, bound) == {
            "n": 5,
            "p": Point(x=1),
            "when": datetime.date(2024, 2, 3),
            "args": (7, 8),
            "path": Path("a/b"),
            "kwargs": {"z": 1.5},
        }

    def test_unannotated_values_are_untouched(self):
        def f(a, b: int): ...

        value = {"x": "1"}
        assert validate(f, {"a": value, "b": "2"})["a"] is value

    @pytest.mark.parametrize(
        ("hint", "value"),
        [
            (list, [1]),
            (dict, {"a": 1}),
            (list[int], [1, 2]),
            (dict[str, list[int]], {"a": [1]}),
            (tuple[int, str], (1, "a")),
            (tuple[int, ...], (1, 2)),
            (set[int] | None, {1}),
            (Thing, Thing()),
            (list[Thing], [Thing()]),
            (Point, Point(x=1)),
            (Size, Size(1)),
            (Colour, Colour.RED),
            (Any, object()),
            (object, object()),
            (Literal["a", 2], 2),
        ],
    )
    def test_a_value_that_fits_stays_the_same_object(self, hint, value):
        def f(x): ...

        f.__annotations__["x"] = hint
        assert validate(f, {"x": value})["x"] is value

    def test_dataframes_and_arrays_stay_the_same_object(self):
        import numpy as np
        import pandas as pd

        def f(table: pd.DataFrame, column: pd.Series | None, array: np.ndarray): ...

        values = {"table": pd.DataFrame({"a": [1]}), "column": pd.Series([1]), "array": np.arange(2)}
        result = validate(f, values)
        assert all(result[name] is values[name] for name in values)
        with pytest.raises(ParameterTypeError, match="table: Input should be an instance of DataFrame"):
            validate(f, {**values, "table": 5})

    def test_bool_for_int_is_pydantics_choice_and_typed_tuples_are_checked(self):
        def f(n: int, pair: Pair): ...

        result = validate(f, {"n": True, "pair": Pair("1", 2)})  # type: ignore[arg-type]
        assert result["n"] == 1
        assert type(result["n"]) is int
        assert result["pair"] == Pair(1, 2)

    def test_errors_have_one_line_for_each_field(self):
        def f(x: int, p: Point, *args: int): ...

        with pytest.raises(ParameterTypeError) as caught:
            validate(f, {"x": "ten", "p": {"y": "b"}, "args": (1, "c")})
        lines = str(caught.value).splitlines()
        assert lines[0] == "Flow run received invalid parameters:"
        assert lines[1].startswith(" - x: Input should be a valid integer")
        assert lines[2] == " - p.x: Field required"
        assert lines[3].startswith(" - p.y: Input should be a valid integer")
        assert lines[4].startswith(" - args.1: Input should be a valid integer")
        assert len(lines) == 5

    def test_none_is_taken_where_it_is_the_default(self):
        def f(x: int = None, y: int = 1): ...  # type: ignore[assignment]  # noqa: RUF013

        assert validate(f, {"x": None, "y": 2}) == {"x": None, "y": 2}
        with pytest.raises(ParameterTypeError, match="- y:"):
            validate(f, {"x": None, "y": None})

    def test_constraints_and_text_annotations(self):
        def f(n: Annotated[int, Field(gt=3)], p: "Point", later: "NotDefined", odd: 5): ...  # type: ignore  # noqa: F821, PGH003

        result = validate(f, {"n": "4", "p": {"x": 1}, "later": 1, "odd": "x"})
        assert result == {"n": 4, "p": Point(x=1), "later": 1, "odd": "x"}
        with pytest.raises(ParameterTypeError, match="greater than 3"):
            validate(f, {"n": 3})

    def test_a_protocol_that_cannot_be_checked_lets_values_through(self):
        class Readable(typing.Protocol):
            def read(self) -> str: ...

        def f(source: Readable): ...

        assert validate(f, {"source": 5}) == {"source": 5}

    def test_pydantic_is_not_imported_unless_needed(self):
        code = (
            "import sys\n"
            "from prefect_nb.model.parameters import *\n"
            "def f(a, n: int, s: str | None = None, xs: list[int] = []): ...\n"
            "validate(f, Signature.of(f).bind((object(), 1), {'s': 'x'}))\n"
            "def g(n: int, s: str = 'a', anything=None): ...\n"
            "assert parameter_schema(g)['required'] == ['n']\n"
            "assert not {'pydantic', 'numpy', 'pandas'} & set(sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestSchema:
    def test_of_a_plain_flow(self):
        def f(x: int, y: str = "a", *, z=None): ...

        assert parameter_schema(f) == {
            "title": "Parameters",
            "type": "object",
            "properties": {
                "x": {"title": "x", "position": 0, "type": "integer"},
                "y": {"title": "y", "position": 1, "type": "string", "default": "a"},
                "z": {"title": "z", "position": 2, "default": None},
            },
            "required": ["x"],
            "definitions": {},
        }

    def test_of_models_variadics_and_things_without_json(self):
        def f(p: Point, t: Thing, c: Colour = Colour.RED, *args: int, q: Point | None = None, **kw: int): ...

        schema = parameter_schema(f)
        assert set(schema["definitions"]) == {"Point", "Colour"}
        assert schema["properties"]["p"] == {"$ref": "#/definitions/Point", "title": "p", "position": 0}
        assert schema["properties"]["t"] == {"title": "t", "position": 1}
        assert schema["properties"]["c"]["default"] == "red"
        assert schema["properties"]["args"]["items"] == {"type": "integer"}
        assert schema["properties"]["kw"]["additionalProperties"] == {"type": "integer"}
        assert schema["required"] == ["p", "t"]

    def test_simple_schemas_are_those_of_pydantic(self):
        def simple(a: int, b: float, c: str, d: bool, e: Any): ...
        def through_pydantic(a: int, b: float, c: str, d: bool, e: Any, p: Point): ...

        expected = parameter_schema(through_pydantic)["properties"]
        expected.pop("p")
        assert parameter_schema(simple)["properties"] == expected

    def test_a_default_without_json_is_left_out(self):
        def f(x=math.nan, y=Thing(), z=Path("a")): ...  # noqa: B008

        schema = parameter_schema(f)
        assert "default" not in schema["properties"]["x"]
        assert "default" not in schema["properties"]["y"]
        assert schema["properties"]["z"]["default"] == "a"
        assert schema["required"] == []

    def test_descriptions_from_google_docstrings(self):
        def f(x, y, *args):
            """Do it.

            Args:
                x (int): the number
                    of rows
                y: what: exactly
                *args: more

            Returns:
                nothing: at all
            """

        properties = parameter_schema(f)["properties"]
        assert [properties[n].get("description") for n in ("x", "y", "args")] == [
            "the number of rows",
            "what: exactly",
            "more",
        ]

    def test_descriptions_from_numpy_docstrings(self):
        def f(x, y, z):
            """Do it.

            Parameters
            ----------
            x : int
                The number
                of rows.
            y, z : str
                The names.

            Returns
            -------
            x
                Not this.
            """

        properties = parameter_schema(f)["properties"]
        assert properties["x"]["description"] == "The number of rows."
        assert properties["z"]["description"] == "The names."


def mapped(fn, *args, **kwargs):
    signature = Signature.of(fn)
    return split_map_arguments(signature, signature.bind_supplied(args, kwargs))


class TestMap:
    @pytest.mark.parametrize(
        ("value", "elements"),
        [
            ([1, 2], [1, 2]),
            ((1, 2), [1, 2]),
            (range(2), [0, 1]),
            ({"a": 1, "b": 2}, ["a", "b"]),
            ({7}, [7]),
            ((i for i in (3, 4)), [3, 4]),
            ([], []),
        ],
    )
    def test_goes_over(self, value, elements):
        assert mapped(one, value) == [{"x": element} for element in elements]

    def test_goes_over_numpy_and_pandas(self):
        import numpy as np
        import pandas as pd

        assert [c["x"] for c in mapped(one, np.array([1, 2]))] == [1, 2]
        assert [c["x"] for c in mapped(one, pd.Series([5, 6], index=["p", "q"]))] == [5, 6]
        assert [c["x"] for c in mapped(one, pd.DataFrame({"p": [1], "q": [2]}))] == ["p", "q"]
        assert not is_iterable(np.array(5))

    @pytest.mark.parametrize("value", ["text", b"bytes", 5, None, io.StringIO("a")])
    def test_scalars_go_to_every_child(self, value):
        assert mapped(two, [1, 2], value) == [{"a": 1, "b": value}, {"a": 2, "b": value}]
        with pytest.raises(MappingMissingIterable, match="one"):
            mapped(one, value)

    def test_unmapped_and_defaults_go_whole(self):
        def f(a, b=(1, 2, 3), c=unmapped([4])): ...  # noqa: B008

        assert mapped(f, [1]) == [{"a": 1, "b": (1, 2, 3), "c": [4]}]
        assert mapped(two, [1, 2], unmapped([5, 6, 7])) == [{"a": 1, "b": [5, 6, 7]}, {"a": 2, "b": [5, 6, 7]}]
        with pytest.raises(MappingMissingIterable):
            mapped(one, unmapped([1]))

    def test_other_marks_move_to_the_elements(self):
        assert mapped(one, allow_failure([1, 2])) == [{"x": allow_failure(1)}, {"x": allow_failure(2)}]
        assert mapped(two, [1], quote(5)) == [{"a": 1, "b": quote(5)}]

    def test_lengths_must_agree(self):
        with pytest.raises(MappingLengthMismatch, match=r"Got lengths: \{'a': 2, 'b': 3\}"):
            mapped(two, [1, 2], [1, 2, 3])

    def test_each_member_of_args_is_the_arguments_of_one_child(self):
        children = mapped(variadic, [1, 2], [3, 4], "st", z=[5, 6], w=unmapped([7]))
        assert children == [
            {"a": 1, "args": (3, 4), "b": 2, "kwargs": {"z": 5, "w": [7]}},
            {"a": 2, "args": ("s", "t"), "b": 2, "kwargs": {"z": 6, "w": [7]}},
        ]
        assert list(children[0]) == ["a", "args", "b", "kwargs"]
        with pytest.raises(TypeError, match="each must be iterable"):
            mapped(variadic, [1, 2], 3, 4)

    def test_missing_arguments_raise(self):
        with pytest.raises(ParameterBindError):
            mapped(two, b=[1])


class TestCommandLine:
    @pytest.mark.parametrize(
        ("text", "annotation", "value"),
        [
            ("5", None, 5),
            ("5", int, 5),
            ("5", str, "5"),
            ('"5"', str, "5"),
            ("null", str | None, None),
            ("null", str, "null"),
            ("5", int | str, 5),
            ("2024", datetime.date, "2024"),
            ("007", None, "007"),
            ("1", Literal["1", "2"], "1"),
            ("hello world", None, "hello world"),
            ("true", None, True),
            ("[1, 2]", None, [1, 2]),
            ('{"a": null}', None, {"a": None}),
            ("NaN", None, "NaN"),
            ("", None, ""),
            ("[" * 100_000, None, "[" * 100_000),
        ],
    )
    def test_value(self, text, annotation, value):
        parsed = parse_cli_value(text, annotation)
        assert parsed == value
        assert type(parsed) is type(value)

    def test_pairs(self):
        assert parse_cli_parameters(["a=1", "b=x=y", "c="]) == {"a": 1, "b": "x=y", "c": ""}
        assert parse_cli_parameters(["a=1"], {"a": str}) == {"a": "1"}

    @pytest.mark.parametrize("pair", ["a", "=1", "a b=1", "1a=2", "a.b=1", "a;import os=1"])
    def test_malformed_pairs_are_named(self, pair):
        with pytest.raises(ValueError, match="name"):
            parse_cli_parameters([pair])

    def test_a_name_given_twice_is_refused(self):
        with pytest.raises(ValueError, match="'a' is given twice"):
            parse_cli_parameters(["a=1", "a=2"])
