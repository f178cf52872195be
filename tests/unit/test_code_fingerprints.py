"""Code: what must recompute when it changes, and what must not."""

import functools
import hashlib
import importlib
import linecache
import os
import subprocess
import sys
import textwrap
import threading
import types

import numpy as np
import pytest

from prefect_nb.model.code_fingerprints import code_parts
from prefect_nb.model.fingerprints import Unhashable, combine, explain, hash_value


class Notebook:
    """Cells run in one namespace, their text known to linecache under a name made of their content, as in IPython."""

    def __init__(self):
        self.names = {"__name__": "__main__", "__builtins__": __builtins__}

    def run(self, cell):
        text = textwrap.dedent(cell)
        filename = f"/kernel_{os.getpid()}_{id(self)}/{hashlib.sha256(text.encode()).hexdigest()[:10]}.py"
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        exec(compile(text, filename, "exec"), self.names)
        return self

    def parts(self, name="clean"):
        return code_parts(self.names[name])

    def key(self, name="clean"):
        return combine(self.parts(name))


def notebook(*cells):
    opened = Notebook()
    for cell in cells:
        opened.run(cell)
    return opened


BASE = """
    THRESHOLD = 3
    def helper(x):
        return x + 1
    def clean(x, y=2):
        return [helper(item) for item in x if item > THRESHOLD]
"""

SAME = {
    "the same cell in another kernel": BASE,
    "moved down": "\n\n\n" + BASE,
    "a comment": BASE.replace("return x + 1", "return x + 1  # one more").replace(
        "def helper", "# help\n    def helper"
    ),
    "blank lines": BASE.replace("    def clean", "\n\n\n    def clean").replace("return x", "\n        return x"),
    "a docstring": BASE.replace("return [", '"""Clean it."""\n        return ['),
    "a docstring of the helper": BASE.replace("return x + 1", "'more'\n        return x + 1"),
    "other quotes and brackets": BASE.replace("x + 1", "(x + 1)"),
    "an unrelated name": BASE + "    OTHER = 4\n",
    "a global set to an equal value": BASE.replace("= 3", "= 1 + 2"),
    "the order of the cell": """
    def clean(x, y=2):
        return [helper(item) for item in x if item > THRESHOLD]
    def helper(x):
        return x + 1
    THRESHOLD = 3
""",
    "a task decorator": BASE.replace(
        "    def clean", "    task = lambda **_: lambda f: f\n    @task(retries=3)\n    def clean"
    ),
    "deeper indentation": BASE.replace(
        "    def clean(x, y=2):\n        return", "    if True:\n        def clean(x, y=2):\n             return"
    ),
}

CHANGED = {
    "its body": (BASE.replace("item > THRESHOLD", "item >= THRESHOLD"), "ran because `clean()` changed"),
    "a helper": (BASE.replace("x + 1", "x + 2"), "ran because `helper()` changed"),
    "a global": (BASE.replace("= 3", "= 4"), "global `THRESHOLD`: was 3, is now 4"),
    "a default": (BASE.replace("y=2", "y=3"), "ran because `clean()` changed"),
    "an undefined global": (BASE.replace("THRESHOLD = 3", "pass"), "global `THRESHOLD`: was int, is now undefined"),
    "the type of a constant": (BASE.replace("x + 1", "x + 1.0"), "ran because `helper()` changed"),
}


@pytest.mark.parametrize("cell", SAME.values(), ids=SAME.keys())
def test_what_does_not_change_the_code_keeps_the_key(cell):
    assert explain(notebook(BASE).parts(), notebook(cell).parts()) == "same code and inputs as before"
    assert notebook(cell).key() == notebook(BASE).key()


@pytest.mark.parametrize(("cell", "words"), CHANGED.values(), ids=CHANGED.keys())
def test_what_changes_the_code_changes_the_key_and_says_why(cell, words):
    before, after = notebook(BASE), notebook(cell)
    assert before.key() != after.key()
    assert explain(before.parts(), after.parts()) == words


def test_running_a_cell_again_keeps_the_key_and_editing_it_is_seen_at_once():
    opened = notebook(BASE)
    first = opened.key()
    assert opened.run(BASE).key() == first
    opened.run("def helper(x): return x - 1")
    edited = opened.key()
    assert edited != first
    opened.names["THRESHOLD"] = 9
    assert opened.key() not in (first, edited)
    assert opened.run(BASE).key() == first


