"""How large parameters may be, and where names can lead: nowhere else."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_nb import flow, tags, task
from prefect_nb.bodies import saving
from prefect_nb.exceptions import InvalidNameError, NotResumable, ParameterTypeError
from prefect_nb.home import Home
from prefect_nb.service.running import prepare

HOSTILE = [
    "..", "../x", "..%2fx", "%252e", "\\", "//", "/etc/passwd", "C:\\x", "\\\\server\\share", "\0", "~", "file:x",
    "s3://x", "report-secret", "x.", "e\u0301", ".hidden", "CON", "a\nb", "\u202e", "🦊" * 80, "あ" * 200, "",
    "\ud800", " ", "-rf", "$(id)", "`id`", "x" * 5_000,
]  # fmt: skip
names = st.sampled_from(HOSTILE) | st.text(max_size=300) | st.lists(st.sampled_from(HOSTILE), max_size=4).map("/".join)


@settings(max_examples=200, deadline=None)
@given(name=names, stem=st.sampled_from(["report", "r" * 249, "あ" * 83]))
def test_no_name_of_a_run_leads_its_notebook_elsewhere(
    name: str, stem: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    document: Any = SimpleNamespace(folder=folder, stem=stem, path=str(folder / f"{stem}.ipynb"))

    output = Path(saving.default_output(document, name))

    assert output.parent == folder / "runs"
    assert Path(os.path.realpath(output)).parent == Path(os.path.realpath(folder / "runs"))
    assert len(os.fsencode(output.name)) < 250
    assert output.suffix == ".ipynb"


FLOW = """
from prefect_nb import flow, tags, task

@flow
def takes(x=None):
    return x
"""


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["x" * (512 * 1024), nested(33), nested(5_000)], ids=["large", "deep", "very deep"])
def test_parameters_from_elsewhere_have_their_limits(value: Any, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOW)
    target = f"{tmp_path / 'flows.py'}:takes"
    assert prepare(target, {"x": nested(31)}).parameters == {"x": nested(31)}
    assert prepare(target, {"x": "x" * 1_000}).parameters["x"]

    with pytest.raises(ParameterTypeError, match="524,288 bytes of JSON"):
        prepare(target, {"x": value})


def test_in_a_call_anything_goes_and_what_is_too_large_is_noted() -> None:
    @flow
    def takes(x: Any, large: Any, path: Any) -> str:
        return f"{type(x).__name__} {len(large)}"

    large = list(range(500_000))
    assert takes(object(), large, Path("some/where")) == "object 500000"
    (run,) = Home.current().store.flow_runs(_every())
    assert run.parameters == {
        "x": "<builtins.object>",
        "large": f"<list: {len(str(large).replace(' ', ''))} bytes of JSON>",
        "path": "some/where",
    }
    assert run.unrecorded == ("x", "large")


def test_what_is_not_recorded_is_not_made_up_when_the_run_is_resumed() -> None:
    calls: list[Any] = []

    @flow
    def takes(x: Any) -> None:
        calls.append(x)
        raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        takes(object())
    (run,) = Home.current().store.flow_runs(_every())
    with pytest.raises(NotResumable, match="'x'"):
        takes.resume(run.id)
    assert len(calls) == 1


@pytest.mark.parametrize("bad", [["x" * 256], ["a\nb"], ["\x1b[31m"], [str(n) for n in range(65)]], ids=range(4))
def test_tags_have_their_limits(bad: list[str]) -> None:
    with pytest.raises(InvalidNameError):
        task(tags=bad)(int)
    with pytest.raises(InvalidNameError), tags(*bad):
        pass
    assert task(tags=["x" * 255, "ä ö", *map(str, range(62))])(int).tags


def test_a_name_made_by_a_template_is_cut() -> None:
    @task(task_run_name="{text}")
    def named(text: str) -> None:
        pass

    @flow(flow_run_name=lambda: "y" * 1_000)
    def outer() -> None:
        named("x" * 1_000)

    outer()
    store = Home.current().store
    assert [run.name for run in store.flow_runs(_every())] == ["y" * 255]
    assert [run.name for run in store.task_runs(_every())] == ["x" * 255]


def _every() -> Any:
    from prefect_nb.interfaces import RunQuery

    return RunQuery()
