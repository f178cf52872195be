"""Clusters for tests: at most one of each kind in a test process, started when the first test asks for it."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def dask_cluster() -> Iterator[Any]:
    """Two worker processes on the loopback address."""

    from prefect_nb.runners.dask import local_cluster

    with local_cluster(n_workers=2, threads_per_worker=1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Room for two calls at once; this process is connected to it."""
    from prefect_nb.runners import ray

    yield ray.connect(None, {"num_cpus": 2, "log_to_driver": False, "object_store_memory": 200_000_000})
    ray.disconnect()
