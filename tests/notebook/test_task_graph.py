"""`%flow run` in a real kernel: the notebook's task cells as one flow run, in the order in which they need each other."""

import re

import pytest
from kernels import Kernel

LOAD = "%%task load\nraw = list(source)"
CLEAN = "%%task clean\ntidy = [2 * v for v in raw]"
TRAIN = "%%task train\nmodel = sum(tidy)\nmodel"
STATES = "import prefect_nb.service.history as h\n{r.name[:-4]: r.state_name for r in h.all_task_runs(run.id)}"


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    """A kernel that knows of no task cell and no file."""
    kernel.run(
        "from prefect_nb.notebook.notebook_cells import forget\nforget(get_ipython())\nimport os\n"
        "os.environ.pop('JPY_SESSION_NAME', None)\n%reset -f",
        store_history=False,
    )
    return kernel


def known(kernel: Kernel, *cells: str) -> None:
    """Have the kernel know of task cells without running them: as if they were in the file."""
    for cell in cells:
        first, _, body = cell.partition("\n")
        kernel.run(
            "from prefect_nb.notebook.notebook_cells import remember\nfrom prefect_nb.notebook.cells import Cell\n"
            f"_line, _body = {first.removeprefix('%%task')!r}, {body!r}\n"
            "remember(get_ipython(), _line, _body + '\\n', Cell(get_ipython(), f'%%task{_line}', _body))",
            store_history=False,
        )


