"""Tasks on a Dask cluster; needs `pip install 'prefect-nb[dask]'`.

    @flow(task_runner=DaskTaskRunner())

See `DaskTaskRunner` for clusters that run already. Everything but the calls of the tasks' bodies - retries, caching, the
history - stays with the flow's own process; log lines and metrics come back while the tasks run.
"""

from prefect_nb.execution.cluster_runners import DaskTaskRunner, get_async_dask_client, get_dask_client

__all__ = ["DaskTaskRunner", "get_async_dask_client", "get_dask_client"]
