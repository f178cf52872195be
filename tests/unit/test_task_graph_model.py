"""The graph of a notebook's task cells: who takes which name from whom, in what order, and what is in conflict."""

import ast

import pytest

from prefect_nb.notebook.names import changed_in_place, in_passing, sources_declared
from prefect_nb.notebook.task_graph import PlainNode, TaskNode, build


def node(name: str, reads: str = "", gives: str = "", **more: object) -> TaskNode:
    for option in ("changes", "takes", "late", "passing"):
        more[option] = frozenset(str(more.get(option, "")).split())
    return TaskNode(name, reads=frozenset(reads.split()), gives=frozenset(gives.split()), **more)


def numbered(*nodes: TaskNode) -> list[TaskNode]:
    return [TaskNode(**{**vars(one), "number": number}) for number, one in enumerate(nodes, 1)]


class TestEdges:
    def test_a_cell_takes_a_name_from_the_one_that_makes_it(self):
        graph = build([node("load", "path", "raw"), node("clean", "raw", "tidy"), node("train", "tidy raw", "model")])

        assert graph.sources == {"load": {}, "clean": {"raw": "load"}, "train": {"tidy": "clean", "raw": "load"}}
        assert graph.conflicts == []

    def test_wherever_in_the_notebook_that_is(self):
        graph = build([node("train", "tidy", "model"), node("clean", "raw", "tidy"), node("load", "", "raw")])

        assert graph.order() == ["load", "clean", "train"]

    def test_independent_cells_stay_in_the_order_of_the_notebook(self):
        graph = build([node("c", "", "z"), node("a", "", "x"), node("b", "x z", "y")])

        assert graph.order() == ["c", "a", "b"]

    def test_a_cell_that_updates_a_name_alone_takes_it_from_the_notebook(self):
        graph = build([node("first", "df", "n"), node("drop", "df", "df"), node("last", "df", "m")])

        assert graph.sources == {"first": {}, "drop": {}, "last": {"df": "drop"}}
        assert graph.conflicts == []

    def test_stated_updates_are_a_chain(self):
        graph = build(
            [
                node("load", "", "df"),
                node("before", "df", "a"),
                node("clean", "df", "df", takes="df"),
                node("between", "df", "b"),
                node("enrich", "df", "df", takes="df"),
                node("after", "df", "c"),
            ]
        )

        took = {key: sources.get("df") for key, sources in graph.sources.items()}
        assert took == {
            "load": None, "before": "load", "clean": "load", "between": "clean", "enrich": "clean", "after": "enrich",
        }  # fmt: skip
        assert graph.conflicts == []

    def test_who_reads_the_old_value_goes_before_who_changes_it_in_place(self):
        cells = [node("load", "", "df"), node("clean", "df", "df", takes="df", changes="df"), node("count", "df", "n")]
        assert build(cells).after == {"load": set(), "clean": set(), "count": set()}

        cells = [cells[0], cells[2], cells[1]]

        graph = build(cells)
        assert graph.after["clean"] == {"count"}
        assert graph.sources["count"] == {"df": "load"}
        assert graph.needs("clean") == ["load"]

    def test_what_a_body_declares_is_waited_for_and_what_stands_above_it_is_not(self):
        cells = [
            node("tools", "", "", declares={"helper": "def helper(): ...", "json": "import json"}, late="json"),
            node("use", "helper json", "x"),
        ]

        graph = build(cells)

        assert graph.sources["use"] == {"json": "tools"}
        assert graph.declared["use"] == {"tools"}
        assert graph.with_declaring(["use"]) == {"use", "tools"}

    def test_cells_of_one_name_are_numbered(self):
        graph = build([node("fit", "", "a"), node("fit", "", "b"), node("fit-2", "", "c"), node("fit", "", "d")])

        assert [*graph.nodes] == ["fit", "fit-3", "fit-2", "fit-4"]
        assert graph.conflicts == []


class TestSelection:
    GRAPH = build(
        [
            node("load", "", "raw"),
            node("clean", "raw", "tidy"),
            node("plot", "raw", "fig"),
            node("train", "tidy", "model"),
        ]
    )

    def test_what_a_cell_needs(self):
        assert self.GRAPH.order(self.GRAPH.with_needed(["train"])) == ["load", "clean", "train"]

    def test_what_needs_a_cell(self):
        assert self.GRAPH.order(self.GRAPH.with_dependents(["clean"])) == ["clean", "train"]