class TestRun:
    def test_values_go_from_cell_to_cell_and_into_the_notebook(self, notebook: Kernel) -> None:
        notebook.run("source = ['t1', 1][1:]")
        known(notebook, TRAIN, CLEAN, LOAD)

        outcome = notebook.run("%flow run -o run")

        assert notebook.run("raw, tidy, model").value == "([1], [2], 2)"
        assert {"text/plain": "2"} in outcome.displays
        assert "✓ Completed  flow 'notebook'" in outcome.displays[0]["text/plain"]
        assert notebook.run(STATES).value == "{'load': 'Completed', 'clean': 'Completed', 'train': 'Completed'}"
        edges = "[sorted(r.task_inputs) for r in h.all_task_runs(run.id)]"
        assert notebook.run(edges).value == "[[], ['raw'], ['tidy']]"

    def test_a_cell_that_was_run_alone_is_not_computed_again(self, notebook: Kernel) -> None:
        notebook.run("source = ['t2', 2][1:]")
        for cell in (LOAD, CLEAN):
            notebook.run(cell)
        known(notebook, TRAIN)
        notebook.run("del raw, tidy")

        notebook.run("%flow run -o run")

        assert notebook.run(STATES).value == "{'load': 'Cached', 'clean': 'Cached', 'train': 'Completed'}"
        assert notebook.run("raw, tidy, model").value == "([2], [4], 4)"

    def test_nor_one_that_ran_in_another_kernel(self, notebook: Kernel, other_kernel: Kernel) -> None:
        other_kernel.run("from prefect_nb.notebook.notebook_cells import forget\nforget(get_ipython())")
        for kernel in (notebook, other_kernel):
            kernel.run("source = ['t3', 3][1:]\n\ndef helped(v):\n    return v + 1  # note")
            known(kernel, LOAD, "%%task clean\ntidy = [helped(v) for v in raw]", TRAIN)
            kernel.run("%flow run -o run")

        assert other_kernel.run(STATES).value == "{'load': 'Cached', 'clean': 'Cached', 'train': 'Cached'}"
        other_kernel.run("def helped(v): return v + 2")
        other_kernel.run("%flow run -o run")
        assert other_kernel.run(STATES).value == "{'load': 'Cached', 'clean': 'Completed', 'train': 'Completed'}"

    def test_independent_cells_run_side_by_side_and_do_not_see_each_other(self, notebook: Kernel) -> None:
        notebook.run("import threading\nbarrier = threading.Barrier(2, timeout=30)")
        known(
            notebook,
            "%%task one --no-cache\nhalf = 1\nbarrier.wait()\nbarrier.wait()\nhalf = 2",
            "%%task two --no-cache\nbarrier.wait()\nseen = 'half' in globals()\nbarrier.wait()",
        )

        notebook.run("%flow run --max-workers 2")

        assert notebook.run("half, seen").value == "(2, False)"

    def test_names_of_the_notebook_are_as_they_were_when_the_run_began(self, notebook: Kernel) -> None:
        notebook.run("n = 1")
        known(
            notebook,
            "%%task before --no-cache\na = n",
            "%%task more --no-cache\nn = n + 1",
            "%%task after --no-cache\nb = n",
        )

        notebook.run("%flow run --max-workers 1")

        assert notebook.run("a, n, b").value == "(1, 2, 2)"

    def test_a_cell_is_waited_for_that_a_called_function_needs(self, notebook: Kernel) -> None:
        notebook.run("def norm(v): return scaled(v)\ndef scaled(v): return v / scale")
        known(notebook, "%%task use --no-cache\nx = norm(8)", "%%task make --no-cache\nscale = 4")

        notebook.run("%flow run")

        assert notebook.run("x").value == "2.0"

    def test_functions_classes_and_imports_of_other_cells(self, notebook: Kernel) -> None:
        known(
            notebook,
            "%%task use --no-cache\nx = area(2), type(Box()).__name__, later.name",
            "%%task tools --no-cache\nimport math\ndef area(r): return round(math.pi * r)\nclass Box: pass\nw = 1\n"
            "import os as later",
        )

        notebook.run("%flow run")
        assert notebook.run("x").value == "(6, 'Box', 'posix')"

        # Alone, the cell uses what the other declares without running it; what its body makes must be there.
        notebook.run("del x, Box")
        notebook.run("%flow run --from use")
        assert notebook.run("x[1], w").value == "('Box', 1)"
        notebook.run("del later")
        shown = notebook.run("%flow run --from use", fails=True).stderr
        assert "Nothing was run: `use` needs `later`, which `tools` makes. Run that first." in shown

    def test_what_a_cell_begins_with_may_need_another_cell(self, notebook: Kernel) -> None:
        known(
            notebook,
            "%%task use --no-cache\ndef times(v, by=factor): return v * by\nx = times(2)",
            "%%task f\nfactor = 21",
        )

        notebook.run("%flow run")

        assert notebook.run("x, times(1)").value == "(42, 21)"

    def test_cells_that_await(self, notebook: Kernel) -> None:
        known(
            notebook,
            "%%task ping --no-cache\nimport asyncio\nawait asyncio.sleep(0)\na1 = 5",
            "%%task pong --no-cache\nawait asyncio.sleep(0)\nb1 = a1 + 1\nb1",
        )

        outcome = notebook.run("%flow run")

        assert notebook.run("a1, b1").value == "(5, 6)"
        assert {"text/plain": "6"} in outcome.displays

    def test_stated_updates_go_one_after_the_other(self, notebook: Kernel) -> None:
        known(
            notebook,
            "%%task load\nrows = ['chain', 3, 1, 2][1:]",
            "%%task count(rows) -> first\nfirst = list(rows)",
            "%%task order(rows) -> rows\nrows.sort()",
            "%%task add(rows) -> rows\nrows = [*rows, 9]",
            "%%task last\nend = rows[-1], rows[0], len(rows)",
        )

        for _ in range(2):
            outcome = notebook.run("%flow run -o run")
            assert notebook.run("first, rows, end").value == "([3, 1, 2], [1, 2, 3, 9], (9, 1, 4))"
            assert "changed" not in outcome.stderr
        assert "Completed" not in notebook.run(STATES).value

    def test_processes(self, notebook: Kernel) -> None:
        notebook.run("import os\nhere = os.getpid()\ndef place(): return os.getpid()")
        known(
            notebook,
            "%%task far --no-cache\nelsewhere = place()\nelsewhere > 0",
            "%%task use --no-cache\nx = elsewhere",
        )

        outcome = notebook.run("%flow run --runner processes")

        assert notebook.run("x == elsewhere, x == here").value == "(True, False)"
        assert {"text/plain": "True"} in outcome.displays

    def test_prints_and_displays(self, notebook: Kernel) -> None:
        known(
            notebook,
            "%%task say --no-cache\nfrom IPython.display import HTML\nprint('told')\ndisplay(HTML('<i>seen</i>'))",
        )

        outcome = notebook.run("%flow run")

        assert outcome.stdout == "told\n"
        assert "<i>seen</i>" in outcome.html

    def test_figures_of_cells_that_run_side_by_side(self, notebook: Kernel) -> None:
        notebook.run("%matplotlib inline\nimport matplotlib.pyplot as plt\ndef line(*points): plt.plot(points)")
        body = "for turn in range(30):\n    line(turn, 1)\nlines = len(plt.gca().lines)"
        known(
            notebook,
            *(f"%%task draw{n} -> lines{n} --no-cache\n{body}\nlines{n} = lines;" for n in (1, 2)),
            "%%task other --no-cache\nx = 1",
        )

        outcome = notebook.run("%flow run")

        assert notebook.run("lines1, lines2").value == "(30, 30)"
        assert sum("image/png" in bundle for bundle in outcome.displays) == 2

    def test_a_value_that_is_changed_in_place_unseen(self, notebook: Kernel) -> None:
        notebook.run("class Model:\n    fitted = 0\n    def fit(self): self.fitted += 1")
        known(notebook, "%%task make\nm = Model()", "%%task fit\nm.fit()\ndone = 1", "%%task use\nscore = m.fitted")

        outcome = notebook.run("%flow run")

        assert "Task cell `fit` has changed `m` in place, which `use` may have seen before or after." in outcome.stderr
        assert "%%task fit(m) -> m" in outcome.stderr

    def test_from_python(self, notebook: Kernel) -> None:
        known(notebook, "%%task one --no-cache\nx = 1", "%%task two --no-cache\ny = x + 1")

        outcome = notebook.run(
            "from prefect_nb.notebook.graph_run import plan_task_cells, run_task_cells, task_graph\n"
            "run = run_task_cells('mine', only=['two'], tags=['t'])\n"
            "run.flow_name, run.state.name, y, task_graph().text(), len(plan_task_cells(start=['two']))"
        )

        assert outcome.value == ("('mine', 'Completed', 2, \"Flow 'notebook'\\n  ✓ one\\n  ✓ two <- ✓ one\", 1)")


