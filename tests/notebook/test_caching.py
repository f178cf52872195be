"""The cache in a notebook: for each thing that may change between two runs, whether the task must run again.

Every row is tried in one kernel, and with the second half in another process on the same home, as after a restart.
"""

from typing import NamedTuple

import pytest
from kernels import Kernel

PRELUDE = """
from prefect_nb import flow, task
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE
cached = dict(cache_policy=INPUTS + TASK_SOURCE)
"""

CELL = "\n# ---\n"
"""Between two cells of a notebook."""

TASK = "@task(**cached)\ndef step(x):\n    return x, MARK"
HELPED = (
    "def inner(v):\n    return v + 1"
    + CELL
    + "def outer(v):\n    return inner(v)"
    + CELL
    + "@task(**cached)\ndef step(x):\n    return outer(x), MARK"
)
FRAME = (
    "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2, 3], 'b': ['x', 'y', 'z']})"
    + CELL
    + "@task(**cached)\ndef step(x):\n    return int(x.a.sum()), MARK"
)
ARRAY = (
    "import numpy as np\narray = np.arange(6)" + CELL + "@task(**cached)\ndef step(x):\n    return float(x.sum()), MARK"
)
CLASS = (
    "import dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int\n    def double(self):\n        return 2 * self.x"
    + CELL
    + "@task(**cached)\ndef step(p):\n    return p.double(), MARK"
)
GLOBAL = "rate = 2" + CELL + "@task(**cached)\ndef step(x):\n    return x * rate, MARK"
CLOSURE = "def make(k):\n    @task(**cached)\n    def step(x):\n        return x * k, MARK\n    return step"
METHOD = (
    "class Model:\n    scale = 2\n    def fit(self, v):\n        return v * self.scale"
    + CELL
    + "@task(**cached)\ndef step(x):\n    return Model().fit(x), MARK"
)

RUN, HIT = "Completed", "Cached"


class Row(NamedTuple):
    """What is changed, the cells before and after, the call, and what must follow."""

    what: str
    before: str
    after: str
    call: str
    must: str
    call_after: str = ""


def row(what: str, before: str, old: str, new: str, must: str, call: str = "step(1)") -> Row:
    assert old in before, f"{what}: {old!r} is not in the cells"
    return Row(what, before, before.replace(old, new), call, must)


