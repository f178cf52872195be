"""What trips up workflows in a kernel: its running loop, interrupts, contexts, `__main__`, and one home for many kernels."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel

from prefect_nb.home import Home
from prefect_nb.service.documents import run_document

PRELUDE = """
import asyncio, contextvars, inspect, os, sys, threading, time
from prefect_nb import flow, get_run_logger, tags, task
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE
from prefect_nb.home import Home
from prefect_nb.interfaces import RunQuery

def recorded(name):
    "The task runs of this name, oldest first: state and whether in a flow run."
    home = Home.current()
    home.ledger.commit()
    runs = home.store.task_runs(RunQuery(limit=1000, oldest_first=True))
    return [(run.state_name, run.flow_run_id is not None) for run in runs if run.name.partition("-")[0] == name]

@task
def inc(x):
    return x + 1
@task
async def later(x):
    await asyncio.sleep(0)
    return x + 1
"""
SOON = 3.0
"""Seconds in which an interrupt must have landed on a busy machine; where it does not, it takes twenty."""


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    kernel.run(PRELUDE)
    return kernel


class TestTheRunningLoop:
    """Every cell runs inside the main thread's running event loop."""

    def test_sync_flows_and_tasks_in_any_nesting_need_no_loop_of_their_own(self, notebook):
        notebook.run(
            "@flow\ndef inner(x):\n    return inc(x) + later.submit(x).result()\n"
            "@flow\ndef outer(x):\n    return inner(x) + sum(inc.map([x, x]).result()) + inc.submit(inner(x)).result()"
        )

        assert notebook.run("outer(1)").value == "13"

    def test_async_flows_and_tasks_are_awaited_also_around_sync_ones(self, notebook):
        notebook.run(
            "@flow\ndef sync_inside(x):\n    return inc(x) + later.submit(x).result()\n"
            "@flow\nasync def around(x):\n    return sync_inside(x) + sum(await asyncio.gather(later(x), later(x)))"
        )

        assert notebook.run("await around(1)").value == "8"

    def test_asyncio_run_works_where_no_loop_runs(self, notebook):
        notebook.run("@task\ndef runs_a_loop(x):\n    return asyncio.run(later.fn(x))")

        assert notebook.run("%%flow\nruns_a_loop.submit(1)").value == "2"
        assert notebook.run("%%flow\nawait asyncio.to_thread(runs_a_loop, 1)").value == "2"
        assert notebook.run("runs_a_loop(1)", fails=True).evalue.startswith("asyncio.run() cannot be called")
        assert notebook.run("inc(1)").value == "2"

    def test_a_flow_that_is_given_to_asyncio_run_leaves_nothing_behind(self, notebook):
        notebook.run("@flow(name='given-to-run')\nasync def given():\n    return 1")

        outcome = notebook.run("given = given()\nasyncio.run(given)", fails=True)

        assert outcome.evalue == "asyncio.run() cannot be called from a running event loop"
        assert notebook.run("Home.current().store.flow_runs(RunQuery(flow_name='given-to-run'))").value == "[]"
        assert notebook.run("await given").value == "1"

    def test_loops_are_not_patched_for_it(self, notebook):
        outcome = notebook.run(
            "%%flow\nx = later.submit(1)\n[name for name in sys.modules if name.startswith('nest_asyncio')],"
            " asyncio.run.__module__, hasattr(asyncio, '_nest_patched')"
        )

        assert "'asyncio.runners', False" in outcome.value

    def test_tasks_of_the_kernels_loop_go_on_while_a_flow_is_awaited(self, notebook):
        notebook.run(
            "ticks = []\nasync def tick():\n    while True:\n        ticks.append(1)\n        await asyncio.sleep(0.01)"
        )
        notebook.run(
            "@task\ndef until_it_ticks(n):\n    while len(ticks) < n:\n        time.sleep(0.005)\n    return True"
        )

        outcome = notebook.run(
            "%%flow\nticking = asyncio.create_task(tick())\ndone = until_it_ticks.submit(5)\nawait asyncio.sleep(0)"
        )

        assert outcome.status == "ok"
        assert notebook.run("ticking.cancel(), done").value == "(True, True)"


