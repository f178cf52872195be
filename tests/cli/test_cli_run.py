"""`prefect-nb run` as people and programs meet it: what is printed, what is recorded, how it exits."""

import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest
from processes import command


def test_a_flow_is_run_and_summed_up(shell, ask):
    result = shell("run", "flows.py:work", "-p", "count=2", "-p", "name=Bob", "--tag", "nightly", "--name", "my run")

    assert result.returncode == 0, result.stderr
    assert "hello Bob" in result.stdout
    assert "✓ Completed  flow work, run my run" in result.stdout
    assert "✓ 2 Completed" in result.stdout
    assert "prefect-nb flow-run inspect 'my run'" in result.stdout
    run = ask("flow-run", "inspect", "my run")
    assert run["id"] in result.stdout
    assert run["parameters"] == {"count": 2, "name": "Bob"}
    assert run["tags"] == ["nightly"]


def test_the_summary_counts_the_tasks_of_the_whole_tree(shell, ask):
    result = shell("run", "flows.py:family", "--name", "big")

    assert result.returncode == 0, result.stderr
    assert "tasks     ✓ 4 Completed, ✓ 1 Cached" in result.stdout
    assert "cached    1 of 5 tasks not computed again" in result.stdout
    document = json.loads(shell("run", "flows.py:family", "--output", "json").stdout)
    assert sum(document["task_runs"].values()) == 5


def test_a_failed_flow(shell, ask):
    result = shell("run", "flows.py:failing")

    assert result.returncode == 1
    assert "✗ Failed  flow failing" in result.stdout
    assert "Error: Flow run encountered an exception: ValueError: the pipe is broken" in result.stderr
    assert re.search(r"flows\.py:\d+, in failing: raise ValueError", result.stderr)
    assert "Traceback" not in result.stderr
    assert [run["state"]["name"] for run in ask("flow-run", "ls")] == ["Failed"]


def test_quiet_prints_errors_only(shell):
    done, failed = shell("run", "flows.py:awaiting", "--quiet"), shell("run", "flows.py:failing", "-q")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "the pipe is broken" in failed.stderr


def test_json_is_all_there_is_on_stdout(shell):
    done, failed = (shell("run", f"flows.py:{name}", "--output", "json") for name in ("work", "failing"))

    document = json.loads(done.stdout)
    assert document["flow_run"]["state"]["type"] == "COMPLETED"
    assert document["task_runs"] == {"Completed": 3}
    assert document["exit_code"] == 0
    assert "hello Ada" in done.stderr
    assert json.loads(failed.stdout)["exit_code"] == failed.returncode == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["flows.py:wrok"], "Did you mean 'work'"),
        (["flos.py:work"], "Did you mean 'flows.py'"),
        (["flows.py"], "say which"),
        (["missing.ipynb"], "There is no notebook"),
        (["flows.py:work", "-p", "cuont=1"], "did you mean 'count'"),
        (["flows.py:work", "-p", "count=many"], "count: Input should be a valid integer"),
        (["flows.py:work", "-p", "count"], "not of the form name=value"),
        (["flows.py:work", "--timeout", "0"], "--timeout"),
        (["flows.py:work", "--tagg", "x"], "--tag"),
        (["flows.py:work", "--kernel", "python3"], "for a notebook only"),
        (["notes.txt"], "does not say where a flow is"),
        ([], "Missing argument 'TARGET'"),
    ],
)
def test_bad_input_says_what_is_wrong_and_writes_nothing(invoke, folder, prefect_nb_home: Path, args, words):
    result = invoke("run", *args)

    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not prefect_nb_home.exists()


def test_a_file_that_does_not_import(invoke, folder: Path):
    (folder / "broken_file.py").write_text("import no_such_module_here\n")

    result = invoke("run", "broken_file.py:f")

    assert result.exit_code == 2
    assert "No module named 'no_such_module_here'" in result.stderr
    assert "Traceback (most" not in result.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_before_there_is_a_run(shell, folder: Path, prefect_nb_home: Path, name: str, code: int):
    (folder / "slow_import.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{name})\n")

    result = shell("run", "slow_import.py:f")

    assert result.returncode == code
    assert "Traceback" not in result.stderr
    assert not prefect_nb_home.exists()