TABLE = [
    # What must run again
    row("the body", TASK, "x, MARK", "x + 1, MARK", RUN),
    row("a constant in the body", TASK, "x, MARK", "x, MARK, 1.0", RUN),
    row("a helper", HELPED, "return inner(v)", "return inner(v) * 2", RUN),
    row("a helper of a helper", HELPED, "v + 1", "v + 2", RUN),
    row("a helper's default", HELPED, "def inner(v)", "def inner(v, by=2)", RUN),
    row("a global it reads", GLOBAL, "rate = 2", "rate = 3", RUN),
    row("a global's type", GLOBAL, "rate = 2", "rate = 2.0", RUN),
    row("a list it reads", GLOBAL.replace("2", "[1, 2]"), "[1, 2]", "[1, 3]", RUN),
    Row("a global, in place", GLOBAL.replace("2", "[2]"), GLOBAL.replace("2", "[2]") + CELL + "rate.append(1)", "step(2)", RUN),
    Row("a closure's value", CLOSURE, CLOSURE, "make(2)(1)", RUN, "make(3)(1)"),
    row("a default", TASK.replace("(x)", "(x, by=1)"), "by=1", "by=2", RUN),
    row("its name", TASK, "step", "leap", RUN)._replace(call_after="leap(1)"),
    row("a method it calls", METHOD, "v * self.scale", "v + self.scale", RUN),
    row("a class attribute it reads", METHOD, "scale = 2", "scale = 3", RUN),
    row("a method of an input's class", CLASS, "2 * self.x", "3 * self.x", RUN, "step(Point(1))"),
    row("a task it calls", "@task\ndef sub(v):\n    return v" + CELL + TASK.replace("x, M", "sub(x), M"), "return v", "return -v", RUN),
    row("a lambda", "double = lambda v: 2 * v" + CELL + TASK.replace("x, M", "double(x), M"), "2 * v", "3 * v", RUN),
    Row("an input's value", TASK, TASK, "step(1)", RUN, "step(2)"),
    Row("an input's type", TASK, TASK, "step(1)", RUN, "step(1.0)"),
    Row("a bool for a number", TASK, TASK, "step(1)", RUN, "step(True)"),
    Row("a tuple for a list", TASK, TASK, "step([1])", RUN, "step((1,))"),
    Row("something deep in an input", TASK, TASK, "step({'a': [{'b': 1}]})", RUN, "step({'a': [{'b': 2}]})"),
    row("a field of an input", CLASS, "x: int", "x: int", RUN, "step(Point(1))")._replace(call_after="step(Point(2))"),
    row("one cell of a table", FRAME, "[1, 2, 3]", "[1, 2, 4]", RUN, "step(df)"),
    row("one text of a table", FRAME, "'z'", "'Z'", RUN, "step(df)"),
    row("a column's name", FRAME, "'b'", "'c'", RUN, "step(df)"),
    row("a column's dtype", FRAME, "[1, 2, 3]", "pd.Series([1, 2, 3], dtype='int32')", RUN, "step(df)"),
    Row("a table's index", FRAME, FRAME + CELL + "df.index = [3, 4, 5]", "step(df)", RUN),
    Row("the order of rows", FRAME, FRAME, "step(df)", RUN, "step(df[::-1])"),
    row("an array's dtype", ARRAY, "np.arange(6)", "np.arange(6, dtype='float32')", RUN, "step(array)"),
    row("one element of an array", ARRAY, "np.arange(6)", "np.array([0, 1, 2, 3, 4, 6])", RUN, "step(array)"),
    Row("an array's shape", ARRAY, ARRAY, "step(array)", RUN, "step(array.reshape(2, 3))"),
    # %%time keeps the text to itself: what is known is the bytecode, and nothing says that it means the same.
    row("a magic that hides its text", TASK, "@task", "%%time\n@task", RUN),
    # What must not
    Row("nothing", TASK, TASK, "step(1)", HIT),
    Row("nothing, with helpers", HELPED, HELPED, "step(1)", HIT),
    Row("nothing, with a closure", CLOSURE, CLOSURE, "make(2)(1)", HIT),
    Row("nothing, with a table", FRAME, FRAME, "step(df)", HIT),
    Row("nothing, with an array", ARRAY, ARRAY, "step(array)", HIT),
    Row("nothing, with an object", CLASS, CLASS, "step(Point(1))", HIT),
    Row("nothing, with a set", TASK, TASK, "step({'a', 'b', 'c'})", HIT),
    row("a comment", TASK, "    return", "    # why\n    return", HIT),
    row("a comment above it", TASK, "@task", "# what it does\n\n@task", HIT),
    row("a comment in a helper", HELPED, "return v + 1", "return v + 1  # one more", HIT),
    row("its docstring", TASK, "    return", '    """What it does."""\n    return', HIT),
    row("a helper's docstring", HELPED, "    return v + 1", '    """One more."""\n    return v + 1', HIT),
    row("white space", TASK, "return x, MARK", "return   (x,\n            MARK)", HIT),
    row("something it does not read", GLOBAL, "rate = 2", "rate = 2\nother = 3", HIT),
    row("another function of the cell", HELPED, "def inner", "def other():\n    return 5\n\ndef inner", HIT),
    row("how often it is tried", TASK, "**cached", "**cached, retries=3, tags=['a']", HIT),
    Row("the order of the cells", HELPED, CELL.join(reversed(HELPED.split(CELL))), "step(1)", HIT),
    Row("everything in one cell", HELPED, HELPED.replace(CELL, "\n"), "step(1)", HIT),
    Row("cells that ran before", TASK, "a = 1" + CELL + "b = 2" + CELL + TASK, "step(1)", HIT),
    Row("a cell that ran twice", TASK, TASK + CELL + TASK, "step(1)", HIT),
    Row("the notebook's name", TASK, "import os\nos.environ['JPY_SESSION_NAME'] = '/x/other.ipynb'" + CELL + TASK, "step(1)", HIT),
    Row("the working folder", TASK, "%cd -q ..\n" + CELL + TASK + CELL + "%cd -q -", "step(1)", HIT),
    Row("where it is called from", TASK, TASK + CELL + "@flow\ndef around(x):\n    return step(x, return_state=True)", "step(1)", HIT),
    Row("the order of a dict", TASK, TASK, "step({'a': 1, 'b': 2})", HIT, "step({'b': 2, 'a': 1})"),
    Row("an equal copy of a table", FRAME, FRAME, "step(df)", HIT, "step(df.copy())"),
    Row("a view of an array", ARRAY, ARRAY, "step(array)", HIT, "step(np.arange(12)[:6])"),
    Row("how an argument is given", TASK, TASK, "step(1)", HIT, "step(x=1)"),
    Row("a default that is spelled out", TASK.replace("(x)", "(x=1)"), TASK.replace("(x)", "(x=1)"), "step()", HIT, "step(1)"),
]  # fmt: skip


