"""Metrics and artifacts of a notebook's cells belong to the notebook's run."""

from typing import Any

from prefect_nb import Flow
from prefect_nb.artifacts import Artifact
from prefect_nb.service import metrics


def test_they_belong_to_the_run_and_its_cells(write: Any, history: Any):
    source = write(
        "from prefect_nb import log_metric, task\nfrom prefect_nb.artifacts import create_markdown_artifact",
        "log_metric('loss', 2)\nlog_metric('loss', 1)\n_ = create_markdown_artifact('x', key='of-a-cell')",
        "@task\ndef t():\n    log_metric('loss', 5)\n    create_markdown_artifact('x', key='of-a-task')\nt()",
    )

    Flow.from_notebook(source)()

    run = history.only_run()
    cells = history.task_runs("cell")
    (task_run,) = history.task_runs("task")
    of_cell, of_task = metrics.series(run)["loss"]
    assert (of_cell.run_id, of_cell.points) == (cells[1].id, ((0, 2.0), (1, 1.0)))
    assert (of_task.run_id, of_task.points) == (task_run.id, ((0, 5.0),))
    for key, made_by in (("of-a-cell", cells[1]), ("of-a-task", task_run)):
        found = Artifact.get(key)
        assert found is not None
        assert (found.flow_run_id, found.task_run_id) == (run.id, made_by.id)
