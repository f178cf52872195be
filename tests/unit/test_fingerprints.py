"""Values: what shares a digest, what does not, what is refused, and how a difference is told."""

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import io
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
import typing
import uuid

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from prefect_nb.model.fingerprints import Part, Unhashable, combine, explain, hash_value, value_part


@dataclasses.dataclass
class Point:
    x: int
    y: object = 0


class Model(pydantic.BaseModel):
    x: int = 1
    names: list[str] = pydantic.Field(default_factory=list)


class Record(msgspec.Struct):
    x: int
    y: int = 2


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Pair(typing.NamedTuple):
    x: int
    y: int


class Measured:
    def __init__(self, x):
        self.x = x

    @functools.cached_property
    def double(self):
        return self.x * 2


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner),
        st.frozensets(SCALARS),
    ),
    max_leaves=12,
)


def typed(value):
    """A value written out with the type of everything in it: what a digest must tell apart, and no more."""
    match value:
        case list() | tuple():
            return (type(value).__name__, [typed(item) for item in value])
        case dict():
            return ("dict", sorted(((repr(typed(key)), typed(item)) for key, item in value.items()), key=repr))
        case frozenset():
            return ("frozenset", sorted(repr(typed(item)) for item in value))
    return (type(value).__name__, repr(value))


@given(VALUES, VALUES)
def test_digests_are_equal_exactly_when_type_and_content_are(one, other):
    assert (hash_value(one) == hash_value(other)) == (repr(typed(one)) == repr(typed(other)))


@given(st.dictionaries(st.text(), SCALARS))
def test_the_order_of_a_dict_does_not_matter(value):
    assert hash_value(value) == hash_value(dict(reversed(value.items())))


@given(st.lists(st.integers(min_value=-(2**70), max_value=2**70), max_size=5))
def test_integers_of_any_size_are_told_apart(value):
    assert hash_value(value) != hash_value([*value, 0])
    assert hash_value(value) != hash_value(tuple(value))


