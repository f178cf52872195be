"""`preflight`: what would keep a notebook from running from top to bottom is found without running any of it."""

import json
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from prefect_nb.exceptions import NotebookError, ParameterBindError
from prefect_nb.service.preflight import Finding, Live, Report, preflight
from prefect_nb.service.preflight.findings import LEVELS

EXAMPLES = Path(__file__).parents[2] / "example_notebooks"
PARAMETERS = ("year: int = 2024", "parameters")
ABSENT = "/" + "home/ann/table.csv"  # a path of some other machine


def found(report: Report, *levels: str) -> list[tuple[str, str, int | None]]:
    return [(f.level, f.rule, f.cell) for f in report.findings if f.level in (levels or LEVELS)]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_examples_are_clean(path: Path):
    assert preflight(path).findings == ()


CLEAN = {
    "magics and shell": ["%matplotlib inline\n!ls -l\nfiles = !ls\nlen(files)\nlen?", "%time x = 3", "y = %time x + 1\ny", "%%bash\necho hi"],
    "cell magics with Python": ["%%time\na = 1", "%%capture out\nprint(a)", "out.show()", "%%timeit\nb = a", "%timeit -n 1 -r 1 a + 1"],
    "a run kept by %flow": ["%load_ext prefect_nb", "%flow run -o done", "done"],
    "flow and task cells": ["from prefect_nb import task", "%%flow nightly -o run -p n=3\nm = n + 1", "run, m", "raw = [1]",
                            "%%task clean(raw) -> tidy\nhalf = raw[:1]\ntidy = half", "tidy", "%%task\nrest = tidy", "rest"],
    "the magics of an extension": ["%load_ext autoreload\n%autoreload 2", "%load_ext prefect_nb", "%runs"],
    "an optional module": ["try:\n    import no_such_module_at_all as fast\nexcept ImportError:\n    fast = None", "fast"],
    "what the notebook installs": ["%pip install no_such_module_at_all", "import no_such_module_at_all"],
    "without a percent sign": ["pip install no-such-module-at-all", "import no_such_module_at_all"],
    "a file it writes itself": ["open('made.csv', 'w').close()", "open('made.csv')"],
    "a file a cell writes": ["%%writefile made.txt\nhello", "from pathlib import Path\nPath('made.txt').read_text()"],
    "a file that is fetched": ["!wget -q https://example.org/table.csv", "open('table.csv')"],
    "a file that may be missing": ["import os\nif os.path.exists('x.csv'):\n    pass"],
    "skipped cells": [("broken(", "skip-execution"), "x = 1"],
    "a top-level await": ["import asyncio\nawait asyncio.sleep(0)"],
    "a password that is none": ["password = 'your-password-here'\ntoken = ''\napi_key = '<key>'"],
    "an URL and a pattern": ["import glob\nurl = 'https://example.org/home/data'\nglob.glob('*.csv')"],
    "parameters": [("from datetime import date\nday: date = '2026-01-31'  # when\nrate: float = 1\npath: str | None = None", "parameters"), "day"],
    "a module beside it": ["import helpers_beside", "from helpers_beside import thing"],
    "a notebook without code": ["# Title only"],
}  # fmt: skip


@pytest.mark.parametrize("cells", CLEAN.values(), ids=CLEAN)
def test_nothing_to_find(write, tmp_path: Path, cells: list):
    (tmp_path / "helpers_beside.py").write_text("raise RuntimeError('this must not be executed')")
    report = preflight(write(*cells))
    assert report.findings == (), report.findings
    assert report.passes(strict=True)