def test_a_damaged_history_is_left_alone(shell, prefect_nb_home: Path):
    assert shell("run", "flows.py:work").returncode == 0
    database = prefect_nb_home / "prefect_nb.db"
    database.write_bytes(database.read_bytes()[:9000])

    result = shell("run", "flows.py:work")

    assert result.returncode == 2
    assert "prefect_nb.db" in result.stderr
    assert "Traceback" not in result.stderr
    assert database.stat().st_size == 9000


def test_debug_shows_the_traceback(shell):
    assert "Traceback (most recent call last)" in shell("--debug", "run", "flows.py:wrok").stderr


def test_a_run_is_cancelled_from_another_process(start, shell, ask):
    process = start("run", "flows.py:long", "--name", "slow one")

    cancelled = shell("flow-run", "cancel", "slow one")
    out, _ = process.communicate(timeout=60)

    assert cancelled.returncode == 0, cancelled.stderr
    assert "⊘ Cancelled" in cancelled.stdout
    assert process.returncode == 130
    assert "⊘ Cancelled  flow long, run slow one" in out
    assert ask("flow-run", "inspect", "slow one")["state"]["type"] == "CANCELLED"


@pytest.mark.parametrize(
    ("signum", "code", "state"), [(signal.SIGINT, 130, "CANCELLED"), (signal.SIGTERM, 143, "CRASHED")]
)
def test_signals_end_a_run_in_good_order(start, ask, signum: int, code: int, state: str):
    process = start("run", "flows.py:long", "--name", "slow")

    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == code
    assert "Traceback" not in errors
    run = ask("flow-run", "inspect", "slow")
    assert run["state"]["type"] == state
    assert all(task["state"]["type"] == "COMPLETED" for task in run["task_runs"])


def test_a_killed_run_is_crashed_at_once_and_can_be_resumed(start, shell, ask, invoke):
    process = start("run", "flows.py:long", "--name", "slow", "-p", "seconds=1", "--durable")
    process.kill()
    process.wait()

    (crashed,) = ask("flow-run", "ls")
    refused = invoke("flow-run", "cancel", "slow")
    resumed = shell("flow-run", "resume", "slow")

    assert crashed["state"]["type"] == "CRASHED"
    assert refused.exit_code == 2
    assert "has ended already: it is Crashed" in refused.stderr
    assert resumed.returncode == 0, resumed.stderr
    assert "✓ Completed" in resumed.stdout
    assert "computed" not in resumed.stdout
    run = ask("flow-run", "inspect", "slow")
    assert (run["id"], run["state"]["type"], run["recoveries"]) == (crashed["id"], "COMPLETED", 1)
    again = shell("flow-run", "resume", "slow")
    assert again.returncode == 2
    assert "nothing to resume" in again.stderr


def test_a_run_that_is_taken_over_exits_75(start, ask):
    first = start("run", "flows.py:long", "--name", "slow")

    second = start("flow-run", "resume", "slow", "--force")
    _, errors = first.communicate(timeout=60)

    assert first.returncode == 75
    assert "taken over" in errors
    assert ask("flow-run", "inspect", "slow")["state"]["type"] == "RUNNING"
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=60)
    assert ask("flow-run", "inspect", "slow")["state"]["type"] == "CANCELLED"


def test_without_a_terminal_progress_is_plain_lines(shell):
    result = shell("run", "flows.py:failing")

    assert "\r" not in result.stdout + result.stderr
    assert "\x1b" not in result.stdout + result.stderr


def test_on_a_terminal_progress_is_one_live_line(folder: Path):
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("run", "flows.py:work"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(slave)
    out, _ = process.communicate(timeout=60)
    drawn = b""
    try:
        while data := os.read(master, 65536):
            drawn += data
    except OSError:  # the other end is closed
        pass
    os.close(master)

    assert process.returncode == 0
    assert "\x1b[" in drawn.decode()
    assert "tasks 3 of 3: ✓ 3 Completed" in drawn.decode() or "▶" in drawn.decode()
    # What the flow prints goes to stdout, which is no terminal here, untouched.
    assert out.startswith("hello Ada\n")
    assert "\x1b" not in out