BLOCKS = "gate = threading.Event()\n@task(name='blocks')\ndef blocks():\n    print('begun')\n    gate.wait(20)\n"
WAITS = "@task(name='waits')\nasync def waits():\n    print('begun')\n    await asyncio.Event().wait()\n"


class TestInterrupts:
    """ipykernel's interrupt of a cell that awaits is seen when its loop next wakes; and code that blocks never sees it."""

    @pytest.mark.parametrize(
        "cell",
        [
            "%%flow\nprint('begun')\nawait asyncio.Event().wait()",
            "%%flow\nawait waits()",
            "%%flow\nawait asyncio.sleep(0)\nblocks()",
            "@flow\nasync def around():\n    await asyncio.gather(waits(), waits())\nawait around()",
            "@flow\ndef around():\n    blocks()\nawait asyncio.sleep(0)\naround()",
            "await waits()",
            "await asyncio.gather(waits(), waits())",
            "await asyncio.sleep(0)\nblocks()",
            "await asyncio.sleep(0)\nblocks.submit().result()",
            "blocks()",
            "blocks.submit().result()",
            "%%task\nprint('begun')\nawait asyncio.Event().wait()",
            "%%task\nawait asyncio.sleep(0)\nprint('begun')\ngate.wait(20)",
        ],
    )
    def test_it_lands_at_once_and_the_next_cell_runs(self, notebook, cell):
        notebook.run(BLOCKS + WAITS)
        request = notebook.start(cell)
        begun = notebook.end_of(request, until="begun\n" * (2 if "gather" in cell else 1))

        interrupted = time.monotonic()
        notebook.interrupt()
        outcome = notebook.end_of(request, so_far=begun)

        assert time.monotonic() - interrupted < SOON
        assert outcome.status == "error"
        assert outcome.ename in ("KeyboardInterrupt", "CancelledError")
        assert notebook.run("%%flow\nawait asyncio.sleep(0)\nawait later(1)").value == "2"
        # A thread cannot be ended; it is let go here.
        notebook.run(
            "gate.set()\ndef are_open():\n    Home.current().ledger.commit()\n"
            "    return [run for run in Home.current().store.task_runs(RunQuery(limit=20)) if not run.is_final]\n"
            "while are_open():\n    time.sleep(0.01)"
        )

    @pytest.mark.parametrize("awaits", [False, True])
    def test_a_task_cell_says_so_on_one_line(self, notebook, awaits):
        wait = "await asyncio.Event().wait()" if awaits else "threading.Event().wait(20)"
        request = notebook.start(f"%%task load\nprint('begun')\n{wait}")
        begun = notebook.end_of(request, until="begun")

        notebook.interrupt()

        assert notebook.end_of(request, so_far=begun).traceback.strip() == "⊘ load · interrupted"

    def test_code_of_the_users_own_is_left_to_the_kernel(self, notebook):
        """Raised in the midst of the kernel's own work, an interrupt would end the kernel."""
        notebook.run("async def blocking_child():\n    print('begun')\n    time.sleep(1.5)\n    inc(1)")
        request = notebook.start("await asyncio.gather(blocking_child(), asyncio.sleep(0))")
        begun = notebook.end_of(request, until="begun")

        notebook.interrupt()

        assert notebook.end_of(request, so_far=begun).status == "error"
        assert notebook.run("await later(1)").value == "2"

    def test_loading_the_extension_again_listens_once(self, notebook):
        notebook.run("%load_ext prefect_nb\n%reload_ext prefect_nb")

        ours = "[one for one in get_ipython().events.callbacks['pre_run_cell'] if 'interrupting' in one.__module__]"
        assert notebook.run(f"len({ours})").value == "1"

    @pytest.mark.parametrize("interrupted", [False, True])
    def test_cells_in_line_behind_it_are_not_executed(self, notebook, interrupted):
        """The kernel aborts what was queued: after a failed flow cell "Run all" does nothing more."""
        notebook.run(BLOCKS + "ran = []")
        body = "blocks()" if interrupted else "print('begun')\ntime.sleep(0.3)\n1 / 0"
        request = notebook.start(f"%%flow\n{body}")
        queued = notebook.start("ran.append('the cell behind it')")
        begun = notebook.end_of(request, until="begun")
        if interrupted:
            notebook.interrupt()
        assert notebook.end_of(request, so_far=begun).status == "error"
        assert notebook.end_of(queued).status == "aborted"

        assert notebook.run("ran").value == "[]"


