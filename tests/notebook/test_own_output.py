"""What tasks print and display where somebody watches: under their rows, kept, and never lost."""

import json
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from kernels import Kernel, Outcome

from prefect_nb.execution import output_rows, own_output, taps
from prefect_nb.execution.own_output import Capture
from prefect_nb.interfaces import Output
from prefect_nb.notebook.html_outputs import printed_html, printed_lines
from prefect_nb.service.run_outputs import Printed, as_seen
from prefect_nb.store.memory_outputs import MemoryOutputs

PRELUDE = """
import asyncio, contextlib, io, logging, sys, threading, time
from IPython.display import HTML, clear_output, display
from prefect_nb import flow, get_run_logger, task
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE
from prefect_nb.home import Home
from prefect_nb.notebook.view_outputs import parts

def last_run():
    from prefect_nb.service import history
    return history.flow_runs(limit=1)[0]

def rows():
    "What each task run of the newest flow run showed: (name, text of its streams, what it displayed)."
    from prefect_nb.service import history, run_outputs
    Home.current().ledger.commit()
    return {
        run.name.rpartition("-")[0] or run.name: [
            piece.text if piece.kind != "display" else sorted(piece.data) for piece in run_outputs.pieces(run)
        ]
        for run in history.all_task_runs(last_run().id)
    }

@task(task_run_name="say {x}-")
def say(x):
    print("said", x)
    return x
"""


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    kernel.run(PRELUDE)
    return kernel


def rows_of(notebook: Kernel) -> dict[str, list[object]]:
    return json.loads(notebook.run("import json; print(json.dumps(rows()))").stdout)


def watched(notebook: Kernel, code: str, *, fails: bool = False) -> Outcome:
    return notebook.run(code, watched=True, fails=fails)


# Where it goes


def test_prints_of_tasks_are_under_their_rows_and_those_of_the_flow_in_the_cell(notebook: Kernel) -> None:
    ran = watched(notebook, "%%flow\nprint('the flow')\nsay(1)\nsay.submit(2).result()\nprint('its end');")

    assert ran.stdout == "the flow\nits end\n"
    assert rows_of(notebook) == {"say 1": ["said 1\n"], "say 2": ["said 2\n"]}
    assert "said 1" in ran.html
    assert "<details open>" in ran.html
    (picture,) = ran.displays
    assert "    said 2" in picture["text/plain"].splitlines()


def test_nothing_changes_where_nobody_watches(notebook: Kernel) -> None:
    ran = notebook.run("%%flow\nsay(1)\nsay.submit(2).wait()")

    assert sorted(ran.stdout.splitlines()) == ["said 1", "said 2"]
    assert rows_of(notebook) == {"say 1": [], "say 2": []}


def test_four_tasks_at_once_do_not_mix(notebook: Kernel) -> None:
    notebook.run(
        """
together = threading.Barrier(4)
@task(task_run_name="talk {x}-")
def talk(x):
    for n in range(50):
        if n % 10 == 0:
            together.wait(20)
        print("talk", x, end=" ")
        print("line", n)
        print("oh", x, file=sys.stderr)
"""
    )
    ran = watched(notebook, "%%flow\ntalk.map(range(4)).wait()")

    assert (ran.stdout, ran.stderr) == ("", "")
    for x in range(4):
        shown = rows_of(notebook)[f"talk {x}"]
        assert "".join(shown[::2]) == "".join(f"talk {x} line {n}\n" for n in range(50))
        assert set("".join(shown[1::2]).splitlines()) == {f"oh {x}"}


def test_async_tasks_and_nested_ones(notebook: Kernel) -> None:
    notebook.run(
        """
@task(task_run_name="turn {x}-")
async def turn(x):
    for n in range(3):
        print("turn", x)
        await asyncio.sleep(0)

@task(task_run_name="outer-")
def outer():
    print("before")
    say(7)
    print("after")
"""
    )
    ran = watched(notebook, "%%flow\nouter()\nawait asyncio.gather(turn(1), turn(2))\nturn.submit(3).wait()")

    assert ran.stdout == ""
    shown = rows_of(notebook)
    assert shown["outer"] == ["before\nafter\n"]
    assert shown["say 7"] == ["said 7\n"]
    assert [shown[f"turn {x}"] for x in (1, 2, 3)] == [[f"turn {x}\n" * 3] for x in (1, 2, 3)]


