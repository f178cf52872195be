"""Reading a parameters cell, checking values for it, and writing them into source that can carry no code."""

import ast
import datetime
import keyword
import math
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_nb.exceptions import ParameterBindError, ParameterTypeError
from prefect_nb.model.notebook_parameters import (
    NotebookParameter,
    annotation_type,
    check_parameters,
    injected_source,
    override_source,
    read_parameters,
)

CELL = """\
# parameters of the report
%matplotlib inline
alpha: float = 0.5  # learning rate
name = "Ada"  # type: str  who it is for
n = None  # type: int
day: datetime.date = datetime.date(2024, 1, 1)
mode: Literal["fast", 'slow'] = "fast"
cols: list[int] = [
    1,
    2,
]  # which columns
x, y = 1, -2.5
p = q = 3
root: "Path" = Path("data")
print("not a parameter")
derived = alpha * 10
if alpha:
    inner = 1
"""


def declared(cell=CELL):
    return {parameter.name: parameter for parameter in read_parameters(cell)}


def run(source):
    namespace = {}
    exec(compile(source, "<cell>", "exec"), namespace)
    return namespace


def same(left, right):
    """Equality of value and type, with nan equal to itself and -0.0 unlike 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return left == right


class TestRead:
    def test_finds_names_annotations_defaults_and_help(self):
        found = declared()
        assert list(found) == ["alpha", "name", "n", "day", "mode", "cols", "x", "y", "p", "q", "root", "derived"]
        assert found["alpha"] == NotebookParameter("alpha", "float", "0.5", 0.5, True, "learning rate")
        assert found["name"] == NotebookParameter("name", "str", '"Ada"', "Ada", True, "who it is for")
        assert found["n"] == NotebookParameter("n", "int", "None", None, True, "")
        assert found["day"].annotation == "datetime.date"
        assert (found["day"].default_source, found["day"].is_literal) == ("datetime.date(2024, 1, 1)", False)
        assert found["mode"].annotation == "Literal['fast', 'slow']"
        assert (found["cols"].default, found["cols"].help) == ([1, 2], "which columns")
        assert (found["x"].default, found["y"].default) == (1, -2.5)
        assert (found["p"].default, found["q"].default) == (3, 3)
        assert found["root"].annotation == "Path"
        assert not found["derived"].is_literal

    def test_statements_on_one_line_share_it_and_the_last_has_the_comment(self):
        found = declared("a = 1; b = 2  # two")
        assert [(p.default, p.help) for p in found.values()] == [(1, ""), (2, "two")]

    def test_a_declaration_without_value_is_required(self):
        assert declared("x: int  # rows") == {"x": NotebookParameter("x", "int", help="rows")}

    def test_a_name_assigned_twice(self):
        assert declared("a: int = 1\na = 2")["a"] == NotebookParameter("a", "int", "2", 2, True)
        assert declared("p = 'd'  # where\np = Path(p)")["p"] == NotebookParameter("p", None, "'d'", "d", True, "where")

    def test_what_is_unpacked_from_elsewhere_has_no_literal(self):
        found = declared("a, *b = 1, 2, 3\nc, d = f()")
        assert list(found) == ["a", "c", "d"]
        assert not any(p.is_literal for p in found.values())

    def test_magics_and_shell_lines_are_passed_over_and_strings_stay(self):
        cell = (
            "%%time\n!pip install \\\n  x\nfiles = !ls\n?len\nlen?\nif 1:\n    %env A=1\n"
            "q = '''\n%d rows\n!\n'''\na = 5 \\\n % 3"
        )
        assert declared(cell)["q"].default == "\n%d rows\n!\n"
        assert list(declared(cell)) == ["q", "a"]

    def test_invalid_escapes_do_not_warn(self):
        assert declared(r"a = 'C:\data'")["a"].default == r"C:\data"

    @pytest.mark.parametrize("cell", ["a = ", "a = 1\x00", "a = '\ud800'", "(" * 5000, "%%bash\nif [ 1 ]; then\nfi"])
    def test_a_cell_that_is_not_python_is_an_error(self, cell):
        with pytest.raises(ParameterBindError, match="not valid Python"):
            read_parameters(cell)

    @pytest.mark.parametrize("cell", ["", "# only a comment", "import os\nprint(1)\nobj.attr = 5\nd['k'] = 1\na += 1"])
    def test_nothing_to_find(self, cell):
        assert read_parameters(cell) == []


class TestAnnotations:
    @pytest.mark.parametrize(
        "text",
        ["int", "str | None", "Optional[str]", "typing.List[int]", "Dict[str, float]", "dt.date", "Literal[1, 'a']"],
    )
    def test_known(self, text):
        assert annotation_type(text) is not None

    @pytest.mark.parametrize("text", [None, "", "Foo", "int | Foo", "os.date", "print('x')", "[", "1", "...", "b'int'"])
    def test_unknown(self, text):
        assert annotation_type(text) is None


class TestCheck:
    @pytest.mark.parametrize(
        ("annotation", "value", "result"),
        [
            ("int", "5", 5),
            ("int", 5.0, 5),
            ("float", 5, 5.0),
            ("float", "nan", math.nan),
            ("bool", "false", False),
            ("bool", 1, True),
            ("str", "5", "5"),
            ("list[int]", ["1", 2], [1, 2]),
            ("List", ["1"], ["1"]),
            ("dict[str, float]", {"a": 1}, {"a": 1.0}),
            ("int | None", None, None),
            ("Optional[int]", "3", 3),
            ("int | str", "3", "3"),
            ("Literal['a', 1]", 1, 1),
            ("datetime.date", "2024-02-29", datetime.date(2024, 2, 29)),
            ("datetime.datetime", "2024-02-29T12:00", datetime.datetime(2024, 2, 29, 12)),  # noqa: DTZ001 - as it was typed
            ("Path", "a/b.csv", Path("a/b.csv")),
            ("Unknown[int]", [1], [1]),
            (None, "5", "5"),
            ("int", 2**70, 2**70),
        ],
    )
    def test_coerces(self, annotation, value, result):
        given = check_parameters([NotebookParameter("x", annotation, "0", 0, True)], {"x": value})
        assert same(given["x"], result)

    @pytest.mark.parametrize(
        ("annotation", "value", "words"),
        [
            ("int", "ten", "x: Input should be an integer, not str 'ten'"),
            ("int", True, "an integer"),
            ("int", 1.5, "an integer"),
            ("float", "much", "a number"),
            pytest.param("float", 10**400, "a number", id="float-huge"),
            ("bool", "maybe", "true or false"),
            ("str", 5, "text"),
            ("list[int]", [1, "b"], "an integer"),
            ("list", {"a": 1}, "a list"),
            ("dict", [1], "a dict"),
            ("Literal['a', 'b']", "c", "one of 'a', 'b'"),
            ("datetime.date", "2024-02-30", "a date like"),
            ("datetime.datetime", "yesterday", "a date and time like"),
            ("Path", "a\0b", "a path"),
            ("int | None", "b", "an integer"),
            ("int", None, "an integer, not NoneType"),
        ],
    )
    def test_refuses_what_does_not_fit(self, annotation, value, words):
        with pytest.raises(ParameterTypeError, match=words):
            check_parameters([NotebookParameter("x", annotation, "0", 0, True)], {"x": value})

    def test_none_is_taken_where_it_is_the_default(self):
        assert check_parameters(read_parameters("n = None  # type: int"), {"n": None}) == {"n": None}

    def test_all_bad_values_are_reported_at_once(self):
        with pytest.raises(ParameterTypeError) as caught:
            check_parameters(read_parameters(CELL), {"alpha": "x", "n": "y", "name": (1,)})
        assert str(caught.value).count("\n - ") == 3

    def test_unknown_names_get_the_nearest(self):
        with pytest.raises(ParameterBindError, match="no parameter 'alpa': did you mean 'alpha'"):
            check_parameters(read_parameters(CELL), {"alpa": 1})
        with pytest.raises(ParameterBindError, match="it has 'a', 'b'"):
            check_parameters(read_parameters("a = b = 1"), {"zzz": 1})
        with pytest.raises(ParameterBindError, match="declares none"):
            check_parameters([], {"zzz": 1})

    def test_required_parameters_must_be_given(self):
        with pytest.raises(ParameterBindError, match="'x'"):
            check_parameters(read_parameters("x: int\ny = 1"), {"y": 2})

    def test_without_a_parameters_cell_any_ascii_name_goes(self):
        assert check_parameters(None, {"anything": [1]}) == {"anything": [1]}
        with pytest.raises(ParameterBindError, match="non-ASCII"):
            check_parameters(None, {"größe": 1})
        assert check_parameters(read_parameters("größe = 1"), {"größe": 2}) == {"größe": 2}

    @pytest.mark.parametrize(
        ("value", "hint"),
        [
            ((1, 2), "give a list"),
            ({1}, "give a list"),
            (b"x", "give text"),
            (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), "isoformat"),
            (datetime.date(2024, 1, 1), "isoformat"),
            (Path("a"), "str\\(path\\)"),
            (Decimal(1), "give text"),
            (object(), "a object cannot be given"),
            (1j, "a complex cannot be given"),
            (int, "a type cannot be given"),
            ([{"a": (1,)}], r"x\[0\]\['a'\]"),
            ({1: 2}, "JSON has text keys only"),
            ("\ud800", "surrogate"),
            ({"\udfff": 1}, "surrogate"),
            pytest.param(10**5000, "too large", id="huge"),
        ],
    )
    def test_values_that_are_not_json_are_refused_by_name_type_and_remedy(self, value, hint):
        for refuse in (lambda: check_parameters(None, {"x": value}), lambda: injected_source({"x": value})):
            with pytest.raises(ParameterTypeError, match=hint) as caught:
                refuse()
            assert "x" in str(caught.value)

    def test_numpy_scalars_and_subclasses_are_refused(self):
        import enum

        import numpy as np

        class Level(enum.IntEnum):
            LOW = 1

        with pytest.raises(ParameterTypeError, match=r"value\.item\(\)"):
            check_parameters(None, {"x": np.float64(1)})
        with pytest.raises(ParameterTypeError, match="Level"):
            check_parameters(None, {"x": Level.LOW})

    def test_deep_and_circular_values_are_refused(self):
        circular = []
        circular.append(circular)
        with pytest.raises(ParameterTypeError, match="deep"):
            check_parameters(None, {"x": circular})


HOSTILE = [
    "x; import os",
    "x\nimport os",
    "x = 1\ny",
    "x,y",
    "x[0]",
    "x.y",
    "x:int",
    "x#",
    "*x",
    "(x)",
    "",
    " x",
    "x ",
    "1x",
    "__builtins__",
    "__name__",
    "__import__",
    "get_ipython",
    "In",
    "Out",
    "exit",
    "quit",
    "_",
    "_i",
    "_ih",
    "_12",
    "_i3",
    "\ufb01le",
    "\uff58",
    "x²",
    "\u0430lpha",  # a Cyrillic letter first
    "al\u202epha",
    "al\u200dpha",
    "al\ufe00pha",
    "x\0",
    "\ud800",
    None,
    5,
    b"x",
    *keyword.kwlist,
]


def is_hostile(name):
    return not (name.isidentifier() and name.isascii()) or name.startswith("__") or keyword.iskeyword(name)


hostile_names = st.one_of(
    st.sampled_from([name for name in HOSTILE if isinstance(name, str)]),
    st.text().filter(is_hostile),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["x", "alpha"]),
        st.sampled_from(list(";\n\r\x0c\u2028=.,:#()[] \\'\"`%!?")),
        st.text(),
    ),
    st.text(alphabet="abcdef", min_size=1).map(lambda name: f"__{name}__"),
    st.text(alphabet=st.characters(min_codepoint=0x80, categories=["L", "Nl"]), min_size=1),
)


class TestNames:
    @pytest.mark.parametrize("name", HOSTILE, ids=ascii)
    def test_hostile_names_are_refused_everywhere(self, name):
        for refuse in (
            lambda: check_parameters(read_parameters(CELL), {name: 1}),
            lambda: check_parameters(None, {name: 1}),
        ):
            with pytest.raises(ParameterBindError):
                refuse()

    @settings(max_examples=500, deadline=None)
    @given(name=hostile_names)
    def test_500_hostile_names(self, name):
        with pytest.raises(ParameterBindError):
            check_parameters(read_parameters(CELL), {name: 1})
        with pytest.raises(ParameterBindError):
            check_parameters(None, {name: 1})
        try:
            source = injected_source({name: 1})
        except ParameterBindError:
            return
        (assignment,) = ast.parse(source).body
        assert isinstance(assignment, ast.Assign)
        assert ast.literal_eval(assignment.value) == 1


text = st.text(st.characters(codec="utf-8")) | st.sampled_from(
    [
        "'",
        '"',
        "'''",
        '"""',
        "\\",
        "\n",
        "\u2028",
        "\0",
        "{x}",
        "$(id)",
        "`id`",
        "#{id}",
        "%s",
        "!ls",
        "\x85",
        "\u202e",
        "'); import os; ('",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**70, -(2**70), -0.0, math.nan, math.inf, -math.inf])
    | st.floats()
    | text
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12
)