class TestSelection:
    @pytest.mark.parametrize(
        ("chosen", "ran"),
        [
            ("train", "load clean train"),
            ("clean plot", "load clean plot"),
            ("--from clean", "clean train"),
            ("--from load --from plot", "load clean train plot"),
            ("train --from clean", "clean train"),
        ],
    )
    def test_some(self, notebook: Kernel, chosen: str, ran: str) -> None:
        notebook.run("source = [1]\nraw = [5]")
        known(notebook, LOAD, CLEAN, TRAIN, "%%task plot\nfig = len(raw)")

        notebook.run(f"%flow run {chosen} -o run")

        assert set(notebook.run(STATES).value.replace("'", '"').split('"')[1::4]) == set(ran.split())

    def test_what_is_not_run_is_taken_from_the_notebook(self, notebook: Kernel) -> None:
        notebook.run("raw = [50]")
        known(notebook, LOAD, CLEAN, TRAIN)

        notebook.run("%flow run --from clean")

        assert notebook.run("model").value == "100"

    def test_and_asked_for_where_it_is_not_there(self, notebook: Kernel) -> None:
        known(notebook, LOAD, CLEAN, TRAIN)

        shown = notebook.run("%flow run --from clean", fails=True).stderr

        assert "Nothing was run: `clean` needs `raw`, which `load` makes. Run that first." in shown

    def test_a_cell_that_is_not_there(self, notebook: Kernel) -> None:
        known(notebook, LOAD, CLEAN)

        shown = notebook.run("%flow run claen", fails=True).stderr

        assert "There is no task cell 'claen'. Did you mean 'clean'? There are: `load`, `clean`." in shown


