"""Which values serializers take, how they give them back, and what they say about the others."""

import io
import math
import subprocess
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prefect_nb.exceptions import ConfigurationError, SerializationError
from prefect_nb.results import serializers
from prefect_nb.results.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
    by_type,
    decode,
    encode,
    resolve_serializer,
)


@dataclass
class Point:
    x: int
    y: int


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


def test_json_is_plain_json_text() -> None:
    assert JSONSerializer().dumps({"a": (1, 2.5, None)}) == b'{"a":[1,2.5,null]}'


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"a": [1, {2}]}, "$.a[1]"),
        ({"a": {1: 2}}, "key 1 (int) at $.a"),
        ([math.nan], "$[0]"),
        ((1, math.inf), "$[1]"),
        (Point(1, 2), "Point"),
        ({"x": np.float64(1.0)}, "numpy.float64 (at $.x)"),
        (OrderedDict(a=1), "OrderedDict"),
        (b"bytes", "bytes"),
    ],
    ids=str,
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


@pytest.mark.parametrize("library", ["zlib", "bz2", "lzma"])
def test_compressed_bytes_are_smaller_and_tell_their_library(library: str) -> None:
    value = ["the same words"] * 1_000
    blob = CompressedSerializer("json", library).dumps(value)

    assert len(blob) < len(JSONSerializer().dumps(value)) / 10
    assert CompressedJSONSerializer().loads(blob) == value


@pytest.mark.parametrize("blob", [b"", b"plain", b"\x78\x9cbroken", b"BZh9broken", b"\xfd7zXZ\x00broken"])
def test_bytes_that_are_not_compressed_are_refused(blob: bytes) -> None:
    with pytest.raises(SerializationError):
        CompressedPickleSerializer().loads(blob)


@pytest.mark.parametrize("name", ["pickle", "json", "numpy"])
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
    monkeypatch.setattr(serializers, "_registered", dict(serializers._registered))


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