# Cells, the one finding, words in it.
DEFECTS = {
    "a name that is nowhere": (["x = 1", "df.head()"], ("error", "undefined-name", 2), "`df` is used here but no cell defines it"),
    "a name of a later cell": (["print(df)", "df = 1"], ("error", "undefined-name", 1), "cell 2, further down, defines it"),
    "a misspelled name": (["table = 1", "tabel"], ("error", "undefined-name", 2), "Did you mean 'table'?"),
    "a forgotten import": (["pd.DataFrame()"], ("error", "undefined-name", 1), "import pandas as pd"),
    "a forgotten standard module": (["os.getcwd()"], ("error", "undefined-name", 1), "Add `import os`"),
    "its own file": (["open(__file__)"], ("error", "undefined-name", 1), "Path.cwd()"),
    "a deleted name": (["x = 1", "del x", "x"], ("error", "undefined-name", 3), "cell 2 deletes it"),
    "an exception's name": (["try:\n    1\nexcept ValueError as e:\n    pass", "e"], ("error", "undefined-name", 2), "Python deletes it"),
    "a function called too early": (["def f():\n    return cfg", "f()", "cfg = 1"], ("error", "undefined-name", 2), "by `f()`, called here (cell 1, line 2"),
    "a name inside a task": (["from prefect_nb import task", "%%task a() -> y\nx = 1\ny = x", "x"], ("error", "undefined-name", 3), "stays inside the %%task of cell 2"),
    "an input of a task": (["from prefect_nb import task", "%%task a(raw) -> y\ny = raw"], ("error", "undefined-name", 2), "`raw` is used"),
    "a name in a magic": (["%time train()"], ("error", "undefined-name", 1), "`train`"),
    "a name behind a star": (["from math import *", "sinus(3)"], ("warning", "undefined-name", 2), "a star import"),
    "a name in a branch": (["import sys\nif sys.argv == []:\n    df"], ("warning", "undefined-name", 1), "`df`"),
    "a missing module": (["import no_such_module_at_all"], ("error", "missing-import", 1), "pip install no-such-module-at-all"),
    "a missing module of another name": (["import bs4_is_not_here, cv2"], ("error", "missing-import", 1), "bs4_is_not_here"),
    "a missing module in a function": (["def f():\n    import no_such_module_at_all"], ("warning", "missing-import", 1), "no_such_module_at_all"),
    "a missing part of a package": (["import json.no_such_part"], ("warning", "missing-import", 1), "json.no_such_part"),
    "a missing module after a change of path": (["import sys\nsys.path.append(str(1))\nimport no_such_module_at_all"], ("warning", "missing-import", 1), "may be there"),
    "a relative import": (["from . import helpers"], ("error", "missing-import", 1), "a notebook is in no package"),
    "a missing extension": (["%load_ext no_such_extension_at_all"], ("error", "missing-import", 1), "no_such_extension_at_all"),
    "bad syntax": (["x = 1", "y = 2\nfor i in range(3)\n    pass"], ("error", "syntax", 2), "expected ':'"),
    "a return in a cell": (["return 3"], ("error", "syntax", 1), "'return' outside function"),
    "bad syntax in a task": (["from prefect_nb import task", "%%task\nx = ="], ("error", "syntax", 2), "invalid syntax"),
    "an unknown magic": (["%matplotlb inline"], ("error", "unknown-magic", 1), "Did you mean %matplotlib?"),
    "an unloaded magic": (["%%flow nightly\nx = 1"], ("error", "unknown-magic", 1), "%load_ext prefect_nb"),
    "a line magic as a cell magic": (["%%pwd\nx"], ("error", "unknown-magic", 1), "There is %pwd, for a line"),
    "a question": (["name = input('Name? ')"], ("error", "asks-for-input", 1), "waits for somebody to type"),
    "a password prompt": (["import getpass\nx = getpass.getpass()"], ("error", "asks-for-input", 1), "getpass.getpass()"),
    "a breakpoint in a function": (["def f():\n    breakpoint()"], ("warning", "asks-for-input", 1), "breakpoint()"),
    "an end of the kernel": (["exit()"], ("error", "ends-kernel", 1), "ends the kernel"),
    "an event loop of its own": (["import asyncio\nasync def main(): ...\nasyncio.run(main())"], ("error", "await", 1), "Write `await main()`"),
    "a place on another machine": ([f"DATA = {ABSENT!r}"], ("warning", "machine-path", 1), "another machine"),
    "a place on Windows": ([r"DATA = r'C:\Users\ann\data'"], ("warning", "machine-path", 1), "another machine"),
    "an absolute file": ([f"open({ABSENT!r})"], ("error", "missing-file", 1), "Make the path a parameter"),
    "a file that is not there": (["x = open('no-such.csv').read()"], ("error", "missing-file", 1), "There is no file `no-such.csv`"),
    "a table that is not there": (["import csv as pd\npd.read_csv('no-such.csv')"], ("error", "missing-file", 1), "no-such.csv"),
    "a path put together": (["from pathlib import Path\nHERE = Path('data')", "(HERE / 'no-such.csv').read_text()"], ("error", "missing-file", 2), "data/no-such.csv"),
    "a secret": (["db_password = 'hunter2hunter2'"], ("warning", "secret", 1), "`db_password` is given a secret"),
    "a secret as an argument": (["dict(api_key='A1b2C3d4E5f6')"], ("warning", "secret", 1), "`api_key`"),
    "a parameter without a type": ([("year = 2024", "parameters")], ("warning", "parameters", 1), "Write `year: int = 2024`"),
    "a default that does not fit": ([("year: int = 'soon'", "parameters")], ("error", "parameters", 1), "Input should be an integer"),
    "a parameter twice": ([("year: int = 1\nyear: int = 2", "parameters")], ("warning", "parameters", 1), "assigned twice"),
    "two parameters cells": ([PARAMETERS, ("x: int = 1", "parameters")], ("warning", "parameters", 2), "only the first one counts"),
    "a required parameter": ([("year: int", "parameters"), "year"], ("error", "parameters", 1), "needs a value for 'year'"),
    "a malformed tag": ([("x = 1", "retry:often")], ("error", "cell-tag", 1), "'retry:often'"),
}  # fmt: skip


