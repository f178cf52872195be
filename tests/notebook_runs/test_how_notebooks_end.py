"""However a notebook ends, the run, its cells and the saved notebook say the same, and the truth."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from notebook_runs import read, statuses, text_of

from prefect_nb import Flow
from prefect_nb.exceptions import CancelledRun, KernelDied, NotebookError
from prefect_nb.home import Home


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Any, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_a_failing_cell_ends_the_notebook(write: Any, history: Any):
    flow = Flow.from_notebook(write("x = 0", "# Then", "1 / x  # divide", "print('never')", ("", "x"), "y = 1"))

    state = flow(return_state=True)

    run = history.only_run()
    assert (state.type, state.name) == ("FAILED", "Failed")
    assert "Cell 2 of 4 ('Then') failed: ZeroDivisionError: division by zero" in state.message
    assert history.cell_states() == ["Completed", "Failed", "NotRun", "NotRun"]
    assert [cell.cell_index for cell in history.task_runs("cell")] == [0, 2, 3, 5]
    assert statuses(run.output_path) == ["completed", "failed", "pending", "skipped", "pending"]
    assert read(run.output_path).metadata.papermill.exception is True
    assert read(run.output_path).cells[2].outputs[0].ename == "ZeroDivisionError"
    with pytest.raises(NotebookError, match="division by zero"):
        state.result()
    assert history.problems() == []


def test_tags_mean_what_they_mean_elsewhere(write: Any, history: Any):
    output = Flow.from_notebook(
        write(("raise ValueError('as announced')", "raises-exception"), ("x = 1", "skip-execution"), "print('on')")
    )()

    assert history.cell_states() == ["Completed", "Completed"]
    assert "as announced" in (history.task_runs("cell")[0].state_message or "")
    assert statuses(output) == ["completed", "skipped", "completed"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_a_kernel_that_dies_crashes_the_run(write: Any, history: Any, code: str, said: str):
    started = time.monotonic()

    state = Flow.from_notebook(write("print('one')", code, "print('three')"))(return_state=True)

    assert time.monotonic() - started < 10
    assert state.is_crashed()
    assert "Cell 2 of 3" in state.message
    assert said in state.message
    assert history.cell_states() == ["Completed", "Crashed", "NotRun"]
    output = history.only_run().output_path
    assert statuses(output) == ["completed", "failed", "pending"]
    assert text_of(read(output).cells[0]) == "one\n"
    with pytest.raises(KernelDied):
        state.result()


def test_a_kernel_that_dies_between_cells_crashes_the_run(write: Any, history: Any):
    # Its process ends itself shortly after the cell; the next one is slow enough to be hit, or finds it dead.
    code = "import os, threading; threading.Timer(0.3, os._exit, [0]).start()"

    state = Flow.from_notebook(write(code, "import time; time.sleep(5)", "x = 1"))(return_state=True)

    assert state.is_crashed()
    assert history.cell_states() == ["Completed", "Crashed", "NotRun"]


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "import sys; sys.exit('no data')", "exit()"])
def test_leaving_the_notebook_early_is_no_success(write: Any, history: Any, code: str):
    state = Flow.from_notebook(write("x = 1", code, "y = 2"))(return_state=True)

    assert state.is_failed()
    assert "Cell 2 of 3" in state.message
    assert "the 1 after it did not run" in state.message
    assert history.cell_states() == ["Completed", "Failed", "NotRun"]


def test_a_cell_that_takes_too_long(write: Any, history: Any):
    flow = Flow.from_notebook(
        write("import os; print(os.getpid())", "while True: pass", "x = 1"), cell_timeout_seconds=1
    )
    started = time.monotonic()

    state = flow(return_state=True)

    assert time.monotonic() - started < 6
    assert (state.type, state.name) == ("FAILED", "TimedOut")
    assert "Cell 2 of 3 ('while True: pass') took longer than 1 seconds" in state.message
    assert history.cell_states() == ["Completed", "TimedOut", "NotRun"]
    output = history.only_run().output_path
    assert statuses(output) == ["completed", "failed", "pending"]
    assert not is_running(int(text_of(read(output).cells[0])))


def test_a_run_that_takes_too_long_even_if_interrupts_are_ignored(write: Any, history: Any):
    stubborn = (
        "import os, signal, time\nprint(os.getpid())\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)"
    )
    flow = Flow.from_notebook(write(stubborn), timeout_seconds=2.5)
    started = time.monotonic()

    state = flow(return_state=True)

    assert time.monotonic() - started < 6
    assert (state.type, state.name) == ("FAILED", "TimedOut")
    assert history.cell_states() == ["TimedOut"]
    assert not is_running(int(text_of(read(history.only_run().output_path).cells[0])))


def test_a_kernel_that_does_not_start_says_why(write: Any, history: Any, tmp_path: Path, monkeypatch: Any):
    folder = tmp_path / "jupyter" / "kernels" / "broken"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-c", "import sys; sys.exit('no such module: ipykernel')", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "broken", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    state = Flow.from_notebook(write("x = 1", kernel="broken"))(return_state=True)

    assert state.is_crashed()
    assert "exit code 1" in state.message
    assert "no such module: ipykernel" in state.message
    assert history.cell_states() == ["NotRun"]
    assert statuses(history.only_run().output_path) == ["pending"]


def test_a_cancel_interrupts_the_kernel(write: Any, history: Any):
    flow = Flow.from_notebook(write("import os; print(os.getpid())", "import time; time.sleep(60)", "x = 1"))
    home = Home.current()

    def cancel_in_second_cell() -> None:
        assert wait_until(lambda: "Running" in history.cell_states()[1:2])
        run = history.only_run()
        home.store.add_request(run.id, "cancel", 0, {"reason": "Enough."})

    canceller = threading.Thread(target=cancel_in_second_cell)
    canceller.start()
    with pytest.raises(CancelledRun, match="Enough"):
        flow()
    canceller.join()

    run = history.only_run()
    assert run.state_type == "CANCELLED"
    assert history.cell_states() == ["Completed", "Cancelled", "NotRun"]
    assert statuses(run.output_path) == ["completed", "failed", "pending"]
    assert not is_running(int(text_of(read(run.output_path).cells[0])))


def test_an_interrupt_from_the_keyboard_ends_kernel_and_run(write: Any, history: Any):
    source = write("import os; print(os.getpid())", "import time; time.sleep(60)", "x = 1")
    program = f"from prefect_nb import Flow; Flow.from_notebook({str(source)!r})()"
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ.copy(), stderr=subprocess.PIPE)
    assert wait_until(lambda: "Running" in history.cell_states()[1:2], 20)

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)

    assert process.returncode != 0
    assert b"KeyboardInterrupt" in errors
    run = history.only_run()
    assert run.state_type == "CANCELLED"
    assert history.cell_states() == ["Completed", "Cancelled", "NotRun"]
    assert not is_running(int(text_of(read(run.output_path).cells[0])))


def test_a_kernel_that_hangs_at_its_end_is_killed(write: Any, history: Any):
    code = "import atexit, os, time\natexit.register(time.sleep, 60)\nprint(os.getpid())"
    started = time.monotonic()

    output = Flow.from_notebook(write(code))()

    assert time.monotonic() - started < 10
    assert history.only_run().state_name == "Completed"
    assert not is_running(int(text_of(read(output).cells[0])))


def test_when_the_process_is_killed_its_kernel_ends_and_the_run_has_crashed(write: Any, history: Any, tmp_path: Path):
    marker = tmp_path / "pid"
    source = write(
        f"import os, pathlib\npathlib.Path({str(marker)!r}).write_text(str(os.getpid()))", "import time; time.sleep(60)"
    )
    program = f"from prefect_nb import Flow; Flow.from_notebook({str(source)!r})()"
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ.copy())
    assert wait_until(lambda: "Running" in history.cell_states()[1:2], 20)
    kernel = int(marker.read_text())

    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: not is_running(kernel))

    Home.current().reap()
    assert history.only_run().state_type == "CRASHED"
    assert history.cell_states() == ["Completed", "Crashed"]
    assert statuses(history.only_run().output_path) != ["completed", "completed"]


def test_a_second_attempt_goes_on_with_the_same_cells(write: Any, history: Any, tmp_path: Path):
    flag = tmp_path / "flag"
    code = f"import pathlib\nflag = pathlib.Path({str(flag)!r})\nonce = flag.exists()\nflag.touch()\nassert once"

    Flow.from_notebook(write("x = 1", code, "y = 1"), retries=1)()

    run = history.only_run()
    assert (run.state_name, run.run_count) == ("Completed", 2)
    assert history.cell_states() == ["Completed"] * 3
    assert [cell.run_count for cell in history.task_runs("cell")] == [2, 2, 1]
    assert history.problems() == []


def test_resuming_executes_the_notebook_again_as_the_same_run(write: Any, history: Any, tmp_path: Path):
    flag = tmp_path / "flag"
    code = f"import pathlib\nflag = pathlib.Path({str(flag)!r})\nonce = flag.exists()\nflag.touch()\nassert once\nprint(depth)"
    flow = Flow.from_notebook(write(("depth = 1", "parameters"), code))
    state = flow(depth=4, return_state=True)
    assert state.is_failed()

    output = flow.resume(history.only_run().id)

    assert text_of(read(output).cells[-1]) == "4\n"
    assert history.only_run().state_name == "Completed"
    assert history.cell_states() == ["Completed", "Completed"]


def test_resuming_does_not_run_a_task_again_whose_result_was_kept(write: Any, history: Any, tmp_path: Path):
    calls, flag = tmp_path / "calls", tmp_path / "flag"
    tasks = (
        "import pathlib\nfrom prefect_nb import task\n"
        "@task(persist_result=True)\ndef kept(x):\n"
        f"    with open({str(calls)!r}, 'a') as log: log.write(f'{{x}} ')\n"
        "    return x * 2\n"
        "values = [kept(1), *kept.map([2, 3]).result()]"
    )
    then = f"flag = pathlib.Path({str(flag)!r})\nonce = flag.exists()\nflag.touch()\nassert once\nprint(values)"
    flow = Flow.from_notebook(write(tasks, then))
    assert flow(return_state=True).is_failed()

    output = flow.resume(history.only_run().id)

    assert text_of(read(output).cells[-1]) == "[2, 4, 6]\n"
    assert sorted(calls.read_text().split()) == ["1", "2", "3"]
    assert [run.state_name for run in history.task_runs("task")] == ["Completed"] * 3
    assert history.problems() == []