def run_cells(kernel: Kernel, cells: str, call: str, mark: str) -> str:
    """Run cells, then call the task; returns the name of the state it ended in."""
    kernel.reset()
    kernel.run(PRELUDE)
    for cell in cells.replace("MARK", repr(mark)).split(CELL):
        kernel.run(cell)
    name, opening, rest = call.rpartition(")")
    comma = "" if name.endswith("(") else ", "
    return kernel.run(f"print({name}{comma}return_state=True{opening}{rest}.name)").stdout.strip()


@pytest.mark.parametrize("where", ["in one kernel", "after a restart"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
def test_the_table(row, where, session_kernel, session_other_kernel):
    mark = f"{row.what}, {where}"
    assert run_cells(session_kernel, row.before, row.call, mark) == RUN

    again = session_kernel if where == "in one kernel" else session_other_kernel

    assert run_cells(again, row.after, row.call_after or row.call, mark) == row.must


def test_a_task_moved_into_a_module_is_the_same_task(kernel, tmp_path):
    """Where code stands is no part of the key: moving a finished function out of the notebook costs nothing."""
    assert run_cells(kernel, HELPED, "step(1)", "moved") == RUN
    module = "from prefect_nb import task\nfrom prefect_nb.cache_policies import INPUTS, TASK_SOURCE\n"
    module += "cached = dict(cache_policy=INPUTS + TASK_SOURCE)\n\n" + HELPED.replace(CELL, "\n\n").replace(
        "MARK", "'moved'"
    )
    (tmp_path / "moved_steps.py").write_text(module)

    imports = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom moved_steps import step"

    assert run_cells(kernel, imports, "step(1)", "moved") == HIT


def test_values_come_back_as_they_were(kernel, other_kernel):
    for process in (kernel, other_kernel):
        process.run(PRELUDE)
        process.run(
            "import pandas as pd\n@task(**cached)\ndef make(n):\n    return pd.DataFrame({'a': range(n)}), {'n': n}"
        )
        outcome = process.run(
            "state = make(3, return_state=True)\ntable, facts = state.result()\nstate.name, list(table.a), facts"
        )

    assert outcome.value == "('Cached', [0, 1, 2], {'n': 3})"


@pytest.mark.parametrize(
    "value", ["threading.Lock()", "(i for i in range(3))", "open(os.devnull)"], ids=["lock", "generator", "file"]
)
def test_what_cannot_be_hashed_is_computed_again_and_said(kernel, value):
    kernel.run(PRELUDE)
    kernel.run("import os, threading\ncalls = []\n@task(cache_policy=INPUTS)\ndef use(it):\n    return len(repr(it))")

    for _ in range(2):
        outcome = kernel.run(f"print(use({value}, return_state=True).name)")

        assert outcome.stdout == "Completed\n"
        assert "'use' is not cached" in outcome.stderr
        assert "input it" in outcome.stderr


def test_two_functions_of_one_name_do_not_share(kernel):
    kernel.run(PRELUDE)
    kernel.run("@task(**cached)\ndef same(x):\n    return x + 1\none = same")
    kernel.run("@task(**cached)\ndef same(x):\n    return x + 2\ntwo = same")

    assert kernel.run("one(10), two(10), one(10), two(10)").value == "(11, 12, 11, 12)"


def test_two_closures_of_one_text_do_not_share(kernel):
    kernel.run(PRELUDE)
    kernel.run("def make(k):\n    @task(**cached)\n    def scale(x):\n        return x * k\n    return scale")

    assert kernel.run("[make(k)(10) for k in (2, 3, 2, 3)]").value == "[20, 30, 20, 30]"


def test_a_task_sees_what_a_global_is_when_it_is_called(kernel):
    kernel.run(PRELUDE)
    kernel.run("factor = 1\n@task(**cached)\ndef times(x):\n    return x * factor")
    assert kernel.run("times(10)").value == "10"

    kernel.run("factor = 2")

    assert kernel.run("times(10)").value == "20"


def test_tasks_defined_inside_a_flow_cell(kernel, other_kernel):
    names = []
    for process in (kernel, other_kernel):
        process.run(PRELUDE)
        process.run(
            "%%flow\ndef helper(v):\n    return v + 1\n\n@task(**cached)\ndef in_a_cell(x):\n    return helper(x)\n\n"
            "found = in_a_cell(1, return_state=True)\nhow = found.name"
        )
        names.append(process.run("print(how, found)").stdout.strip())

    assert names == ["Completed 2", "Cached 2"]
