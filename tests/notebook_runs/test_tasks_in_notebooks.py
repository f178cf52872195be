"""Tasks and flows called in a notebook's cells belong to the notebook's run."""

import os
from typing import Any

from prefect_nb import Flow
from prefect_nb.home import Home

DEFINITIONS = """
import time
from prefect_nb import flow, task

@task
def double(x): return 2 * x

@task
def slow(x): time.sleep(0.5); return x

@flow
def sub(x): return double(x)
"""


def test_they_are_children_of_the_cell_they_are_called_in(write: Any, history: Any):
    source = write(
        DEFINITIONS, "double(1)", "assert double.map([1, 2, 3]).result() == [2, 4, 6]", "sub(5)", "slow.submit(1)"
    )

    Flow.from_notebook(source)()

    run = history.only_run()
    _, called, mapped, nested, submitted = history.task_runs("cell")
    children: dict[Any, list[str]] = {}
    for child in history.task_runs("task", "subflow"):
        children.setdefault(child.parent_id, []).append(child.name.partition("-")[0])
        assert child.state_name == "Completed"
    assert children.pop(called.id) == ["double"]
    assert children.pop(mapped.id) == ["double"] * 3
    assert children.pop(nested.id) == ["sub"]
    # Nobody waited for this one: the notebook's run does.
    assert children.pop(submitted.id) == ["slow"]
    assert list(children.values()) == [["double"]]
    (child,) = history.flow_runs(flow_run_id=run.id)
    assert (child.flow_name, child.parent_flow_run_id, child.state_name) == ("sub", run.id, "Completed")
    owners = Home.current().store.owners()
    assert [owner.pid for owner in owners] == [os.getpid()]
    assert history.problems() == []


def test_what_a_dead_kernel_left_open_has_crashed_before_the_run_has(write: Any, history: Any):
    code = "slow.submit(1); slow.submit(2)\nimport os; time.sleep(0.2); os._exit(1)"

    state = Flow.from_notebook(write(DEFINITIONS, code))(return_state=True)

    assert state.is_crashed()
    tasks = history.task_runs("task")
    assert [task.state_name for task in tasks] == ["Crashed", "Crashed"]
    assert all(task.state_us <= history.only_run().state_us for task in tasks)
    assert history.problems() == []


def test_a_notebook_run_inside_a_flow_is_its_sub_flow(write: Any, history: Any):
    from prefect_nb import flow

    report = Flow.from_notebook(write(("depth = 1", "parameters"), "print(depth)"))

    @flow
    def outer() -> Any:
        return report(depth=2)

    assert outer().exists()

    run = history.only_run()
    (parent,) = history.flow_runs(kinds=("function",))
    assert run.parent_flow_run_id == parent.id
    assert [cell.flow_run_id for cell in history.task_runs("cell")] == [run.id, run.id]


def test_a_notebook_run_inside_a_notebook_is_its_sub_flow(write: Any, history: Any):
    inner = write(("depth = 1", "parameters"), "print(depth)", name="inner")
    outer = write(
        f"from prefect_nb import Flow\nprint(Flow.from_notebook({str(inner)!r})(depth=2).exists())", name="outer"
    )

    Flow.from_notebook(outer)()

    runs = {run.flow_name: run for run in history.flow_runs(kinds=("notebook",))}
    assert runs["inner"].parent_flow_run_id == runs["outer"].id
    assert {run.state_name for run in runs.values()} == {"Completed"}
    cells = [cell for cell in history.task_runs("cell") if cell.flow_run_id == runs["inner"].id]
    assert [cell.state_name for cell in cells] == ["Completed", "Completed"]
    assert history.problems() == []
