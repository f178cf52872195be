"""From an entrypoint to the flow, and what is said when there is none."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_nb.exceptions import MissingFlowError, ObjectNotFound, ScriptError, UnspecifiedFlowError
from prefect_nb.execution.loading import load_flow, parse_entrypoint

ONE = """
from prefect_nb import flow, task

@task
def double(x):
    return 2 * x

def helper():
    pass

@flow(name="nightly report")
def report(n: int = 1):
    return double(n)
"""
TWO = ONE + "\n@flow\ndef other():\n    return 1\n"


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("prefect_nb", "cloudpickle", "coolname")):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path):
    def write(name: str, text: str = ONE) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", ["", ":report"])
def test_a_flow_of_a_file(write, name: str):
    assert load_flow(write("jobs_a.py") + name).name == "nightly report"


def test_the_function_name_finds_a_flow_kept_under_another(write):
    path = write("jobs_b.py", "from prefect_nb import flow\ndef work(): return 1\nit = flow(work)\n")

    assert load_flow(f"{path}:work") is load_flow(f"{path}:it")


def test_a_flow_of_a_module(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write("house/__init__.py", "")
    write("house/tools.py", "VALUE = 7\n")
    write("house/jobs.py", "from .tools import VALUE\nfrom prefect_nb import flow\n@flow\ndef seven(): return VALUE\n")
    monkeypatch.chdir(tmp_path)

    loaded = load_flow("house.jobs:seven")

    assert loaded() == 7
    assert loaded.entrypoint is not None
    # What a run of it remembers loads it again, relative imports included.
    assert load_flow(loaded.entrypoint) is loaded


def test_neighbours_of_the_file_can_be_imported(write):
    write("neighbour_c.py", "VALUE = 3\n")
    path = write(
        "jobs_c.py", "from neighbour_c import VALUE\nfrom prefect_nb import flow\n@flow\ndef f(): return VALUE\n"
    )

    assert load_flow(path)() == 3


def test_a_flow_defined_here_goes_before_imported_ones(write):
    write("others_d.py", TWO)
    path = write("jobs_d.py", "from others_d import *\nfrom prefect_nb import flow\n@flow\ndef mine(): return 1\n")

    assert load_flow(path).name == "mine"


def test_an_edited_file_is_loaded_anew(write):
    before = load_flow(write("jobs_e.py"))
    again = load_flow(write("jobs_e.py"))
    after = load_flow(write("jobs_e.py", ONE.replace("nightly", "daily")))

    assert again is before
    assert after.name == "daily report"


@pytest.mark.parametrize("name", ["json.py", "my-flow.py", "2024.jobs.py"])
def test_odd_file_names(write, name: str):
    import json

    assert load_flow(write(name))() == 2
    assert sys.modules["json"] is json


@pytest.mark.parametrize("name", ["jobs_f.py", "my-jobs.py"])
def test_worker_processes_can_call_its_tasks(tmp_path: Path, name: str):
    (tmp_path / name).write_text(
        "from prefect_nb import flow, task\n"
        "from prefect_nb.execution.task_runners import ProcessPoolTaskRunner\n"
        "@task\ndef double(x): return 2 * x\n"
        "@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))\n"
        "def doubled(): return double.submit(21).result()\n"
    )
    program = f"from prefect_nb.execution.loading import load_flow; print(load_flow({name!r})())"

    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert result.stdout.strip() == "42", result.stderr


@pytest.mark.parametrize(
    ("text", "name", "error", "words"),
    [
        (ONE, ":reprot", MissingFlowError, "Did you mean 'report'"),
        (ONE, ":double", MissingFlowError, "is a task"),
        (ONE, ":helper", MissingFlowError, "is a function, not a flow. Put @flow above it"),
        (ONE, ":inner.<locals>.f", MissingFlowError, "defined inside a function"),
        ("x = 1", "", MissingFlowError, "defines no flow. Put @flow"),
        ("x = 1", ":f", MissingFlowError, "It defines no flow."),
        (TWO, "", UnspecifiedFlowError, ":other"),
    ],
)
def test_what_is_missing_is_named(write, text: str, name: str, error: type[Exception], words: str):
    with pytest.raises(error) as caught:
        load_flow(write("jobs_g.py", text) + name)

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f():\n    raise ValueError('not today')\nf()\n", ["line 3", "line 2, in f", "ValueError: not today"]),
        ("def f(:\n", ["SyntaxError", "line 1"]),
        ("import no_such_module_here\n", ["No module named 'no_such_module_here'", "line 1"]),
        ("import sys; sys.exit(3)\n", ["ended the interpreter", "3"]),
    ],
)
def test_a_file_that_cannot_be_imported(write, text: str, words: list[str]):
    path = write("jobs_h.py", text)

    with pytest.raises(ScriptError) as caught:
        load_flow(path)

    message = str(caught.value)
    assert path in message
    assert [word for word in words if word not in message] == []
    assert "loading.py" not in message
    assert "jobs_h" not in sys.modules


def test_a_file_that_is_not_there(write, tmp_path: Path):
    write("nightly_jobs.py")

    with pytest.raises(ObjectNotFound, match=r"Did you mean 'nightly_jobs\.py'"):
        load_flow(str(tmp_path / "nightly_job.py"))


@pytest.mark.parametrize("module", ["no_such_module_here", "email.no_such_part"])
def test_a_module_that_is_not_there(module: str):
    with pytest.raises(ObjectNotFound, match="There is no module"):
        load_flow(f"{module}:f")


@pytest.mark.parametrize("text", ["", "README.md", "folder/", "a b:c", "x.py:", "x.py:1a", "a/b:f"])
def test_what_is_no_entrypoint(text: str):
    with pytest.raises(MissingFlowError, match="does not say where a flow is"):
        parse_entrypoint(text)


@pytest.mark.parametrize(
    "text", ["x.py", "x.py:f", "a/b.py:C.m", "pkg.mod:f", "pkg:f", "a:b/x.py:f", "x.py:f.<locals>.g"]
)
def test_entrypoints_are_read_and_written_alike(text: str):
    assert str(parse_entrypoint(text)) == text
