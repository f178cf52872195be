"""A notebook that failed in a cell: its kernel is kept, the cell is corrected, and the run goes on from there."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from notebook_runs import read, statuses, text_of

from prefect_nb import Flow
from prefect_nb.bodies import memory, parking
from prefect_nb.exceptions import NotResumable, ObjectNotFound
from prefect_nb.home import Home
from prefect_nb.model.runs import FlowRun
from prefect_nb.service import control, parked

SLOW_START = "import os\nprint(os.getpid())\nloaded = object()\nmark = id(loaded)"


@pytest.fixture(autouse=True)
def keeping(monkeypatch: pytest.MonkeyPatch, prefect_nb_home: Path) -> Iterator[None]:
    monkeypatch.setenv("PREFECT_NB_NOTEBOOK_KEPT_KERNELS", "2")
    yield
    for one in parking.parked_kernels(prefect_nb_home):
        parking.drop(prefect_nb_home, one)


def edit(path: Path | str, index: int, source: str) -> None:
    """Replace a cell's source, as an editor does."""
    document = json.loads(Path(path).read_text())
    document["cells"][index]["source"] = source
    Path(path).write_text(json.dumps(document))


def failed(path: Path, history: Any, **parameters: Any) -> FlowRun:
    assert Flow.from_notebook(path)(return_state=True, **parameters).is_failed()
    return history.only_run()


def is_gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while (found := memory.process(pid)) is not None and not found.is_zombie and time.monotonic() < deadline:
        time.sleep(0.02)
    return found is None or found.is_zombie


def test_the_run_goes_on_in_its_kernel(write: Any, history: Any, capsys: Any):
    source = write(SLOW_START, "x = 20", "y = x / 0  # wrong", "print(y, mark == id(loaded), os.getpid())")
    run = failed(source, history)
    cells = history.task_runs("cell")
    kept = parked.kept_kernel(run.id)
    assert kept is not None
    assert kept.is_alive
    assert (kept.cell_number, kept.cell_name) == (3, "y = x / 0  # wrong")
    edit(source, 2, "y = x / 4")
    told: list[str] = []

    finished = control.resume(run, tell=told.append)

    assert finished.run.id == run.id
    assert finished.run.state_name == "Completed"
    assert finished.run.epoch == run.epoch + 1
    after = history.task_runs("cell")
    assert [one.state_name for one in after] == ["Completed"] * 4
    assert after[:2] == cells[:2], "what was kept was not touched"
    assert [one.id for one in after] == [one.id for one in cells]
    notebook = read(finished.run.output_path)
    assert text_of(notebook.cells[3]) == f"5.0 True {kept.kernel_pid}\n"
    assert text_of(notebook.cells[0]) == f"{kept.kernel_pid}\n", "outputs of kept cells stay"
    assert notebook.cells[2].source == "y = x / 4"
    assert statuses(finished.run.output_path) == ["completed"] * 4
    assert any("edited after the run" in sentence and str(source) in sentence for sentence in told)
    assert "2 of 4 cells are kept" in told[-1]
    assert "memory still holds changes made by the failed cell" in told[-1]
    assert parked.kept_kernels() == []
    assert is_gone(kept.kernel_pid)
    assert is_gone(kept.keeper_pid)
    assert not Path(kept.folder).exists()
    assert history.problems() == []


def test_a_run_that_fails_again_is_kept_again(write: Any, history: Any):
    source = write("x = 1", "x = 2; raise ValueError('first')", "print(x); raise ValueError('second')", "print('end')")
    run = failed(source, history)
    kernel = parked.kept_kernels()[0].kernel_pid
    edit(source, 1, "x += 1")
    finished = control.resume(run)
    assert "second" in (finished.run.state_message or "")
    (kept,) = parked.kept_kernels()
    assert (kept.kernel_pid, kept.cell_number) == (kernel, 3)
    edit(source, 2, "print(x)")

    finished = control.resume(finished.run)

    assert finished.run.state_name == "Completed"
    # The failed cell had set it to 2; that is what going on in the same memory means.
    assert text_of(read(finished.run.output_path).cells[2]) == "3\n"
    assert history.problems() == []


