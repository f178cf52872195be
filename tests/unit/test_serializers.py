"""Which values serializers take, how they give them back, and what they say about the others."""

import io
import math
import pickle
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from PIL import Image
from pydantic import BaseModel, SecretStr, ValidationError

from prefect_nb.exceptions import ConfigurationError, SerializationError
from prefect_nb.results import serializer_base
from prefect_nb.results.serializer_base import Serializer
from prefect_nb.results.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    by_type,
    decode,
    encode,
    encode_by_type,
    resolve_serializer,
)


@dataclass
class Point:
    x: int
    y: int


class Colour(Enum):
    RED = 1


class Place(BaseModel):
    at: datetime
    points: list[Point]


def _local_class() -> Any:
    @dataclass
    class Local:
        x: int

    return Local


Local = _local_class()


class RefusesToReduce:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


class RefusesToSpeak:
    def __reduce__(self) -> Any:
        raise Mute


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class PicklesButDoesNotUnpickle:
    def __reduce__(self) -> Any:
        return (_cannot_build, ())


def _cannot_build() -> None:
    raise LookupError("the factory is gone")


def _deep_list() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        -(10**30),
        1.5,
        "text \ud800 é",
        b"\x00\xff",
        (1, [2, {3}]),
        Point(1, 2),
        datetime(2024, 1, 2, tzinfo=UTC),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["pickle", "compressed/pickle"])
def test_pickle_gives_back_what_it_was_given(name: str, value: Any) -> None:
    serializer = resolve_serializer(name)

    assert serializer.loads(serializer.dumps(value)) == value


@pytest.mark.parametrize("value", [None, True, 12, -1.5, "é\n\ud800", [], {}, {"a": [1, {"b": None}]}], ids=repr)
@pytest.mark.parametrize("name", ["json", "compressed/json"])
def test_json_gives_back_what_it_was_given(name: str, value: Any) -> None:
    serializer = resolve_serializer(name)

    assert serializer.loads(serializer.dumps(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        frozenset({"a"}),
        deque([1, {2}]),
        {"deep": [{(1, 2)[0]}, {"x": {date(2024, 1, 2)}}]},
        b"bytes \xff",
        1 + 2j,
        datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        datetime(2024, 1, 2, tzinfo=UTC).replace(tzinfo=None),
        date(2024, 1, 2),
        time(1, 2, 3),
        timedelta(days=-1, microseconds=1),
        Decimal("1.10"),
        UUID(int=5),
        Path("a/b"),
        Colour.RED,
        Point(1, 2),
        Place(at=datetime(2024, 1, 2, tzinfo=UTC), points=[Point(1, 2)]),
        [math.inf, -math.inf],
    ],
    ids=ascii,
)
@pytest.mark.parametrize("name", ["json", "compressed/json"])
def test_json_gives_back_what_it_has_no_word_for(name: str, value: Any) -> None:
    copy = decode(*encode(value, name))

    assert copy == value
    assert type(copy) is type(value)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("k"), ValueError()], ids=repr)
def test_json_gives_back_exceptions(error: Exception) -> None:
    copy = JSONSerializer().loads(JSONSerializer().dumps(error))

    assert type(copy) is type(error)
    assert copy.args == error.args


def test_json_gives_back_nan() -> None:
    assert math.isnan(JSONSerializer().loads(JSONSerializer().dumps(math.nan)))


@pytest.mark.parametrize(
    "blob",
    [
        b'{"__class__":"os.system","data":"true"}',
        b'{"__class__":"subprocess.Popen","data":["true"]}',
        b'{"__class__":"no.such.module.Class","data":1}',
        b'{"__class__":7,"data":1}',
        b'{"__class__":"builtins.type","data":1}',
        b'{"__exc_type__":"builtins.eval","message":"1"}',
        b'{"__exc_type__":"builtins.int","message":"1"}',
    ],
)
def test_json_makes_no_objects_but_data(blob: bytes) -> None:
    with pytest.raises(SerializationError):
        JSONSerializer().loads(blob)