REACHED = {
    "a helper's helper": ("def deep(): return {}\ndef mid(): return deep()\ndef clean(): return mid()"),
    "a helper's global": ("G = {}\ndef mid(): return G\ndef clean(): return mid()"),
    "a global in a lambda": "G = {}\nclean = lambda: (lambda: G)()",
    "a global in a nested function": "G = {}\ndef clean():\n    def inner(): return [G for _ in 'a']\n    return inner()",
    "a global in a nested class": "G = {}\ndef clean():\n    class Inner:\n        value = G\n    return Inner",
    "an item of a registry": "def one(): return {}\nREGISTRY = {{'one': one}}\ndef clean(): return REGISTRY['one']()",
    "a global of an item of a registry": "G = {}\ndef one(): return G\nREGISTRY = [one]\ndef clean(): return REGISTRY[0]()",
    "a partial": "import functools\ndef one(x): return x\nhalf = functools.partial(one, {})\ndef clean(): return half()",
    "a partial's function": "import functools\ndef one(): return {}\nhalf = functools.partial(one)\ndef clean(): return half()",
    "a closure's value": "def make(n):\n    def clean(): return n\n    return clean\nclean = make({})",
    "a helper's closure": "def make(n):\n    def inner(): return n\n    return inner\nhelp = make({})\ndef clean(): return help()",
    "a function in a closure": "def make(f):\n    def clean(): return f()\n    return clean\nclean = make(lambda: {})",
    "a keyword default": "def clean(*, n={}): return n",
    "a helper's default": "D = {}\ndef mid(n=D): return n\ndef clean(): return mid()",
    "a method": "class A:\n    def run(self): return {}\ndef clean(): return A().run()",
    "a method's global": "G = {}\nclass A:\n    def run(self): return G\ndef clean(): return A().run()",
    "a static method": "class A:\n    @staticmethod\n    def run(): return {}\ndef clean(): return A.run()",
    "a property": "class A:\n    @property\n    def run(self): return {}\ndef clean(): return A().run",
    "a class attribute": "V = {}\nclass A:\n    run = V\ndef clean(): return A.run",
    "a base class": "class B:\n    def run(self): return {}\nclass A(B): pass\ndef clean(): return A().run()",
    "a field's default": "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int = {}\ndef clean(): return A()",
    "a default factory": (
        "import dataclasses\ndef make(): return {}\n@dataclasses.dataclass\nclass A:\n"
        "    x: object = dataclasses.field(default_factory=make)\ndef clean(): return A()"
    ),
    "a pydantic default": "import pydantic\nclass A(pydantic.BaseModel):\n    x: int = {}\ndef clean(): return A()",
    "a pydantic validator": (
        "import pydantic\nclass A(pydantic.BaseModel):\n    x: int\n    @pydantic.field_validator('x')\n"
        "    @classmethod\n    def check(cls, x): return {}\ndef clean(): return A(x=1)"
    ),
    "an attrs default": "import attrs\n@attrs.define\nclass A:\n    x: int = {}\ndef clean(): return A()",
    "a struct's default": "import msgspec\nclass A(msgspec.Struct):\n    x: int = {}\ndef clean(): return A()",
    "a struct's factory": (
        "import msgspec\ndef make(): return {}\nclass A(msgspec.Struct):\n    x: object = msgspec.field(default_factory=make)\n"
        "def clean(): return A()"
    ),
    "an attrs factory": (
        "import attrs\ndef make(): return {}\n@attrs.define\nclass A:\n    x: object = attrs.Factory(make)\ndef clean(): return A()"
    ),
    "a pydantic factory": (
        "import pydantic\ndef make(): return {}\nclass A(pydantic.BaseModel):\n"
        "    x: object = pydantic.Field(default_factory=make)\ndef clean(): return A()"
    ),
    "a named tuple's default": "import typing\nclass A(typing.NamedTuple):\n    x: int = {}\ndef clean(): return A()",
    "an enum's member": "import enum\nclass A(enum.Enum):\n    X = {}\ndef clean(): return A.X",
    "an instance": "class A:\n    def __init__(self): self.v = {}\na = A()\ndef clean(): return a.v",
    "a bound method": "class A:\n    def __init__(self): self.v = {}\n    def run(self): return self.v\nr = A().run\ndef clean(): return r()",
    "a decorator": "def deco(f):\n    def wrapper(): return f(), {}\n    return wrapper\n@deco\ndef mid(): return 1\ndef clean(): return mid()",
    "what is decorated": "def deco(f):\n    def wrapper(): return f()\n    return wrapper\n@deco\ndef mid(): return {}\ndef clean(): return mid()",
    "a wraps decorator": (
        "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def wrapper(): return f(), {}\n    return wrapper\n"
        "@deco\ndef mid(): return 1\ndef clean(): return mid()"
    ),
    "a decorator's argument": "N = {}\ndef deco(n): return lambda f: f\n@deco(N)\ndef mid(): return 1\ndef clean(): return mid()",
    "a cached helper": "import functools\n@functools.cache\ndef mid(): return {}\ndef clean(): return mid()",
    "a context manager": (
        "import contextlib\n@contextlib.contextmanager\ndef mid(): yield {}\ndef clean():\n    with mid() as m: return m"
    ),
    "a task": "class Task:\n    def __init__(self, fn): self.fn = fn\n@Task\ndef mid(): return {}\ndef clean(): return mid.fn()",
    "a coroutine": "async def mid(): return {}\nasync def clean(): return await mid()",
    "one of two lambdas on a line": "F = (lambda: {}, lambda: 0)\ndef clean(): return F[0]()",
}


