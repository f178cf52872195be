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
import asyncio, contextlib, io, json, logging, sys, threading, time
from IPython.display import HTML, clear_output, display
from prefect_nb import flow, get_run_logger, task
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE
from prefect_nb.home import Home
from prefect_nb.execution import own_output
from prefect_nb.notebook.view_outputs import parts
from prefect_nb.service import history, run_outputs

def last_run():
    return history.flow_runs(limit=1)[0]

def rows():
    "What each task run of the newest flow run showed: (name, text of its streams, what it displayed)."
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

@task
def waits():
    "Until nothing is taken any more."
    print("before")
    deadline = time.monotonic() + 20
    while own_output.captures() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own_output.captures()
    print("after")
"""


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    kernel.run(PRELUDE)
    return kernel


def rows_of(notebook: Kernel) -> dict[str, list[object]]:
    return json.loads(notebook.run("print(json.dumps(rows()))").stdout)


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


def test_nor_in_a_console_which_cannot_replace_an_output(notebook: Kernel) -> None:
    ran = notebook.end_of(notebook._client.execute("%%flow\nsay(1)", allow_stdin=True))

    assert "said 1\n" in ran.stdout


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
    assert rows_of(notebook)["draw"] == [
        ["image/png", "text/plain"],
        ["text/html", "text/plain"],
        ["text/html", "text/plain"],
    ]
    details = notebook.run("[p['kind'] for p in parts(history.all_task_runs(last_run().id)[0])]")
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
    notebook.run(
        "@task(log_prints=True)\ndef told():\n    print('of the task')\n    get_run_logger().warning('careful')"
    )
    ran = watched(notebook, "%%flow\nget_run_logger().info('of the flow')\ntold()")

    assert "of the flow" in ran.stdout
    assert "of the task" not in ran.stdout
    assert ran.stderr == ""
    assert rows_of(notebook)["told"] == []
    assert "of the task" in ran.html
    assert "careful" in ran.html


def test_what_a_cached_task_shows_again_is_under_its_row(notebook: Kernel) -> None:
    notebook.run(
        "@task(cache_policy=INPUTS + TASK_SOURCE)\ndef told(x):\n    print('told', x)\n    display(HTML('<u>x</u>'))"
    )
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

    said = notebook.run("%%flow\nsay.map(range(4)).wait()").stdout
    assert sorted(re.findall(r"said|\d", said)) == ["0", "1", "2", "3", "said", "said", "said", "said"]


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
    outputs = [
        watched(notebook, f"print('cell', {n})\ngo[{n}].set()\nassert seen.acquire(timeout=30)") for n in range(2)
    ]
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
    notebook.run(
        "@task\ndef leak():\n    print('it is hunter2-', end='')\n    print('hunter2')\n    display(HTML('hunter2-hunter2'))"
    )
    ran = watched(notebook, "%%flow\nleak()")

    assert rows_of(notebook)["leak"][0] == "it is ********\n"
    assert "hunter2-hunter2" not in ran.displays[0]["text/html"]
    assert (
        "hunter2"
        not in notebook.run(
            "[o.data for o in Home.current().store.outputs.read(history.all_task_runs(last_run().id)[0].id)]"
        ).value
    )
    notebook.run("redaction.forget()")


# Nothing is lost


BREAK = """
from prefect_nb.notebook import screens
originals = screens.NotebookScreen._replace, screens.NotebookScreen._feed
def broken(self, what):
    raise OSError("the front end is gone")
