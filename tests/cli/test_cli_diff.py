"""`prefect-nb flow-run diff`, and `%diff` in a notebook."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def two(invoke, folder: Path) -> tuple[str, str]:
    for name, count in (("one", 1), ("two", 2), ("again", 1)):
        result = invoke("run", "flows.py:work", "--name", name, "-p", f"count={count}")
        assert result.exit_code == 0, result.output
    return "one", "two"


def test_differences_are_exit_code_1(invoke, two):
    result = invoke("flow-run", "diff", *two)

    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("- work, run one: Completed, started ")
    assert lines[1].startswith("+ work, run two: Completed, started ")
    assert lines[2] == "1 parameter, 1 task run differ"
    assert "  count: 1 → 2" in lines
    assert "  + double (2): Completed" in lines


def test_no_difference_is_exit_code_0(invoke, two):
    result = invoke("flow-run", "diff", "one", "again")

    assert result.exit_code == 0
    assert "No difference" in result.stdout


def test_for_programs_and_as_a_page(invoke, two, folder: Path):
    result = invoke("flow-run", "diff", *two, "--output", "json", "--html", "diff.html")

    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["same"] is False
    assert said["parameters"] == [{"name": "count", "before": "1", "after": "2"}]
    page = (folder / "diff.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "count" in page


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["one", "none-such"], "There is no flow run with the id or name 'none-such'"),
        (["one"], "Missing argument 'AFTER'"),
        (["one", "two", "--rtol", "-1"], "is not in the range"),
        (["one", "two", "--html", "no/such/folder.html"], "cannot be written"),
    ],
)
def test_bad_usage_is_exit_code_2(invoke, two, args: list[str], words: str):
    result = invoke("flow-run", "diff", *args)

    assert result.exit_code == 2
    assert words in result.stderr