@pytest.mark.parametrize("cell", REACHED.values(), ids=REACHED.keys())
def test_a_change_is_seen_wherever_it_is_reached(cell):
    cell = cell.replace("{{", "<").replace("}}", ">").replace("{}", "%VALUE%").replace("<", "{").replace(">", "}")
    one, same, other = (notebook(cell.replace("%VALUE%", value)).key() for value in ("7", "7", "8"))
    assert one == same
    assert one != other


def test_the_roles_of_two_equally_named_helpers_are_told_apart(tmp_path, monkeypatch):
    module = "def f(x): return g(x)\ndef g(x): return x {}"
    keys = []
    for one, other in (("+ 1", "- 1"), ("- 1", "+ 1")):
        names = [
            write_module(tmp_path, monkeypatch, name, module.format(op)) for name, op in (("ma", one), ("mb", other))
        ]
        opened = notebook(f"import {names[0]}, {names[1]}\ndef clean(x): return {names[0]}.f(x) * {names[1]}.f(x)")
        keys.append(opened.key())
    assert keys[0] != keys[1]


def test_swapping_two_closures_of_one_text_is_seen():
    cell = "def make(n):\n    def inner(): return n\n    return inner\nF = {{'a': make({}), 'b': make({})}}\ndef clean(): return F"
    assert notebook(cell.format(1, 2)).key() != notebook(cell.format(2, 1)).key()


def test_the_order_of_a_registry_does_not_matter():
    cell = "def one(): return 1\ndef two(): return one()\nF = {{{}}}\ndef clean(): return F"
    assert notebook(cell.format("'a': one, 'b': two")).key() == notebook(cell.format("'b': two, 'a': one")).key()


@pytest.mark.parametrize(
    "cell",
    [
        "def clean(n): return clean(n - 1) if n else 0",
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\nclean = even",
        "F = {}\ndef clean(): return F\nF['clean'] = clean",
        "def make():\n    def clean(n): return clean(n - 1) if n else 0\n    return clean\nclean = make()",
        "class A:\n    def me(self): return A\n    other: 'A' = None\nA.default = A()\ndef clean(): return A.default",
        "class A:\n    def __init__(self): super().__init__()\ndef clean(): return A()",
    ],
)
def test_code_that_refers_to_itself_has_a_key(cell):
    assert notebook(cell).key() == notebook("\n# moved\n" + cell).key()


def test_a_global_that_cannot_be_hashed_refuses_the_whole_key():
    cell = "import threading\nguard = threading.Lock()\ndef mid(): return guard\ndef clean(): return mid()"
    with pytest.raises(Unhashable, match=r"^global guard: cannot hash _thread\.lock$"):
        notebook(cell).parts()
    captured = "import threading\ndef make(guard):\n    def clean(): return guard\n    return clean\nclean = make(threading.Lock())"
    with pytest.raises(Unhashable, match=r"^closure guard: cannot hash _thread\.lock$"):
        notebook(captured).parts()