def test_prints_of_pool_processes(notebook: Kernel) -> None:
    ran = watched(notebook, "%%flow --runner processes --max-workers 1\nsay.submit(5).result()")

    assert ran.stdout == ""
    assert rows_of(notebook) == {"say 5": ["said 5\n"]}


def test_what_a_task_displays_is_under_its_row_and_in_the_cell(notebook: Kernel) -> None:
    notebook.run(
        """
import base64
PNG = base64.b64encode(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(50)).decode()
@task(task_run_name="draw-")
def draw():
    display({"image/png": PNG, "text/plain": "<Figure>", "application/x-own": "no"}, raw=True)
    display(HTML("<b>table</b>"))
    handle = display(HTML("0 %"), display_id=True)
    handle.update(HTML("100 %"))
"""
    )
    ran = watched(notebook, "%%flow\ndraw();")

    assert [bundle.get("text/html") for bundle in ran.displays[1:]] == [None, "<b>table</b>", "100 %"]
    assert rows_of(notebook)["draw"] == [["image/png", "text/plain"], ["text/html", "text/plain"], ["text/html", "text/plain"]]
    details = notebook.run("from prefect_nb.service import history\n[p['kind'] for p in parts(history.all_task_runs(last_run().id)[0])]")
    assert details.value == "['image', 'html', 'html']"
    assert "100 %" in notebook.run("parts(history.all_task_runs(last_run().id)[0])").value


def test_a_task_that_clears_its_output_clears_its_row_and_not_the_view(notebook: Kernel) -> None:
    notebook.run(
        """
@task(task_run_name="train-")
def train():
    for epoch in range(3):
        clear_output(wait=True)
        print("epoch", epoch)
        display(HTML(f"<i>{epoch}</i>"))
"""
    )
    ran = watched(notebook, "%%flow\ntrain();")

    assert rows_of(notebook)["train"] == ["epoch 2\n", ["text/html", "text/plain"]]
    assert "Completed" in ran.displays[0]["text/html"]
    assert [bundle["text/html"] for bundle in ran.displays[1:]] == ["<i>2</i>"]


def test_log_lines_of_tasks_are_in_the_log_and_those_of_the_flow_in_the_cell_too(notebook: Kernel) -> None:
    notebook.run("@task(log_prints=True)\ndef told():\n    print('of the task')\n    get_run_logger().warning('careful')")
    ran = watched(notebook, "%%flow\nget_run_logger().info('of the flow')\ntold()")

    assert "of the flow" in ran.stdout
    assert "of the task" not in ran.stdout
    assert ran.stderr == ""
    assert rows_of(notebook)["told"] == []
    assert "of the task" in ran.html
    assert "careful" in ran.html


def test_what_a_cached_task_shows_again_is_under_its_row(notebook: Kernel) -> None:
    notebook.run("@task(cache_policy=INPUTS + TASK_SOURCE)\ndef told(x):\n    print('told', x)\n    display(HTML('<u>x</u>'))")
    watched(notebook, "%%flow\ntold(1)")
    again = watched(notebook, "%%flow --cache\ntold(1)")

    assert again.stdout == ""
    (shown,) = rows_of(notebook).values()
    mark, text = shown[0].splitlines()
    assert mark.startswith("cached output of told")
    assert text == "told 1"
    assert shown[1] == ["text/html", "text/plain"]


# Traps


