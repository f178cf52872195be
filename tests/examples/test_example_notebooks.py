"""The example notebooks are what a reader and a program can use, and what they say of themselves is true."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.notebook_parameters import read_parameters
from prefect_nb.model.notebook_types import annotation_type
from prefect_nb.model.runs import FlowRun, TaskRun

FOLDER = Path(__file__).parents[2] / "example_notebooks"
WINE = FOLDER / "wine_model_search.ipynb"
SMALL = {"depths": [2], "strengths": [1.0], "folds": 2, "repeats": 2}

# A path that begins at the root: not the slash in `a/b`, `</td>` or `https://`.
_ABSOLUTE_PATH = re.compile(r"(?<![\w:/.<*+-])/\w[\w.-]*/[\w.-]+|file://|\b[A-Z]:\\\\")


@pytest.fixture(params=sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> Any:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def texts(notebook: Any) -> Iterator[str]:
    """Everything in a notebook that is text."""
    for cell in notebook.cells:
        yield cell.source
    for output in outputs(notebook):
        yield output.get("text", "")
        for kind, data in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield data


def test_it_is_a_valid_notebook_written_as_nbformat_writes_it(path: Path, notebook: Any) -> None:
    nbformat.validate(notebook, relax_add_props=False)
    assert notebook.nbformat == 4
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert path.read_text() == nbformat.writes(notebook) + "\n"


def test_any_python_kernel_runs_it(notebook: Any) -> None:
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}


def test_its_parameters_are_typed_and_explained(notebook: Any) -> None:
    tagged = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", ())]
    assert len(tagged) == 1
    parameters = read_parameters(tagged[0].source)
    assert parameters
    for parameter in parameters:
        assert annotation_type(parameter.annotation) is not None, parameter.name
        assert parameter.is_literal, parameter.name
        assert parameter.help, parameter.name


def test_it_is_stored_as_executed_once_without_errors(notebook: Any) -> None:
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]


def test_it_is_small_and_holds_nothing_of_the_machine_it_ran_on(path: Path, notebook: Any) -> None:
    assert path.stat().st_size < 200_000
    for text in texts(notebook):
        assert _ABSOLUTE_PATH.search(text) is None, text
    assert "widgets" not in notebook.metadata
    assert not [output for output in outputs(notebook) if any("widget" in kind for kind in output.get("data", ()))]


ROOT_OF_ALL = "/"


@pytest.mark.parametrize(
    "text", [f"in {ROOT_OF_ALL}home/ann/x.py", f'"{ROOT_OF_ALL}tmp/a"', "file:///a", "at C:\\\\users"]
)
def test_the_search_for_paths_finds_them(text: str) -> None:
    assert _ABSOLUTE_PATH.search(text)


class Executed:
    """One run of the wine notebook, read back from the history."""

    def __init__(self, output: Path, **parameters: Any) -> None:
        state = Flow.from_notebook(WINE, output_path=output)(**{**SMALL, **parameters}, return_state=True)
        assert state.is_completed(), state.message
        home = Home.current()
        home.ledger.commit()
        self.notebook = nbformat.read(output, as_version=4)
        self.run = home.store.flow_runs(RunQuery(kinds=("notebook",), limit=1))[0]
        self.flows: list[FlowRun] = home.store.flow_runs(RunQuery(flow_run_id=self.run.id, oldest_first=True))
        self.cells: list[TaskRun] = self._task_runs(self.run, "cell")
        self.tasks = {run.flow_name: self._task_runs(run, "task") for run in self.flows}
        self.outside_flows = self._task_runs(self.run, "task")

    @staticmethod
    def _task_runs(run: FlowRun, kind: str) -> list[TaskRun]:
        return Home.current().store.task_runs(RunQuery(flow_run_id=run.id, kinds=(kind,), oldest_first=True))

    def importance(self) -> TaskRun:
        [run] = [run for run in self.tasks["wine-report"] if run.name.startswith("importance")]
        return run

    def printed(self, cell_id: str) -> str:
        [cell] = [cell for cell in self.notebook.cells if cell.id == cell_id]
        return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_the_wine_notebook_runs_as_a_flow_and_finds_its_slow_step_done_the_next_time(tmp_path: Path) -> None:
    source = WINE.read_bytes()

    first = Executed(tmp_path / "first.ipynb", seed=3)
    assert first.run.state_name == "Completed"
    assert first.run.parameters == {"test_share": 0.25, **SMALL, "seed": 3}
    assert {cell.state_name for cell in first.cells} == {"Completed"}
    assert len(first.cells) == len(code_cells(nbformat.read(WINE, as_version=4)))
    assert [(run.flow_name, run.state_name) for run in first.flows] == [
        ("load-wine", "Completed"),
        ("search-models", "Completed"),
        ("wine-report", "Completed"),
    ]
    attempts = {run.name.rpartition("-")[0]: run.run_count for run in first.tasks["load-wine"]}
    assert attempts == {"fetch_wine": 2, "clean": 1}
    assert [run.name for run in first.tasks["search-models"]] == ["random forest 2", "logistic regression 1.0"]
    assert first.importance().state_name == "Completed"
    assert [run.state_name for run in first.outside_flows] == ["Cached"]
    assert first.printed("again") == "Cached\n"

    second = Executed(tmp_path / "second.ipynb", seed=3)
    assert second.importance().state_name == "Cached"
    assert second.importance().cache_key == first.importance().cache_key
    assert [run.run_count for run in second.tasks["load-wine"]] == [2, 1]

    other = Executed(tmp_path / "other.ipynb", seed=4)
    assert other.importance().state_name == "Completed"

    assert WINE.read_bytes() == source


def test_a_random_forest_may_win(tmp_path: Path) -> None:
    run = Executed(tmp_path / "forest.ipynb", strengths=[])
    assert run.run.state_name == "Completed"


def test_a_parameter_of_the_wrong_type_is_refused_before_anything_runs() -> None:
    from prefect_nb.exceptions import ParameterTypeError

    with pytest.raises(ParameterTypeError, match="seed"):
        Flow.from_notebook(WINE)(seed="seven")
    assert Home.current().store.flow_runs(RunQuery()) == []


AGENT = FOLDER / "agent_with_approval.ipynb"


def task_states(flow_run: FlowRun) -> list[tuple[str, str, int]]:
    home = Home.current()
    runs = home.store.task_runs(RunQuery(flow_run_id=flow_run.id, oldest_first=True))
    return [(run.name.partition("-")[0], run.state_name, run.run_count) for run in runs]


@pytest.mark.parametrize(("decision", "last"), [(True, "refund"), (False, "model, turn 3")])
def test_the_agent_asks_a_person_and_goes_on_with_what_it_had_done(tmp_path: Path, decision: bool, last: str) -> None:
    state = Flow.from_notebook(AGENT, output_path=tmp_path / "out.ipynb")(decision=decision, return_state=True)
    assert state.is_completed(), state.message
    home = Home.current()
    home.ledger.commit()
    small, again, large = home.store.flow_runs(RunQuery(flow_name="answer-mail", oldest_first=True))
    assert [run.state_name for run in (small, again, large)] == ["Completed"] * 3
    assert task_states(small)[:2] == [("model, turn 1", "Completed", 2), ("look_up", "Completed", 1)]
    assert [name for name, state_name, _ in task_states(again) if state_name == "Cached"] == [
        "model, turn 1",
        "model, turn 2",
        "refund",
        "model, turn 3",
    ]
    assert large.run_count == 2
    assert task_states(large)[:4] == [
        ("model, turn 1", "Completed", 2),
        ("look_up", "Completed", 1),
        ("model, turn 2", "Completed", 1),
        (last, "Completed", 1),
    ]
    [stand_in] = [
        run for run in home.store.task_runs(RunQuery(kinds=("subflow",))) if run.id == large.parent_task_run_id
    ]
    assert stand_in.state_name == "Completed"