def test_a_library_counts_by_its_version_and_builtins_not_at_all():
    parts = notebook("import numpy as np\ndef clean(x): return np.mean(sorted(x))").parts()
    assert [(part.kind, part.name, part.detail) for part in parts[1:]] == [
        ("helper", "np", {"library": f"numpy {np.__version__}"})
    ]
    older = [parts[0], type(parts[1])("helper", "np", "0", {"library": "numpy 1.0"})]
    assert explain(older, parts) == f"ran because `np` changed from numpy 1.0 to numpy {np.__version__}"


def test_a_logger_and_a_compiled_pattern_do_not_stand_in_the_way():
    cell = "import logging, re\nlog = logging.getLogger('a')\nword = re.compile('{}')\ndef clean(): log.info(word)"
    assert notebook(cell.format("x")).key() == notebook(cell.format("x")).key() != notebook(cell.format("y")).key()


def write_module(folder, monkeypatch, name, text):
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    linecache.checkcache()
    return name


MODULE = textwrap.dedent("""
    LIMIT = 5
    def inner(x):
        return x * 2
    def outer(x):
        return min(inner(x), LIMIT)
""")
USES = {
    "an attribute": "import helpers_under_test\ndef clean(x): return helpers_under_test.outer(x)",
    "a name": "from helpers_under_test import outer\ndef clean(x): return outer(x)",
    "an import inside": "def clean(x):\n    from helpers_under_test import outer\n    return outer(x)",
    "a module inside": "def clean(x):\n    import helpers_under_test as h\n    return h.outer(x)",
}


@pytest.mark.parametrize("cell", USES.values(), ids=USES.keys())
def test_a_module_the_user_wrote_counts_by_what_is_used_of_it(cell, tmp_path, monkeypatch):
    def key(text):
        write_module(tmp_path, monkeypatch, "helpers_under_test", text)
        return notebook(cell).key()

    first = key(MODULE)
    assert key("\n# a comment\n" + MODULE) == first
    assert key(MODULE.replace("x * 2", "x * 3")) != first
    assert key(MODULE.replace("= 5", "= 6")) != first
    assert key(MODULE) == first


def test_an_import_inside_a_function_counts_the_same_before_and_after_it_ran(tmp_path, monkeypatch):
    write_module(tmp_path, monkeypatch, "helpers_under_test", MODULE)
    opened = notebook(USES["an import inside"])
    before = opened.key()
    assert "helpers_under_test" not in sys.modules
    assert opened.names["clean"](1) == 2
    assert opened.key() == before


