"""A notebook run that is retried or repaired: its cells run again, its tasks as the rule says."""

from pathlib import Path
from typing import Any

from notebook_runs import read, text_of

from prefect_nb import Flow

TASKS = """
import pathlib
from prefect_nb import task
from prefect_nb.cache_policies import NO_CACHE
calls = pathlib.Path({calls!r})
def note(word):
    with calls.open("a") as log:
        log.write(word + " ")
@task(persist_result=True, cache_policy=NO_CACHE)
def load():
    note("load")
    return [1]
@task(persist_result=True, cache_policy=NO_CACHE)
def clean(x):
    note("clean")
    return [*x, 2]
@task(persist_result=True, cache_policy=NO_CACHE)
def check(x):
    note("check")
    assert pathlib.Path({flag!r}).exists()
    return x
"""


def test_a_notebook_run_is_retried_and_repaired_in_place(write: Any, history: Any, tmp_path: Path):
    calls, flag = tmp_path / "calls", tmp_path / "flag"
    tasks = TASKS.format(calls=str(calls), flag=str(flag))
    flow = Flow.from_notebook(write(tasks, "print(check(clean(load())))"))
    assert flow(return_state=True).is_failed()
    assert calls.read_text() == "load clean check "
    calls.unlink()
    flag.touch()
    run_id = history.only_run().id

    output = flow.retry(run_id)
    assert calls.read_text() == "check "
    assert text_of(read(output).cells[-1]) == "[1, 2]\n"
    calls.unlink()

    flow.repair(run_id, ["clean"])
    assert calls.read_text() == "clean check "
    assert history.only_run().state_name == "Completed"
    assert {run.name[:5]: run.run_count for run in history.task_runs("task")} == {"load-": 1, "clean": 2, "check": 3}
    assert history.problems() == []
