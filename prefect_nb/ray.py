"""Tasks on a Ray cluster; needs `pip install 'prefect-nb[ray]'`.

    @flow(task_runner=RayTaskRunner())

Everything but the calls of the tasks' bodies - retries, caching, the history - stays with the flow's own process; log
lines and metrics come back while the tasks run. `with remote_options(num_gpus=1):` says what a task needs.
"""

from prefect_nb.execution.cluster_runners import RayTaskRunner, remote_options

__all__ = ["RayTaskRunner", "remote_options"]