class TestContexts:
    """What a cell sets in a context after an `await` is lost; threads start with an empty one."""

    @pytest.mark.parametrize("first", ["", "await asyncio.sleep(0)\n"])
    def test_a_flow_that_is_started_after_an_await(self, notebook, first):
        notebook.run("@flow(name='after-an-await')\ndef tagged():\n    return inc(1)")

        assert notebook.run(f"{first}with tags('blue'):\n    value = tagged()\nvalue").value == "2"

        run = "Home.current().store.flow_runs(RunQuery(flow_name='after-an-await', limit=1))[0]"
        assert notebook.run(f"{run}.tags, {run}.state_name").value == "(('blue',), 'Completed')"
        assert notebook.run("recorded('inc')[-1]").value == "('Completed', True)"

    @pytest.mark.parametrize("body", ["x = inc(1)", "await asyncio.sleep(0)\nx = inc(1)", "1 / 0"])
    def test_the_next_cell_is_in_no_flow(self, notebook, body):
        notebook.run(f"%%flow\n{body}", fails=body == "1 / 0")

        notebook.run("inc(7)")

        assert notebook.run("recorded('inc')[-1]").value == "('Completed', False)"
        assert notebook.run("get_run_logger()", fails=True).ename == "MissingContextError"

    def test_a_thread_of_the_users_own_records_runs_that_belong_to_no_flow(self, notebook):
        notebook.run(
            "def in_thread(*call):\n    thread = threading.Thread(target=lambda: found.append(call[0](*call[1:])))\n"
            "    thread.start()\n    thread.join()\nfound = []"
        )
        notebook.run("@task\ndef starts_a_thread():\n    in_thread(inc, 1)")

        notebook.run("%%flow\nstarts_a_thread()\nstarts_a_thread.submit().result()")

        assert notebook.run("found").value == "[2, 2]"
        assert notebook.run("recorded('inc')[-2:]").value == "[('Completed', False), ('Completed', False)]"

    def test_one_that_is_given_the_context_belongs_to_it(self, notebook):
        notebook.run(
            "found = []\n@task\ndef starts_a_thread():\n"
            "    work = contextvars.copy_context().run\n"
            "    thread = threading.Thread(target=lambda: found.append(work(inc, 1)))\n"
            "    thread.start()\n    thread.join()"
        )

        notebook.run("%%flow\nstarts_a_thread()\nstarts_a_thread.submit().result()")

        assert notebook.run("found").value == "[2, 2]"
        assert notebook.run("recorded('inc')[-2:]").value == "[('Completed', True), ('Completed', True)]"

    def test_who_asks_there_for_the_run_is_told_how(self, notebook):
        notebook.run(
            "said = []\ndef ask():\n    try:\n        get_run_logger()\n    except Exception as error:\n"
            "        said.append(str(error))"
        )

        notebook.run("%%flow\nthread = threading.Thread(target=ask)\nthread.start()\nthread.join()")

        assert "contextvars.copy_context().run" in notebook.run("said[0]").value


