"""`task-run why`, `flow-run retry` and `flow-run repair`."""

import json

import pytest

MENDED = """
from prefect_nb import flow, task
from prefect_nb.cache_policies import NO_CACHE
from pathlib import Path

@task(persist_result=True, cache_policy=NO_CACHE)
def load():
    with open("calls", "a") as file:
        file.write("load ")
    return [1]

@task
def loose():
    pass

@task(persist_result=True)
def fetch(x):
    with open("calls", "a") as file:
        file.write("fetch ")
    if not Path("mended").exists():
        raise ValueError("not yet")
    return x

@flow
def work():
    loose()
    return fetch(load())
"""


@pytest.fixture
def broken(folder, shell):
    """A flow run that failed; what it does is written to the file `calls`."""
    (folder / "mend.py").write_text(MENDED)
    assert shell("run", "mend.py:work", "--name", "nightly").returncode == 1
    (folder / "calls").unlink()
    return folder


def test_why_a_hit_for_people_and_for_programs(folder, shell, ask, invoke):
    shell("run", "flows.py:family")
    runs = [run for run in ask("task-run", "ls") if run["name"].startswith("known")]
    hit, first = runs

    shown = invoke("task-run", "why", hit["id"])
    assert shown.exit_code == 0
    assert shown.stdout.startswith(f"{hit['name']}: hit: same as '{first['name']}' of ")

    document = ask("task-run", "why", hit["name"])
    assert document["kind"] == "hit"
    assert document["task_run"] == {"id": hit["id"], "name": hit["name"]}
    assert document["other"] == {"id": first["id"], "name": first["name"]}


def test_why_of_a_task_by_its_name_and_of_everything(folder, shell, ask, invoke):
    shell("run", "flows.py:family")

    assert ask("task-run", "why", "known")["kind"] == "hit"
    everything = ask("task-run", "why")
    assert sorted(answer["kind"] for answer in everything) == ["first", "hit", "uncached", "uncached", "uncached"]
    assert len(invoke("task-run", "why").stdout.splitlines()) == 5


def test_why_of_nothing(invoke):
    assert "No task has run" in invoke("task-run", "why").output
    assert invoke("task-run", "why", "nonsense").exit_code != 0


def test_retry_runs_what_failed_in_the_same_run(broken, shell, ask):
    (broken / "mended").touch()

    done = shell("flow-run", "retry", "nightly")

    assert done.returncode == 0, done.stderr
    assert (broken / "calls").read_text() == "fetch "
    assert "1 run again:" in done.stderr
    assert "1 run again although completed (results not kept, or damaged):" in done.stderr
    assert "1 taken over" in done.stderr
    (run,) = ask("flow-run", "ls")
    assert (run["state"]["name"] if isinstance(run["state"], dict) else run["state_name"]) == "Completed"
    inspected = shell("flow-run", "inspect", "nightly").stdout
    assert "2 attempts" in inspected


def test_retry_that_fails_again(broken, shell):
    done = shell("flow-run", "retry", "nightly")

    assert done.returncode == 1
    assert "not yet" in done.stderr + done.stdout


def test_repair_of_a_completed_run(broken, shell):
    (broken / "mended").touch()
    shell("flow-run", "retry", "nightly", "--quiet")
    (broken / "calls").unlink()

    refused = shell("flow-run", "retry", "nightly")
    assert refused.returncode != 0
    assert "there is nothing to retry" in refused.stderr

    done = shell("flow-run", "repair", "nightly", "--task", "load", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert (broken / "calls").read_text() == "load fetch "
    assert json.loads(done.stdout)

    wrong = shell("flow-run", "repair", "nightly", "--task", "laod")
    assert wrong.returncode != 0
    assert "has no task run 'laod'" in wrong.stderr
