"""`prefect-nb check`: what it says, and its exit codes."""

import json
from pathlib import Path

import nbformat
import pytest

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@pytest.fixture
def make(folder: Path):
    def make(*sources: str, tags: tuple[str, ...] = ()) -> str:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        cells[0].metadata["tags"] = list(tags)
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), folder / "report.ipynb")
        return "report.ipynb"

    return make


def test_a_notebook_that_would_run(invoke, make, prefect_nb_home: Path):
    result = invoke("check", make("x = 1", "print(x)"))

    assert result.exit_code == 0
    assert result.stdout == "✓ Restart & Run All should pass: 2 cells checked, nothing was executed.\n"
    assert not prefect_nb_home.exists()


def test_a_notebook_that_would_fail(invoke, make):
    result = invoke("check", make("import no_such_module_at_all", "df.head()\nsecret_token = 'A1b2C3d4E5f6'"))

    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["Level", "Where", "What"]
    assert lines[1].startswith("✗ error    cell 1, line 1 (import no_such_module_at_all)")
    assert lines[2].strip() == "→ pip install no-such-module-at-all"
    assert "cell 2, line 1" in lines[3]
    assert "no cell defines it" in lines[3]
    assert any(line.startswith("⚠ warning  cell 2, line 2") for line in lines)
    assert lines[-1] == "✗ 2 errors, 1 warning: 2 cells checked, nothing was executed."
    assert "A1b2C3d4E5f6" not in result.stdout


def test_warnings_count_when_strict(invoke, make):
    path = make("year = 2024", "print(year)", tags=("parameters",))

    assert invoke("check", path).exit_code == 0
    assert invoke("check", path, "--strict").exit_code == 1


def test_with_parameters(invoke, make):
    path = make("year: int = 2024", "print(year)", tags=("parameters",))

    assert invoke("check", path, "-p", "year=2025", "--strict").exit_code == 0
    bad = invoke("check", path, "-p", "year=soon")
    assert bad.exit_code == 1
    assert "year: Input should be an integer" in bad.stdout


def test_for_programs(invoke, make):
    result = invoke("check", make("df"), "--output", "json")

    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert (said["passes"], said["counts"]["error"], said["cells"]) == (False, 1, 1)
    [finding] = said["findings"]
    assert (finding["level"], finding["rule"], finding["cell"], finding["line"]) == ("error", "undefined-name", 1, 1)
    assert json.loads(invoke("check", make("x = 1"), "-o", "json").stdout)["passes"] is True


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none.ipynb"], "There is no notebook"),
        (["report.ipynb", "-p", "year"], "Parameters are given as -p name=value"),
        (["flows.py"], "is no notebook"),
        (["report.ipynb", "--no-such-option"], "No such option"),
        ([], "Missing argument"),
    ],
)
def test_bad_usage(invoke, make, args: list[str], words: str):
    make("x = 1")
    result = invoke("check", *args)

    assert result.exit_code == 2
    assert words in result.stderr


def test_another_kernel(invoke, make):
    result = invoke("check", make("x = 1"), "--kernel", "no-such-kernel")

    assert result.exit_code == 1
    assert "'no-such-kernel', which is not installed" in result.stdout