def test_what_somebody_redirects_is_theirs(notebook: Kernel) -> None:
    notebook.run(
        """
@task(task_run_name="quiet-")
def quiet():
    with contextlib.redirect_stdout(io.StringIO()) as buffer:
        print("hidden")
    print("shown")
    return buffer.getvalue()
"""
    )
    assert watched(notebook, "%%flow\nquiet()").value == "'hidden\\n'"
    assert rows_of(notebook) == {"quiet": ["shown\n"]}

    around = "@flow\ndef work():\n    quiet()\nwith contextlib.redirect_stdout(io.StringIO()) as mine:\n    work()\nmine.getvalue()"
    assert "'shown\\n" in watched(notebook, around).value
    watched(notebook, "%%capture caught\nwork()")
    assert notebook.run("caught.stdout.splitlines()[0]").value == "'shown'"


TAPS = "(type(sys.stdout).__name__, type(sys.stderr).__name__, 'publish' in vars(get_ipython().display_pub))"


def test_the_taps_are_gone_after_the_run(notebook: Kernel) -> None:
    untouched = "('OutStream', 'OutStream', False)"
    watched(notebook, "%%flow\nsay(1)")
    assert notebook.run(TAPS).value == untouched

    notebook.run("@task\ndef bad():\n    print('so far')\n    raise ValueError('bad')")
    assert watched(notebook, "%%flow\nbad()", fails=True).ename == "ValueError"
    assert notebook.run(TAPS).value == untouched
    assert rows_of(notebook)["bad"] == ["so far\n"]

    request = notebook.start("%%flow\nprint('begun')\nsay(3)\ntime.sleep(60)", watched=True)
    begun = notebook.end_of(request, until="begun")
    notebook.interrupt()
    assert notebook.end_of(request, so_far=begun).status == "error"
    assert notebook.run(TAPS).value == untouched
    assert rows_of(notebook)["say 3"] == ["said 3\n"]
    assert notebook.run("print('plain')").stdout == "plain\n"


def test_handlers_that_hold_the_old_stream_are_heard_and_get_it_back(notebook: Kernel) -> None:
    notebook.run(
        """
handler = logging.StreamHandler()
logging.getLogger("mine").addHandler(handler)
@task
def logs():
    logging.getLogger("mine").warning("by logging")
    later = logging.StreamHandler()
    logging.getLogger("mine.later").addHandler(later)
"""
    )
    ran = watched(notebook, "%%flow\nlogs()\nlogging.getLogger('mine').warning('by the flow')")

    assert ran.stderr == "by the flow\n"
    assert rows_of(notebook) == {"logs": ["by logging\n"]}
    streams = "[type(logging.getLogger(name).handlers[0].stream).__name__ for name in ('mine', 'mine.later')]"
    assert notebook.run(streams).value == "['OutStream', 'OutStream']"
    notebook.run("for name in ('mine', 'mine.later'): logging.getLogger(name).handlers.clear()")


def test_late_prints_and_those_of_threads_that_lost_the_run_go_to_the_cell(notebook: Kernel) -> None:
    notebook.run(
        """
import contextvars
may_go = threading.Event()
@task(task_run_name="leaves-")
def leaves():
    lost = threading.Thread(target=print, args=("by a thread of its own",))
    lost.start()
    lost.join()
    def late():
        may_go.wait(20)
        print("late")
    thread = threading.Thread(target=contextvars.copy_context().run, args=(late,))
    thread.start()
    return thread
"""
    )
    request = notebook.start("%%flow\nthread = leaves()", watched=True)
    ran = notebook.end_of(request)
    assert ran.stdout == "by a thread of its own\n"

    notebook.run("may_go.set(); thread.join()")
    assert notebook.later(request, ran, lambda one: "late\n" in one.stdout)
    assert rows_of(notebook) == {"leaves": []}


def test_pool_threads_print_under_the_cell_that_runs_them(notebook: Kernel) -> None:
    watched(notebook, "%%flow\nsay.map(range(4)).wait()")

    assert sorted(notebook.run("%%flow\nsay.map(range(4)).wait()").stdout.split()) == sorted("said 0 said 1 said 2 said 3".split())


