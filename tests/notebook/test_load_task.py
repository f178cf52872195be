"""`%load_task`: a failed task's inputs and body, brought to where one can look at them."""

from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel
from pydantic import SecretStr

from prefect_nb import Flow, flow, task
from prefect_nb.exceptions import ConfigurationError, MissingResult, ObjectNotFound
from prefect_nb.service.failed_tasks import load_task

FAILING = """
from prefect_nb import task
@task
def ratio(total, parts, scale=10):
    '''A ratio.'''
    share = total / parts
    return share * scale
"""


@task(persist_result=True)
def divide(total: int, parts: list[int]) -> float:
    """Divide."""
    rest = total
    for part in parts:
        rest = rest / part
    return rest


@task(persist_result=True)
def early(value: int, *more: int, unit: str = "m") -> str:
    if value > 100:
        return "large"
    raise ValueError(f"{value} {more} {unit}")


def test_the_inputs_and_the_body():
    @flow(name="shares")
    def shares() -> None:
        divide(10, [2, 0])

    assert shares(return_state=True).is_failed()

    loaded = load_task(_only("shares"))
    assert loaded.inputs == {"total": 10, "parts": [2, 0]}
    assert loaded.missing == {}
    assert "def divide(total" in (loaded.source or "")
    cell = loaded.cell({})
    assert "ZeroDivisionError" in cell.splitlines()[1]
    assert '"""' not in cell
    namespace: dict[str, Any] = {"total": 10, "parts": [2, 5]}
    exec(cell, namespace)
    assert namespace["rest"] == 1.0
    assert cell.rstrip().endswith("\nrest")


def _only(name: str) -> str:
    from prefect_nb.home import Home
    from prefect_nb.interfaces import RunQuery

    (run,) = Home.current().store.flow_runs(RunQuery(flow_name=name))
    return run.name


def test_a_body_that_returns_from_its_middle_is_a_function_and_a_call():
    @flow(name="early-flow")
    def early_flow() -> None:
        early(1, 2, 3, unit="km")

    assert early_flow(return_state=True).is_failed()

    loaded = load_task(f"{_only('early-flow')}/early")
    cell = loaded.cell({})
    assert "def early(value: int, *more: int, unit: str" in cell
    assert "early(value, *more, unit=unit)" in cell
    namespace: dict[str, Any] = dict(loaded.inputs)
    with pytest.raises(ValueError, match=r"1 \(2, 3\) km"):
        exec(cell, namespace)


def test_which_task_is_said_or_asked():
    @flow(name="many")
    def many() -> None:
        futures = [divide.submit(n, [0]) for n in (1, 2)]
        early.submit(1)
        for future in futures:
            future.result()

    assert many(return_state=True).is_failed()
    run = _only("many")

    with pytest.raises(ConfigurationError, match=f"3 tasks of flow run .* failed; name one: {run}/"):
        load_task(run)
    assert load_task(f"{run}/early").inputs["value"] == 1
    with pytest.raises(ObjectNotFound, match=r"no failed task 'erly'.*Did you mean 'early"):
        load_task(f"{run}/erly")
    with pytest.raises(ObjectNotFound, match="There is no task run"):
        load_task("nothing-like-it")


def test_secrets_and_what_cannot_be_pickled_are_left_out():
    @task(persist_result=True, cache_policy=None)
    def connect(address: str, password: Any, handle: Any, options: Any) -> None:
        raise OSError(address)

    @flow(name="connecting")
    def connecting() -> None:
        connect("host", SecretStr("hunter2"), (n for n in range(3)), {"key": SecretStr("hunter3")})

    assert connecting(return_state=True).is_failed()
    loaded = load_task(_only("connecting"))
    assert loaded.inputs == {"address": "host"}
    assert loaded.missing["password"] == loaded.missing["options"] == "it is a secret"
    assert "generator cannot be pickled" in loaded.missing["handle"]
    assert "hunter" not in loaded.cell({})


def test_so_much_is_kept_of_a_run_and_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_NB_TASKS_FAILED_INPUTS_MAX_BYTES", "3000")

    @task(persist_result=True)
    def fail(data: bytes) -> None:
        raise ValueError("no")

    @flow(name="bounded")
    def bounded() -> None:
        for n in range(3):
            fail(bytes([n]) * 1300, return_state=True)
        raise ValueError("end")

    assert bounded(return_state=True).is_failed()
    run = _only("bounded")
    from prefect_nb.service import history

    kept = [load_task(str(one.id)) for one in history.all_task_runs(history.find_flow_run(run).id)]
    assert [bool(one.inputs) for one in kept] == [True, True, False]
    assert "too large" in kept[2].missing["data"]


def test_of_very_many_the_first_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("prefect_nb.execution.failures._MOST_TASKS", 2)

    @task(persist_result=True)
    def fail(n: int) -> None:
        raise ValueError("no")

    @flow(name="crowd")
    def crowd() -> None:
        for n in range(3):
            fail(n, return_state=True)
        raise ValueError("end")

    assert crowd(return_state=True).is_failed()
    from prefect_nb.service import history

    runs = history.all_task_runs(history.find_flow_run(_only("crowd")).id)
    assert [load_task(str(one.id)).inputs for one in runs[:2]] == [{"n": 0}, {"n": 1}]
    with pytest.raises(MissingResult):
        load_task(str(runs[2].id))


def test_after_the_last_attempt():
    @task(persist_result=True, retries=2, retry_condition_fn=lambda task, run, state: False)
    def never_again(n: int) -> None:
        raise ValueError("no")

    @task(persist_result=True, retries=1)
    def again(tries: list[int]) -> None:
        tries.append(1)
        raise ValueError("no")

    @flow(name="trying")
    def trying() -> None:
        never_again(1, return_state=True)
        again([])

    assert trying(return_state=True).is_failed()
    run = _only("trying")
    assert load_task(f"{run}/never_again").inputs == {"n": 1}
    assert load_task(f"{run}/again").inputs == {"tries": [1, 1]}


def test_outside_notebooks_they_are_kept_with_results_only(monkeypatch: pytest.MonkeyPatch):
    @task
    def plain(x: int) -> None:
        raise ValueError("no")

    @flow(name="plainly")
    def plainly() -> None:
        plain(1)

    assert plainly(return_state=True).is_failed()
    with pytest.raises(MissingResult, match="persist_result=True"):
        load_task(_only("plainly"))


def test_in_a_kernel(kernel: Kernel):
    kernel.run(FAILING)
    kernel.run("%%flow sharing\nratio(6, 0, scale=2)", fails=True)

    loaded = kernel.run("%load_task ratio")
    assert "total, parts, scale" in loaded.stdout
    assert kernel.run("(total, parts, scale)").value == "(6, 0, 2)"
    assert kernel.run("total = 7\n%load_task ratio").stdout.count("had other values before: total") == 1
    wrong = kernel.run("%load_task nothing-there", fails=True)
    assert "There is no task run" in wrong.stderr + wrong.evalue
    assert "run/task" in kernel.run("%load_task -h").stdout


def test_of_a_notebook_run(tmp_path: Path):
    from nbformat import v4, write

    cells = [v4.new_code_cell(FAILING, id="a"), v4.new_code_cell("ratio([1], 2)", id="b")]
    path = tmp_path / "shares.ipynb"
    write(v4.new_notebook(cells=cells), path)
    assert Flow.from_notebook(path)(return_state=True).is_failed()

    loaded = load_task(_only("shares"))

    assert loaded.inputs == {"total": [1], "parts": 2, "scale": 10}
    assert "share = total / parts" in loaded.cell({})