class TestSource:
    """Code of a cell has no file; its text must be found all the same."""

    def test_functions_of_a_task_cell_have_theirs(self, notebook):
        outcome = notebook.run(
            "%%task\ndef above(x):\n    # twice\n    return 2 * x\n\nk = 3\ndef within(x):\n    # thrice\n    return k * x\n"
            "print(inspect.getsource(above), inspect.getsource(within))"
        )

        assert "# twice" in outcome.stdout
        assert "# thrice" in outcome.stdout
        assert notebook.run("print(inspect.getsource(within))").stdout.startswith("def within(x):\n    # thrice\n")

    def test_a_task_defined_in_a_flow_cell_goes_to_another_process(self, notebook):
        notebook.run("factor = 3")

        notebook.run(
            "%%flow --runner processes --max-workers 1\ndef helper(x):\n    return x * factor\n"
            "@task\ndef there(x):\n    return os.getpid(), helper(x)\npid, value = there.submit(2).result()"
        )

        assert notebook.run("pid != os.getpid(), value").value == "(True, 6)"

    def test_a_module_that_autoreload_has_read_again_is_what_runs(self, notebook, tmp_path):
        module = tmp_path / "steps_under_work.py"
        text = "from prefect_nb import task\n@task\ndef step():\n    return {}\n"
        module.write_text(text.format("'old'"))
        notebook.run(
            f"%load_ext autoreload\n%autoreload 2\nsys.path.insert(0, {str(tmp_path)!r})\nimport steps_under_work"
        )
        try:
            assert notebook.run("%%flow\nsteps_under_work.step()").value == "'old'"
            module.write_text(text.format("'a new one'"))
            assert notebook.run("%%flow\nsteps_under_work.step(), steps_under_work.step.submit()").value == (
                "('a new one', 'a new one')"
            )
            assert notebook.run("%%flow\nawait later(1)").value == "2"
        finally:
            notebook.run("%autoreload 0\ndel sys.modules['steps_under_work'], sys.path[0]")


POINT = """
import dataclasses, enum
@dataclasses.dataclass
class Point:
    x: int
class Colour(enum.Enum):
    RED = 1
class Odd(Exception):
    pass
"""
MAKERS = """
@task(cache_policy=INPUTS + TASK_SOURCE)
def make(x, mark):
    return {"points": [Point(x)], "colour": Colour.RED, "error": Odd("x"), "kind": Point}
@task(cache_policy=INPUTS, persist_result=True)
def make_by_inputs(x, mark):
    return Point(x)
"""
ARE_OURS = (
    "made['points'] == [Point(1)], made['colour'] is Colour.RED, isinstance(made['error'], Odd), made['kind'] is Point"
)


class TestClassesOfTheNotebook:
    """After its cell has run again, a class is another one, and old instances are no longer its instances."""

    @pytest.mark.parametrize("where", ["in one kernel", "after a restart"])
    def test_a_cached_object_is_one_of_the_class_that_the_notebook_has(self, notebook, other_kernel, where):
        notebook.run(POINT + MAKERS)
        notebook.run(f"make(1, {where!r})")
        again = notebook if where == "in one kernel" else other_kernel
        again.run(PRELUDE)
        again.run(POINT + MAKERS)

        again.run(f"state = make(1, {where!r}, return_state=True)\nmade = state.result()")

        assert again.run(f"state.name, {ARE_OURS}").value == "('Cached', True, True, True, True)"

    @pytest.mark.parametrize("where", ["in one kernel", "after a restart"])
    def test_a_class_that_has_changed_is_a_miss_with_a_reason(self, notebook, other_kernel, where):
        notebook.run(POINT + MAKERS)
        notebook.run(f"make(1, {where!r}), make_by_inputs(1, {where!r})")
        again = notebook if where == "in one kernel" else other_kernel
        again.run(PRELUDE)
        again.run(POINT.replace("x: int", "x: int\n    y: int = 2") + MAKERS)

        again.run(f"a = make(1, {where!r}, return_state=True)\nb = make_by_inputs(1, {where!r}, return_state=True)")

        assert again.run("a.name, b.name, b.result() == Point(1, 2)").value == "('Completed', 'Completed', True)"
        assert "the class `Point` is defined differently now" in again.run("%why make_by_inputs").stdout
        assert "Point" in again.run("%why make").stdout
        assert again.run(f"make_by_inputs(1, {where!r}, return_state=True).name").value == "'Cached'"

    def test_without_the_class_the_object_is_what_it_was(self, notebook, other_kernel):
        notebook.run(POINT + MAKERS)
        notebook.run("make_by_inputs(1, 'without')")
        other_kernel.run(PRELUDE)
        other_kernel.run("@task(cache_policy=INPUTS, persist_result=True)\ndef make_by_inputs(x, mark):\n    return 0")

        outcome = other_kernel.run("make_by_inputs(1, 'without')")

        assert outcome.value == "Point(x=1)"

    def test_an_instance_of_the_class_as_it_was_is_kept_and_sent(self, notebook):
        notebook.run(POINT + "old = Point(1)")
        notebook.run(POINT)
        notebook.run("@task(persist_result=True)\ndef give(point):\n    return point")

        notebook.run(
            "%%flow --runner processes --max-workers 1\nkept = give(old, return_state=True)\nsent = give.submit(old)"
        )

        assert notebook.run("old, sent, isinstance(old, Point)").value == "(Point(x=1), Point(x=1), False)"

    def test_two_notebooks_with_functions_of_one_name_do_not_share(self, notebook, other_kernel):
        other_kernel.run(PRELUDE)
        cell = "@task(cache_policy=INPUTS + TASK_SOURCE)\ndef same_name(x):\n    return x * {}"
        notebook.run(cell.format(2))
        other_kernel.run(cell.format(3))

        found = [kernel.run("same_name(10)").value for kernel in (notebook, other_kernel, notebook, other_kernel)]

        assert found == ["20", "30", "20", "30"]


