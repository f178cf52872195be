"""Which task cells `%flow run` runs: those of the saved notebook, overlaid by what has been executed since."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernels import Kernel, Outcome

OLD, NEW = 1_000_000_000, 4_000_000_000
"""Times a file was saved at: long before anything ran, and after all of it."""

SETUP = (
    "from prefect_nb.notebook.notebook_cells import forget\nforget(get_ipython())\nimport os\n"
    "os.environ.pop('JPY_SESSION_NAME', None)\n%reset -f"
)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, kernel: Kernel) -> Iterator[Write]:
    """Saves cells, given by their ids, as the notebook that the kernel belongs to."""
    path = tmp_path / "sales report.ipynb"

    def written(cells: dict[str, str], saved: int = OLD) -> Path:
        found = [
            {"cell_type": "code", "id": id, "metadata": {}, "outputs": [], "execution_count": None, "source": source}
            for id, source in cells.items()
        ]
        found.insert(1, {"cell_type": "markdown", "id": "text", "metadata": {}, "source": "# Not a cell that runs"})
        path.write_text(json.dumps({"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
        os.utime(path, (saved, saved))
        kernel.run(f"import os\nos.environ['JPY_SESSION_NAME'] = {str(path)!r}", store_history=False)
        return path

    kernel.run(SETUP, store_history=False)
    yield written
    kernel.run(SETUP, store_history=False)


def run_cell(kernel: Kernel, code: str, cell_id: str, fails: bool = False) -> Outcome:
    """As a front end that says which cell it is."""
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    request = kernel._client.session.msg("execute_request", content, metadata={"cellId": cell_id})
    kernel._client.shell_channel.send(request)
    outcome = kernel.end_of(request["header"]["msg_id"])
    assert outcome.status == ("error" if fails else "ok"), outcome
    return outcome


def graph(kernel: Kernel) -> list[str]:
    text = kernel.run("print(get_ipython().run_line_magic('flow', 'graph'))").stdout
    return re.sub(r"[·✓✗○] ", "", text).splitlines()


CELLS = {
    "p1": "source = [1, 2]",
    "t3": "%%task train\nmodel = sum(tidy)",
    "t1": "# the data\n%%task load --no-cache\nraw = list(source)",
    "t2": "%%task clean(raw) -> tidy\ntidy = [v * 2 for v in raw]",
    "b1": "%%bash\n%%task no\nexit 1",
}


class TestCells:
    def test_cells_that_were_never_executed(self, kernel: Kernel, write: Write) -> None:
        write(CELLS)
        kernel.run("source = [1, 2]")

        outcome = kernel.run("%flow run -o run")

        assert "flow 'sales report'" in outcome.displays[0]["text/plain"]
        assert kernel.run("model").value == "6"
        assert graph(kernel) == ["Flow 'sales report'", "  load", "  clean <- load", "  train <- clean"]

    def test_as_vs_code_tells_where_it_is(self, kernel: Kernel, write: Write) -> None:
        path = write(CELLS)
        kernel.run("import os\ndel os.environ['JPY_SESSION_NAME']")
        kernel.run(f"__vsc_ipynb_file__ = {str(path)!r}")

        assert len(graph(kernel)) == 4

    def test_what_is_newer_counts(self, kernel: Kernel, write: Write) -> None:
        write(CELLS)
        run_cell(kernel, "%%task renamed --no-cache\nraw = [10]", "t1")
        run_cell(kernel, "%%task renamed --no-cache\nraw = [20]", "t1")
        run_cell(kernel, "%%task more --no-cache\nextra = 1", "t9")
        assert graph(kernel)[1:] == ["  renamed", "  clean <- renamed", "  train <- clean", "  more"]
        kernel.run("%flow run train")
        assert kernel.run("model").value == "40"

        write({"p1": "", "t1": "%%task saved --no-cache\nraw = [30]", "t2": CELLS["t2"]}, saved=NEW)

        assert graph(kernel)[1:] == ["  saved", "  clean <- saved"]

    def test_a_plain_cell_that_has_become_a_task(self, kernel: Kernel, write: Write) -> None:
        write({"a": "raw = 1", "b": "%%task use --no-cache\nx = raw"})
        run_cell(kernel, "%%task make --no-cache\nraw = 1", "a")

        assert graph(kernel)[1:] == ["  make", "  use <- make"]

    def test_front_ends_with_ids_of_their_own(self, kernel: Kernel, write: Write) -> None:
        write(CELLS)
        run_cell(kernel, "source = [1]", "vscode#1")
        run_cell(kernel, CELLS["t1"], "vscode#2")
        run_cell(kernel, "%%task clean\ntidy = raw + ['edited'][1:]", "vscode#3")

        kernel.run("%flow run")

        assert graph(kernel)[1:] == ["  load", "  clean <- load", "  train <- clean"]
        assert kernel.run("model").value == "1"

    def test_cells_without_ids_are_known_by_their_names(self, kernel: Kernel, write: Write) -> None:
        for value in (1, 2):
            kernel.run(f"%%task same --no-cache\nx = {value}")

        assert graph(kernel)[1:] == ["  same"]
        kernel.run("x = 0\n%flow run")
        assert kernel.run("x").value == "2"

    def test_a_notebook_that_is_gone(self, kernel: Kernel, write: Write) -> None:
        write(CELLS).unlink()

        assert "There is no task cell in this notebook." in kernel.run("%flow run", fails=True).stderr

    def test_a_notebook_that_cannot_be_read(self, kernel: Kernel, write: Write) -> None:
        write(CELLS).write_text("{")

        assert "The notebook's cells cannot be read: " in kernel.run("%flow run", fails=True).stderr

    def test_a_kernel_that_was_started_by_a_server(
        self, kernel_environment: dict[str, str], kernel: Kernel, write: Write
    ) -> None:
        path = write({"a": "%%task only --no-cache\nx = 5"})
        started = Kernel({**kernel_environment, "JPY_SESSION_NAME": str(path)})
        try:
            started.run("%flow run")
            assert started.run("x").value == "5"
        finally:
            started.close()


class TestTraps:
    """What notebooks do to their cells: order, copies, edits, and files that are compiled under names of their own."""

    def test_lines_and_sources_of_a_cell_that_was_never_executed(self, kernel: Kernel, write: Write) -> None:
        write(
            {
                "a": "# note\n%%task shaky --no-cache\n\nimport inspect\ndef half(v):\n    return v / 0\n\ns = inspect.getsource(half)\nprint(s)\nhalf(1)"
            }
        )

        outcome = kernel.run("%flow run", fails=True)

        assert outcome.stdout.rstrip() == "def half(v):\n    return v / 0"
        assert re.search(r"---> \d+ half\(1\)", outcome.traceback)
        assert re.search(r"---> \d+\s+return v / 0", outcome.traceback)
        assert "task cell `shaky` (cell 1)" in outcome.traceback

    def test_an_error_in_a_cell_that_was_executed_keeps_its_number(self, kernel: Kernel, write: Write) -> None:
        kernel.run("%%task broken --no-cache\nassert zero == 0\nok = 1", fails=True)
        number = kernel.run("len(In) - 2").value
        kernel.run("zero = 1")

        outcome = kernel.run("%flow run", fails=True)

        assert f"Cell In[{number}], line 2" in outcome.traceback

    def test_comments_and_formatting_compute_nothing_anew(self, kernel: Kernel, write: Write) -> None:
        kernel.run("source = ['format', 5][1:]")
        write({"a": "%%task load\nraw = list(source)"})
        kernel.run("%flow run")

        write({"x": "", "other": "# a comment\n%%task renamed -r 1\n\n# another\nraw = list( source )  # and more"})

        assert "▶" not in kernel.run("%flow run --plan").stdout

    def test_a_copied_cell(self, kernel: Kernel, write: Write) -> None:
        cell = "%%task fit\nmodel = 1"
        write({"a": cell, "b": "%%task use\nx = model", "c": cell})

        shown = kernel.run("%flow run", fails=True).stderr

        assert "`model` is assigned by `fit` (cell 1) and `fit-2` (cell 3). Give one of them another name" in shown

    def test_a_copied_cell_that_assigns_something_else(self, kernel: Kernel, write: Write) -> None:
        write({"a": "%%task fit --no-cache\nm1 = 1", "c": "%%task fit --no-cache\nm2 = 2"})

        kernel.run("%flow run fit-2 -o run")

        assert kernel.run("m2, 'm1' in globals()").value == "(2, False)"
        assert graph(kernel)[1:] == ["  fit", "  fit-2"]

    def test_cells_executed_out_of_order(self, kernel: Kernel, write: Write) -> None:
        write({"a": "%%task one(df) -> df\ndf = df + [1]", "b": "%%task two(df) -> df\ndf = df + [2]"})
        kernel.run("df = []")
        run_cell(kernel, "%%task two(df) -> df\ndf = df + [2]", "b")
        run_cell(kernel, "%%task one(df) -> df\ndf = df + [1]", "a")
        kernel.run("df = [0]")

        kernel.run("%flow run")

        assert kernel.run("df").value == "[0, 1, 2]"

    def test_a_cell_that_is_not_python_is_named_with_the_others(self, kernel: Kernel, write: Write) -> None:
        write({"a": "%%task bad\nx = = 1", "b": "%%task odd --timeot 3s\ny = 1", "c": "%%task z -> q\np = 1"})

        shown = kernel.run("%flow run", fails=True).stderr

        assert "- `bad` (cell 1) is not Python: invalid syntax in line 2." in shown
        assert "- `odd` (cell 2): %%task: unknown option --timeot; did you mean --timeout?" in shown
        assert "- `z` (cell 3): %%task z: the cell does not assign `q`." in shown


class TestPlainCells:
    def test_a_name_that_only_a_cell_below_makes(self, kernel: Kernel, write: Write) -> None:
        write({"a": "%%task clean\ntidy = raw", "b": "raw = [1]"})
        kernel.run("raw = [1]")

        shown = kernel.run("%flow run", fails=True).stderr

        assert "`clean` (cell 1) reads `raw`, which only cell 2 below it makes." in shown

    def test_a_cell_that_has_to_run_first(self, kernel: Kernel, write: Write) -> None:
        write({"z": "n = 1", "a": "%%flow\nraw = [1]", "b": "%%task clean\ntidy = raw, n"})
        kernel.run("n = 1")

        shown = kernel.run("%flow run", fails=True).stderr

        assert "Nothing was run: `clean` (cell 3) needs `raw`, which cell 2 makes. Run that first." in shown

    def test_a_cell_between_two_tasks(self, kernel: Kernel, write: Write) -> None:
        write({"a": "%%task load\ndf = 1", "b": "df = df + 1", "c": "%%task use\nx = df"})

        shown = kernel.run("%flow run", fails=True).stderr

        assert "`use` (cell 3) reads `df` of `load` (cell 1), which cell 2 between them assigns, too" in shown


class TestOtherExtensions:
    @pytest.fixture
    def crowded(self, kernel_environment: dict[str, str]) -> Iterator[Kernel]:
        """A kernel in which another extension, such as ipyflow, owns `%flow`."""
        started = Kernel(kernel_environment)
        started.run(
            "ip = get_ipython()\nip.register_magic_function(lambda line: print('theirs', line), 'line', 'flow')\n"
            "%reload_ext prefect_nb"
        )
        yield started
        started.close()

    def test_everything_is_under_another_name(self, crowded: Kernel) -> None:
        crowded.run("%%task one --no-cache\nx = 1")

        crowded.run("x = 0\n%prefect run")

        assert crowded.run("x").value == "1"
        assert crowded.run("%flow run").stdout == "theirs run\n"
        assert "1 calls" in crowded.run("g = %prefect graph\nrepr(g)").value
        assert crowded.run("%prefect -h").stdout.startswith("usage: %prefect [subcommand]")
        assert crowded.run("%prefect run -h").stdout.startswith("usage: %prefect run [task ...]")
        assert "%prefect: there is no 'rnu'. Did you mean 'run'?" in crowded.run("%prefect rnu", fails=True).stderr
