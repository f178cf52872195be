"""`%runs NAME` rebuilds the view from the history: of a run that has ended, that was killed, or that goes on elsewhere."""

import re
import subprocess
import sys
import time

SCRIPT = """
import os, pathlib, sys, time
from prefect_nb import flow, get_run_logger, task

@task
def load(n):
    get_run_logger().info("loading %s", n)
    return list(range(n))

@task
def total(rows, gate=None):
    while gate is not None and not pathlib.Path(gate).exists():
        time.sleep(0.02)
    if gate is not None and pathlib.Path(gate).read_text() == "die":
        os._exit(9)
    return sum(rows)

@flow
def inner(rows):
    return total(rows)

@flow(flow_run_name=sys.argv[1])
def elsewhere(gate):
    rows = load.submit(5)
    inner(rows)
    total.submit(rows, gate).result()

elsewhere(sys.argv[2])
"""


def start(environment, folder, name, gate):
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.Popen([sys.executable, "script.py", name, str(gate)], env=environment, cwd=folder)


def shown_of(kernel, name):
    """The text under `%runs NAME`; nothing where there is no such run yet."""
    outcome = kernel.end_of(kernel.start(f"%runs {name}"))
    return outcome.displays[0]["text/plain"] if outcome.status == "ok" else ""


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_that_has_ended_is_shown_as_it_was_below_its_own_cell(kernel, kernel_environment, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    assert start(kernel_environment, tmp_path, "ended-run", gate).wait(timeout=60) == 0
    outcome = kernel.run("%runs ended-run")
    assert outcome.displays[0]["text/plain"].startswith("✓ Completed  flow 'elsewhere', run 'ended-run'")
    for shown in ("Child flow runs", "inner", "load-", "loading 5", "%runs ", 'alt="Graph of the tasks"'):
        assert shown in outcome.html
    assert len(outcome.html.encode()) < 20_000


def test_a_run_whose_process_was_killed_is_crashed(kernel, kernel_environment, tmp_path):
    gate = tmp_path / "gate"
    process = start(kernel_environment, tmp_path, "killed-run", gate)
    until(lambda: "▶ Running  total-" in shown_of(kernel, "killed-run"))
    gate.write_text("die")
    assert process.wait(timeout=60) == 9
    assert "Crashed" in kernel.run("%runs killed-run").displays[0]["text/plain"]


def test_a_run_that_goes_on_elsewhere_is_a_picture_where_nobody_watches(kernel, kernel_environment, tmp_path):
    gate = tmp_path / "gate"
    process = start(kernel_environment, tmp_path, "going-run", gate)
    try:
        until(lambda: "▶ Running  total-" in shown_of(kernel, "going-run"))
        (bundle,) = kernel.run("%runs going-run").displays
        assert set(bundle) == {"text/html", "text/plain"}
        assert "A picture of an unfinished run" in bundle["text/html"]
        assert re.search(r"%runs [0-9a-f-]{36}", bundle["text/html"])
    finally:
        gate.touch()
        process.wait(timeout=60)


def test_where_somebody_watches_it_is_followed_to_its_end(kernel, kernel_environment, tmp_path):
    gate = tmp_path / "gate"
    process = start(kernel_environment, tmp_path, "followed-run", gate)
    try:
        until(lambda: "▶ Running  total-" in shown_of(kernel, "followed-run"))
        request = kernel.start("%runs followed-run", watched=True)
        outcome = kernel.end_of(request)
        assert "▶ Running  total-" in outcome.displays[0]["text/plain"]
        assert "data-pnb-place" in outcome.html
    finally:
        gate.touch()
        process.wait(timeout=60)
    kernel.later(request, outcome, lambda so_far: so_far.displays[0]["text/plain"].startswith("✓ Completed"))
    assert "data-pnb-place" not in outcome.html
    assert "followed-run" in outcome.html