def test_json_options() -> None:
    value = {"b": 1, "a": Decimal(1)}
    ours = JSONSerializer(
        object_encoder=f"{__name__}.own_encoder",
        object_decoder=f"{__name__}.own_decoder",
        dumps_kwargs={"sort_keys": True},
    )
    name, blob = encode(value, ours)

    assert blob == b'{"a":{"decimal":"1"},"b":1}'
    assert decode(name, blob) == value
    assert JSONSerializer(object_decoder=None).loads(b'{"__class__":"builtins.set","data":[]}') == {
        "__class__": "builtins.set",
        "data": [],
    }
    with pytest.raises(SerializationError, match="set cannot be written"):
        JSONSerializer(object_encoder=None).dumps({1})


def own_encoder(value: Any) -> Any:
    return {"decimal": str(value)}


def own_decoder(found: dict[str, Any]) -> Any:
    return Decimal(found["decimal"]) if "decimal" in found else found


def test_serializers_of_equal_options_are_equal() -> None:
    assert PickleSerializer() == PickleSerializer(picklelib="cloudpickle")
    assert PickleSerializer() != PickleSerializer(picklelib="pickle")
    assert JSONSerializer() != PickleSerializer()
    assert CompressedSerializer(serializer="json") == CompressedSerializer("json", "zlib")
    assert CompressedSerializer(serializer="json") != CompressedSerializer("pickle")
    assert Serializer(type="json", dumps_kwargs={"indent": 2}) == JSONSerializer(dumps_kwargs={"indent": 2})
    assert type(Serializer(type="compressed/pickle")) is CompressedPickleSerializer
    assert "picklelib='pickle'" in repr(PickleSerializer(picklelib="pickle"))
    assert pickle.loads(pickle.dumps(JSONSerializer(jsonlib="json"))) == JSONSerializer()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PickleSerializer(picklelib="nope"), "Failed to import requested pickle library: 'nope'"),
        (lambda: PickleSerializer(picklelib="math"), "Pickle library at 'math' does not have a 'dumps' method"),
        (
            lambda: CompressedSerializer("json", "math"),
            "Compression library at 'math' does not have a 'compress' method",
        ),
        (lambda: JSONSerializer(dumps_kwargs={"default": 1}), "`default` cannot be provided. Use `object_encoder`"),
        (
            lambda: JSONSerializer(loads_kwargs={"object_hook": 1}),
            "`object_hook` cannot be provided. Use `object_decoder`",
        ),
        (lambda: PickleSerializer(bogus=1), "Extra inputs are not permitted"),
    ],
)
def test_options_that_do_not_fit_are_refused_as_pydantic_does(make: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make()

    assert message in str(caught.value)


def test_what_reading_needs_is_in_the_name() -> None:
    for serializer in (
        PickleSerializer(picklelib="pickle"),
        JSONSerializer(loads_kwargs={"parse_float": None}),
        CompressedSerializer(PickleSerializer(picklelib="pickle"), "gzip"),
    ):
        name, blob = encode([1.5], serializer)
        assert resolve_serializer(name).loads(blob) == [1.5]
        assert decode(name, blob) == [1.5]
    assert JSONSerializer(dumps_kwargs={"indent": 1}).name == "json"
    assert PickleSerializer(picklelib="pickle").name == 'pickle?{"picklelib": "pickle"}'


def test_json_is_plain_json_text() -> None:
    assert JSONSerializer().dumps({"a": (1, 2.5, None)}) == b'{"a":[1,2.5,null]}'


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"a": [1, threading]}, "$.a[1]"),
        ({"a": {1: 2}}, "key 1 (int) at $.a"),
        ({"x": np.int64(1)}, "numpy.int64 (at $.x)"),
        ({1, frozenset({("x", range(2))})}, "range"),
        (object(), "object"),
        (SecretStr("canary"), "SecretStr"),
        (ValueError("one", "two"), "other arguments"),
        ({"a": {"__class__": "builtins.set", "data": []}}, "$.a would come back"),
        (Local(1), "Local"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_json_names_the_part_it_cannot_hold(value: Any, part: str) -> None:
    with pytest.raises(SerializationError) as caught:
        JSONSerializer().dumps(value)

    assert part in str(caught.value)


@pytest.mark.parametrize("value", [_deep_list(), 10**5000], ids=["too deep", "too long a number"])
def test_json_refuses_what_python_cannot_write(value: Any) -> None:
    with pytest.raises(SerializationError):
        JSONSerializer().dumps(value)


def test_a_value_in_a_circle_is_refused_by_json_and_kept_by_pickle() -> None:
    circle: list[Any] = [1]
    circle.append(circle)

    with pytest.raises(SerializationError):
        JSONSerializer().dumps(circle)
    copy = PickleSerializer().loads(PickleSerializer().dumps(circle))
    assert copy[1] is copy


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (threading.Lock, "lock"),
        (lambda: {"deep": [threading.Lock()]}, "lock"),
        (lambda: (n for n in range(3)), "generator"),
        (RefusesToReduce, "RefusesToReduce"),
        (RefusesToSpeak, "message could not be read"),
        (_deep_list, "list"),
    ],
)
@pytest.mark.parametrize("name", ["pickle", "compressed/pickle"])
def test_pickle_refuses_and_says_what_to_do(name: str, make: Any, named: str) -> None:
    with pytest.raises(SerializationError) as caught:
        resolve_serializer(name).dumps(make())

    assert named in str(caught.value)
    assert "persist_result=False" in str(caught.value)