def test_a_library_imported_inside_a_function_counts_the_same_before_and_after(tmp_path):
    program = """
import sys
from prefect_nb.model.code_fingerprints import code_parts
def clean(x):
    import yaml
    from json.tool import main
    return yaml.safe_load(x)
before = code_parts(clean)
assert not {"yaml", "json.tool"} & {*sys.modules}
clean("1")
assert code_parts(clean) == before
print([(part.name, part.detail) for part in before[1:]])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'library': 'yaml " in done.stdout
    assert "'library': 'Python 3" in done.stdout


def test_a_module_edited_but_not_reloaded_counts_as_what_runs(tmp_path, monkeypatch):
    write_module(tmp_path, monkeypatch, "helpers_under_test", MODULE)
    loaded = importlib.import_module("helpers_under_test")
    path = tmp_path / "helpers_under_test.py"
    path.write_text(MODULE.replace("x * 2", "x * 3333"))
    stale = combine(code_parts(loaded.outer))
    fresh = combine(code_parts(importlib.reload(loaded).outer))
    assert stale != fresh
    path.write_text(MODULE.replace("x * 2", "x * 44444"))
    assert combine(code_parts(loaded.outer)) == fresh


def test_an_editable_install_is_user_code_and_an_installed_one_is_not(tmp_path, monkeypatch):
    for folder, differs in (("src", True), ("site-packages", False)):
        home = tmp_path / folder
        home.mkdir()
        keys = set()
        for body in ("1", "2"):
            write_module(home, monkeypatch, f"lib_{folder[:3]}", f"__version__ = '1'\ndef f(): return {body}")
            keys.add(notebook(f"from lib_{folder[:3]} import f\ndef clean(): return f()").key())
        assert (len(keys) == 2) == differs


def test_the_kept_source_is_used_when_no_file_is_left():
    text = "def clean(x):\n    return x + 1\n"
    made = {}
    exec(text, made)
    without = combine(code_parts(made["clean"]))
    kept = {}
    exec(text, kept)
    kept["clean"].__prefect_nb_source__ = "    @task\n" + textwrap.indent(text, "    ") + "    # the end\n"
    assert combine(code_parts(kept["clean"])) == notebook(text).key() != without


def test_without_any_source_the_bytecode_counts():
    def key(text):
        made = {}
        exec(text, made)
        return combine(code_parts(made["clean"]))

    first = key("def clean(x):\n    return [i + 1 for i in x]")
    assert key("\n\n# moved\ndef clean(x):\n    return [i + 1 for i in x]") == first
    assert key("def clean(x):\n    return [i + 2 for i in x]") != first
    assert key("def clean(x):\n    return [i - 1 for i in x]") != first


def test_the_text_a_wrapper_inherits_is_not_taken_for_its_own():
    keys = set()
    for extra in ("0", "1"):
        opened = notebook(
            f"""
            import functools
            def mid(): return 1
            mid.__prefect_nb_source__ = "def mid(): return 1"
            def deco(f):
                @functools.wraps(f)
                def wrapper(): return f() + {extra}
                return wrapper
            clean = deco(mid)
            """
        )
        keys.add(opened.key())
    assert len(keys) == 2


def test_callables_that_are_no_functions_have_parts_too():
    class Adder:
        def __init__(self, n):
            self.n = n

        def __call__(self, x):
            return x + self.n

        def add(self, x):
            return x + self.n

    def plain(x, y):
        return x + y

    made = [
        Adder(1),
        Adder(2),
        Adder(1).add,
        Adder(2).add,
        functools.partial(plain, 1),
        functools.partial(plain, 2),
        len,
    ]
    assert len({combine(code_parts(item)) for item in made}) == len(made)
    assert combine(code_parts(Adder(1).add)) == combine(code_parts(Adder(1).add))


def test_a_function_as_input_counts_with_what_it_reads():
    opened = notebook("G = 1\ndef clean(): return G")
    first = hash_value([opened.names["clean"]])
    opened.names["G"] = 2
    assert hash_value([opened.names["clean"]]) != first
    opened.names["G"] = 1
    assert hash_value([opened.names["clean"]]) == first


def test_an_instance_of_a_redefined_class_is_another_value():
    cell = "class R:\n    def __init__(self): self.x = 1\n    def run(self): return {}\nr = R()"
    assert hash_value(notebook(cell.format(1)).names["r"]) == hash_value(notebook(cell.format(1)).names["r"])
    assert hash_value(notebook(cell.format(1)).names["r"]) != hash_value(notebook(cell.format(2)).names["r"])


def test_a_module_as_a_value(tmp_path, monkeypatch):
    write_module(tmp_path, monkeypatch, "helpers_under_test", MODULE)
    first = hash_value(importlib.import_module("helpers_under_test"))
    write_module(tmp_path, monkeypatch, "helpers_under_test", MODULE.replace("5", "6"))
    assert hash_value(importlib.import_module("helpers_under_test")) != first
    with pytest.raises(Unhashable, match="__main__"):
        hash_value(types.ModuleType("__main__"))


def test_keys_can_be_made_from_many_threads_at_once():
    opened = notebook(BASE)
    keys = []
    threads = [threading.Thread(target=lambda: keys.append(opened.key())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


KERNEL = """
from IPython.core.interactiveshell import InteractiveShell
from prefect_nb.model.code_fingerprints import code_parts
from prefect_nb.model.fingerprints import combine
shell = InteractiveShell.instance()
def key(*cells):
    for cell in cells:
        shell.run_cell(cell, store_history=True).raise_error()
    return combine(code_parts(shell.user_ns["clean"]))
cells = ["import math\\nN = 2", "class A:\\n    size = 1\\n    def f(self): return N", "def clean(x):\\n    y = math.sqrt(x)\\n    return A().f()"]
first = key(*cells)
print(key(*cells) == first, key("# comment\\n" + cells[2].replace("(x):", "(x):  # other")) == first)
print(key(cells[1].replace("return N", "return -N")) != first, key(cells[1]) == first, key("N = 3") != first)
print(key(cells[1].replace("size = 1", "size = 2"), "N = 2") != first, first)
"""


def test_cells_of_a_real_shell(tmp_path):
    outputs = set()
    for number in range(2):
        environment = {**os.environ, "IPYTHONDIR": str(tmp_path / str(number))}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        done = subprocess.run(
            [sys.executable, "-c", KERNEL],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "False" not in done.stdout
        outputs.add(done.stdout)
    assert len(outputs) == 1