@pytest.mark.parametrize(("cells", "expected", "words"), DEFECTS.values(), ids=DEFECTS)
def test_one_defect_is_one_finding(write, cells: list, expected: tuple[str, str, int], words: str):
    report = preflight(write(*cells))
    matching = [f for f in report.findings if (f.level, f.rule, f.cell) == expected]
    assert found(report, "error", "warning").count(expected) == len(report.findings), report.findings
    assert any(words in f"{f.message} {f.fix}" for f in matching), report.findings
    assert report.passes() == (expected[0] != "error")
    assert not report.passes(strict=True)


def test_a_finding_says_where(write):
    report = preflight(write("# Title", "x = 1", "# Load", "y = 2\nprint(df)"))
    [finding] = report.findings
    assert (finding.cell, finding.cell_id, finding.line, finding.heading) == (2, "c3", 2, "Load")
    assert finding.place == "cell 2, line 2 (Load)"


def test_lines_are_right_below_magics(write):
    [finding] = preflight(write("\n\n%time x = 1\n!echo a \\\n  b\ny = 2\nprint(df)")).findings
    assert (finding.rule, finding.line) == ("undefined-name", 7)
    [finding] = preflight(write("%load_ext prefect_nb", "#a comment\n%%task a\n\nx = 1\nprint(df)")).findings
    assert (finding.rule, finding.line) == ("undefined-name", 5)


def test_given_parameters(write):
    path = write(PARAMETERS, "print(year)")
    assert preflight(path, {"year": 2025}).findings == ()
    assert preflight(path, texts=["year=2025"]).findings == ()
    assert "year: Input should be an integer" in preflight(path, texts=["year=soon"]).findings[0].message
    assert "did you mean 'year'?" in preflight(path, {"yaer": 1}).findings[0].message.lower()
    with pytest.raises(ParameterBindError, match="name=value"):
        preflight(path, texts=["year"])


def test_given_parameters_without_a_parameters_cell(write):
    assert found(preflight(write("print(year)"), {"year": 1})) == [("warning", "parameters", None)]
    assert found(preflight(write("year = 2", "print(year)"), {"year": 1})) == [("error", "parameters", 1)]


def test_a_required_parameter_that_is_given(write):
    assert preflight(write(("year: int", "parameters"), "print(year)"), {"year": 1}).findings == ()


def test_an_error_that_is_expected_does_not_end_the_run(write):
    report = preflight(write(("missing_on_purpose", "raises-exception"), "x = 1"))
    assert found(report) == [("info", "undefined-name", 1)] or found(report) == [("warning", "undefined-name", 1)]
    assert report.passes()