DIFFERENT = [
    None,
    False,
    0,
    0.0,
    -0.0,
    0j,
    "0",
    b"0",
    bytearray(b"0"),
    (),
    [],
    {},
    set(),
    frozenset(),
    "",
    b"",
    [[]],
    [()],
    [1, [2]],
    [[1], 2],
    {1: 2},
    {"1": 2},
    {1, 2},
    {"a", 1},
    collections.OrderedDict(a=1, b=2),
    collections.OrderedDict(b=2, a=1),
    collections.defaultdict(list, a=1),
    collections.defaultdict(dict, a=1),
    collections.deque([1]),
    range(1, 3),
    slice(1, 3),
    datetime.date(2024, 1, 1),
    datetime.datetime(2024, 1, 1),  # noqa: DTZ001
    datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    decimal.Decimal("1.0"),
    decimal.Decimal("1.00"),
    uuid.UUID(int=1),
    pathlib.Path("a"),
    pathlib.Path("b"),
    Colour.RED,
    Colour.GREEN,
    Point(1),
    Point(1, 0.0),
    Point(2),
    Model(),
    Model(x=2),
    Record(1),
    Record(1, 3),
    Slotted(1),
    Slotted(2),
    Pair(1, 2),
    (1, 2),
    Pair,
    Colour,
    Point,
    int,
    len,
    np.mean,
    np.median,
    np.add,
    np.subtract,
    np,
    functools.partial(len, 1),
    functools.partial(len, 2),
    "a".upper,
    "b".upper,
    np.int64(0),
    np.int32(0),
    np.float64(0),
    np.bool_(False),
    np.dtype("f8"),
    np.dtype(">f8"),
    np.array(0),
    np.array([0]),
    np.array([[0]]),
    np.array([0], dtype=">i8"),
    np.array([], dtype="f8"),
    np.empty((0, 3)),
    np.empty((3, 0)),
    np.array([None, 1], dtype=object),
    np.array([1, None], dtype=object),
    np.array(["2024"], dtype="M8[D]"),
    np.array(["2024"], dtype="M8[s]"),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("c", "f8")]),
    np.ma.masked_array([1, 2], [0, 1]),
    np.ma.masked_array([1, 2], [1, 0]),
    np.random.default_rng(1),
    np.random.default_rng(2),
    pd.Series([1, 2]),
    pd.Series([1, 2], name="x"),
    pd.Series([1, 2], index=[1, 2]),
    pd.Series([1, 2], dtype="int32"),
    pd.Series([1, 2], dtype="Int64"),
    pd.Series([1, None], dtype="Int64"),
    pd.Series([1, 2], dtype="int64[pyarrow]"),
    pd.Series(["a", None], dtype="str") if pd.__version__ >= "3" else pd.Series(["a", None], dtype="string"),
    pd.Series(["a", "None"]),
    pd.Series(["a", None], dtype=object),
    pd.Series(["a", "b"], dtype="category"),
    pd.Series(["a", "b"], dtype=pd.CategoricalDtype(["b", "a"])),
    pd.Series(["a", "b"], dtype=pd.CategoricalDtype(["a", "b"], ordered=True)),
    pd.Series(pd.to_datetime(["2024"])),
    pd.Series(pd.to_datetime(["2024"]).tz_localize("UTC")),
    pd.Series(pd.to_datetime(["2024"]).tz_localize("Europe/Berlin")),
    pd.Series(pd.arrays.SparseArray([0, 1])),
    pd.Series(pd.interval_range(0, 2)),
    pd.Series(pd.period_range("2024", periods=2, freq="D")),
    pd.DataFrame({"a": [1], "b": [2]}),
    pd.DataFrame({"b": [2], "a": [1]}),
    pd.DataFrame({"a": [1], "c": [2]}),
    pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])),
    pd.Timestamp("2024"),
    pd.Timestamp("2024", tz="UTC"),
    pd.Timedelta(1),
    pd.NaT,
    pd.NA,
    pl.Series([1, 2]),
    pl.Series("x", [1, 2]),
    pl.Series([1, None]),
    pl.Series([1, 2], dtype=pl.Int32),
    pl.Series(["a", "b"]),
    pl.Series(["a", "b"], dtype=pl.Categorical),
    pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])),
    pl.Series(["a", "b"], dtype=pl.Enum(["b", "a"])),
    pl.Series([[1], [2, 3]]),
    pl.Series([[1, 2], [3]]),
    pl.Series([{"a": 1}]),
    pl.Series([{"a": None}]),
    pl.Series([None], dtype=pl.Struct({"a": pl.Int64})),
    pl.Series([[True], [], None]),
    pl.Series([[True], None, []]),
    pl.Series([[1.0, 2.0]], dtype=pl.Array(pl.Float64, 2)),
    pl.Series([object()], dtype=pl.Object),
    pl.DataFrame({"a": [1], "b": [2]}),
    pl.DataFrame({"b": [2], "a": [1]}),
    pa.array([1, 2]),
    pa.array([1, 2], pa.int32()),
    pa.array([1, None]),
    pa.array([None, 1]),
    pa.array(["ab", "c"]),
    pa.array(["a", "bc"]),
    pa.array(["ab", None, "c"]),
    pa.array([True, False]),
    pa.array([[1], [2, 3]]),
    pa.array([[1, 2], [3]]),
    pa.array([{"a": 1}]),
    pa.array([{"a": None}]),
    pa.array([None], pa.struct([("a", pa.int64())])),
    pa.array(["a", "b"]).dictionary_encode(),
    pa.array([1, 2], pa.timestamp("s")),
    pa.table({"a": [1], "b": [2]}),
    pa.table({"b": [2], "a": [1]}),
    pa.record_batch({"a": [1], "b": [2]}),
    pa.scalar(1),
    pa.int8(),
    scipy.sparse.csr_matrix(np.eye(2)),
    scipy.sparse.csr_array(np.eye(2)),
    scipy.sparse.csr_matrix(np.eye(2) * 2),
    scipy.sparse.csc_matrix(np.eye(2)),
    scipy.sparse.coo_array(np.eye(2)),
    scipy.sparse.dia_array(np.eye(2)),
    scipy.sparse.lil_array(np.eye(2)),
]


