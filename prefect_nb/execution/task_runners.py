"""Task runners as a flow author names them: `@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from prefect_nb.exceptions import ConfigurationError
from prefect_nb.execution.futures import PrefectFuture, PrefectFutureList
from prefect_nb.interfaces import Runner
from prefect_nb.settings import get_settings


class TaskRunner:
    """Where submitted tasks run. A description; `open` makes the real thing, one for each flow run."""

    name = "base"

    def __init__(self) -> None:
        self._runner: Runner | None = None

    def options(self) -> tuple[Any, ...]:
        """What makes two runners equal."""
        return ()

    def open(self) -> Runner:
        """A new runner that takes work."""
        raise NotImplementedError

    def duplicate(self) -> Self:
        """A runner with the same options, not started."""
        return type(self)(*self.options())

    def __enter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("The task runner is already started!")
        self._runner = self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._runner is not None:
            self._runner.close(wait=True)
            self._runner = None

    def submit(
        self, task: Any, parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFuture[Any]:
        """Start a run of `task` here; as `task.submit`, with the parameters by name."""
        if self._runner is None:
            raise RuntimeError("Task runner is not started")
        return task.submit_to(self._runner, parameters, wait_for=wait_for)  # type: ignore[no-any-return]

    def map(
        self, task: Any, parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFutureList[Any]:
        """Start one run of `task` for each element; as `task.map`, with the parameters by name."""
        if self._runner is None:
            raise RuntimeError("Task runner is not started")
        return task.map_to(self._runner, parameters, wait_for=wait_for)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.options() == other.options()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.options()!r}"


def _check_workers(max_workers: int | None) -> int | None:
    if max_workers is not None and max_workers < 1:
        raise ConfigurationError(f"max_workers must be at least 1, not {max_workers}.")
    return max_workers


class ThreadPoolTaskRunner(TaskRunner):
    """Threads of this process; the default. Async tasks share event loops of their own.

    Args:
        max_workers: how many sync tasks run at once; None: the setting `task_runner_thread_pool_max_workers`, or 250.
    """

    name = "threads"

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__()
        self.max_workers = _check_workers(max_workers)

    def options(self) -> tuple[Any, ...]:
        """Its size."""
        return (self.max_workers,)

    def open(self) -> Runner:
        """A new pool."""
        from prefect_nb.runners.threads import ThreadRunner

        return ThreadRunner(self.max_workers or get_settings().task_runner_thread_pool_max_workers)


ConcurrentTaskRunner = ThreadPoolTaskRunner


class ProcessPoolTaskRunner(TaskRunner):
    """Processes of this machine: for work that holds the interpreter. Tasks and arguments are pickled.

    Args:
        max_workers: how many processes; None: the setting `task_runner_process_pool_max_workers`, or one a core.
    """

    name = "processes"

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__()
        self.max_workers = _check_workers(max_workers)

    def options(self) -> tuple[Any, ...]:
        """Its size."""
        return (self.max_workers,)

    def open(self) -> Runner:
        """A new pool."""
        from prefect_nb.runners.processes import ProcessRunner

        return ProcessRunner(self.max_workers or get_settings().task_runner_process_pool_max_workers)
