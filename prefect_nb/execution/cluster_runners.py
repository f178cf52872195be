"""Task runners on clusters: `@flow(task_runner=DaskTaskRunner())`, `@flow(task_runner=RayTaskRunner())`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_nb.exceptions import ConfigurationError
from prefect_nb.execution.context import FlowRunContext
from prefect_nb.execution.task_runners import TaskRunner
from prefect_nb.interfaces import Runner

if TYPE_CHECKING:
    from distributed import Client

    from prefect_nb.runners.dask import DaskRunner

_LOOPBACK = ("127.", "localhost", "[::1]", "::1")


def _require(module: str, install: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigurationError(f"{module!r} is not installed. Install it with: pip install {install}")


class DaskTaskRunner(TaskRunner):
    """Submitted tasks on a Dask cluster. Tasks and arguments are pickled.

    Without arguments each flow run gets a cluster of its own on this machine: one process a core, listening on the
    loopback address only, closed when the flow run ends. In a script, call such a flow below
    `if __name__ == "__main__":`. A cluster at an `address` and a `cluster` object are used and left running.

    A task whose worker is lost runs again on another one. Large results stay in the cluster until somebody asks for
    them here; tasks that are given them get them from worker to worker.

    Args:
        cluster: a Dask cluster object.
        address: of a scheduler that runs, such as `tcp://10.0.0.1:8786`.
        cluster_class: what makes the cluster, or its name (`"dask_kubernetes.KubeCluster"`); None: `LocalCluster`.
        cluster_kwargs: its arguments.
        adapt_kwargs: if given, the cluster adapts its size: arguments of its `adapt` (`{"minimum": 1, "maximum": 9}`).
        client_kwargs: arguments of `distributed.Client`.
        performance_report_path: where Dask writes its report of the flow run, as HTML.

    Raises:
        ConfigurationError: Dask is not installed, or the name of a class leads nowhere.
        ValueError: the arguments contradict each other.
    """

    name = "dask"

    def __init__(
        self,
        cluster: Any = None,
        address: str | None = None,
        cluster_class: str | Callable[..., Any] | None = None,
        cluster_kwargs: dict[str, Any] | None = None,
        adapt_kwargs: dict[str, Any] | None = None,
        client_kwargs: dict[str, Any] | None = None,
        performance_report_path: str | None = None,
    ) -> None:
        super().__init__()
        _require("distributed", "'prefect-nb[dask]'")
        if address and (cluster or cluster_class or cluster_kwargs or adapt_kwargs):
            raise ValueError(
                "Cannot specify `address` and `cluster`/`cluster_class`/`cluster_kwargs`/`adapt_kwargs`: "
                "the cluster at an address is taken as it is."
            )
        if cluster and (cluster_class or cluster_kwargs):
            raise ValueError("Cannot specify `cluster` and `cluster_class`/`cluster_kwargs`: it is there already.")
        for name, options in {"client_kwargs": client_kwargs, "cluster_kwargs": cluster_kwargs}.items():
            if options and "asynchronous" in options:
                raise ValueError(f"`{name}` cannot set `asynchronous`: prefect_nb decides on that.")
        if performance_report_path is not None:
            _require("bokeh", "bokeh")
        if isinstance(cluster_class, str):
            _named(cluster_class)
        self.cluster = cluster
        self.address = address
        self.cluster_class = cluster_class
        self.cluster_kwargs = dict(cluster_kwargs or {})
        self.adapt_kwargs = dict(adapt_kwargs or {})
        self.client_kwargs = dict(client_kwargs or {})
        self.performance_report_path = performance_report_path

    def options(self) -> tuple[Any, ...]:
        """Its arguments."""
        return (
            self.cluster,
            self.address,
            self.cluster_class,
            self.cluster_kwargs,
            self.adapt_kwargs,
            self.client_kwargs,
            self.performance_report_path,
        )

    @property
    def client(self) -> Client:
        """Inside `with`: the connection to the cluster.

        Raises:
            RuntimeError: it is not open.
        """
        if self._runner is None:
            raise RuntimeError("Task runner is not started")
        runner: DaskRunner = self._runner  # type: ignore[assignment]
        return runner.client

    def open(self) -> Runner:
        """A new runner, on a cluster of its own unless one was given.

        Raises:
            ConfigurationError: no scheduler answers at the address, or the cluster does not start.
        """
        from prefect_nb.runners import dask

        cluster = self.cluster
        if cluster is None and self.address is None:
            cluster = self._started()
        try:
            if self.adapt_kwargs:
                cluster.adapt(**self.adapt_kwargs)
            client = dask.connect(cluster if self.address is None else self.address, self.client_kwargs)
            report = dask.begin_report(client, self.performance_report_path)
        except BaseException:
            if cluster is not self.cluster:
                dask.close_cluster(cluster)
            raise
        return dask.DaskRunner(
            client,
            shares_files=self._is_here(client, cluster),
            release=partial(dask.release, client, report, cluster if cluster is not self.cluster else None),
        )

    def _started(self) -> Any:
        from prefect_nb.runners import dask

        made = self.cluster_class
        if made is None:
            return dask.local_cluster(**self.cluster_kwargs)
        return dask.start_cluster(_named(made) if isinstance(made, str) else made, self.cluster_kwargs)

    def _is_here(self, client: Client, cluster: Any) -> bool:
        from distributed import LocalCluster

        host = str(client.scheduler.address).rpartition("://")[2]
        return isinstance(cluster, LocalCluster) or host.startswith(_LOOPBACK)


def _named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"There is no cluster class {name!r}: {error}") from error


@contextmanager
def get_dask_client(timeout: float | None = None, **client_kwargs: Any) -> Iterator[Client]:
    """A client of the cluster that the flow's tasks run on, for Dask's own collections, in a flow or a task.

    Args:
        timeout: seconds to connect in; None: Dask's own default.
        client_kwargs: further arguments of `distributed.Client`.

    Raises:
        RuntimeError: the flow's task runner is no `DaskTaskRunner`.
    """
    import distributed

    address, is_worker = _scheduler_address()
    if is_worker:
        distributed.secede()  # what is waited for may need this very thread
    try:
        with distributed.Client(**_client_options(address, timeout, client_kwargs)) as client:
            yield client
    finally:
        if is_worker:
            distributed.rejoin()


@asynccontextmanager
async def get_async_dask_client(timeout: float | None = None, **client_kwargs: Any) -> AsyncIterator[Client]:
    """The same with an asynchronous client, for async flows and tasks."""
    import distributed

    address, _ = _scheduler_address()
    async with distributed.Client(**_client_options(address, timeout, client_kwargs), asynchronous=True) as client:
        yield client


def _client_options(address: str, timeout: float | None, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "address": address,
        "set_as_default": True,
        **({"timeout": timeout} if timeout is not None else {}),
        **options,
    }


def _scheduler_address() -> tuple[str, bool]:
    """Where the scheduler is, and whether this code runs on one of its workers."""
    import distributed

    try:
        return distributed.get_worker().scheduler.address, True
    except ValueError:
        context = FlowRunContext.get()
        scope = getattr(context.execution, "scope", None) if context is not None else None
        client = getattr(scope.runner, "client", None) if scope is not None else None
        if client is None:
            raise RuntimeError("There is no Dask cluster here: the flow's task runner is no DaskTaskRunner.") from None
        return client.scheduler.address, False


class RayTaskRunner(TaskRunner):
    """Submitted tasks on a Ray cluster. Tasks and arguments are pickled.

    A process has one connection to Ray. If there is none when the flow run starts its first task, one is made: to the
    cluster at the `address`, else to a new one on this machine, listening on the loopback address only; it ends when
    the last flow run that uses it ends. One that was there before is used and left open.

    A task whose worker is lost runs again on another one. Large results stay in the cluster until somebody asks for
    them here.

    Args:
        address: of a cluster that runs, such as `ray://10.0.0.1:10001`; None: the one this process is connected to,
            or a new one.
        init_kwargs: further arguments of `ray.init`.

    Raises:
        ConfigurationError: Ray is not installed.
    """

    name = "ray"

    def __init__(self, address: str | None = None, init_kwargs: dict[str, Any] | None = None) -> None:
        super().__init__()
        _require("ray", "'prefect-nb[ray]'")
        self.address = address
        self.init_kwargs = dict(init_kwargs or {})

    def options(self) -> tuple[Any, ...]:
        """Its arguments."""
        return (self.address, self.init_kwargs)

    def open(self) -> Runner:
        """A new runner.

        Raises:
            ConfigurationError: no cluster answers at the address, or none can be started.
        """
        from prefect_nb.runners import ray

        post = ray.connect(self.address, self.init_kwargs)
        try:
            return ray.RayRunner(post, release=ray.disconnect)
        except BaseException:
            ray.disconnect()
            raise


@contextmanager
def remote_options(**new_remote_options: Any) -> Iterator[dict[str, Any]]:
    """Inside: tasks are submitted with these options of Ray's (`num_cpus=4`, `num_gpus=1`, ...); nests by update."""
    from prefect_nb.runners import ray

    merged = {**ray.remote_options.get(), **new_remote_options}
    token = ray.remote_options.set(merged)
    try:
        yield merged
    finally:
        ray.remote_options.reset(token)