class TestWhatTravels:
    """A function of the notebook takes its globals along to other processes."""

    def test_large_ones_are_told_once(self, notebook):
        notebook.run(
            "rows = list(range(500_000))\ndef count():\n    return len(rows)\n@task\ndef of_rows(x):\n    return count() + x"
        )
        cell = "%%flow --runner processes --max-workers 1\nfound = of_rows.map([1, 2])"

        said = notebook.run(cell).stderr

        assert re.search(r"Each call of 'of_rows' takes `rows` \(list, \d\.\d MB\) along to its worker process", said)
        assert said.count("of_rows") == 1
        assert notebook.run(cell).stderr == ""

    def test_small_ones_and_arguments_are_not(self, notebook):
        notebook.run(
            "some = [1]\nrows = list(range(500_000))\n@task\ndef of_argument(x):\n    return len(x) + len(some)"
        )

        assert notebook.run("%%flow --runner processes --max-workers 1\nfound = of_argument.submit(rows)").stderr == ""

    def test_a_change_made_later_is_sent_and_one_made_there_stays_there(self, notebook):
        notebook.run("counted = []\n@task\ndef count():\n    counted.append(1)\n    return len(counted)")
        cell = "%%flow --runner processes --max-workers 1\nfound = count.submit()"
        notebook.run(cell)
        notebook.run("counted.extend([0, 0])")

        notebook.run(cell)

        assert notebook.run("found, counted").value == "(3, [0, 0])"


class TestOneHome:
    """Two kernels - of one notebook opened twice, too - use one home at the same time."""

    def test_two_kernels_at_once(self, notebook, other_kernel, tmp_path):
        other_kernel.run(PRELUDE)
        meet = (
            "@task\ndef meet(mine, other):\n    open(mine, 'w').close()\n"
            "    while not os.path.exists(other):\n        time.sleep(0.005)\n    return mine"
        )
        here, there = str(tmp_path / "here"), str(tmp_path / "there")
        cell = "%%flow at-once\nmet = meet.submit({!r}, {!r})\nmany = [inc(n) for n in range(200)]"
        kernels = {notebook: (here, there), other_kernel: (there, here)}
        requests = {}
        for kernel, files in kernels.items():
            kernel.run(meet)
            requests[kernel] = kernel.start(cell.format(*files))

        for kernel, request in requests.items():
            assert kernel.end_of(request).status == "ok"

        runs = notebook.run(
            "runs = Home.current().store.flow_runs(RunQuery(flow_name='at-once'))\n"
            "[run.state_name for run in runs], len({run.owner_id for run in runs}), Home.current().store.check()"
        )
        assert runs.value == "(['Completed', 'Completed'], 2, [])"

    def test_a_kernel_that_comes_later_takes_nothing_from_a_living_one(self, notebook, kernel_environment):
        notebook.run("@task\ndef held():\n    gate.wait(30)\n    return 1\ngate = threading.Event()")
        request = notebook.start("%%flow held-open\nprint('begun')\nx = held()")
        begun = notebook.end_of(request, until="begun")
        second = Kernel(kernel_environment)
        try:
            states = second.run(
                "from prefect_nb.home import Home\nfrom prefect_nb.interfaces import RunQuery\nHome.current().reap()\n"
                "[run.state_name for run in Home.current().store.flow_runs(RunQuery(flow_name='held-open'))]"
            )
            assert states.value == "['Running']"
        finally:
            second.close()
            notebook.interrupt()
            notebook.end_of(request, so_far=begun)


