"""What counts as a difference between two executed cells, and how it is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_nb.model.diff_tables import compare_tables, html_tables, text_table
from prefect_nb.model.diff_texts import Tolerance, same_text, text_spread, unified
from prefect_nb.model.notebook_diff import CellView, ImageChange, compare_cells, compare_outputs, match_cells
from prefect_nb.service.diff.values import value_change

EXACT = Tolerance()
LOOSE = Tolerance(rtol=0.01)
ADDRESS = ("<A object at 0x7f12ab34cd56>", "<A object at 0x7f99ab34cd57>")


def printed(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


def shown(**data: str) -> dict:
    kinds = {"html": "text/html", "text": "text/plain", "png": "image/png"}
    return {
        "output_type": "execute_result",
        "data": {kinds[k]: v for k, v in data.items()},
        "metadata": {},
        "execution_count": 3,
    }


def failed(value: str) -> dict:
    return {"output_type": "error", "ename": "ValueError", "evalue": value, "traceback": []}


def outputs(before: list, after: list, tolerance: Tolerance = EXACT):
    return compare_outputs(before, after, tolerance, ImageChange)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("score 0.93", "score 0.93"),
        ("score 0.30000000000000004", "score 0.3"),
        ("1,000 rows", "1000 rows"),
        ("x = 1e-3", "x = 0.001"),
        ADDRESS,
        ("\x1b[31mred\x1b[0m", "red"),
        ("trailing  \nspaces ", "trailing\nspaces"),
        ("id 01234567-89ab-cdef-0123-456789abcdef", "id 11234567-89ab-cdef-0123-456789abcdef"),
        ("nan inf", "nan inf"),
        ("a  1.5\nb 10.0", "a 1.5\nb   10.0"),
    ],
)
def test_texts_that_say_the_same(before: str, after: str):
    assert same_text(before, after, EXACT)


@pytest.mark.parametrize(
    ("before", "after"),
    [("score 0.93", "score 0.94"), ("v1", "v2"), ("a 1", "b 1"), ("1 2", "1 2 3"), ("nan", "1"), ("3.11.7", "3.11.8")],
)
def test_texts_that_do_not(before: str, after: str):
    assert not same_text(before, after, EXACT)


def test_the_tolerance_is_relative_or_absolute():
    assert same_text("loss 1.000", "loss 1.005", LOOSE)
    assert not same_text("loss 1.0", "loss 1.02", LOOSE)
    assert not same_text("loss 0", "loss 0.001", LOOSE)
    assert same_text("loss 0", "loss 0.001", Tolerance(atol=0.01))
    moved = text_spread("loss 1.0, 2.0", "loss 1.5, 2.0", EXACT)
    assert moved is not None
    assert (moved.count, moved.absolute, moved.relative) == (1, 0.5, 0.5)


@given(st.text(alphabet="ab 1.,-e\n", max_size=40))
def test_every_text_is_the_same_as_itself(text: str):
    assert same_text(text, text, EXACT)
    assert unified(text, text) == ()


@given(st.floats(-1e9, 1e9), st.floats(0, 1e-3))
def test_the_tolerance_is_kept(number: float, share: float):
    tolerance = Tolerance(rtol=1e-3)
    other = number * (1 + share)
    assert tolerance.same(number, other) == tolerance.same(other, number)
    assert same_text(f"x {number!r}", f"x {other!r}", Tolerance(rtol=2e-3, atol=1e-300))


def test_lines_within_the_tolerance_are_not_shown_as_changed():
    assert unified("a 1.000\nb 1", "a 1.001\nb 2", LOOSE) == (" a 1.000", "-b 1", "+b 2")


TABLE = (
    "<table><thead><tr><th></th><th>model</th><th>score</th></tr></thead><tbody>"
    "<tr><th>0</th><td>tree</td><td>{0}</td></tr><tr><th>1</th><td>forest</td><td>{1}</td></tr></tbody></table>"
)


def test_tables_by_column_and_row():
    [change] = outputs([shown(html=TABLE.format(0.5, 0.9), text="x")], [shown(html=TABLE.format(0.5, 0.8), text="y")])
    assert (change.kind, change.summary) == ("table", "`score`: 1 cell: by up to 0.1")
    [column] = change.table.columns
    assert column.examples == (("1", "0.9", "0.8"),)
    assert column.spread.relative == pytest.approx(0.1 / 0.9)
    assert outputs([shown(html=TABLE.format(0.5, 0.9))], [shown(html=TABLE.format(0.5, 0.9000000000001))]) == []


def test_columns_and_rows_that_come_and_go():
    [old] = html_tables(TABLE.format(1, 2))
    [new] = html_tables(TABLE.format(1, 2).replace("score", "loss").replace("<th>1</th>", "<th>2</th>"))
    change = compare_tables(old, new, EXACT)
    assert (change.columns_added, change.columns_removed) == (("loss",), ("score",))
    assert (change.rows_added, change.rows_removed) == (("2",), ("1",))


def test_tables_of_pandas():
    import pandas

    frame = pandas.DataFrame({"a": [1.5, 2.5], "b": ["x", "y"]}, index=pandas.Index(["p", "q"], name="key"))
    [table] = html_tables(frame._repr_html_())
    assert (table.columns, table.rows) == (("a", "b"), {"p": ("1.5", "x"), "q": ("2.5", "y")})
    several = frame.groupby("b").agg(["mean", "max"])
    [table] = html_tables(several._repr_html_())
    assert table.columns == ("a / mean", "a / max")
    assert set(table.rows) == {"x", "y"}
    plain = text_table(repr(frame.reset_index(drop=True)))
    assert plain is not None
    assert plain.rows["1"] == ("2.5", "y")


def test_tables_in_plain_text():
    before = "model  score\ntree    0.50\nforest  0.90\n"
    [change] = outputs([printed(before)], [printed(before.replace("0.90", "0.80"))])
    assert (change.kind, change.table.columns[0].column) == ("table", "score")


def test_no_table():
    assert text_table("just a line\nand another") is None
    assert html_tables("<p>no table") == []
    assert html_tables("<table></table>") == []


def test_pictures():
    assert outputs([shown(png="AAAA\n", text="<Figure>")], [shown(png="AAAA", text="<Figure 2>")]) == []
    [change] = outputs([shown(png="AAAA")], [shown(png="BBBB")])
    assert (change.kind, change.image.before, change.image.after) == ("image", "AAAA", "BBBB")


def test_errors():
    [change] = outputs([failed("a")], [failed("b")])
    assert change.lines == ("-ValueError: a", "+ValueError: b")
    assert outputs([failed(ADDRESS[0])], [failed(ADDRESS[1])]) == []
    [change] = outputs([printed("fine")], [failed("b")])
    assert (change.kind, change.summary) == ("error", "it fails now")
    [change] = outputs([failed("b")], [])
    assert change.summary == "it does not fail any more"


def test_outputs_that_come_and_go():
    [change] = outputs([], [printed("new")])
    assert (change.kind, change.lines) == ("added", ("+new",))
    assert outputs([printed("a"), printed("b")], [printed("ab")]) == []


def test_the_picture_of_a_run_is_no_output():
    picture = shown(html="<small><code>%runs 01234567-89ab-cdef-0123-456789abcdef</code></small>", text="took 1 s")
    assert outputs([picture, printed("x")], [printed("x")]) == []


def cell(number: int, id: str, source: str, *out: dict) -> CellView:
    return CellView(number, id, f"cell {number}", source, out)


def test_cells_are_matched_by_id_then_by_source():
    before = [cell(1, "a", "x = 1"), cell(2, "b", "y = 2"), cell(3, "c", "print(x + y + 1)"), cell(4, "d", "gone")]
    after = [
        cell(1, "b", "y = 3"),
        cell(2, "q", "x = 1"),
        cell(3, "r", "print(x + y + 2)"),
        cell(4, "s", "entirely_new_code()"),
    ]
    matched = [(old and old.id, new and new.id) for old, new in match_cells(before, after)]
    assert matched == [("b", "b"), ("a", "q"), ("c", "r"), (None, "s"), ("d", None)]


def test_ids_that_only_count_do_not_match_other_code():
    before, after = (
        [cell(1, "cell-0", "alpha = 1")],
        [cell(1, "cell-0", "import os, sys"), cell(2, "cell-1", "alpha = 1")],
    )
    matched = [(old and old.source, new and new.source) for old, new in match_cells(before, after)]
    assert matched == [(None, "import os, sys"), ("alpha = 1", "alpha = 1")]


def test_what_is_told_of_a_cell():
    before = [cell(1, "a", "x = 1\nprint(x)", printed("1")), cell(2, "b", "same", printed("0.1"))]
    after = [cell(1, "a", "x = 2\nprint(x)", printed("2")), cell(2, "b", "same", printed("0.1"))]
    [change] = compare_cells(before, after, EXACT)
    assert change.source == ("-x = 1", "+x = 2", " print(x)")
    assert [output.summary for output in change.outputs] == ["1 number, by up to 1 (100 %)"]
    assert compare_cells(before, before, EXACT) == []
    [gone] = compare_cells(before, after[:1], EXACT)[1:]
    assert (gone.before, gone.after, gone.source) == (2, None, ("-same",))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (1.0, 1.0 + 1e-12, None),
        (1, 1.0, None),
        (0.5, 0.75, "0.5 → 0.75"),
        (float("nan"), float("nan"), None),
        ("a", "b", "'a' → 'b'"),
        ([1, 2], [1, 2], None),
        ([1, 2], [1, 3], "1: 2 → 3"),
        ([1], [1, 2], "1 item, then 2"),
        ({"a": 1}, {"a": 1, "b": 2}, "b: only in the second"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a: b: 1 → 2"),
        (1, "1", "a int, then a str"),
        (True, False, "True → False"),
        (object, object, None),
    ],
)
def test_values(before, after, words: str | None):
    assert value_change(before, after, EXACT) == words


def test_values_of_numpy_and_pandas():
    import numpy
    import pandas

    assert value_change(numpy.ones(3), numpy.ones(3), EXACT) is None
    assert value_change(numpy.ones(3), numpy.array([1, 1, 1.5]), EXACT) == "1 number, by up to 0.5 (50 %)"
    assert value_change(numpy.ones(3), numpy.ones((3, 1)), EXACT) == "3, then 3 by 1"
    frame = pandas.DataFrame({"a": [1, 2]})
    assert value_change(frame, frame.copy(), EXACT) is None
    assert value_change(frame, frame.assign(a=[1, 3]), EXACT) == "`a`: 1 cell: by up to 1"
    assert value_change(frame, frame.assign(b=0), EXACT) == "1 new column (b)"