class TestFailure:
    CELLS = (
        "%%task good --no-cache\ng = 1",
        "%%task bad --no-cache\nb = 1\n\nb / 0",
        "%%task needs_bad\nc = b",
        "%%task needs_good --no-cache\nd = g + 1",
        "%%task also --no-cache\ne = [][1]",
    )

    def test_others_go_on_and_the_error_names_the_cell_and_the_line(self, notebook: Kernel) -> None:
        known(notebook, *self.CELLS)

        outcome = notebook.run("%flow run -o run", fails=True)

        assert outcome.ename == "ZeroDivisionError"
        assert "----> 4 b / 0" in outcome.traceback
        assert "in cell(" not in outcome.traceback
        assert "prefect_nb/" not in outcome.traceback
        assert "This is what became of task cell `bad`: it is Failed." in outcome.traceback
        assert "`also` is Failed, too: " in outcome.traceback
        assert "Not run, as they need what failed: `needs_bad`." in outcome.traceback
        assert notebook.run("d, 'b' in globals()").value == "(2, False)"
        assert "'needs_bad': 'NotReady'" in notebook.run(STATES).value

    def test_retries_and_timeouts_of_a_cell(self, notebook: Kernel) -> None:
        notebook.run("import threading\ntries = []")
        known(
            notebook,
            "%%task flaky -r 2 --no-cache\ntries.append(1)\nassert len(tries) == 2",
            "%%task slow --timeout 50ms --no-cache\nwhile True:\n    threading.Event().wait(0.01)",
        )

        outcome = notebook.run("%flow run -o run", fails=True)

        assert outcome.ename == "TaskRunTimeoutError"
        assert notebook.run(STATES).value == "{'flaky': 'Completed', 'slow': 'TimedOut'}"
        assert notebook.run("len(tries)").value == "2"

    def test_an_output_that_was_not_made_this_time(self, notebook: Kernel) -> None:
        known(notebook, "%%task maybe --no-cache\nif len('x') > 1:\n    made = 1", "%%task use\ny = made")

        outcome = notebook.run("%flow run", fails=True)

        assert "task cell 'maybe' has not assigned 'made' this time, which other cells need" in outcome.traceback

    def test_an_import_that_fails(self, notebook: Kernel) -> None:
        known(notebook, "%%task one\nimport nowhere_at_all\nx = 1")

        outcome = notebook.run("%flow run", fails=True)

        assert outcome.ename == "ModuleNotFoundError"
        assert "This is an import, function or class in task cell `one`." in outcome.traceback
        assert outcome.displays == []

    def test_an_interrupt(self, notebook: Kernel) -> None:
        notebook.run("import threading")
        known(
            notebook,
            "%%task stuck --no-cache\nprint('begun')\nwhile True:\n    threading.Event().wait(0.01)\ns = 1",
            "%%task next\nn = s",
        )
        request = notebook.start("%flow run -o run")
        begun = notebook.end_of(request, until="begun")

        notebook.interrupt()

        assert re.match(r"⊘ Flow run '[\w-]+' is Cancelled", notebook.end_of(request, so_far=begun).traceback)
        assert "'stuck': 'Cancelled'" in notebook.run(STATES).value


class TestRefusal:
    def test_every_conflict_is_named_before_anything_runs(self, notebook: Kernel) -> None:
        known(
            notebook,
            "%%task load --no-cache\ndf = 1\nprint('ran')",
            "%%task clean\ndf = df + 1",
            "%%task a\nx = y",
            "%%task b\ny = x",
        )

        outcome = notebook.run("%flow run", fails=True)

        assert "The task cells cannot run together:" in outcome.stderr
        assert "- `df` is assigned by `load` and `clean`. If `clean` goes on with what is there" in outcome.stderr
        assert "- These cells need each other in a circle: a -> b -> a" in outcome.stderr
        assert (outcome.stdout, outcome.displays) == ("", [])
        assert "a -> b -> a" in notebook.run("%flow graph", fails=True).stderr

    def test_not_for_loops_or_names_kept_out_of_the_outputs(self, notebook: Kernel) -> None:
        known(
            notebook,
            "%%task one -> total --no-cache\nfig = 1\nfor i in [1]:\n    total = i",
            "%%task two -> None --no-cache\nfor i in [2]:\n    fig = i",
            "%%task three --no-cache\nfor i in [3]:\n    other = i",
        )

        notebook.run("%flow run")

        assert notebook.run("total, other, 'fig' in globals()").value == "(1, 3, False)"

    def test_such_a_cell_runs_alone(self, notebook: Kernel) -> None:
        notebook.run("%%task load\ndf = 1")

        notebook.run("%%task clean\ndf = df + 1")

        assert notebook.run("df").value == "2"

    def test_a_name_that_is_not_there(self, notebook: Kernel) -> None:
        notebook.run("sauce = [1]")
        known(notebook, LOAD, "%%task other --no-cache\nz = nothing_like_it\nprint('ran')")

        outcome = notebook.run("%flow run", fails=True)

        assert "- `load` needs `source`, which is not defined. Did you mean 'sauce'?" in outcome.stderr
        assert "- `other` needs `nothing_like_it`, which is not defined." in outcome.stderr
        assert outcome.stdout == ""

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("%flow run", "There is no task cell in this notebook. `%%task -h` tells how to write one."),
            ("%flow rum", "%flow: there is no 'rum'. Did you mean 'run'? `%flow -h` shows what there is."),
            ("%flow run --max-worker 2", "unknown option --max-worker; did you mean --max-workers?"),
        ],
    )
    def test_usage(self, notebook: Kernel, line: str, words: str) -> None:
        assert words in notebook.run(line, fails=True).stderr

    @pytest.mark.parametrize("line", ["%flow -h", "%flow run -h", "%flow graph -h", "%flow list -h"])
    def test_help(self, notebook: Kernel, line: str) -> None:
        assert notebook.run(line).stdout.startswith(f"usage: {line.removesuffix(' -h')} ")

    def test_flows_are_listed(self, notebook: Kernel) -> None:
        known(notebook, "%%task one --no-cache\nx = 1")
        notebook.run("%flow run --name listed")

        for line in ("%flow", "%flow list"):
            assert "listed" in notebook.run(line).displays[0]["text/plain"]


