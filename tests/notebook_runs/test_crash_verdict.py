"""Why a kernel died, in words: as a pure function of what is known, and for kernels that really die."""

import signal
from typing import Any

import pytest

from prefect_nb import Flow
from prefect_nb.bodies import memory
from prefect_nb.bodies.memory import Sample
from prefect_nb.bodies.verdict import UNSEEN, Death, size_text, verdict

GIB = 1024**3
MIB = 1024**2


def rising(
    to: float, per_second: float, limit: float | None, *, in_container: bool = True, others: float = 0.0
) -> list[Sample]:
    """Five seconds of samples that end at `to` GiB."""
    sizes = [(second, int((to - (4 - second) * per_second / 1024) * GIB)) for second in range(5)]
    size = None if limit is None else int(limit * GIB)
    return [Sample(second, used, used + int(others * GIB), size, in_container) for second, used in sizes]


def test_out_of_memory():
    death = Death(exit_code=-9, samples=rising(9.8, 300, 10), oom_kills=1, doing="while running `train`")

    assert verdict(death) == (
        "killed by the system (out of memory) while running `train`: 9.8 GiB of 10 GiB, rising 300 MiB/s"
    )


@pytest.mark.parametrize(
    ("samples", "kills", "is_memory"),
    [
        (rising(9.8, 0, 10), 0, True),
        (rising(8.9, 300, 10), 0, True),  # the last sample was a second before
        (rising(4.0, 0, 10), 0, False),
        (rising(4.0, 0, 10), 1, True),  # the system says so itself
        (rising(4.0, 0, 10, others=5.9), 0, True),
        (rising(0.2, 0, 10, others=9.7), 0, False),  # others fill the machine; whoever killed this small one?
        (rising(4.0, 0, None), 0, False),
        ([], 0, False),
        ([], 1, True),
    ],
)
def test_whether_it_was_memory(samples: list[Sample], kills: int, is_memory: bool):
    said = verdict(Death(exit_code=-9, samples=samples, oom_kills=kills))

    assert ("out of memory" in said) is is_memory
    assert ("SIGKILL" in said) is not is_memory


def test_a_kill_that_was_not_for_memory_says_what_was_used():
    said = verdict(Death(exit_code=-9, samples=rising(1.0, 0, 16), doing="while running `load-0`"))

    assert (
        said
        == "its process was ended by SIGKILL while running `load-0`; it used 1 GiB of 16 GiB, so memory is hardly why"
    )
    assert "when memory runs out" in verdict(Death(exit_code=-9))


def test_what_shares_the_limit_is_said():
    said = verdict(Death(exit_code=-9, samples=rising(4.0, 0, 10, in_container=False, others=5.8)))

    assert said == "killed by the system (out of memory): 4 GiB of 10 GiB (9.8 GiB with what else shares the machine)"


def test_a_kernel_of_another_process():
    assert verdict(Death(exit_code=UNSEEN, doing="while running `x`")) == "its process has ended while running `x`"
    assert "out of memory" in verdict(Death(exit_code=UNSEEN, oom_kills=1))


FAULT = """Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "ipykernel_12/341.py", line 3 in crash
  File "/x/site-packages/IPython/core/interactiveshell.py", line 3553 in run_code
"""


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (
            -signal.SIGSEGV,
            FAULT,
            "ended by SIGSEGV (compiled code used memory that is not its own), at line 3 of the cell, in crash",
        ),
        (-signal.SIGTERM, "", "ended by SIGTERM (something outside asked it to end)"),
        (-signal.SIGABRT, "terminate called", "ended by SIGABRT (compiled code gave up)"),
        (-200, "", "ended by signal 200"),
        (3, "", "ended with exit code 3"),
        (0, "", "ended with exit code 0"),
    ],
)
def test_other_ends(code: int, words: str, said: str):
    assert verdict(Death(exit_code=code, words=words)) == f"its process was {said}".replace(
        "was ended with", "ended with"
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (300 * MIB, "300 MiB"), (int(9.8 * GIB), "9.8 GiB")],
)
def test_sizes(size: int, text: str):
    assert size_text(size) == text