@pytest.mark.parametrize("mode", ["r", "w", "rb"])
def test_pickle_refuses_open_files(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "file.txt"
    path.write_text("text")

    with path.open(mode) as file, pytest.raises(SerializationError):
        PickleSerializer().dumps([file])


def test_pickle_keeps_files_in_memory() -> None:
    copy = PickleSerializer().loads(PickleSerializer().dumps(io.StringIO("text")))

    assert copy.read() == "text"


def test_what_pickles_but_does_not_unpickle_says_so_when_read() -> None:
    blob = PickleSerializer().dumps(PicklesButDoesNotUnpickle())

    with pytest.raises(SerializationError, match="the factory is gone"):
        PickleSerializer().loads(blob)


def test_a_lambda_is_kept() -> None:
    assert PickleSerializer().loads(PickleSerializer().dumps(lambda x: x + 1))(1) == 2


_WRITER = """
import sys
from prefect_nb.results.serializers import PickleSerializer

class Row:
    def __init__(self, n): self.n = n
    def double(self): return helper(self.n)

def helper(n): return 2 * n

value = {"rows": [Row(1), Row(2)], "text": "__main__"}
data = PickleSerializer().dumps(value)
assert isinstance(PickleSerializer().loads(data)["rows"][0], Row)
open(sys.argv[1], "wb").write(data)
"""
_READER = """
import sys
from prefect_nb.results.serializers import PickleSerializer

value = PickleSerializer().loads(open(sys.argv[1], "rb").read())
print([row.double() for row in value["rows"]], value["text"])
"""


def test_objects_of_a_notebook_class_can_be_read_by_another_kernel(tmp_path: Path) -> None:
    for program in (_WRITER, _READER):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "blob")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    assert done.stdout == "[2, 4] __main__\n"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype="<i4").reshape(3, 4),
        np.asfortranarray(np.ones((3, 4))),
        np.arange(10)[::3],
        np.array(7.5),
        np.empty((0, 3), dtype=">f8"),
        np.array(["a", "écu"]),
        np.array([b"x", b"yz"]),
        np.array(["2024-01-02", "NaT"], dtype="datetime64[25s]"),
        np.array([1, 2], dtype="timedelta64[ms]"),
        np.array([True, False]),
        np.array([1 + 2j, np.nan]),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_plain_arrays_are_kept_exactly_without_pickle(array: Any) -> None:
    assert by_type(array) == "numpy"

    name, blob = encode(array, "numpy")
    copy = decode(name, blob)

    assert blob.startswith(b"\x93NUMPY")
    assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
    assert copy.flags.c_contiguous is not (array.flags.f_contiguous and not array.flags.c_contiguous)
    np.testing.assert_array_equal(copy, array)
    copy[...] = copy  # writable


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, "a", None], dtype=object),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.ma.masked_array([1, 2], mask=[False, True]),
        np.array([1], dtype=np.dtype("i4", metadata={"unit": "m"})),
        np.float64(1.0),
        [1, 2],
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_anything_but_a_plain_array_is_pickled(value: Any) -> None:
    assert by_type(value) == "pickle"

    copy = decode(*encode(value, "pickle"))

    assert type(copy) is type(value)
    np.testing.assert_array_equal(copy, value)


