"""Which names a cell needs from the notebook, and which it binds."""

import ast

import pytest

from prefect_nb.notebook.names import names_of, split_declarations

BUILTINS = {"print", "len", "open", "range", "KeyError"}


@pytest.mark.parametrize(
    ("source", "needed", "bound"),
    [
        ("tidy = raw.dropna()\nn = len(tidy)", "raw", "n tidy"),
        ("df = df.dropna()", "df", "df"),
        ("x += 1", "x", "x"),
        ("df['a'] = 1", "df", ""),
        ("a, *b = c", "c", "a b"),
        ("x: int = y", "int y", "x"),
        ("del a", "", ""),
        ("import os.path as p, sys", "", "p sys"),
        ("[a * b for a in c if (w := a)]", "b c", "w"),
        ("(lambda q: q + z)", "", ""),
        ("if a:\n  y = 1\nelse:\n  y = 2\nz = y", "a", "y z"),
        ("if a:\n  y = 1\nz = y", "a y", "y z"),
        ("for i in xs:\n  t = i * k\nlast = t", "k xs", "i last t"),
        ("while go:\n  t = go\nlast = t", "go", "last t"),
        ("with open(p) as h, h2(h) as g:\n  s = g", "h2 p", "g h s"),
        ("try:\n  u = v\nexcept KeyError as e:\n  u = e\nok = u", "v", "ok u"),
        ("try:\n  u = v\nexcept KeyError:\n  pass\nok = u", "u v", "ok u"),
        ("try:\n  pass\nfinally:\n  f = 1\nok = f", "", "f ok"),
        ("match m:\n  case {'a': va, **rest}:\n    o = va\n  case [X.y, *more] if g:\n    o = more", "X g m", "more o rest va"),
        ("def f(q=d):\n  return q + later\nr = f(1)", "d", "f r"),
        ("class A(B):\n  z = df\n  def m(self):\n    return later", "B df", "A"),
    ],
)  # fmt: skip
def test_names(source, needed, bound):
    names = names_of(ast.parse(source).body)

    assert names.needed - BUILTINS == set(needed.split())
    assert names.bound == set(bound.split())


def test_what_functions_read_is_read_later():
    names = names_of(ast.parse("def f():\n  return [g(v) for v in data]\nh = lambda: other").body)

    assert names.later == {"g", "data", "other"}


def test_what_a_cell_begins_with_is_declared_first():
    source = "'''what it does'''\nimport os\ndef f(): pass\nclass A: pass\nx = 1\nimport sys"

    first, rest = split_declarations(ast.parse(source).body)

    assert [type(node).__name__ for node in first] == ["Expr", "Import", "FunctionDef", "ClassDef"]
    assert [type(node).__name__ for node in rest] == ["Assign", "Import"]
