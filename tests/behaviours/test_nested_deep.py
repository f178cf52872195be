"""Flow runs inside flow runs: as many as anybody needs, and not without end."""

from typing import Any

import pytest

from prefect_nb import flow, task
from prefect_nb.execution.attachment import Attachment
from prefect_nb.execution.scope import DEEPEST, Scope
from prefect_nb.execution.task_runners import ThreadPoolTaskRunner


@flow
def deeper(levels: int) -> str:
    return deeper(levels - 1) if levels > 1 else "the bottom"


def test_sixty_four_are_allowed() -> None:
    assert deeper(DEEPEST) == "the bottom"


def test_one_more_is_an_error_that_every_one_of_them_ends_with(history: Any) -> None:
    with pytest.raises(RecursionError, match="64 deep"):
        deeper(DEEPEST + 1)

    runs = history.flow_runs()
    assert len(runs) == DEEPEST
    assert {run.state_name for run in runs} == {"Failed"}


def test_tasks_in_between_do_not_hide_the_depth(history: Any) -> None:
    @task
    def in_a_task(levels: int) -> None:
        around(levels)

    @flow
    def around(levels: int) -> None:
        in_a_task.submit(levels + 1).result()

    with pytest.raises(RecursionError):
        around(1)

    assert {run.state_name for run in history.flow_runs()} == {"Failed"}


def test_it_is_counted_across_processes() -> None:
    """A notebook that runs itself comes to an end, although each kernel begins anew."""
    attached = Attachment(flow_run_id=None, epoch=1, depth=DEEPEST - 1)  # type: ignore[arg-type]
    kernel = Scope(attached.flow_run_id, make_runner=ThreadPoolTaskRunner().open, depth=attached.depth)

    assert kernel.depth == DEEPEST
    with pytest.raises(RecursionError):
        Scope(attached.flow_run_id, make_runner=ThreadPoolTaskRunner().open, parent=kernel)