def test_the_executed_notebook_may_be_corrected_instead(write: Any, history: Any):
    source = write(("n = 1", "parameters"), "total = n", "total / nothing", "print(total)")
    run = failed(source, history, n=7)
    edit(run.output_path, 3, "total *= 2")
    told: list[str] = []

    finished = control.resume(run, tell=told.append)

    assert finished.run.state_name == "Completed"
    assert text_of(read(finished.run.output_path).cells[-1]) == "14\n"
    assert run.output_path in told[0]
    assert "executed notebook" in told[0]
    assert json.loads(source.read_text())["cells"][2]["source"] != "total *= 2"


def test_edited_cells_before_it_are_not_guessed_about(write: Any, history: Any):
    source = write("x = 1", "y = 2", "z = x + y + missing", "print(z)")
    run = failed(source, history)
    edit(source, 1, "y = 20")
    edit(source, 2, "z = x + y")

    with pytest.raises(NotResumable, match=r"cell 2 \('y = 2'\) was edited") as refused:
        control.resume(run)
    assert "--from-cell 2" in str(refused.value)
    assert "--restart" in str(refused.value)
    assert parked.kept_kernel(run.id) is not None, "nothing has happened"
    assert history.only_run() == run

    finished = control.resume(run, from_cell="2")
    assert text_of(read(finished.run.output_path).cells[3]) == "21\n"
    assert [cell.run_count for cell in history.task_runs("cell")] == [1, 2, 2, 1]


def test_going_on_all_the_same(write: Any, history: Any):
    source = write("x = 1", "z = x + missing", "print(z)")
    run = failed(source, history)
    edit(source, 0, "x = 100")
    edit(source, 1, "z = x")

    finished = control.resume(run, from_cell="c1")

    assert text_of(read(finished.run.output_path).cells[2]) == "1\n"


@pytest.mark.parametrize(
    ("cell", "said"),
    [("9", "no cell '9'"), ("0", "no cell '0'"), ("load", "no cell 'load'"), ("3", "stopped in cell 2")],
)
def test_a_cell_that_cannot_be_gone_on_from(write: Any, history: Any, cell: str, said: str):
    run = failed(write("x = 1", "1 / 0", "y = 1"), history)

    with pytest.raises(NotResumable, match=said):
        control.resume(run, from_cell=cell)


def test_new_and_deleted_cells_are_named(write: Any, history: Any):
    source = write("x = 1", "y = 1", "z = missing")
    run = failed(source, history)
    document = json.loads(source.read_text())
    document["cells"][1]["id"] = "other"
    source.write_text(json.dumps(document))

    with pytest.raises(NotResumable, match=r"cell 2 \('y = 1'\) is gone; cell 2 \('y = 1'\) is new there"):
        control.resume(run)


def test_from_the_top(write: Any, history: Any):
    source = write("import os; print(os.getpid())", "1 / 0", "x = 1")
    run = failed(source, history)
    kept = parked.kept_kernels()[0]
    edit(source, 1, "pass")

    finished = control.resume(run, restart=True)

    assert finished.run.state_name == "Completed"
    assert text_of(read(finished.run.output_path).cells[0]) != f"{kept.kernel_pid}\n"
    assert is_gone(kept.kernel_pid)


def test_where_the_kernel_is_gone_it_says_so_and_runs_from_the_top(write: Any, history: Any):
    source = write("x = 1", "1 / 0", "print(x)")
    run = failed(source, history)
    os.killpg(parked.kept_kernels()[0].kernel_pid, signal.SIGKILL)
    edit(source, 1, "x += 1")
    told: list[str] = []

    finished = control.resume(run, tell=told.append)

    assert text_of(read(finished.run.output_path).cells[2]) == "2\n"
    assert "kernel is gone" in told[-1]
    assert parked.kept_kernels() == []


def test_a_cell_that_took_too_long_may_be_shortened(write: Any, history: Any):
    source = write("x = 1", "import time; time.sleep(60)", "print(x)")
    state = Flow.from_notebook(source, cell_timeout_seconds=1)(return_state=True)
    assert state.name == "TimedOut"
    (kept,) = parked.kept_kernels()
    edit(source, 1, "x = 5")

    finished = control.resume(history.only_run())

    assert finished.run.state_name == "Completed"
    assert text_of(read(finished.run.output_path).cells[2]) == "5\n"
    assert is_gone(kept.kernel_pid)