screens.NotebookScreen._replace = screens.NotebookScreen._feed = broken
"""
MEND = "screens.NotebookScreen._replace, screens.NotebookScreen._feed = originals"


def test_a_view_that_fails_at_the_end_gives_everything_back(notebook: Kernel) -> None:
    notebook.run(BREAK)
    try:
        code = "%%flow\nsay(1)\nprint('x', file=sys.stderr)\nsay(2)\nget_run_logger().info('of the flow')"
        ran = watched(notebook, code)
    finally:
        notebook.run(MEND)

    assert ran.stdout.endswith("said 1\nsaid 2\n")
    assert notebook.run(TAPS).value == "('OutStream', 'OutStream', False)"


def test_a_view_that_fails_on_its_way_gives_back_and_stands_aside(notebook: Kernel) -> None:
    notebook.run(BREAK)
    try:
        ran = watched(notebook, "%%flow\nwaits()")
    finally:
        notebook.run(MEND)

    assert ran.stdout == "before\nafter\n"


def test_no_widgets_no_taking(notebook: Kernel) -> None:
    notebook.run(
        "import builtins\nsys.modules['anywidget'] = None\nfrom prefect_nb.notebook import screens\nscreens.panel_class.cache_clear()"
    )
    try:
        ran = watched(notebook, "%%flow\nwaits()")
    finally:
        notebook.run("del sys.modules['anywidget']\nscreens.panel_class.cache_clear()")

    assert ran.stdout == "before\nafter\n"
    assert "before" not in ran.html


def test_a_kernel_that_is_told_to_end_gives_everything_back(kernel_environment: dict[str, str]) -> None:
    ending = Kernel(kernel_environment)
    ending.run(PRELUDE)
    code = "%%flow\nprint('begun')\nsay(1)\nprint('taken')\nfor _ in range(600):\n    time.sleep(0.1)"
    request = ending.start(code, watched=True)
    begun = ending.end_of(request, until="taken")
    ending._client.shutdown()
    try:
        assert "said 1\n" in ending.later(request, begun, lambda one: "said 1\n" in one.stdout).stdout
    finally:
        ending.close()


def test_it_is_there_after_a_restart(
    notebook: Kernel, other_kernel: Kernel, kernel_environment: dict[str, str], tmp_path: Path
) -> None:
    watched(notebook, "%%flow -o run\nsay('kept')")
    name = notebook.run("print(run.name)").stdout.strip()

    later = other_kernel.run(f"%runs {name}")
    assert "said kept" in later.html
    other_kernel.run(PRELUDE)
    assert "said kept" in other_kernel.run(f"parts(history.all_task_runs(history.find_flow_run({name!r}).id)[0])").value

    id = notebook.run("print(history.all_task_runs(run.id)[0].id)").stdout.strip()
    for arguments in ([id], [id, "--follow"]):
        command = [sys.executable, "-m", "prefect_nb", "task-run", "output", *arguments]
        done = subprocess.run(
            command, check=False, env=kernel_environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, "said kept\n"), done.stderr
    as_json = subprocess.run(
        [sys.executable, "-m", "prefect_nb", "task-run", "output", id, "-o", "json"],
        check=False,
        env=kernel_environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(as_json.stdout) == [{"kind": "stdout", "text": "said kept\n"}]


def test_nothing_kept_is_said(notebook: Kernel, kernel_environment: dict[str, str], tmp_path: Path) -> None:
    notebook.run("%%flow -o run\nsay(1)")
    id = notebook.run("print(history.all_task_runs(run.id)[0].id)").stdout.strip()
    command = [sys.executable, "-m", "prefect_nb", "task-run", "output", id]
    done = subprocess.run(
        command, check=False, env=kernel_environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )

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
    plain = notebook.run(
        "begun = time.perf_counter()\nfor n in range(20_000):\n    print('a line of ordinary length, as tasks print them, number', n)\ntook['plain'] = time.perf_counter() - begun"
    )
    task, cell = json.loads(notebook.run("print(json.dumps([took['task'], took['plain']]))").stdout)
    print(f"20,000 lines: {task:.3f} s under a row, {cell:.3f} s in a cell")  # noqa: T201
    assert ran.stdout == ""
    assert len(ran.displays[0]["text/html"].encode()) < 20_000
    assert "more lines: <code>prefect-nb task-run output" in ran.displays[0]["text/html"]
    assert task < 3 * cell + 0.5
    shown = rows_of(notebook)["chatter"]
    assert len(shown) == 2, [(len(one), one[-200:]) for one in shown]
    text, marker = shown
    assert len(text) == output_rows.PER_TASK_RUN
    assert "more characters were left out: 1 MiB of a task run's output" in marker
    assert len(plain.stdout.splitlines()) == 20_000


# By itself


class Run:
    def __init__(self) -> None:
        self.id, self.flow_run_id = uuid4(), uuid4()


class Execution:
    """A task run, as far as a capture knows it."""

    def __init__(self) -> None:
        self.run, self.scope = Run(), None


@pytest.fixture
def store() -> MemoryOutputs:
    return MemoryOutputs()


def kept(store: MemoryOutputs, execution: Execution) -> list[tuple[str, str]]:
    return [(output.kind, output.data) for output in store.read(execution.run.id)]


def test_everything_is_given_back_in_order_line_by_line(
    store: MemoryOutputs, capsys: pytest.CaptureFixture[str]
) -> None:
    capture, one, two = Capture(store, uuid4(), lambda: True), Execution(), Execution()
    capture.begin()
    for execution, text in ((one, "a"), (two, "b"), (one, "1\n"), (two, "2\nrest")):
        assert capture.text(execution, "stdout", text)
    capture.line("stdout", "a log line\n")
    capture.text(one, "stderr", "oh\n")
    own_output.give_all_back()

    shown = capsys.readouterr()
    assert shown.out == "a1\nb2\na log line\nrest\n"
    assert shown.err == "oh\n"
    assert not capture.text(one, "stdout", "later")
    assert own_output.captures() == []
    assert not isinstance(sys.stdout, taps._Tap)
    capture.give_back()
    assert capsys.readouterr().out == ""


def test_a_store_that_refuses_gives_everything_back(
    store: MemoryOutputs, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_outputs: list[Output]) -> None:
        raise OSError("disk full")

    store.write = refuse  # type: ignore[method-assign]
    capture = Capture(store, uuid4(), lambda: True)
    capture.begin()
    capture.text(Execution(), "stdout", "kept somewhere\n")
    assert capture._writer is not None
    capture._writer.join(20)

    assert capsys.readouterr().out == "kept somewhere\n"
    assert "disk full" in caplog.text


def test_what_has_no_room_is_counted(store: MemoryOutputs) -> None:
    capture, one = Capture(store, uuid4(), lambda: True), Execution()
    capture.text(one, "stdout", "x" * (output_rows.PER_TASK_RUN - 10))
    for _ in range(5):
        capture.text(one, "stdout", "ö" * 100)
    capture.flush()
    capture.text(one, "stdout", "never")
    capture.flush()

    (_, text), (stream, marker) = kept(store, one)
    assert text.startswith("xxx")
    assert stream == "stderr"
    assert marker.startswith("... 503 more characters were left out: 1 MiB of a task run's output are kept")


def test_a_bar_that_never_ends_takes_the_room_of_a_line(store: MemoryOutputs) -> None:
    capture, one = Capture(store, uuid4(), lambda: True), Execution()
    for percent in range(3000):
        capture.text(one, "stderr", f"\r{percent / 30:5.1f} % {'#' * (percent // 30)}{'-' * 400}")
        if percent % 100 == 0:
            capture.flush()
    capture.flush()

    ((_, text),) = kept(store, one)
    assert len(text) < 2000
    assert as_seen(text).startswith("100.0 % ###")
    assert capture.newest_line(one.run.id).startswith("100.0 %")


def test_a_run_that_is_resumed_goes_on_with_its_numbers(store: MemoryOutputs) -> None:
    one = Execution()
    for text in ("first\n", "second\n"):
        capture = Capture(store, uuid4(), lambda: True)
        capture.text(one, "stdout", text)
        capture.flush()

    assert kept(store, one) == [("stdout", "first\n"), ("stdout", "second\n")]


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ("plain\nlines\n", "plain\nlines\n"),
        ("10 %\r20 %\r100 %\n", "100 %\n"),
        ("longer line\rshort\n", "shortr line\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("\x1b[31mred\x1b[0m\n", "red\n"),
        ("outer 1\n inner 1\x1b[A\router 2\n inner 2", "outer 2\n inner 2"),
        ("oops\x08\x08ps!\n", "oops!\n"),
        ("gone\r\x1b[Kthere\n", "there\n"),
        ("\x1b]0;title\x07text", "text"),
    ],
)
def test_text_as_a_terminal_leaves_it(raw: str, seen: str) -> None:
    assert as_seen(raw) == seen


def test_the_static_part_keeps_within_its_room_and_tells_where_the_rest_is() -> None:
    printed = {uuid4(): Printed([f"<b>line {n}</b> " + "ä" * 300 for n in range(200)], 19_800, 2) for _ in range(12)}
    names = {id: f"clean {n}" for n, id in enumerate(printed)}
    html = printed_html(printed, names, 5_000)
    text = printed_lines(printed, names)

    assert 2_000 < len(html.encode()) <= 5_000
    assert "<details>" in html
    assert "<b>" not in html
    assert re.search(r"(19,\d+|20,000) more lines: <code>prefect-nb task-run output &#x27;clean 0&#x27;</code>", html)
    assert len(text) < 100
    assert printed_html({}, {}, 5_000) == ""
    assert printed_html(printed, names, 100) == ""


def test_a_running_row_shows_the_newest_line() -> None:
    from msgspec.structs import replace

    from prefect_nb.model.runs import FlowRun, TaskRun
    from prefect_nb.model.states import StateType
    from prefect_nb.notebook.view_board import Board
    from prefect_nb.notebook.view_payload import payload

    flow_run = FlowRun(id=uuid4(), name="otter", flow_name="etl", state_type=StateType.RUNNING, state_name="Running")
    board = Board(flow_run.id)
    runs = [
        TaskRun(
            id=uuid4(),
            name=f"t{n}",
            task_key=f"t{n}",
            flow_run_id=flow_run.id,
            state_type=type_,
            state_name=type_.capitalize(),
        )
        for n, type_ in enumerate((StateType.RUNNING, StateType.COMPLETED))
    ]
    board.put([flow_run, *runs])
    picture = replace(board.picture(0), saying=lambda _id: "epoch 3 of 10")
    rows = [item["row"] for item in json.loads(payload(picture))["items"]]

    assert ["epoch 3 of 10" in row for row in rows] == [True, False]