class TestConflicts:
    def test_one_name_assigned_twice(self):
        cells = numbered(node("load", "", "df"), node("clean", "raw", "df"))

        assert build(cells).conflicts == [
            (
                "`df` is assigned by `load` (cell 1) and `clean` (cell 2). Give one of them another name, or state the outputs "
                "of one without it: %%task name -> outputs, or None."
            )
        ]

    def test_not_in_passing(self):
        loops = [node("a", "", "i x", passing="i"), node("b", "", "i y", passing="i")]

        assert build(loops).conflicts == []
        assert build([*loops, node("c", "", "i"), node("d", "i", "z")]).sources["d"] == {"i": "c"}
        assert "`i` is assigned by `a` and `b`." in build([*loops, node("d", "i", "z")]).conflicts[0]

    def test_by_one_that_goes_on_with_it(self):
        conflict = build([node("load", "", "df"), node("clean", "df", "df")]).conflicts[0]

        assert "`df` is assigned by `load` and `clean`." in conflict
        assert "If `clean` goes on with what is there, state it: %%task clean(df) -> df." in conflict

    def test_in_place_where_others_use_it(self):
        cells = [node("load", "", "df"), node("clean", "df", "tidy", changes="df"), node("train", "df", "model")]

        assert build(cells[:2]).conflicts == []
        assert build(cells).conflicts == [
            (
                "`clean` changes `df` in place, and `load` and `train` use it, too. State that it goes on with it: "
                "%%task clean(df) -> df; or let it work on a copy."
            )
        ]

    def test_a_cycle_is_spelled_out_once(self):
        cells = numbered(node("a", "z", "x"), node("b", "x", "y"), node("c", "y", "z"), node("d", "y", "w"))

        assert build(cells).conflicts == [
            (
                "These cells need each other in a circle: a -> b -> c -> a "
                "(`b` reads `x` of `a`; `c` reads `y` of `b`; `a` reads `z` of `c`)."
            )
        ]

    def test_through_a_function(self):
        cells = [node("a", "y", "x"), node("b", "x", "y", through={"x": "norm"})]

        assert "`b` reads `x` of `a` through `norm()`" in build(cells).conflicts[0]

    def test_a_name_that_a_plain_cell_below_makes(self):
        task = TaskNode("clean", 2, reads=frozenset({"raw"}))
        below, above = PlainNode(3, frozenset({"raw"})), PlainNode(1, frozenset({"raw"}))

        assert "`clean` (cell 2) reads `raw`, which only cell 3 below it makes." in build([task], [below]).conflicts[0]
        assert build([task], [above, below]).conflicts == []
        assert len(build([task], [below, PlainNode(4, frozenset({"raw"}))]).conflicts) == 1

    def test_a_name_that_a_plain_cell_between_changes(self):
        cells = [TaskNode("load", 1, gives=frozenset({"df"})), TaskNode("train", 3, reads=frozenset({"df"}))]

        conflict = build(cells, [PlainNode(2, frozenset({"df"}))]).conflicts[0]

        assert "`train` (cell 3) reads `df` of `load` (cell 1), which cell 2 between them assigns, too" in conflict
        assert build(cells, [PlainNode(4, frozenset({"df"}))]).conflicts == []

    def test_functions_of_one_name(self):
        same = [node("a", "", "x", declares={"f": "def f(): 1"}), node("b", "", "y", declares={"f": "def f(): 1"})]
        other = [same[0], node("b", "", "y", declares={"f": "def f(): 2"})]

        assert build(same).conflicts == []
        assert build(other).conflicts == ["`f` is defined in different ways by `a` and `b`. Rename one of them."]
        assert "once as a function, class or import" in build([same[0], node("b", "", "f")]).conflicts[0]

    def test_all_are_found_at_once(self):
        cells = [node("a", "y", "x"), node("b", "x", "y"), node("c", "", "n"), node("d", "", "n")]

        assert len(build(cells).conflicts) == 2


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("df['a'] = 1", "df"),
        ("df.loc[0, 'a'] += 1", "df"),
        ("del df['a']", "df"),
        ("model.scale = 2", "model"),
        ("log.append(x)", "log"),
        ("rows[0].update(x)", "rows"),
        ("df.drop(columns='a', inplace=True)", "df"),
        ("if ok:\n  (a['x'], b) = 1, 2", "a"),
        ("tidy = df.drop(columns='a', inplace=False)", ""),
        ("x = df['a']", ""),
        ("total = basket.add(1)", ""),
        ("def f():\n  df['a'] = 1", ""),
        ("g = lambda: log.append(1)", ""),
    ],
)
def test_what_is_changed_in_place(source: str, changed: str):
    assert changed_in_place(ast.parse(source).body) == set(changed.split())


def test_what_is_declared():
    source = "import os.path, json as j\nfrom a import b, c as d\ndef f(): pass\nclass A: pass\nx = 1"

    assert sources_declared(ast.parse(source).body) == {
        "os": "import os.path", "j": "import json as j", "b": "from a import b", "d": "from a import c as d",
        "f": "def f():\n    pass", "A": "class A:\n    pass",
    }  # fmt: skip


def test_what_is_named_in_passing():
    source = "for i, (a, *b) in rows:\n  t = i\nwith open(p) as f, g() as k:\n  k = 2\nfor t in x: pass\n[q for q in x]"

    assert in_passing(ast.parse(source).body) == {"i", "a", "b", "f"}
