"""Facts about the run this code runs in, readable anywhere; outside a run each is empty.

    from prefect_nb import runtime

    runtime.flow_run.name             # "curious-otter"
    runtime.flow_run.parameters       # {"date": "2024-05-01"}
    runtime.task_run.run_count        # 2: the second attempt

Ids are text; times are aware datetimes in UTC.
"""

from prefect_nb.runtime import deployment, flow_run, task_run

__all__ = ["deployment", "flow_run", "task_run"]