def test_the_order_of_the_last_execution(write):
    path = write("a = 1", "b = 2", "c = 3")
    notebook = json.loads(path.read_text())
    for cell, count in zip(notebook["cells"], (5, 3, None), strict=True):
        cell["execution_count"] = count
    path.write_text(json.dumps(notebook))
    report = preflight(path)
    assert found(report) == [("info", "order", None)] * 2
    assert {"[5] [3]" in f.message for f in report.findings} == {True, False}
    assert report.passes(strict=True)


def test_what_the_running_kernel_knows(write):
    path = write("import math", "df.head()")
    live = Live({"df": [1], "math": sys}, ["", "import math", "df = [1]\nother = 2", "df.head()"])
    [finding] = preflight(path, live=live).findings
    assert "it exists in this kernel (a list), made by In [2], a cell that is gone" in finding.message
    assert finding.fix == "Put that cell back above cell 2: `df = [1] ⏎ other = 2`"
    [finding] = preflight(path, live=Live({"df": [1]}, ["", "df.head()"])).findings
    assert "it exists in this kernel (a list)" in finding.message


class TestKernels:
    """The kernel the notebook names."""

    @pytest.fixture
    def install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

        def install(name: str, argv: list[str], language: str = "python") -> None:
            folder = tmp_path / "jupyter" / "kernels" / name
            folder.mkdir(parents=True)
            (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": language}))
            assert name in KernelSpecManager().find_kernel_specs()

        return install

    def test_that_is_not_installed(self, write):
        [finding] = preflight(write("x = 1", kernel="no-such-kernel")).findings
        assert (finding.level, finding.rule) == ("error", "kernel")
        assert "'no-such-kernel', which is not installed" in finding.message

    def test_that_is_not_python(self, write, install):
        install("julia", ["julia"], "julia")
        [finding] = preflight(write("x = 1", kernel="julia")).findings
        assert "runs julia" in finding.message

    def test_whose_interpreter_is_gone(self, write, install):
        install("gone", ["/" + "no/such/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"])
        [finding] = preflight(write("x = 1", kernel="gone")).findings
        assert (finding.level, finding.rule) == ("error", "kernel")
        assert "is not found" in finding.message

    def test_that_is_started_by_something_else(self, write, install):
        install("other", ["my-launcher", "{connection_file}"])
        report = preflight(write("import no_such_module_at_all", kernel="other"))
        assert found(report) == [("info", "kernel", None)]

    def test_without_the_module(self, write, install):
        # An interpreter without site-packages: what this Python has, that one has not.
        install("bare", [sys.executable, "-S", "-m", "ipykernel_launcher", "-f", "{connection_file}"])
        report = preflight(write("import nbformat\nfrom yaml import load", kernel="bare"))
        assert found(report) == [
            ("error", "kernel", None),
            ("error", "missing-import", 1),
            ("error", "missing-import", 1),
        ]
        assert "pip install pyyaml" in {f.fix for f in report.findings}
        assert report.python == ".".join(map(str, sys.version_info[:3]))

    def test_its_answer_runs_no_file_beside_the_notebook(self, write, tmp_path: Path):
        for name in ("json", "importlib", "nbformat", "helpers"):
            (tmp_path / f"{name}.py").write_text("open('executed', 'w').close()")
        assert preflight(write("import helpers, json")).findings == ()
        assert not (tmp_path / "executed").exists()


def test_it_is_no_notebook(tmp_path: Path):
    with pytest.raises(NotebookError, match="There is no notebook"):
        preflight(tmp_path / "none.ipynb")
    (tmp_path / "text.ipynb").write_text("text")
    with pytest.raises(NotebookError, match="is no notebook"):
        preflight(tmp_path / "text.ipynb")


def test_the_report_for_programs(write):
    document = preflight(write("df")).document()
    json.dumps(document)
    assert document["counts"] == {"error": 1, "warning": 0, "info": 0}
    assert document["findings"][0]["rule"] == "undefined-name"
    assert document["passes"] is False


def test_nothing_of_it_is_executed(write, tmp_path: Path):
    preflight(write("open('executed', 'w').close()", "!touch executed", "%%bash\ntouch executed"))
    assert not (tmp_path / "executed").exists()
    assert isinstance(Finding(level="info", rule="x", message="y").place, str)