def test_values_that_differ_in_type_or_content_have_different_digests():
    seen = {}
    for place, value in enumerate(DIFFERENT):
        twin = seen.setdefault(hash_value(value), place)
        assert twin == place, f"{DIFFERENT[twin]!r} and {value!r} share a digest"


FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": ["x", "y", None]})
GRID = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (float("nan"), float("nan")),
        ({3, 1, "a"}, {"a", 3, 1}),
        (Point(1, [2]), Point(1, [2])),
        (Model(), Model(x=1)),
        (Slotted([1]), Slotted([1])),
        (GRID, np.asfortranarray(GRID)),
        (GRID[:, ::2], GRID[:, ::2].copy()),
        (GRID[::-1], np.ascontiguousarray(GRID[::-1])),
        (np.array([(1, 2)], dtype=np.dtype([("a", "i1"), ("b", "i8")], align=True)),) * 2,
        (FRAME, FRAME.copy()),
        (FRAME[["b", "a"]][["a", "b"]], FRAME),
        (pd.concat([FRAME[:1], FRAME[1:]]), FRAME),
        (pd.DataFrame(np.asfortranarray(GRID)), pd.DataFrame(GRID)),
        (pd.Series([1, 5], dtype="Int64").where([True, False]), pd.Series([1, None], dtype="Int64")),
        (pl.Series(["a", "b", "c"])[1:], pl.Series(["b", "c"])),
        (pl.Series([1, 2, None, 4])[2:], pl.Series([None, 4])),
        (pl.concat([pl.Series([1]), pl.Series([2])], rechunk=False), pl.Series([1, 2])),
        (pl.concat([pl.Series(["x"]), pl.Series([None, "z"])], rechunk=False), pl.Series(["x", None, "z"])),
        (pl.Series([[0], [1, None], [], None])[1:], pl.Series([[1, None], [], None])),
        (pl.Series([1, None, 3]).drop_nulls(), pl.Series([1, 3])),
        (pl.Series(["a", None, "c"]).drop_nulls(), pl.Series(["a", "c"])),
        (pl.Series([[1], None, [3]]).drop_nulls(), pl.Series([[1], [3]])),
        (pl.Series([True, False, None, True])[1:], pl.Series([False, None, True])),
        (
            pl.Series([{"a": 1}, {"a": None}, None])[1:],
            pl.Series([{"a": None}, None], dtype=pl.Struct({"a": pl.Int64})),
        ),
        (pa.array([0, 1, 2, 3])[1:3], pa.array([1, 2])),
        (pa.array(["a", None, "c", "dd"])[1:], pa.array([None, "c", "dd"])),
        (pa.array([True, False, True])[1:], pa.array([False, True])),
        (pa.array([[1], [2, 3], None])[1:], pa.array([[2, 3], None])),
        (pa.array([{"a": 1}, {"a": 2}])[1:], pa.array([{"a": 2}])),
        (pa.array([1, 2, 3]).dictionary_encode()[1:], pa.array([2, 3]).dictionary_encode()),
        (pa.chunked_array([[1], [], [2]]), pa.chunked_array([[1, 2]])),
        (pa.chunked_array([["a", None], ["b"]]), pa.chunked_array([["a"], [None, "b"]])),
    ],
)
def test_equal_content_has_one_digest_however_it_is_laid_out(one, other):
    assert hash_value(one) == hash_value(other)


def test_a_value_under_a_null_is_no_content():
    mask = pa.py_buffer(b"\x01")
    one, other = (
        pa.Array.from_buffers(pa.int64(), 2, [mask, pa.py_buffer(np.array([1, leftover]))]) for leftover in (7, 8)
    )
    assert hash_value(one) == hash_value(other)


