"""Which names are missing when a cell uses them, judged without running anything, and whether running it agrees."""

import ast
import builtins

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_nb.model.name_flow import CellCode, missing_names, names_bound, names_read


def problems(*cells: str, given: tuple[str, ...] = ()):
    return missing_names([CellCode(n, ast.parse(source)) for n, source in enumerate(cells, 1)], given)


def sure(*cells: str) -> list[tuple[str, int, str]]:
    return [(p.name, p.cell, p.why) for p in problems(*cells) if p.is_sure]


def unsure(*cells: str) -> list[tuple[str, int, str]]:
    return [(p.name, p.cell, p.why) for p in problems(*cells) if not p.is_sure]


CLEAN = {
    "in order": ["a = 1", "b = a", "print(a, b)"],
    "builtins and IPython": ["display(len(In)), Out, _, __, _3, _i2, _oh, get_ipython(), __name__"],
    "comprehension": ["x = [i * j for i in range(3) for j in range(i) if i > j]", "{k: v for k, v in zip(x, x)}"],
    "walrus in a comprehension": ["any((hit := n) > 2 for n in range(5))", "print(hit)"],
    "class scope": ["class A:\n    size = 2\n    twice = size * 2\n    def area(self):\n        return self.size\nA().area()"],
    "function called late": ["def f():\n    return cfg", "cfg = 1", "f()"],
    "function handed on late": ["def f(x):\n    return x + cfg", "cfg = 1", "list(map(f, [1]))"],
    "decorated before its globals": ["def deco(f):\n    def inner():\n        return cfg\n    return inner", "@deco\ndef g(): ...",
                                     "cfg = 1", "g()"],
    "branches": ["import random\nif random.random() > 2:\n    x = 1\nelse:\n    x = 2", "x"],
    "try and except ImportError": ["try:\n    import ujson as json\nexcept ImportError:\n    import json", "json"],
    "asked by NameError": ["try:\n    done\nexcept NameError:\n    done = False", "done"],
    "global in a function": ["def load():\n    global model\n    model = 1\nload()", "model"],
    "global in a method": ["class A:\n    def load(self):\n        global model\n        model = 1\nA().load()", "model"],
    "recursion": ["def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)", "even(4)"],
    "loops": ["for i, (a, b) in enumerate([(1, 2)]):\n    c = a + b", "i, a, b, c"],
    "with": ["with open('x') as file:\n    text = file.read()", "file, text"],
    "match": ["match [1, 2]:\n    case [first, *rest]:\n        pass\n    case {'a': one, **others}:\n        pass",
              "first, rest, one, others"],
    "defined again after del": ["x = 1\ndel x\nx = 2", "x"],
    "lambda with defaults": ["k = 1\nf = lambda x, y=k: x + y", "f(1)"],
    "nested functions": ["def outer():\n    n = 0\n    def inner():\n        nonlocal n\n        n += 1\n        return n\n    return inner()\nouter()"],
    "imports with dots": ["import os.path, numpy.linalg as la", "os, la"],
    "coroutine": ["async def f():\n    return 1", "await f()"],
    "handler": ["try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print(error)"],
    "handler whose name was there": ["error = None\ntry:\n    1\nexcept ValueError as error:\n    pass", "error"],
    "augmented": ["n = 1", "n += 1"],
    "annotated": ["from typing import Any\nx: Any = 1", "x"],
    "keyword": ["dict(missing=1)", "'x'.upper().lower"],
}  # fmt: skip


@pytest.mark.parametrize("cells", CLEAN.values(), ids=CLEAN)
def test_nothing_is_missing(cells: list[str]):
    assert problems(*cells) == []


MISSING = {
    "nowhere": (["b = a"], [("a", 1, "nowhere")]),
    "later": (["print(a)", "a = 1"], [("a", 1, "later")]),
    "later in the cell": (["print(a)\na = 1"], [("a", 1, "later")]),
    "deleted": (["a = 1", "del a", "a"], [("a", 3, "deleted")]),
    "handler's name": (["try:\n    1\nexcept ValueError as e:\n    pass", "e"], [("e", 2, "handler")]),
    "called too early": (["def f():\n    return cfg", "f()", "cfg = 1"], [("cfg", 2, "later")]),
    "called through another": (["def f():\n    return g()\ndef g():\n    return cfg", "f()", "cfg = 1"], [("cfg", 2, "later")]),
    "task submitted too early": (["def f(x):\n    return x + cfg", "f.map([1])", "cfg = 1"], [("cfg", 2, "later")]),
    "under another name": (["def f():\n    return cfg\ng = f", "g()", "cfg = 1"], [("cfg", 2, "later")]),
    "made too early": (["class A:\n    def __init__(self):\n        self.x = cfg", "A()", "cfg = 1"], [("cfg", 2, "later")]),
    "awaited too early": (["async def f():\n    return cfg", "await f()", "cfg = 1"], [("cfg", 2, "later")]),
    "comprehension's name": (["[i for i in range(3)]", "i"], [("i", 2, "nowhere")]),
    "name in a class": (["class A:\n    size = 1", "size"], [("size", 2, "nowhere")]),
    "annotation": (["def f(x: Frame): ..."], [("Frame", 1, "nowhere")]),
    "augmented": (["n += 1"], [("n", 1, "later")]),
    "file": (["print(__file__)"], [("__file__", 1, "nowhere")]),
    "decorator": (["@task\ndef f(): ..."], [("task", 1, "nowhere")]),
    "only declared": (["x: int", "x"], [("x", 2, "nowhere")]),
    "default": (["def f(x=start): ..."], [("start", 1, "nowhere")]),
}  # fmt: skip


