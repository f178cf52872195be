"""The notebook that trains on a Dask cluster: what the workers measured and said is in one run."""

from pathlib import Path

from prefect_nb.flows import Flow
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery
from prefect_nb.metrics import read_metrics
from prefect_nb.service import run_logs

DIGITS = Path(__file__).parents[2] / "example_notebooks" / "digits_on_dask.ipynb"


def test_metrics_and_logs_of_all_workers_come_together_in_one_run(tmp_path: Path) -> None:
    parameters = {"widths": [4], "rates": [0.01, 0.02], "epochs": 3}
    state = Flow.from_notebook(DIGITS, output_path=tmp_path / "out.ipynb")(**parameters, return_state=True)
    assert state.is_completed(), state.message

    store = Home.current().store
    (notebook,) = store.flow_runs(RunQuery(kinds=("notebook",)))
    (search,) = store.flow_runs(RunQuery(flow_run_id=notebook.id))
    tasks = store.task_runs(RunQuery(flow_run_id=search.id, oldest_first=True))
    assert [(run.name, run.state_name) for run in tasks] == [
        ("width 4, rate 0.01", "Completed"),
        ("width 4, rate 0.02", "Completed"),
    ]
    lines = read_metrics(str(search.id))
    assert {name: [line.count for line in found] for name, found in lines.items()} == {
        "log loss": [3, 3],
        "accuracy": [3, 3],
    }
    assert {line.run_id for line in lines["log loss"]} == {run.id for run in tasks}
    said = [line for line in run_logs.logs(search) if line.task_run_id is not None]
    for run in tasks:
        trained, loss = [line.message for line in said if line.task_run_id == run.id]
        assert trained.startswith("trained in process ")
        assert loss.endswith(" after 3 epochs")