def test_tasks_of_the_kept_kernel_belong_to_the_run_that_goes_on(write: Any, history: Any, tmp_path: Path):
    calls = tmp_path / "calls"
    tasks = (
        "import pathlib\nfrom prefect_nb import task\n"
        "@task(persist_result=True)\ndef double(x):\n"
        f"    with open({str(calls)!r}, 'a') as log: log.write(f'{{x}} ')\n"
        "    return x * 2\n"
        "one = double(1)"
    )
    source = write(tasks, "two = double(2)\nraise ValueError('no')", "three = double(3)\nprint(one, two, three)")
    run = failed(source, history)
    edit(source, 1, "two = double(2)")

    finished = control.resume(run)

    assert text_of(read(finished.run.output_path).cells[2]) == "2 4 6\n"
    assert sorted(calls.read_text().split()) == ["1", "2", "3"]
    assert [one.state_name for one in history.task_runs("task")] == ["Completed"] * 3
    assert {one.flow_run_id for one in history.task_runs("task")} == {run.id}
    assert history.problems() == []


def test_nothing_is_kept_of_runs_that_end_well_or_are_not_to_be(write: Any, history: Any, monkeypatch: Any):
    Flow.from_notebook(write("x = 1"))()
    assert parked.kept_kernels() == []
    flow = Flow.from_notebook(write("1 / 0"))
    flow.fn.keep_kernel = False
    assert flow(return_state=True).is_failed()
    assert parked.kept_kernels() == []
    flow = Flow.from_notebook(write("1 / 0"), timeout_seconds=30, retries=1)
    assert flow(return_state=True).is_failed()
    assert len(parked.kept_kernels()) == 1, "only after the last attempt"
    monkeypatch.delenv("PREFECT_NB_NOTEBOOK_KEPT_KERNELS")
    monkeypatch.setenv("CI", "true")
    before = parked.kept_kernels()
    assert Flow.from_notebook(write("1 / 0", name="other"))(return_state=True).is_failed()
    assert parked.kept_kernels() == before


def test_the_oldest_gives_way(write: Any, history: Any):
    for name in ("one", "two", "three"):
        assert Flow.from_notebook(write("1 / 0", name=name))(return_state=True).is_failed()

    kept = parked.kept_kernels()
    assert [Path(one.notebook).stem for one in kept] == ["two", "three"]
    dropped = parked.drop_kernel(kept[0].run_name)
    assert dropped == kept[0]
    assert is_gone(dropped.kernel_pid)
    assert is_gone(dropped.keeper_pid)
    with pytest.raises(ObjectNotFound, match="No kernel is kept"):
        parked.drop_kernel(kept[0].run_name)
    assert parked.kept_kernels() == kept[1:]


def test_a_kernel_that_takes_too_much_memory_is_not_kept(write: Any, history: Any, monkeypatch: Any):
    monkeypatch.setenv("PREFECT_NB_NOTEBOOK_KEPT_KERNELS_MAX_BYTES", "1000000")

    assert Flow.from_notebook(write("1 / 0"))(return_state=True).is_failed()

    assert parked.kept_kernels() == []


def test_a_run_completed_needs_nothing_any_more(write: Any, history: Any):
    source = write("x = 1", "1 / 0")
    run = failed(source, history)
    folder = Home.current().path / "notebook_runs" / str(run.id)
    assert folder.is_dir()
    edit(source, 1, "pass")

    control.resume(run)

    assert not folder.exists()


def test_no_kernel_is_kept_of_a_run_that_was_to_end(write: Any, history: Any):
    home = Home.current()
    state = Flow.from_notebook(write("x = 1", "import time; time.sleep(60)"), timeout_seconds=2)(return_state=True)
    assert state.name == "TimedOut"
    assert parking.parked_kernels(home.path) == []
    assert Flow.from_notebook(write("import os; os._exit(1)", name="dead"))(return_state=True).is_crashed()
    assert Flow.from_notebook(write("exit()", name="left"))(return_state=True).is_failed()
    assert parking.parked_kernels(home.path) == []