@pytest.mark.parametrize(("cells", "expected"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_found(cells: list[str], expected: list[tuple[str, int, str]]):
    assert sure(*cells) == expected


PERHAPS = {
    "in a branch": (["if len([]):\n    print(a)"], [("a", 1, "nowhere")]),
    "handed on too early": (["def f(x):\n    return cfg", "list(map(f, [1]))", "cfg = 1"], [("cfg", 2, "later")]),
    "never called": (["def f():\n    return nowhere_at_all"], [("nowhere_at_all", 1, "nowhere")]),
    "in a method": (["class A:\n    def go(self):\n        return lost"], [("lost", 1, "nowhere")]),
    "after a return": (["def f(x):\n    if x:\n        return\n    return cfg", "f(1)", "cfg = 1"], [("cfg", 2, "later")]),
    "a coroutine not awaited here": (["async def f():\n    return cfg", "c = f()", "cfg = 1"], [("cfg", 2, "later")]),
}  # fmt: skip


@pytest.mark.parametrize(("cells", "expected"), PERHAPS.values(), ids=PERHAPS)
def test_what_may_not_be_reached_is_not_sure(cells: list[str], expected: list[tuple[str, int, str]]):
    assert sure(*cells) == []
    assert unsure(*cells) == expected


def test_a_star_import_makes_it_a_guess():
    [problem] = problems("from numpy import *", "zeros(3)")
    assert problem.is_guess
    assert not problems("zeros(3)", "from numpy import *")[0].is_guess


def test_where_a_called_function_reads_it_is_told():
    [problem] = problems("def f():\n    x = 1\n    return cfg", "y = 2\nf()", "cfg = 1")
    assert (problem.cell, problem.line, problem.through, problem.read_at, problem.place) == (2, 2, "f", (1, 3), 3)


def test_one_problem_for_all_uses_of_a_name():
    [problem] = problems("if len([]):\n    df", "df.head()", "df.tail()")
    assert (problem.cell, problem.is_sure, problem.cells) == (2, True, (1, 3))


def test_what_a_cell_gives_and_takes():
    tree = ast.parse("import os\nclean = raw.dropna()\ndef f():\n    return limit + inner\ninner = 1")
    assert names_bound(tree) == {"os", "clean", "f", "inner"}
    assert names_read(tree) == {"raw", "limit"}


def test_a_task_cell_leaves_only_its_outputs():
    cells = [
        CellCode(1, ast.parse("import re\nhalf = 1\ntidy = half"), outputs=("tidy",)),
        CellCode(2, ast.parse("re, tidy, half")),
    ]
    [problem] = missing_names(cells)
    assert (problem.name, problem.why, problem.place) == ("half", "task", 1)


def test_names_from_outside():
    assert problems("print(year)", given=("year",)) == []
    assert (
        missing_names(
            [CellCode(1, ast.parse("x = date"), given=("date",), results=("run",)), CellCode(2, ast.parse("run"))]
        )
        == []
    )


# A notebook of assignments is executed, and what is judged missing is what fails.

NAMES = st.sampled_from(list("abcdef"))


@st.composite
def statements(draw: st.DrawFn) -> str:
    name, other, third = draw(NAMES), draw(NAMES), draw(NAMES)
    form = draw(st.sampled_from([
        "{0} = 1", "{0} = 1", "{0} = 2", "{0} = {1}", "{0} = [{1}, {2}]", "{0} = [{1} for i in (1, 2)]", "{0}: int = {1}",
        "{0} = [{1} for {1} in (1, 2)]", "del {0}", "def f{0}():\n    return {1}", "{0} = f{1}()", "f{0} = lambda x=0: {1}",
        "class K{0}:\n    {1} = 1\n    {2} = {1}", "for {0} in (1, 2):\n    {1} = {0}", "{0}, {1} = 1, {2}",
        "def f{0}({1}=1):\n    {2} = {1}\n    return {2}", "def f{0}():\n    return f{1}()", "f{0} = f{1}",
        "try:\n    1\nexcept ValueError as {0}:\n    pass", "if True:\n    {0} = 1", "({0} := 3)",
    ]))  # fmt: skip
    return form.format(name, other, third)


NOTEBOOKS = st.lists(st.lists(statements(), min_size=1, max_size=4).map("\n".join), min_size=1, max_size=8)


def first_failure(cells: list[str]) -> tuple[int, str] | None:
    """The first cell that fails for a missing name, as it runs; the code is made above, of assignments alone."""
    namespace: dict[str, object] = {"__builtins__": builtins}
    for number, source in enumerate(cells, 1):
        try:
            exec(compile(source, "<cell>", "exec"), namespace)
        except RecursionError:
            return (number, "")
        except UnboundLocalError:
            raise
        except NameError as error:
            return (number, str(error.name))
        except TypeError:  # a value that is called
            return (number, "")
    return None


@settings(max_examples=400)
@given(NOTEBOOKS)
def test_the_verdict_is_what_happens(cells: list[str]):
    failed = first_failure(cells)
    found = problems(*cells)
    if failed is None:
        assert [problem for problem in found if problem.is_sure] == []
    elif failed[1]:
        number, name = failed
        assert (number, name) in [(p.cell, p.name) for p in found if p.is_sure] or name in [
            p.name for p in found if p.is_sure and number in p.cells
        ]
        assert min(p.cell for p in found if p.is_sure) == number