class TestCells:
    """Cells run out of order, are edited after they ran, and are copied."""

    def test_a_run_has_the_number_and_the_text_of_its_cell(self, notebook, kernel_environment, monkeypatch):
        source = "%%flow edited -p n=1\n\n# why\nx = inc(n)\n!true"
        notebook.run(source)
        notebook.run("%%flow edited\nx = 2")

        monkeypatch.setenv("PREFECT_NB_HOME", kernel_environment["PREFECT_NB_HOME"])
        notebook.run("Home.current().ledger.commit()")
        newest, oldest = _documents("edited")
        assert oldest["cell_source"] == source
        assert "# why" in str(notebook.run(f"In[{oldest['execution_count']}]").value)
        assert newest["execution_count"] == oldest["execution_count"] + 1
        assert newest["cell_source"] == "%%flow edited\nx = 2"
        assert newest["flow_version"] != oldest["flow_version"]

    def test_a_copied_cell_is_the_same_flow_and_reuses_what_the_first_has_kept(self, notebook):
        notebook.run("calls = []\n@task\ndef once(x):\n    calls.append(x)\n    return x")
        for _ in range(2):
            notebook.run("%%flow copied --cache\ny = once('a copied cell')")

        found = "[(run.state_name, run.flow_version) for run in Home.current().store.flow_runs(RunQuery(flow_name='copied'))]"
        assert notebook.run(f"found = {found}\nlen(found), len(set(found)), calls").value == "(2, 1, ['a copied cell'])"


def _documents(flow_name: str) -> list[dict[str, Any]]:
    from prefect_nb.interfaces import RunQuery

    return [run_document(run) for run in Home.current().store.flow_runs(RunQuery(flow_name=flow_name))]


def test_a_notebook_is_run_from_a_cell(notebook: Kernel, tmp_path: Path) -> None:
    """papermill works in a cell; run on a thread, it leaves the kernel's loop alive."""
    notebook.run(
        f"import nbformat, papermill, pathlib\nfolder = pathlib.Path({str(tmp_path)!r})\n"
        "from prefect_nb import Flow\n"
        "cells = [nbformat.v4.new_code_cell('print(6 * 7)')]\n"
        "meta = {'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}}\n"
        "nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=meta), folder / 'inner.ipynb')"
    )

    flow_run = notebook.run(
        "%%flow\noutput = Flow.from_notebook(folder / 'inner.ipynb')()\n"
        "nbformat.read(output, 4).cells[0].outputs[0].text"
    )
    by_papermill = notebook.run(
        "ticks = 0\nasync def tick():\n    global ticks\n    while True:\n        ticks += 1\n        await asyncio.sleep(0.02)\n"
        "ticking = asyncio.create_task(tick())\n"
        "done = await asyncio.to_thread(papermill.execute_notebook, folder / 'inner.ipynb', folder / 'out.ipynb',"
        " engine_name='prefect_nb', progress_bar=False)\n"
        "ticking.cancel()\ndone.cells[0].outputs[0].text, ticks > 3"
    )

    assert flow_run.value == "'42\\n'"
    assert by_papermill.value == "('42\\n', True)"
