"""Typed parameters: from text or from objects, checked before there is a run, and in the kernel what they were meant to be."""

import datetime
import decimal
import enum
import math
import random
import re
import string
import uuid
from pathlib import Path
from typing import Any

import pytest
from notebook_runs import read, text_of
from pydantic import SecretStr

from prefect_nb import Flow
from prefect_nb.exceptions import NotebookError, ParameterBindError, ParameterTypeError
from prefect_nb.home import Home
from prefect_nb.model.notebook_parameters import check_parameters, override_source, read_parameters
from prefect_nb.model.parameters import parameter_schema
from prefect_nb.service import running

CELL = """\
from __future__ import annotations
import datetime, enum, uuid
from datetime import date, timedelta as Span
from decimal import Decimal
from pathlib import Path
from typing import Literal

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

since: date = date(2024, 1, 1)  # first day
at: datetime.datetime | None = None
opens: datetime.time = datetime.time(8)
every: Span = Span(minutes=5)
root: Path = Path("data") / "raw"
color: Color = Color.RED
level: Level = Level.LOW
mode: Literal["fast", "slow"] = "fast"
sizes: list[int] = [1]
days: list[date] = []
options: dict = {}
price: Decimal = Decimal("1.10")
key: uuid.UUID | None = None
until = since + Span(days=1)
text_day: date = "2024-01-01"
"""
NAMES = [line.partition(" ")[0].rstrip(":") for line in CELL.splitlines() if re.match(r"\w+(:| =)", line)]
RETURN = f"from prefect_nb import return_\nreturn_({{n: repr(globals()[n]) for n in {NAMES!r}}})"