def test_a_data_frame_comes_back_exactly() -> None:
    frame = pd.DataFrame(
        {
            "category": pd.Categorical(["a", "b", "a"], categories=["b", "a", "never"], ordered=True),
            "time": pd.date_range("2024-03-30", periods=3, freq="D", tz="Europe/Berlin"),
            ("tuple", 1): [1, "mixed", None],
            3: pd.array([1, None, 3], dtype="Int64"),
        },
        index=pd.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)], names=["letter", None]),
    )
    frame.attrs["source"] = "table 1"

    assert by_type(frame) == "pickle"
    copy = decode(*encode(frame, "pickle"))

    pd.testing.assert_frame_equal(copy, frame, check_freq=True, check_column_type="exact")
    assert copy.attrs == {"source": "table 1"}


def plain_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "i": np.arange(4, dtype="int32"),
            "f": [1.0, math.nan, -0.0, math.inf],
            "s": ["a", "é", "", None],
            "t": pd.to_datetime(["2024-01-01", "2024-01-02", None, "2024-01-04"]),
            "b": [True, False, True, False],
            "n": pd.array([1, None, 3, 4], dtype="Int64"),
            "c": pd.Categorical(["x", "y", "x", "y"]),
            "z": pd.date_range("2024-03-30", periods=4, tz="UTC"),
        }
    )


def _with(**changes: Any) -> pd.DataFrame:
    frame = plain_frame()
    for name, value in changes.items():
        setattr(frame, name, value)
    return frame


@pytest.mark.parametrize(
    "frame",
    [
        plain_frame(),
        _with(index=pd.Index([3, 1, 4, 1], name="key")),
        _with(index=pd.Index(["a", "b", "c", "d"])),
        _with(index=pd.RangeIndex(2, 10, 2, name="every second")),
    ],
    ids=["plain", "numbers", "text", "range"],
)
def test_a_data_frame_that_parquet_holds_exactly_is_kept_as_parquet(frame: pd.DataFrame) -> None:
    name, blob = encode_by_type(frame, exact_formats=True)
    copy = decode(name, blob)

    assert name == "parquet"
    pd.testing.assert_frame_equal(
        copy, frame, check_exact=True, check_freq=True, check_column_type="exact", check_index_type="exact"
    )
    assert list(copy.dtypes) == list(frame.dtypes)
    assert np.signbit(copy["f"].to_numpy()).tolist() == np.signbit(frame["f"].to_numpy()).tolist()
    if len(copy):
        copy.loc[copy.index[0], "i"] = 9  # writable