class TestPlan:
    def test_what_would_run_and_why(self, notebook: Kernel) -> None:
        notebook.run("source = ['plan', 7][1:]")
        known(notebook, LOAD, CLEAN, TRAIN, "%%task free --no-cache\nprint('ran')")
        notebook.run("%flow run load")
        notebook.run("del raw")

        outcome = notebook.run("%flow run --plan")

        load, clean, train, free, counts = outcome.stdout.splitlines()
        assert re.fullmatch(r"✓ load   cached   same as 'load-\w+' of \d\d:\d\d \(kept just now\)", load)
        assert clean.startswith("▶ clean  runs     ")
        assert train == "? train  depends  decided when `clean` has ended"
        assert free == "▶ free   runs     not cached: its results are not kept"
        assert counts == "(2 to run, 1 cached, 1 depending on those)"
        assert notebook.run("'raw' in globals()").value == "False"

    def test_it_comes_true(self, notebook: Kernel) -> None:
        notebook.run("source = ['true', 8][1:]")
        known(notebook, LOAD, CLEAN, TRAIN)
        notebook.run("%flow run")
        runs = "len(h.flow_runs(limit=1000))"
        notebook.run("import prefect_nb.service.history as h")
        before = notebook.run(runs).value
        assert "(0 to run, 3 cached, 0 depending on those)" in notebook.run("%flow run --plan").stdout
        assert notebook.run(runs).value == before
        notebook.run("source.append(1)")

        plan = notebook.run("%flow run --plan").stdout
        notebook.run("%flow run -o run")

        assert "▶ load   runs     input `source`: length was 1, is now 2" in plan
        assert "Cached" not in notebook.run(STATES).value

    def test_what_cannot_be_hashed(self, notebook: Kernel) -> None:
        notebook.run("import threading\nlock = threading.Lock()")
        known(notebook, "%%task locked\nheld = lock.locked()")

        outcome = notebook.run("%flow run --plan")

        assert re.match(r"▶ locked  runs     not cached: unhashable .*lock", outcome.stdout)
        assert outcome.stderr == ""


class TestGraph:
    def test_it_is_drawn_with_the_newest_states(self, notebook: Kernel) -> None:
        known(notebook, "%%task gg1 --no-cache\nx = 1", "%%task gg2 --no-cache\ny = x / 0", "%%task gg3\nz = y")
        assert "· gg1" in notebook.run("%flow graph").value
        notebook.run("%flow run", fails=True)

        outcome = notebook.run("g = %flow graph\ng.svg()[:4], g.mermaid().count('-->'), g")

        assert outcome.value == "('<svg', 2, FlowGraph('notebook', 3 calls))"
        assert notebook.run("print(g)").stdout == ("Flow 'notebook'\n  ✓ gg1\n  ✗ gg2 <- ✓ gg1\n  ○ gg3 <- ✗ gg2\n")