class TestInject:
    def test_form(self):
        source = injected_source({"a": 1, "b": [-1.5, None, {"k": "it's"}], "c": math.inf})
        assert source == '# Parameters\na = 1\nb = [-1.5, None, {\'k\': "it\'s"}]\nc = float("inf")\n'
        assert injected_source({}) == "# Parameters\n"

    @settings(max_examples=200, deadline=None)
    @given(value=values)
    def test_200_values_arrive_as_they_were_sent(self, value):
        checked = check_parameters(None, {"x": value})
        source = injected_source(checked)
        assert same(run(source)["x"], value)
        assert source.count("\n") == 2
        assert source.isprintable() or source.replace("\n", "").isprintable()

    @settings(max_examples=200, deadline=None)
    @given(value=values)
    def test_200_values_arrive_through_the_overridden_cell(self, value):
        namespace = run(override_source("x: object = 0  # help\ny = [x]\n", {"x": value, "z": value}))
        assert same(namespace["x"], value)
        assert namespace["y"][0] is namespace["x"]
        assert same(namespace["z"], value)


class TestOverride:
    @pytest.mark.parametrize(
        ("cell", "values", "expected"),
        [
            ("a = 1\nb = a * 10", {"a": 5}, "a = 5\nb = a * 10"),
            ("a: int = 1  # help", {"a": 5}, "a: int = 5  # help"),
            ("a: int  # help", {"a": 5}, "a: int = 5  # help"),
            ("a = 1; b = 2  # help", {"b": "x"}, "a = 1; b = 'x'  # help"),
            ("a, b = 1, 2", {"b": -5}, "a, b = 1, -5"),
            ("a = 1, 2", {"a": [3]}, "a = [3]"),
            ("a = (1 +\n     2)  # sum", {"a": 4}, "a = (4)  # sum"),
            ("a = \\\n  1\nb = 2", {"a": 4}, "a = \\\n  4\nb = 2"),
            ("a = b = 1  # both", {"a": 4}, "a = b = 1; a = 4  # both"),
            ("a, b = f()", {"a": 4, "b": 5}, "a, b = f(); a = 4; b = 5"),
            ("p = 'x'\np = Path(p)", {"p": "y"}, "p = 'y'\np = Path(p)"),
            ("a = 1\na = 2", {"a": 3}, "a = 3\na = 3"),
            ("é = 'é'; a = 'ü'  # ñ", {"a": "é", "é": 1}, "é = 1; a = 'é'  # ñ"),
            ("%time\na = 1\r\n!ls a = 1\nb = 'C:\\d'", {"a": 2}, "%time\na = 2\r\n!ls a = 1\nb = 'C:\\d'"),
            ("a = '\u2028'\x0c\nb = 1", {"b": 2}, "a = '\u2028'\x0c\nb = 2"),
            ("a = 1", {"c": 2}, "a = 1\nc = 2\n"),
            ("", {"c": 2}, "c = 2\n"),
            ("a = 1  # keep\n", {}, "a = 1  # keep\n"),
            ("if 1:\n    a = 1\n", {"a": 2}, "if 1:\n    a = 1\na = 2\n"),
            ("x = 1\ns = '''\nx = 1\n'''", {"x": 2}, "x = 2\ns = '''\nx = 1\n'''"),
        ],
    )
    def test_replaces_only_the_values(self, cell, values, expected):
        assert override_source(cell, values) == expected

    def test_derived_values_follow(self):
        assert run(override_source("a = 1\nb = a * 10\n", {"a": 5}))["b"] == 50

    def test_all_forms_of_a_real_cell(self):
        changed = override_source(CELL, {"alpha": 0.9, "cols": [7], "y": 4, "q": 8, "day": "2025-01-01", "new": True})
        found = declared(changed)
        assert (found["alpha"].default, found["alpha"].help) == (0.9, "learning rate")
        assert (found["cols"].default, found["cols"].help) == ([7], "which columns")
        assert [found[name].default for name in ("x", "y", "p", "q", "day", "new")] == [1, 4, 3, 8, "2025-01-01", True]
        assert "%matplotlib inline" in changed

    @pytest.mark.parametrize("name", ["a; import os", "__name__", "In", "class"])
    def test_hostile_names_are_refused(self, name):
        with pytest.raises(ParameterBindError):
            override_source("a = 1", {name: 1})
