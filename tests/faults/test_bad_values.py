"""Exceptions and results that cannot be said, pickled or kept: each has its documented end, and the history holds."""

from pathlib import Path

from audit import audit
from harness import flow_runs, opened, run, states, succeed, task_runs

from prefect_nb.model.states import StateType


def test_an_exception_that_cannot_be_said_or_pickled_is_a_failure_with_a_text(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert succeed("stories.py", home, "bad_errors") == "Failed Failed Failed"
    with opened(home) as here:
        messages = [task_run.state_message for task_run in task_runs(here)]
        assert {task_run.state_type for task_run in task_runs(here)} == {StateType.FAILED}
    assert messages == [
        "Task run encountered an exception Unspeakable (its message could not be read)",
        "Task run encountered an exception Unpicklable: holds a lock",
        "Task run encountered an exception ValueError: a name that is no text: \\udcff",
    ]
    audit(home)


def test_a_result_that_cannot_be_pickled_is_completed_and_noted(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert succeed("stories.py", home, "plain_lock") == "lock"
    with opened(home) as here:
        (task_run,) = task_runs(here)
        assert (task_run.state_type, task_run.result) == (StateType.COMPLETED, None)
        assert task_run.result_note is not None
        assert task_run.result_note.startswith("not persisted: ")
        assert "lock" in task_run.result_note
    audit(home)


def test_in_a_durable_flow_a_result_that_cannot_be_kept_is_a_failure(tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = run("stories.py", home, "durable_lock")
    assert process.wait() == 1
    assert "SerializationError" in process.errors
    with opened(home) as here:
        assert states(task_runs(here)) == {"Failed": 1}
        assert states(flow_runs(here)) == {"Failed": 1}
    audit(home)
