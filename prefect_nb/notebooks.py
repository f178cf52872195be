"""Whole notebooks: run as tasks, swept over their parameters, and what they return.

    clean = notebook_task("clean.ipynb", retries=1)

    @flow
    def nightly(day):
        return notebook_task("report.ipynb")(clean.submit(day))

    sweep("train.ipynb", depth=[3, 5, 8], lr=[0.1, 0.01])

In the notebook itself, `return_(frame)` or `return_(score=0.93, model=model)` says what it gives to whoever runs it, and
`stop("no new data")` ends it early, Completed. `preflight("report.ipynb")` tells what would fail before it runs;
`diff_runs("monday", "tuesday")` compares two of its runs.
"""

from prefect_nb.execution.stopping import stop
from prefect_nb.model.notebook_outputs import Outputs
from prefect_nb.service.diff import RunDiff, diff_runs
from prefect_nb.service.notebook_tasks import notebook_task
from prefect_nb.service.preflight import Report, preflight
from prefect_nb.service.returns import return_
from prefect_nb.service.sweeps import Point, Sweep, sweep

__all__ = [
    "Outputs",
    "Point",
    "Report",
    "RunDiff",
    "Sweep",
    "diff_runs",
    "notebook_task",
    "preflight",
    "return_",
    "stop",
    "sweep",
]