TEXTS = [
    "since=2026-02-01",
    "at=2026-02-01T12:00:00+01:00",
    "opens=09:30",
    "every=1.5h",
    "root=out/x.csv",
    "color=blue",
    "level=HIGH",
    "mode=slow",
    "sizes=3",
    "sizes=5",
    'days=["2026-01-01"]',
    'options={"a": [1]}',
    "price=2.50",
    "key=12345678-1234-5678-1234-567812345678",
    "text_day=2026-03-01",
]
OBJECTS = {
    "since": datetime.date(2026, 2, 1),
    "at": datetime.datetime(2026, 2, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    "opens": datetime.time(9, 30),
    "every": datetime.timedelta(hours=1.5),
    "root": Path("out/x.csv"),
    "level": 2,
    "mode": "slow",
    "sizes": [3, 5],
    "days": [datetime.date(2026, 1, 1)],
    "options": {"a": [1]},
    "price": decimal.Decimal("2.50"),
    "key": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "text_day": datetime.date(2026, 3, 1),
}
IN_THE_KERNEL = {
    "since": "datetime.date(2026, 2, 1)",
    "at": ("datetime.datetime(2026, 2, 1, 12, 0, tzinfo=datetime.timezone(datetime.timedelta(seconds=3600)))"),
    "opens": "datetime.time(9, 30)",
    "every": "datetime.timedelta(seconds=5400)",
    "root": "PosixPath('out/x.csv')",
    "color": "<Color.BLUE: 'blue'>",
    "level": "<Level.HIGH: 2>",
    "mode": "'slow'",
    "sizes": "[3, 5]",
    "days": "[datetime.date(2026, 1, 1)]",
    "options": "{'a': [1]}",
    "price": "Decimal('2.50')",
    "key": "UUID('12345678-1234-5678-1234-567812345678')",
    "until": "datetime.date(2026, 2, 2)",  # derived from `since`
    "text_day": "'2026-03-01'",  # the notebook works with text, and goes on to
}


def test_text_of_the_command_line_arrives_as_objects(write: Any, history: Any):
    source = write((CELL, "parameters"), RETURN)

    finished = running.run(running.prepare(str(source), texts=TEXTS))

    assert finished.error is None
    assert finished.state.result() == IN_THE_KERNEL
    assert history.only_run().parameters["since"] == "2026-02-01"
    injected = next(
        c for c in read(finished.run.output_path).cells if c.metadata.get("tags") == ["injected-parameters"]
    )
    lines = injected.source.splitlines()
    assert lines[:2] == ["# Parameters", "from __future__ import annotations"]
    assert "import datetime as _datetime" in lines
    assert "since: date = _datetime.date.fromisoformat('2026-02-01')  # first day" in lines
    assert "color: Color = Color.BLUE" in lines
    metadata = read(finished.run.output_path).metadata.papermill.parameters
    assert (metadata["since"], metadata["color"], metadata["root"]) == ("2026-02-01", "BLUE", "out/x.csv")


def test_objects_of_python_arrive_as_they_are(write: Any):
    class Color(enum.Enum):  # the notebook's own, as its author has it elsewhere
        BLUE = "blue"

    notebook = Flow.from_notebook(write((CELL, "parameters"), RETURN))

    assert notebook(color=Color.BLUE, **OBJECTS) == IN_THE_KERNEL


def test_all_problems_are_told_at_once_and_nothing_runs(write: Any, history: Any):
    notebook = Flow.from_notebook(write((CELL, "parameters"), RETURN))

    with pytest.raises(ParameterTypeError) as caught:
        notebook(
            since="soon", at=5, opens="25:00", every="long", root="", color="green", level=3, mode="other",
            sizes=[1, "b"], days=["x"], options=[1], price="much", key="x",
        )  # fmt: skip

    lines = str(caught.value).splitlines()[1:]
    assert [line.partition(":")[0].removeprefix(" - ") for line in lines] == [
        "since", "at", "opens", "every", "root", "color", "level", "mode", "sizes", "days", "options", "price", "key",
    ]  # fmt: skip
    assert "one of RED ('red'), BLUE ('blue'), not str 'green'" in str(caught.value)
    assert "a length of time like '90s'" in str(caught.value)
    assert history.flow_runs() == []


def test_the_schema_knows_the_types(write: Any):
    schema = parameter_schema(Flow.from_notebook(write((CELL, "parameters"))).signature)

    assert schema["properties"]["since"] == {
        "type": "string", "format": "date", "title": "since", "position": 0, "description": "first day",
    } | {key: value for key, value in schema["properties"]["since"].items() if key == "default"}  # fmt: skip
    assert schema["definitions"]["Color"]["enum"] == ["red", "blue"]
    assert schema["properties"]["every"]["format"] == "duration"


def test_types_are_taken_from_defaults_that_are_objects():
    cell = (
        "from pathlib import Path\nimport datetime as d\nfrom datetime import datetime\n"
        "a = Path('x') / 'y'\nb = d.date(2024, 1, 1)\nc = datetime.now()\nd_ = 5\ne = d.date.today().isoformat()\n"
        "f = Path.cwd()\ng = len('x')"
    )

    kinds = {parameter.name: parameter.kind for parameter in read_parameters(cell)}

    assert kinds == {
        "a": Path, "b": datetime.date, "c": datetime.datetime, "d_": None, "e": None, "f": Path, "g": None,
    }  # fmt: skip


def test_an_enum_may_come_from_a_module_beside_the_notebook(write: Any, tmp_path: Path):
    (tmp_path / "shades.py").write_text(
        "from enum import Enum, auto\nclass Shade(Enum):\n    DARK = auto()\n    LIGHT = auto()\n"
    )
    cell = "import shades\nfrom shades import Shade\nshade: Shade = Shade.DARK\nother: shades.Shade = Shade.DARK"
    notebook = Flow.from_notebook(
        write((cell, "parameters"), "from prefect_nb import return_\nreturn_(f'{shade!r} {other!r}')")
    )

    assert notebook(shade="LIGHT", other="LIGHT") == "<Shade.LIGHT: 2> <Shade.LIGHT: 2>"
    with pytest.raises(ParameterTypeError, match="one of DARK, LIGHT, not str 'BRIGHT'"):
        notebook(shade="BRIGHT")


def test_a_name_of_somebody_elses_is_not_taken_for_ours():
    (parameter,) = read_parameters("from mylib import date\nday: date = date(1)")

    assert parameter.kind is None
    assert check_parameters([parameter], {"day": "whatever"}) == {"day": "whatever"}


@pytest.mark.parametrize(
    ("line", "good", "bad"),
    [
        ('n = 5  #@param {type:"integer"}', 7, "x"),
        ('n = 0.5 # @param {type: "number"}', 7.5, "x"),
        ('n = "a"  #@param ["a", "b"]', "b", "c"),
        ('n = True  #@param {type:"boolean"}', False, "perhaps"),
        ('n = "2024-01-01"  #@param {type:"date"}', "2026-01-01", "soon"),
    ],
)
def test_forms_of_colab_are_types(line: str, good: Any, bad: Any):
    declared = read_parameters(line)

    assert check_parameters(declared, {"n": good}) == {"n": good}
    assert declared[0].help == ""
    with pytest.raises(ParameterTypeError, match="n: Input should be"):
        check_parameters(declared, {"n": bad})


def test_forms_of_colab_that_bind_nothing():
    declared = read_parameters('a = "x"  #@param ["x", "y"] {allow-input: true}\nb = 1  #@param {type:"raw"}')

    assert check_parameters(declared, {"a": "z", "b": [1]}) == {"a": "z", "b": [1]}


CANARY = "hunter-two-canary"


def test_secrets_are_in_the_kernel_and_nowhere_else(write: Any, history: Any, tmp_path: Path):
    cell = (
        "from pydantic import SecretStr\nfrom typing import Optional\n"
        "token: SecretStr = SecretStr('')\nother: Optional[SecretStr] = None\nplain: 'SecretStr' = ''"
    )
    notebook = Flow.from_notebook(
        write(
            (cell, "parameters"),
            "from prefect_nb import task\n@task(log_prints=True)\ndef tell():\n    print('in a task', token.get_secret_value())\n"
            "tell()\nprint(token.get_secret_value(), type(plain).__name__)",
            "from prefect_nb import return_\n"
            "return_([len(token.get_secret_value()), other.get_secret_value() == 'abc', plain == 'xy'])",
        )
    )

    value = notebook(token=SecretStr(CANARY), other="abc", plain="xy")

    assert value == [len(CANARY), True, True]
    run = history.only_run()
    document = Path(str(run.output_path)).read_text()
    assert CANARY not in document
    assert "'abc'" not in document.replace("'abc', plain", "").replace("== 'abc'", "")  # too short to be looked for
    injected = read(run.output_path).cells[1].source
    assert "token: SecretStr = SecretStr(_os.environ['PREFECT_NB_PARAMETER_token_SECRET'])" in injected
    assert "plain: 'SecretStr' = _os.environ['PREFECT_NB_PARAMETER_plain_SECRET']" in injected
    assert read(run.output_path).metadata.papermill.parameters == dict.fromkeys(("token", "other", "plain"), "********")
    assert set(run.parameters.values()) == {"********"}
    Home.current().ledger.commit()
    assert any("in a task ********" in line.message for _, line in Home.current().store.logs())
    for path in (tmp_path / "prefect_nb_home").rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


def generated(number: int) -> list[Any]:
    """Values as hostile as JSON has them."""
    chance = random.Random(number)
    odd = ["'", '"', "'''", '"""', "\\", "\n", "\r", "\u2028", "\0", "\x85", "\u202e", "{x}", "$(touch canary)", "`id`",
           "%s", "!touch canary", "'); open('canary', 'w'); ('", "é", "\U0001f600"]  # fmt: skip
    letters = string.printable

    def text() -> str:
        return "".join(chance.choice([chance.choice(odd), chance.choice(letters)]) for _ in range(chance.randrange(8)))

    def value(depth: int) -> Any:
        kind = chance.randrange(9 if depth else 7)
        match kind:
            case 0:
                return chance.choice([None, True, False])
            case 1:
                return chance.choice([0, -1, 2**70, -(2**70), chance.randrange(-(10**9), 10**9)])
            case 2:
                return chance.choice([-0.0, 1e308, 5e-324, math.inf, -math.inf, math.nan, chance.uniform(-1e6, 1e6)])
            case 7:
                return [value(depth - 1) for _ in range(chance.randrange(4))]
            case 8:
                return {text(): value(depth - 1) for _ in range(chance.randrange(4))}
        return text()

    return [value(3) for _ in range(2000)]


def same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def test_2000_values_come_back_from_a_kernel_as_they_were_sent(write: Any, tmp_path: Path):
    notebook = Flow.from_notebook(
        write(("values = []", "parameters"), "from prefect_nb import return_\nreturn_(values)")
    )
    sent = generated(1)

    got = notebook(values=sent)

    assert len(got) == 2000
    assert [(a, b) for a, b in zip(sent, got, strict=True) if not same(a, b)] == []
    assert list(tmp_path.rglob("canary")) == []


def test_2000_objects_come_back_from_a_kernel_as_they_were_sent(write: Any):
    chance = random.Random(2)
    start = datetime.datetime(1, 1, 1)  # noqa: DTZ001 - naive ones, too
    moments = [start + datetime.timedelta(microseconds=chance.randrange(3 * 10**17)) for _ in range(500)]
    sent = {
        "moments": moments,
        "days": [moment.date() for moment in moments],
        "spans": [datetime.timedelta(microseconds=chance.randrange(-(10**15), 10**15)) for _ in range(500)],
        "paths": [
            Path("".join(chance.choice(string.printable[:-5] + "'\"\\") for _ in range(9)) + "x") for _ in range(250)
        ],
        "prices": [decimal.Decimal(chance.randrange(10**12)).scaleb(-chance.randrange(12)) for _ in range(250)],
    }
    cell = (
        "from datetime import *\nfrom pathlib import Path\nfrom decimal import Decimal\nimport datetime as dt\n"
        "moments: list[dt.datetime] = []\ndays: list[dt.date] = []\nspans: list[dt.timedelta] = []\n"
        "paths: list[Path] = []\nprices: list[Decimal] = []"
    )
    notebook = Flow.from_notebook(
        write(
            (cell, "parameters"),
            "from prefect_nb import return_\n"
            "return_(dict(moments=moments, days=days, spans=spans, paths=paths, prices=prices))",
        )
    )

    assert notebook(**sent) == sent


@pytest.mark.parametrize("value", [b"raw", (1, 2), {1}, datetime.date(2026, 1, 1), object(), Path("x"), 1j])
def test_values_of_other_types_are_refused_never_made_text(write: Any, history: Any, value: Any):
    notebook = Flow.from_notebook(write(("anything = '2024-01-01'\nnumber: int = 1\nrows: list = []", "parameters")))

    for name, given in (("anything", value), ("number", value), ("rows", [value])):
        with pytest.raises(ParameterTypeError, match=f"{name}.*cannot be given to a notebook"):
            notebook(**{name: given})
    assert history.flow_runs() == []


def test_a_date_with_a_time_is_no_date(write: Any):
    declared = read_parameters("from datetime import date\nday: date = date(2024, 1, 1)")

    with pytest.raises(ParameterTypeError, match="day: Input should be a date like"):
        check_parameters(declared, {"day": datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)})