def test_a_cached_property_does_not_change_the_digest():
    value = Measured(2)
    before = hash_value(value)
    assert value.double == 4
    assert hash_value(value) == before


def test_shared_values_are_hashed_once():
    value: object = [1]
    for _ in range(80):
        value = [value, value]
    assert hash_value(value) == hash_value(value)


def test_a_fitted_estimator_is_known_by_its_parameters_and_state():
    from sklearn import linear_model

    rows, target = np.arange(6.0).reshape(-1, 1), np.arange(6.0)
    fitted = [linear_model.Ridge(alpha=alpha).fit(rows, target) for alpha in (1, 1, 2)]
    assert hash_value(fitted[0]) == hash_value(fitted[1])
    assert len({hash_value(fitted[0]), hash_value(fitted[2]), hash_value(linear_model.Ridge(alpha=1))}) == 3


class Parent:
    pass


def cyclic():
    node = Parent()
    node.children = [node]
    return node


def test_a_list_that_contains_itself_is_refused():
    value = [1]
    value.append(value)
    with pytest.raises(Unhashable, match=r"^\[1\]: cannot hash list that contains itself"):
        hash_value(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: io.TextIOWrapper(io.BytesIO()), r"^cannot hash _io\.TextIOWrapper \(an open file\)"),
        (threading.Lock, r"^cannot hash _thread\.lock"),
        (threading.Thread, r"a thread"),
        (lambda: (item for item in ()), r"a generator is used up"),
        (lambda: iter([1]), r"an iterator is used up"),
        (lambda: pl.LazyFrame({"a": [1]}), r"collect\(\) it first"),
        (lambda: {"a": [Point(1, threading.Lock())]}, r"^\['a'\]\[0\]\.y: cannot hash _thread\.lock"),
        (lambda: pd.DataFrame({"x": [1, threading.Lock()]}), r"^\['x'\]\[1\]: cannot hash _thread\.lock"),
        (lambda: np.array([threading.Lock()]), r"^\[0\]: cannot hash"),
        (cyclic, r"^\.children\[0\]: cannot hash .*Parent that contains itself"),
    ],
)
def test_what_cannot_be_hashed_is_refused_with_its_path(make, message):
    with pytest.raises(Unhashable, match=message):
        hash_value(make())


def test_a_refusal_names_the_input_and_survives_pickling():
    import pickle

    with pytest.raises(Unhashable, match=r"^input df\['x'\]\[1\]: cannot hash _thread\.lock$") as caught:
        value_part("input", "df", {"x": [0, threading.Lock()]})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_nesting_too_deep_for_python_is_refused():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(Unhashable, match=r"^cannot hash list: nested too deeply"):
        hash_value(value)
    with pytest.raises(Unhashable, match=r"^input x: cannot hash list: nested too deeply"):
        value_part("input", "x", value)


PROGRAM = textwrap.dedent("""
    import collections, dataclasses, enum, re, logging, pathlib, uuid
    import numpy as np, pandas as pd, polars as pl, pyarrow as pa
    from prefect_nb.model.code_fingerprints import code_parts
    from prefect_nb.model.fingerprints import combine, hash_value

    class Kind(enum.Enum):
        A = "a"

    @dataclasses.dataclass
    class Row:
        name: str
        tags: set = dataclasses.field(default_factory=set)
        def size(self): return len(self.tags & WORDS)

    WORDS = {"alpha", "beta", "gamma", 1, None}
    def task(row, extra=frozenset({"x", "y", "z"})): return row.size() if "q" in {"q", "r", "s"} else Row

    frame = pd.DataFrame({"n": [1, 2], "s": ["x", None], "c": pd.Categorical(["u", "v"]), "o": [{"a", "b"}, 1.5]})
    values = [WORDS, {"b": 1, "a": {"z", "y"}}, Kind.A, Row("n", {"p", "q"}), Row, task, re.compile("a"), frame,
              logging.getLogger("x"), pl.DataFrame({"a": ["x"], "c": ["y"]}).with_columns(pl.col("c").cast(pl.Categorical)),
              pa.table({"a": ["x", None]}), np.float64(1), collections.Counter("hello"), pathlib.Path("a"), uuid.UUID(int=3)]
    print(*map(hash_value, values), combine(code_parts(task)))
""")


