"""Parameters of a notebook flow: checked before there is a run, and followed by all that is derived from them."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from notebook_runs import read, text_of

from prefect_nb import Flow
from prefect_nb.exceptions import ParameterBindError, ParameterTypeError
from prefect_nb.model.parameters import parameter_schema

PARAMETERS = ("import os\ndepth: int = 1  # how deep\nwidth = depth * 10\nday: 'date' = '2024-01-01'", "parameters")


def test_derived_values_follow_and_papermills_readers_find_what_they_look_for(write: Any, history: Any):
    source = write("# Report", PARAMETERS, "print(depth, width, day)")
    flow = Flow.from_notebook(source)

    output = flow(depth="5")

    notebook = read(output)
    _, declared, injected, shown = notebook.cells
    assert text_of(shown) == "5 50 2024-01-01\n"
    assert declared.source == PARAMETERS[0]
    assert declared.metadata.papermill.status == "skipped"
    assert injected.metadata.tags == ["injected-parameters"]
    assert injected.source.startswith("# Parameters\n")
    assert "depth: int = 5" in injected.source
    assert notebook.metadata.papermill.parameters == {"depth": 5}
    run = history.only_run()
    assert run.parameters == {"depth": 5, "day": "2024-01-01"}
    assert (run.kind, run.input_path, run.output_path) == ("notebook", str(source), str(output))
    assert [cell.name for cell in history.task_runs("cell")] == ["Parameters", "print(depth, width, day)"]


def test_the_flow_is_described_by_its_notebook(write: Any):
    flow = Flow.from_notebook(write("# A report", PARAMETERS, name="my_report"))

    schema = parameter_schema(flow.signature)

    assert (flow.name, flow.description, flow.kind) == ("my_report", "A report", "notebook")
    assert schema["required"] == []
    assert schema["properties"]["depth"]["type"] == "integer"
    assert schema["properties"]["depth"]["default"] == 1
    assert schema["properties"]["depth"]["description"] == "how deep"
    assert schema["properties"]["day"]["format"] == "date"
    assert flow.with_options(name="other").kind == "notebook"


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda flow: flow(detph=1), ParameterBindError, "depth"),
        (lambda flow: flow(depth="deep"), ParameterTypeError, "integer"),
        (lambda flow: flow(depth=datetime.date(2024, 1, 1)), ParameterTypeError, "isoformat"),
        (lambda flow: flow(width=b"raw"), ParameterTypeError, "bytes"),
        (lambda flow: flow(day="yesterday"), ParameterTypeError, "date"),
        (lambda flow: flow(**{"x; import os": 1}), ParameterBindError, "x; import os"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_run(
    write: Any, history: Any, call: Callable[[Any], Any], error: type[Exception], said: str
):
    flow = Flow.from_notebook(write(PARAMETERS, "print(depth)"))

    with pytest.raises(error, match=said):
        call(flow)

    assert history.flow_runs() == []


@pytest.mark.parametrize("name", ["x; import os", "__builtins__", "class", "get_ipython", "ｄepth"])
def test_hostile_names_are_refused_where_any_name_would_go(write: Any, history: Any, tmp_path: Path, name: str):
    flow = Flow.from_notebook(write("print(1)"))

    with pytest.raises(ParameterBindError, match="cannot name a parameter"):
        flow(**{name: 1})

    assert history.flow_runs() == []
    assert not (tmp_path / "runs").exists()


def test_a_parameter_without_a_value_is_required(write: Any):
    flow = Flow.from_notebook(write(("depth: int", "parameters")))

    with pytest.raises(ParameterBindError, match="depth"):
        flow()


def test_a_run_starts_from_the_declared_defaults_not_from_what_an_earlier_run_injected(write: Any):
    first = Flow.from_notebook(write(PARAMETERS, "print(depth, width)"))(depth=5)

    second = Flow.from_notebook(first)(depth=1)

    assert [cell.source for cell in read(second).cells] == [PARAMETERS[0], "print(depth, width)"]
    assert text_of(read(second).cells[-1]) == "1 10\n"


def test_without_a_parameters_cell_values_are_set_at_the_top(write: Any, caplog: pytest.LogCaptureFixture):
    output = Flow.from_notebook(write("print(depth)"))(depth=3)

    assert [cell.source for cell in read(output).cells] == ["# Parameters\ndepth = 3\n", "print(depth)"]
    assert text_of(read(output).cells[1]) == "3\n"
    assert "no cell tagged 'parameters'" in caplog.text