@pytest.mark.parametrize(
    "name", ["x; import os", "x\nimport os", "__builtins__", "class", "get_ipython", "al\u202epha"]
)
def test_hostile_names_never_reach_a_cell(write: Any, history: Any, name: str):
    with pytest.raises(ParameterBindError):
        Flow.from_notebook(write((CELL, "parameters")))(**{name: datetime.date(2026, 1, 1)})
    with pytest.raises(ParameterBindError):
        override_source(CELL, {name: 1})
    assert history.flow_runs() == []


def test_repeated_options_make_a_list_and_only_for_lists(write: Any):
    source = write(("tags: list[str] = []\nn: int = 1", "parameters"))

    prepared = running.prepare(str(source), texts=["tags=a", "tags=5", "n=2"])
    assert prepared.parameters == {"tags": ["a", "5"], "n": 2}
    assert running.prepare(str(source), texts=["tags=a"]).parameters["tags"] == ["a"]
    assert running.prepare(str(source), texts=['tags=["a", "b"]']).parameters["tags"] == ["a", "b"]
    with pytest.raises(ParameterBindError, match="'n' is given twice"):
        running.prepare(str(source), texts=["n=1", "n=2"])


def test_a_resumed_run_has_its_typed_parameters_again(write: Any, history: Any, tmp_path: Path):
    gate = tmp_path / "gate"
    notebook = Flow.from_notebook(
        write(
            (CELL, "parameters"),
            f"import pathlib\nassert pathlib.Path({str(gate)!r}).exists()",
            "print(repr(since), repr(every), repr(color), repr(root))",
        )
    )
    notebook(since="2026-02-01", every="10m", color="blue", root="a/b", return_state=True)
    gate.touch()

    output = notebook.resume(history.only_run().id)

    assert text_of(read(output).cells[-1]) == (
        "datetime.date(2026, 2, 1) datetime.timedelta(seconds=600) <Color.BLUE: 'blue'> PosixPath('a/b')\n"
    )


def test_kernels_of_other_languages_are_refused_before_any_parameter_is_written(
    write: Any, history: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = tmp_path / "jupyter" / "kernels" / "shell"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["sh"], "display_name": "Shell", "language": "bash"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    with pytest.raises(NotebookError, match="'shell' runs bash; notebooks are run as flows with Python kernels only"):
        Flow.from_notebook(write(("name = ''", "parameters"), kernel="shell"))(
            name="$(touch canary) `touch canary` #{1}"
        )
    assert history.flow_runs() == []
