"""Run logs.

`get_run_logger()`, inside a flow or task, gives a logger whose lines are kept with the run, in the loggers
`prefect.flow_runs` and `prefect.task_runs` of Python's `logging`. With `log_prints=True` plain prints go there too.

    @task(log_prints=True)
    def clean(table):
        get_run_logger().info("%d rows", len(table))
        print("done")

Hooks are called outside their run and name it: `flow_run_logger(run, flow)`, `task_run_logger(run, task)`. To try a
body on its own (`clean.fn(table)`), outside any run, wrap the call in `disable_run_logger()`.
"""

from prefect_nb.execution.logs import disable_run_logger, flow_run_logger, get_logger, get_run_logger, task_run_logger

__all__ = ["disable_run_logger", "flow_run_logger", "get_logger", "get_run_logger", "task_run_logger"]
