"""A forked child has nothing of its parent's: its flows are its own, and what the parent writes stays the parent's."""

from pathlib import Path

from audit import audit
from harness import executions, flow_runs, opened, started, states, succeed, task_runs

from prefect_nb.model.states import StateType


def test_a_child_forked_in_a_flow_runs_flows_of_its_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert succeed("stories.py", home, "forks") == "0", executions(home)
    with opened(home) as here:
        runs = {flow_run.flow_name: flow_run for flow_run in flow_runs(here)}
        assert {name: flow_run.state_type for name, flow_run in runs.items()} == {
            "forks": StateType.COMPLETED,
            "in-child": StateType.COMPLETED,
        }
        assert runs["in-child"].parent_flow_run_id is None
        assert runs["in-child"].owner_id != runs["forks"].owner_id
        of_flows = {name: len(task_runs(here, flow_run.id)) for name, flow_run in runs.items()}
        assert of_flows == {"forks": 2, "in-child": 1}
        assert states(task_runs(here)) == {"Completed": 4}, "the child's task outside its flow is recorded, too"
    audit(home)


def test_workers_of_a_forked_pool_run_flows_of_their_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert succeed("stories.py", home, "pools") == "[0, 1, 2, 3]"
    with opened(home) as here:
        assert states(flow_runs(here)) == {"Completed": 5}
        assert states(task_runs(here)) == {"Completed": 5}
    audit(home)


def test_a_child_that_goes_on_in_its_parents_flow_writes_nothing_of_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("stories.py", home, "falls_through") as process:
        assert process.wait() == 0, process.errors
    assert "StoreUnavailable" in process.errors, "the child ends with it"
    with opened(home) as here:
        (flow_run,) = flow_runs(here)
        assert flow_run.state_type is StateType.COMPLETED
        assert states(task_runs(here, flow_run.id)) == {"Completed": 21}
        assert {task_run.flow_run_id for task_run in task_runs(here)} == {flow_run.id, None}, "the child's stand alone"
    audit(home)


def test_forks_at_any_moment_disturb_nobody(tmp_path: Path) -> None:
    """Threads write and read without pause while one of them forks."""
    home = tmp_path / "home"
    assert succeed("stories.py", home, "forks_often") == "0"
    with opened(home) as here:
        assert set(states(flow_runs(here))) == {"Completed"}
        assert set(states(task_runs(here))) == {"Completed"}
    audit(home)