def test_a_detached_run_goes_on_under_its_rows_while_other_cells_print(notebook: Kernel) -> None:
    notebook.run(
        """
go = {n: threading.Event() for n in range(3)}
seen = threading.Semaphore(0)
@task(task_run_name="step {n}-")
def step(n):
    go[n].wait(30)
    print("step", n)
    seen.release()
"""
    )
    watched(notebook, "%%flow --detach -o run\nfor n in range(3):\n    step(n)")
    outputs = [watched(notebook, f"print('cell', {n})\ngo[{n}].set()\nassert seen.acquire(timeout=30)") for n in range(2)]
    notebook.run("go[2].set()\nassert run.wait(30)")

    assert [one.stdout for one in outputs] == ["cell 0\n", "cell 1\n"]
    assert rows_of(notebook) == {f"step {n}": [f"step {n}\n"] for n in range(3)}
    assert notebook.run(TAPS).value == "('OutStream', 'OutStream', False)"


def test_a_debugger_in_a_task_talks_in_the_cell(notebook: Kernel) -> None:
    notebook.run(
        """
import bdb
class Stepping(bdb.Bdb):
    def user_line(self, frame):
        if not self.said:
            self.said = True
            print("at the prompt")
        self.set_continue()
    said = False
@task
def stepped():
    print("before")
    Stepping().set_trace()
    time.time()
    sys.settrace(None)
    print("after")
"""
    )
    ran = watched(notebook, "%%flow\nstepped()")

    assert ran.stdout == "at the prompt\n"
    assert rows_of(notebook) == {"stepped": ["before\nafter\n"]}


def test_a_progress_bar_is_one_line(notebook: Kernel) -> None:
    notebook.run(
        """
from tqdm import tqdm
@task
def count():
    for _ in tqdm(range(200), mininterval=0, file=sys.stderr, ascii=True):
        pass
    print("done")
"""
    )
    ran = watched(notebook, "%%flow\ncount()")

    assert ran.stderr == ""
    bar, done = rows_of(notebook)["count"]
    assert done == "done\n"
    assert bar.count("\n") == 1
    assert bar.startswith("100%|##########| 200/200")


def test_secrets_are_masked(notebook: Kernel) -> None:
    notebook.run("from prefect_nb.model import redaction\nredaction.learn('hunter2-hunter2')")
    notebook.run("@task\ndef leak():\n    print('it is hunter2-', end='')\n    print('hunter2')\n    display(HTML('hunter2-hunter2'))")
    ran = watched(notebook, "%%flow\nleak()")

    assert rows_of(notebook)["leak"][0] == "it is ********\n"
    assert "hunter2-hunter2" not in ran.displays[0]["text/html"]
    assert "hunter2" not in notebook.run("[o.data for o in Home.current().store.outputs.read(history.all_task_runs(last_run().id)[0].id)]").value
    notebook.run("redaction.forget()")


# Nothing is lost


BREAK = """
from prefect_nb.notebook import screens
original = screens.NotebookScreen._replace
def broken(self, bundle):
    raise OSError("the front end is gone")
screens.NotebookScreen._replace = broken
"""


def test_a_view_that_fails_at_the_end_gives_everything_back(notebook: Kernel) -> None:
    notebook.run(BREAK)
    try:
        code = "%%flow\nsay(1)\nprint('x', file=sys.stderr)\nsay(2)\nget_run_logger().info('of the flow')"
        ran = watched(notebook, code)
    finally:
        notebook.run("screens.NotebookScreen._replace = original")

    assert ran.stdout.endswith("said 1\nsaid 2\n")
    assert notebook.run(TAPS).value == "('OutStream', 'OutStream', False)"


def test_a_view_that_fails_on_its_way_gives_back_and_stands_aside(notebook: Kernel) -> None:
    notebook.run(BREAK + "\n@task\ndef waits():\n    print('before')\n    while own_output.captures():\n        time.sleep(0.01)\n    print('after')")
    notebook.run("from prefect_nb.execution import own_output")
    try:
        ran = watched(notebook, "%%flow\nwaits()")
    finally:
        notebook.run("screens.NotebookScreen._replace = original")

    assert ran.stdout == "before\nafter\n"


