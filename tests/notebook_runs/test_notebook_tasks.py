"""Notebooks as tasks of a flow: their place in the history, their parameters, retries and caching."""

from pathlib import Path
from typing import Any

import pytest
from notebook_runs import read

from prefect_nb import Task, flow, task
from prefect_nb.exceptions import NotebookError, ParameterBindError, ParameterTypeError
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.notebooks import notebook_task

CLEAN = [
    ("from datetime import date\nday: date = date(2026, 1, 1)\nscale = 1", "parameters"),
    "from prefect_nb import return_\nreturn_([day.day * scale, type(day).__name__])",
]
REPORT = [
    ("rows: list = []\ntitle = 'none'", "parameters"),
    "from prefect_nb import return_\nreturn_(f'{title}: {rows}')",
]


def test_a_dag_of_notebooks(write: Any, history: Any):
    clean = notebook_task(write(*CLEAN, name="clean"))
    report = notebook_task(write(*REPORT, name="report"))

    @task
    def next_day(day: str) -> str:
        return f"{day[:-1]}{int(day[-1]) + 1}"

    @flow
    def nightly(day: str) -> str:
        return report(clean.submit(next_day.submit(day), 10), title="nightly")

    assert isinstance(clean, Task)
    assert nightly("2026-02-03") == "nightly: [40, 'date']"

    tasks = {run.name: run for run in history.task_runs("task")}
    assert set(tasks) == {"next_day-0", "clean-0", "report-0"} or len(tasks) == 3
    stand_ins = history.task_runs("subflow")
    assert {run.name for run in stand_ins} == {"clean", "report"}
    by_id = {run.id: run for run in tasks.values()}
    for run in stand_ins:
        assert by_id[run.parent_id].name.startswith(run.name)
    (parent,) = history.flow_runs(kinds=("function",))
    notebooks = history.flow_runs(kinds=("notebook",))
    assert {run.parent_flow_run_id for run in notebooks} == {parent.id}
    assert {run.parent_task_run_id for run in notebooks} == {run.id for run in stand_ins}
    assert history.problems() == []


def test_mapped_over_parameters_in_order(write: Any):
    clean = notebook_task(write(*CLEAN, name="clean"))

    @flow
    def nightly() -> list[Any]:
        return clean.map(["2026-01-05", "2026-01-07"], scale=[1, 2]).result()

    assert nightly() == [[5, "date"], [14, "date"]]


def test_called_alone(write: Any):
    assert notebook_task(write(*CLEAN))("2026-01-09") == [9, "date"]
    assert notebook_task(write(*CLEAN, name="again"))() == [1, "date"]


def test_without_a_returned_value_it_is_the_executed_notebook(write: Any):
    output = notebook_task(write(("x = 1", "parameters"), "print(x)"))(x=5)

    assert isinstance(output, Path)
    assert "x = 5" in read(output).cells[1].source


def test_retries_run_the_notebook_again(write: Any, history: Any, tmp_path: Path):
    marker = tmp_path / "was here"
    code = f"import pathlib\nmarker = pathlib.Path({str(marker)!r})\nfirst = not marker.exists()\nmarker.touch()\nassert not first"
    shaky = notebook_task(write(code), retries=1, name="shaky")

    @flow
    def nightly() -> Any:
        return shaky()

    nightly()

    (run,) = history.task_runs("task")
    assert (run.run_count, run.state_name) == (2, "Completed")
    assert [run.state_name for run in reversed(history.flow_runs(kinds=("notebook",)))] == ["Failed", "Completed"]


def test_cached_for_the_same_parameters_and_source(write: Any, history: Any):
    source = write(*CLEAN, name="clean")

    @flow
    def nightly(clean: Any, day: str) -> Any:
        return clean(day)

    first = notebook_task(source, cache=True)
    assert nightly(first, "2026-01-05") == nightly(notebook_task(source, cache=True), "2026-01-05") == [5, "date"]
    assert len(history.flow_runs(kinds=("notebook",))) == 1
    nightly(first, "2026-01-06")
    assert len(history.flow_runs(kinds=("notebook",))) == 2
    write(CLEAN[0], "from prefect_nb import return_\nreturn_('another')", name="clean")
    assert nightly(notebook_task(source, cache=True), "2026-01-05") == "another"
    assert [run.state_name for run in history.task_runs("task")] == ["Completed", "Cached", "Completed", "Completed"]


def test_without_cache_it_runs_every_time(write: Any, history: Any):
    clean = notebook_task(write(*CLEAN))

    @flow
    def nightly() -> None:
        clean("2026-01-05")
        clean("2026-01-05")

    nightly()

    assert len(history.flow_runs(kinds=("notebook",))) == 2


def test_a_required_parameter_after_one_with_a_default(write: Any):
    both = notebook_task(
        write(("a = 1\nb: int\nc = 3", "parameters"), "from prefect_nb import return_\nreturn_([a, b, c])")
    )

    assert both(5, 6) == [5, 6, 3]
    with pytest.raises(ParameterBindError, match="b"):
        both(5)


def test_a_notebook_without_parameters_cell_takes_them_by_name(write: Any):
    free = notebook_task(write("from prefect_nb import return_\nreturn_(depth * 2)"))

    assert free(depth=4) == 8


def test_what_is_wrong_is_said_as_for_any_task(write: Any, history: Any):
    clean = notebook_task(write(*CLEAN))

    with pytest.raises(NotebookError, match="no notebook"):
        notebook_task("missing.ipynb")
    with pytest.raises(TypeError, match="retires"):
        notebook_task(write(*CLEAN), retires=1)
    with pytest.raises(TypeError, match="dya"):
        clean(dya="2026-01-01")

    @flow
    def nightly() -> None:
        clean("soon")

    with pytest.raises(ParameterTypeError, match="day: Input should be a date"):
        nightly()
    assert history.flow_runs(kinds=("notebook",)) == []
    assert Home.current().store.flow_runs(RunQuery())[0].state_name == "Failed"


def test_a_cell_that_fails_fails_the_task(write: Any, history: Any):
    broken = notebook_task(write("1 / 0"))

    @flow
    def nightly() -> str:
        return str(broken(return_state=True).name)

    assert nightly() == "Failed"
    assert "division by zero" in (history.task_runs("task")[0].state_message or "")