def test_digests_are_the_same_in_every_process(tmp_path):
    outputs = []
    for number, seed in enumerate(["0", "1", "4242"]):
        program = tmp_path / f"program_{number}.py"  # the name of the file must not matter either
        program.write_text(PROGRAM)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, str(program)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0]
    assert len(set(outputs)) == 1


def test_hashing_plain_values_imports_no_table_library():
    program = (
        "import sys; from prefect_nb.model.fingerprints import hash_value; hash_value([1, {'a': {2}}, 'x']);"
        "print([name for name in ('numpy', 'pandas', 'polars', 'pyarrow', 'scipy', 'pydantic') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_key_depends_on_neither_order_nor_details():
    one, other = Part("input", "a", "1", {"type": "int"}), Part("global", "b", "2")
    assert combine([one, other]) == combine([other, Part("input", "a", "1")])
    assert combine([one]) != combine([one, other])
    assert combine([Part("input", "ab", "c")]) != combine([Part("input", "a", "bc")])


def inputs(**values):
    return [value_part("input", name, value) for name, value in values.items()]


WIDE = pd.DataFrame({f"c{n}": [n, n] for n in range(14)})


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (None, inputs(x=1), "first run with this code"),
        ([], inputs(x=1), "first run with this code"),
        (inputs(x=1), inputs(x=1), "same code and inputs as before"),
        (inputs(x=1), inputs(x=2), "input `x`: was 1, is now 2"),
        (inputs(x=1), inputs(x="1"), "input `x`: was int, is now str"),
        (inputs(x="secret"), inputs(x="public"), "input `x` changed"),
        (inputs(x=1), inputs(x=1, y=2), "ran because it now depends on input `y`"),
        (inputs(df=WIDE), inputs(df=WIDE.assign(c3=0, c7=0)), "input `df`: 2 of 14 columns differ"),
        (inputs(df=WIDE), inputs(df=WIDE.assign(new=0)), "input `df`: new column new"),
        (inputs(df=WIDE), inputs(df=WIDE.set_index([[5, 6]])), "input `df`: the index differs"),
        (inputs(d={"a": 1, "b": 2}), inputs(d={"a": 1, "b": 3}), "input `d`: 1 of 2 keys differ"),
        (inputs(a=GRID), inputs(a=GRID.astype("f4")), "input `a`: dtype was <f8, is now <f4"),
        (inputs(a=GRID), inputs(a=GRID[:2]), "input `a`: shape was 3x4, is now 2x4"),
        (inputs(a=GRID), inputs(a=GRID + 1), "input `a` changed"),
        (inputs(p=Point(1)), inputs(p=Point(2)), "input `p`: 1 of 2 attributes differ"),
        ([Part("run", "flow run", "1")], [Part("run", "flow run", "2")], "ran because this is another run"),
        (
            [Part("source", "clean", "1"), *inputs(x=1)],
            [*inputs(x=2), Part("source", "clean", "2")],
            "ran because `clean()` changed",
        ),
    ],
)
def test_the_first_difference_is_told_in_words(before, after, words):
    assert explain(before, after) == words


def test_details_are_bounded():
    wide = pd.DataFrame({f"c{n}": [n] for n in range(200)})
    part = value_part("input", "df", wide)
    assert part.detail is not None
    assert len(part.detail) <= 64
    other = wide.copy()
    other["c1"] = 9
    assert explain([part], [value_part("input", "df", other)]) == "input `df`: at least 1 of 200 columns differ"