@pytest.mark.parametrize(
    "frame",
    [
        plain_frame().iloc[:0],
        pd.DataFrame({"o": np.array([1, "a", None], dtype=object)}),
        pd.DataFrame({"lists": [[1], [2, 3]]}),
        pd.DataFrame({3: [1]}),
        pd.DataFrame({("a", "b"): [1]}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame({"x": [1 + 2j]}),
        pd.DataFrame({"p": pd.period_range("2024", periods=2, freq="M")}),
        pd.DataFrame({"i": pd.interval_range(0, 2)}),
        pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2024", periods=2, freq="D")),
        pd.DataFrame({"a": [1]}).rename_axis(columns="kind"),
        pd.DataFrame({"h": np.array([1.5], dtype="float16")}),
    ],
    ids=lambda frame: ascii(list(frame.columns)) + str(frame.dtypes.iloc[0]),
)
def test_a_data_frame_comes_back_exactly_whatever_the_format(frame: pd.DataFrame) -> None:
    name, blob = encode_by_type(frame, exact_formats=True)
    copy = decode(name, blob)

    pd.testing.assert_frame_equal(copy, frame, check_exact=True, check_freq=True, check_column_type="exact")
    assert list(copy.dtypes) == list(frame.dtypes)
    assert copy.columns.equals(frame.columns)
    assert copy.columns.name == frame.columns.name


def test_attributes_of_a_data_frame_are_kept() -> None:
    frame = plain_frame()
    frame.attrs["unit"] = "m"

    assert decode(*encode_by_type(frame, exact_formats=True)).attrs == {"unit": "m"}


def test_a_frame_of_a_subclass_is_pickled() -> None:
    class Frame(pd.DataFrame):
        pass

    assert by_type(Frame({"a": [1]}), exact_formats=True) == "pickle"


def test_tables_of_other_libraries_are_kept_as_parquet() -> None:
    frame = pl.DataFrame(
        {"a": [1, None], "s": ["x", None], "d": [date(2024, 1, 2), None], "l": [[1, 2], []], "c": [1.5, math.nan]}
    )
    table = pa.table(
        {"a": pa.array([1, None], pa.int16()), "s": ["x", None], "t": pa.array([0, 1], pa.timestamp("us", "UTC"))}
    )

    for value in (frame, table):
        name, blob = encode_by_type(value, exact_formats=True)
        copy = decode(name, blob)
        assert name == "parquet"
        assert type(copy) is type(value)
        assert copy.schema == value.schema
        assert copy.equals(value)


def test_parquet_by_name_takes_only_what_comes_back() -> None:
    assert decode(*encode(plain_frame(), "parquet")).equals(plain_frame())
    with pytest.raises(SerializationError, match="exactly"):
        encode(pd.DataFrame({"lists": [[1], [2]]}), "parquet")
    with pytest.raises(SerializationError, match="not a list"):
        encode([1], "parquet")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_pictures_are_kept_as_png(mode: str) -> None:
    picture = Image.effect_noise((13, 7), 50).convert(mode)

    name, blob = encode_by_type(picture, exact_formats=True)
    copy = decode(name, blob)

    assert name == "image"
    assert blob.startswith(b"\x89PNG")
    assert type(copy) is Image.Image
    assert copy == picture


@pytest.mark.parametrize("mode", ["P", "F", "CMYK", "I"])
def test_pictures_that_png_would_change_are_pickled(mode: str) -> None:
    picture = Image.effect_noise((13, 7), 50).convert(mode)

    name, blob = encode_by_type(picture, exact_formats=True)

    assert name == "pickle"
    assert decode(name, blob) == picture


def test_a_figure_is_pickled_and_by_name_becomes_a_picture() -> None:
    figure = Figure(figsize=(1, 1))

    assert by_type(figure, exact_formats=True) == "pickle"
    assert decode(*encode(figure, "image")).size == (100, 100)


@pytest.mark.parametrize("library", ["zlib", "gzip", "bz2", "lzma"])
def test_compressed_bytes_are_smaller_and_tell_their_library(library: str) -> None:
    value = ["the same words"] * 1_000
    blob = CompressedSerializer("json", library).dumps(value)

    assert len(blob) < len(JSONSerializer().dumps(value)) / 10
    assert CompressedJSONSerializer().loads(blob) == value


@pytest.mark.parametrize("blob", [b"", b"plain", b"\x78\x9cbroken", b"BZh9broken", b"\xfd7zXZ\x00broken"])
def test_bytes_that_are_not_compressed_are_refused(blob: bytes) -> None:
    with pytest.raises(SerializationError):
        CompressedPickleSerializer().loads(blob)


@pytest.mark.parametrize("name", ["pickle", "json", "numpy", "parquet", "image"])
def test_garbage_is_refused_when_read(name: str) -> None:
    with pytest.raises(SerializationError):
        resolve_serializer(name).loads(b"\xff\x00garbage")


@pytest.mark.parametrize(
    "name", ["os", "builtins.eval", "marshal", "compressed/os", "pickle/", "", "../json", "compressed/", None, 3]
)
def test_a_name_is_never_a_path_to_code(name: Any) -> None:
    with pytest.raises(ConfigurationError):
        resolve_serializer(name)
    if isinstance(name, str):
        with pytest.raises(SerializationError):
            decode(name, b"")


@pytest.fixture
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serializer_base, "registered", dict(serializer_base.registered))


@pytest.mark.usefixtures("own_names")
def test_a_serializer_of_ones_own_is_known_by_its_type() -> None:
    class Reversed(Serializer):
        type = "reversed"

        def dumps(self, obj: Any) -> bytes:
            return obj[::-1].encode()

        def loads(self, blob: bytes) -> Any:
            return blob.decode()[::-1]

    assert encode("abc", Reversed()) == ("reversed", b"cba")
    assert decode("reversed", b"cba") == "abc"
    assert decode(*encode("abc", CompressedSerializer(Reversed()))) == "abc"
    with pytest.raises(SerializationError, match=r"type int .* 'reversed'"):
        encode(3, "reversed")


def test_a_serializer_of_ones_own_needs_a_name_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match="'pickle' is taken"):
        type("Mine", (PickleSerializer,), {})
    with pytest.raises(ConfigurationError, match="'json' is taken"):
        type("Mine", (Serializer,), {"type": "json"})
    with pytest.raises(ConfigurationError, match="needs a `type`"):
        resolve_serializer(type("Nameless", (Serializer,), {})())