def test_no_widgets_no_taking(notebook: Kernel) -> None:
    notebook.run("import builtins\nsys.modules['anywidget'] = None\nfrom prefect_nb.notebook import screens\nscreens.panel_class.cache_clear()")
    notebook.run("@task\ndef waits():\n    print('before')\n    deadline = time.monotonic() + 20\n    while own_output.captures() and time.monotonic() < deadline:\n        time.sleep(0.01)\n    print('after')")
    notebook.run("from prefect_nb.execution import own_output")
    try:
        ran = watched(notebook, "%%flow\nwaits()")
    finally:
        notebook.run("del sys.modules['anywidget']\nscreens.panel_class.cache_clear()")

    assert ran.stdout == "before\nafter\n"
    assert "before" not in ran.html


def test_it_is_there_after_a_restart(
    notebook: Kernel, other_kernel: Kernel, kernel_environment: dict[str, str], tmp_path: Path
) -> None:
    watched(notebook, "%%flow -o run\nsay('kept')")
    name = notebook.run("print(run.name)").stdout.strip()

    later = other_kernel.run(f"%runs {name}")
    assert "said kept" in later.html
    other_kernel.run(PRELUDE + "from prefect_nb.service import history")
    assert "said kept" in other_kernel.run(f"parts(history.all_task_runs(history.find_flow_run({name!r}).id)[0])").value

    id = notebook.run("from prefect_nb.service import history\nprint(history.all_task_runs(run.id)[0].id)").stdout.strip()
    for arguments in ([id], [id, "--follow"]):
        command = [sys.executable, "-m", "prefect_nb", "task-run", "output", *arguments]
        done = subprocess.run(command, env=kernel_environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "said kept\n"), done.stderr
    as_json = subprocess.run(
        [sys.executable, "-m", "prefect_nb", "task-run", "output", id, "-o", "json"],
        env=kernel_environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )
    assert json.loads(as_json.stdout) == [{"kind": "stdout", "text": "said kept\n"}]


def test_nothing_kept_is_said(notebook: Kernel, kernel_environment: dict[str, str], tmp_path: Path) -> None:
    notebook.run("%%flow -o run\nsay(1)")
    id = notebook.run("from prefect_nb.service import history\nprint(history.all_task_runs(run.id)[0].id)").stdout.strip()
    command = [sys.executable, "-m", "prefect_nb", "task-run", "output", id]
    done = subprocess.run(command, env=kernel_environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing is kept of what task run 'say 1-' printed" in done.stderr


def test_much_is_bounded_and_cheap(notebook: Kernel) -> None:
    notebook.run(
        """
took = {}
@task(task_run_name="chatter-")
def chatter(lines, words):
    begun = time.perf_counter()
    for n in range(lines):
        print(words, n)
    took["task"] = time.perf_counter() - begun
"""
    )
    ran = watched(notebook, "%%flow\nchatter(20_000, 'a line of ordinary length, as tasks print them, number')")
    plain = notebook.run("begun = time.perf_counter()\nfor n in range(20_000):\n    print('a line of ordinary length, as tasks print them, number', n)\ntook['plain'] = time.perf_counter() - begun")
    task, cell = json.loads(notebook.run("print(json.dumps([took['task'], took['plain']]))").stdout)
    print(f"20,000 lines: {task:.3f} s under a row, {cell:.3f} s in a cell")  # noqa: T201
    assert ran.stdout == ""
    assert len(ran.displays[0]["text/html"].encode()) < 20_000
    assert "more lines: <code>prefect-nb task-run output" in ran.displays[0]["text/html"]
    assert task < 3 * cell + 0.5
    (text,) = rows_of(notebook)["chatter"]
    assert text.splitlines()[-1].startswith("... ")
    assert "1 MiB of a task run's output" in text.splitlines()[-1]
    assert len(plain.stdout.splitlines()) == 20_000