# Real ones


def crashed(write: Any, history: Any, *sources: str) -> str:
    state = Flow.from_notebook(write(*sources))(return_state=True)
    assert state.is_crashed()
    cell = next(run for run in history.task_runs("cell") if run.state_name == "Crashed")
    assert history.only_run().state_message == state.message == cell.state_message
    return str(state.message)


def test_a_segmentation_fault_names_its_line(write: Any, history: Any):
    message = crashed(write, history, "x = 1", "import ctypes\ndef crash():\n    ctypes.string_at(0)\ncrash()")

    assert "Cell 2 of 2" in message
    assert "SIGSEGV (compiled code used memory that is not its own)" in message
    assert "at line 3 of the cell, in crash" in message


def test_the_task_that_ran_is_named(write: Any, history: Any):
    source = (
        "import os, signal, time\nfrom prefect_nb import task\n"
        "@task\ndef train():\n    time.sleep(2.2)\n    os.kill(os.getpid(), signal.SIGKILL)\ntrain()"
    )
    message = crashed(write, history, source)

    assert "while running `train-" in message
    assert "(for 2 s)" in message
    assert "so memory is hardly why" in message


def test_a_kernel_killed_near_its_limit_ran_out_of_memory(write: Any, history: Any, monkeypatch: pytest.MonkeyPatch):
    # The machine's limit cannot be reached in a test: it is brought near instead.

    monkeypatch.setattr(memory, "_tightest", lambda groups: (400 * MIB, memory_of_largest(), True))

    def memory_of_largest() -> int:
        sizes: dict[int, int] = {}
        for found in memory.processes():
            sizes[found.group] = sizes.get(found.group, 0) + found.resident
        return max(sizes.values())

    source = (
        "import os, signal, time\nfull = bytearray(380 * 2**20)\ntime.sleep(1.5)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    message = crashed(write, history, source)

    assert "killed by the system (out of memory)" in message
    assert "of 400 MiB" in message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM (something outside asked it to end)"),
        ("import os, sys; print('last words', file=sys.__stderr__, flush=True); os.abort()", "SIGABRT"),
    ],
)
def test_other_real_ends(write: Any, history: Any, source: str, said: str):
    assert said in crashed(write, history, source)


# Where it is read


def test_the_control_groups_of_both_versions(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "7").mkdir(parents=True)
    monkeypatch.setattr(memory, "_PROC", proc)
    monkeypatch.setattr(memory, "_CGROUPS", groups)
    (proc / "meminfo").write_text("MemTotal: 8000 kB\nMemAvailable: 6000 kB\n")
    assert memory._tightest(memory._control_groups(7)) == (8_192_000, 2_048_000, False)

    job = groups / "user" / "job"
    job.mkdir(parents=True)
    (proc / "7" / "cgroup").write_text("0::/user/job\n")
    (job / "memory.max").write_text("max\n")
    (job / "memory.events").write_text("low 0\noom 2\noom_kill 3\n")
    (job.parent / "memory.max").write_text("4000000\n")
    (job.parent / "memory.current").write_text("3900000\n")
    (job.parent / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    found = memory._control_groups(7)
    assert memory._tightest(found) == (4_000_000, 3_800_000, True)
    assert memory._oom_kills(found) == 3

    first = groups / "memory" / "slice"
    first.mkdir(parents=True)
    (proc / "7" / "cgroup").write_text("9:cpu:/\n4:memory:/slice\n")
    (first / "memory.limit_in_bytes").write_text("5000000\n")
    (first / "memory.usage_in_bytes").write_text("1000\n")
    (first / "memory.oom_control").write_text("oom_kill_disable 0\noom_kill 1\n")
    found = memory._control_groups(7)
    assert memory._tightest(found)[0] == 5_000_000
    assert memory._oom_kills(found) == 1
