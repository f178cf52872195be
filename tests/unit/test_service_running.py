"""Preparing and running flows, and how far they are."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import (
    ConfigurationError,
    InvalidNameError,
    MissingFlowError,
    NotebookError,
    ObjectNotFound,
    ParameterBindError,
    ParameterTypeError,
    PrefectException,
)
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.runs import FlowRun, TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.service import running
from prefect_nb.service.configuration import settings
from prefect_nb.service.progress import Progress
from prefect_nb.service.running import RunOptions, prepare, run, run_flow

FLOWS = """
from pathlib import Path
from prefect_nb import flow, task

@task
def double(x):
    return 2 * x

@flow
def work(count: int, name: str = "Ada", where: Path = Path(".")):
    return [double(i) for i in range(count)]

@flow
async def awaiting(x: int = 1):
    return double(x)

@flow
def failing():
    raise ValueError("no")

@flow
def leaving():
    raise SystemExit(3)
"""


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "flows_to_run", raising=False)
    path = tmp_path / "flows_to_run.py"
    path.write_text(FLOWS)
    return path


@pytest.mark.parametrize(
    ("name", "texts", "options", "error", "words"),
    [
        ("work", ["cuont=3"], {}, ParameterBindError, "did you mean 'count'"),
        ("work", [], {}, ParameterBindError, "missing a required argument: 'count'"),
        ("work", ["count"], {}, ParameterBindError, "-p name=value"),
        ("work", ["count=1", "count=2"], {}, ParameterBindError, "given twice"),
        ("work", ["count=many"], {}, ParameterTypeError, "count: Input should be a valid integer"),
        ("work", ["count=1"], {"name": "a\nb"}, InvalidNameError, "cannot be a run's name"),
        ("work", ["count=1"], {"name": " "}, InvalidNameError, "cannot be a run's name"),
        (
            "work",
            ["count=1"],
            {"kernel_name": "python3"},
            ConfigurationError,
            "a kernel can be given for a notebook only",
        ),
        ("work", ["count=1"], {"output_path": Path("o.ipynb")}, ConfigurationError, "for a notebook only"),
        ("wrok", [], {}, MissingFlowError, "Did you mean 'work'"),
    ],
)
def test_bad_input_leaves_no_trace(flows: Path, prefect_nb_home: Path, name, texts, options, error, words):
    with pytest.raises(error) as caught:
        prepare(f"{flows}:{name}", texts=texts, options=RunOptions(**options))

    assert words in str(caught.value)
    assert not prefect_nb_home.exists()


def test_a_notebook_that_is_none_leaves_no_trace(tmp_path: Path, prefect_nb_home: Path):
    (tmp_path / "report.ipynb").write_text("no notebook at all")

    with pytest.raises(ObjectNotFound, match=r"Did you mean 'report\.ipynb'"):
        prepare(str(tmp_path / "raport.ipynb"))
    with pytest.raises(NotebookError):
        prepare(str(tmp_path / "report.ipynb"))
    assert not prefect_nb_home.exists()


def test_texts_become_what_the_annotations_say(flows: Path):
    prepared = prepare(f"{flows}:work", texts=["count=2", "name=5", "where=data"])

    assert prepared.parameters == {"count": 2, "name": "5", "where": "data"}
    assert run(prepared).run.parameters["where"] == "data"


def test_options_reach_the_run(flows: Path):
    finished = run_flow(
        f"{flows}:work", {"count": 2}, name="by hand", tags=("a", "b"), durable=True, timeout_seconds=30
    )

    assert finished.run.name == "by hand"
    assert finished.run.tags == ("a", "b")
    assert finished.run.durable
    assert finished.tasks == {"Completed": 2}, finished
    task_runs = Home.current().store.task_runs(RunQuery(flow_run_id=finished.run.id))
    assert all(run.tags == ("a", "b") and run.result is not None for run in task_runs)


def test_an_async_flow_is_run(flows: Path):
    assert run_flow(f"{flows}:awaiting").run.state_type is StateType.COMPLETED


def test_what_a_flow_raises_is_in_the_result(flows: Path):
    failed = run_flow(f"{flows}:failing")
    left = run_flow(f"{flows}:leaving")

    assert failed.run.state_type is StateType.FAILED
    assert isinstance(failed.error, ValueError)
    assert left.run.state_type is StateType.CRASHED
    assert isinstance(left.error, SystemExit)


def test_a_store_that_cannot_be_opened_is_raised(flows: Path, prefect_nb_home: Path):
    prefect_nb_home.write_text("a file in its place")

    with pytest.raises(PrefectException, match="file in its place"):
        run_flow(f"{flows}:failing")


def test_progress_is_told_while_the_run_lasts(flows: Path):
    seen: list[Progress] = []

    @contextmanager
    def watch(progress: Progress):
        seen.append(progress)
        yield

    run_flow(f"{flows}:work", {"count": 3}, watch=watch)
    standing = seen[0].standing()

    assert standing.flow_run is not None
    assert standing.flow_run.is_final
    assert (standing.finished, standing.total, standing.cells) == (3, 3, None)
    assert standing.left_us is None
    observing = list(Home.current().ledger.observers)
    run_flow(f"{flows}:work", {"count": 3}, watch=watch)
    assert Home.current().ledger.observers == observing


def test_progress_counts_what_belongs_to_the_run():
    progress = Progress(usual_us=3_600_000_000)
    run = FlowRun(id=new(), name="run", flow_name="flow")
    child = FlowRun(id=new(), name="child", flow_name="child", parent_flow_run_id=run.id, root_flow_run_id=run.id)
    progress.begin(run.id)
    cell = TaskRun(id=new(), name="cell 1", kind="cell", flow_run_id=run.id)
    work = TaskRun(id=new(), name="work", flow_run_id=child.id, parent_id=cell.id)
    for seen in (
        run,
        FlowRun(id=new(), name="other"),
        child,
        cell,
        work,
        TaskRun(id=new(), name="of another", flow_run_id=new()),
    ):
        progress.see(seen)
    progress.see(in_state(cell, StateType.RUNNING))
    progress.see(in_state(work, StateType.RUNNING))

    standing = progress.standing()
    assert standing.tasks == [(StateType.RUNNING, "Running", 1)]
    assert (standing.cells_finished, standing.cells) == (0, 1)
    assert standing.current is not None
    assert standing.current.name == "work"
    assert standing.left_us is not None

    progress.see(in_state(work, StateType.FAILED))
    progress.see(in_state(cell, StateType.COMPLETED))

    standing = progress.standing()
    assert (standing.finished, standing.cells_finished, standing.current) == (1, 1, None)
    assert [run.name for run in progress.news] == ["work", "cell 1"]


def test_progress_can_follow_what_other_processes_write():
    from prefect_nb.service.progress import following

    @task
    def one() -> int:
        return 1

    @flow
    def both() -> None:
        one()
        one()

    progress = Progress()
    home = Home.current()
    with following(home, progress):
        state = both.start({}, return_state=True, on_start=lambda execution: progress.begin(execution.run.id))

    assert state.is_completed()
    assert progress.standing().finished == 2


def test_settings_say_where_they_come_from(monkeypatch: pytest.MonkeyPatch, prefect_nb_home: Path):
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    found = {setting.name: setting for setting in settings()}

    assert (found["home"].value, found["home"].source) == (str(prefect_nb_home), "PREFECT_NB_HOME")
    assert (found["logging_level"].value, found["logging_level"].source) == ("DEBUG", "PREFECT_LOGGING_LEVEL")
    assert found["recovery_limit"].source is None


def new():
    from uuid import uuid4

    return uuid4()


def in_state(run: TaskRun, type_: StateType) -> TaskRun:
    from msgspec.structs import replace

    return replace(run, state_type=type_, state_name=type_.value.capitalize())


def test_what_is_public_is_there():
    assert all(hasattr(running, name) for name in running.__all__)
