"""Two tables compared by their columns and rows: those of HTML (a DataFrame's) and those in plain text."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser

import msgspec

from prefect_nb.model.diff_texts import Spread, Tolerance, normal, number_of, spread

_EXAMPLES = 5
_LARGEST = 20_000


class Table(msgspec.Struct, frozen=True):
    """A table as it is shown."""

    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]
    """The cells by the row's label."""


class ColumnChange(msgspec.Struct, frozen=True):
    """What changed in a column that both tables have."""

    column: str
    cells: int
    """How many differ."""
    spread: Spread | None
    """How far its numbers moved; None: it was not numbers that changed."""
    examples: tuple[tuple[str, str, str], ...]
    """Row, before, after."""


class TableChange(msgspec.Struct, frozen=True):
    """What changed from one table to the other."""

    columns_added: tuple[str, ...] = ()
    columns_removed: tuple[str, ...] = ()
    rows_added: tuple[str, ...] = ()
    rows_removed: tuple[str, ...] = ()
    columns: tuple[ColumnChange, ...] = ()
    reordered: bool = False
    """The same rows and columns in another order."""


def html_tables(html: str) -> list[Table]:
    """The tables of an HTML text, in order; a table inside another is part of it."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return [table for rows in reader.tables if (table := _table(rows)) is not None]


def text_table(text: str) -> Table | None:
    """The table a plain text is, as pandas and polars print it; None: it is none."""
    lines = [line for line in normal(text).split("\n") if line.strip()]
    lines = [line for line in lines if re.search(r"\w", line) and not re.fullmatch(r"\[?\d+ rows.*|shape: .*", line)]
    split = [re.split(r"\s{2,}|\s*[│|┆]\s*", line.strip(" │|┆")) for line in lines]
    if len(split) < 3:
        return None
    width = len(split[1])
    if width < 2 or any(len(row) != width for row in split[1:]) or len(split[0]) not in (width, width - 1):
        return None
    head, body = split[0], split[1:]
    if len(head) == width - 1:
        return Table(
            _unique(head), dict(zip(_unique([row[0] for row in body]), (tuple(r[1:]) for r in body), strict=True))
        )
    return Table(_unique(head), {str(number): tuple(row) for number, row in enumerate(body)})


def compare_tables(before: Table, after: Table, tolerance: Tolerance) -> TableChange | None:
    """What changed; None: nothing."""
    shared = [column for column in before.columns if column in after.columns]
    rows = [label for label in before.rows if label in after.rows]
    changes = [
        change for column in shared
        if (change := _compare_column(column, rows, before, after, tolerance)) is not None
    ]  # fmt: skip
    found = TableChange(
        columns_added=tuple(c for c in after.columns if c not in before.columns),
        columns_removed=tuple(c for c in before.columns if c not in after.columns),
        rows_added=tuple(label for label in after.rows if label not in before.rows),
        rows_removed=tuple(label for label in before.rows if label not in after.rows),
        columns=tuple(changes),
    )
    if found == TableChange():
        in_order = shared == list(after.columns) and rows == list(after.rows)
        return None if in_order else TableChange(reordered=True)
    return found


def _compare_column(
    column: str, rows: Sequence[str], before: Table, after: Table, tolerance: Tolerance
) -> ColumnChange | None:
    one, other = before.columns.index(column), after.columns.index(column)
    pairs = [(label, _cell(before, label, one), _cell(after, label, other)) for label in rows]
    differing = [pair for pair in pairs if not _same_cell(pair[1], pair[2], tolerance)]
    if not differing:
        return None
    numbers = [(number_of(a), number_of(b)) for _, a, b in differing]
    both = [(a, b) for a, b in numbers if a is not None and b is not None]
    return ColumnChange(
        column,
        len(differing),
        spread(both, tolerance) if len(both) == len(differing) else None,
        tuple(differing[:_EXAMPLES]),
    )


def _cell(table: Table, label: str, place: int) -> str:
    cells = table.rows[label]
    return cells[place] if place < len(cells) else ""


def _same_cell(one: str, other: str, tolerance: Tolerance) -> bool:
    a, b = number_of(one), number_of(other)
    return one == other or (a is not None and b is not None and tolerance.same(a, b))


class _Reader(HTMLParser):
    """Gathers the cells of tables: for each row, text and whether it is a heading."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[tuple[bool, list[tuple[str, bool]]]]] = []
        self._depth = 0
        self._head = False
        self._cell: list[str] | None = None
        self._cells = 0
        self._span = 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._depth += 1
            if self._depth == 1:
                self.tables.append([])
        elif self._depth != 1 or self._cells > _LARGEST:
            return
        elif tag in ("thead", "tbody"):
            self._head = tag == "thead"
        elif tag == "tr":
            self.tables[-1].append((self._head, []))
        elif tag in ("td", "th") and self.tables[-1]:
            self._cell = []
            self._cells += 1
            span = dict(attrs).get("colspan") or "1"
            self._span = min(int(span), 100) if span.isdecimal() else 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._depth = max(0, self._depth - 1)
            self._head = False
        elif tag in ("td", "th") and self._cell is not None and self._depth == 1:
            text = normal(" ".join("".join(self._cell).split()))
            self.tables[-1][-1][1].extend([(text, tag == "th")] * self._span)
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)


def _table(rows: list[tuple[bool, list[tuple[str, bool]]]]) -> Table | None:
    if rows and not any(head for head, _ in rows) and all(is_head for _, is_head in rows[0][1]):
        rows = [(True, rows[0][1]), *rows[1:]]
    heads = [cells for head, cells in rows if head]
    body = [cells for head, cells in rows if not head and cells]
    if not body:
        return None
    index = max((_leading(cells) for cells in body), default=0)
    width = max(len(cells) for cells in body) - index
    columns = _unique([_heading(heads, place, width) for place in range(width)])
    labels = [" / ".join(text for text, _ in cells[: _leading(cells)]) or str(n) for n, cells in enumerate(body)]
    return Table(
        columns, dict(zip(_unique(labels), (tuple(t for t, _ in c[_leading(c) :]) for c in body), strict=True))
    )


def _leading(cells: list[tuple[str, bool]]) -> int:
    return next((place for place, (_, is_head) in enumerate(cells) if not is_head), len(cells))


def _heading(heads: list[list[tuple[str, bool]]], place: int, width: int) -> str:
    """What stands above a column, counted from the right: the index may have cells of its own."""
    texts = [cells[len(cells) - width + place][0] for cells in heads if 0 <= len(cells) - width + place < len(cells)]
    return " / ".join(text for text in texts if text) or str(place)


def _unique(labels: Sequence[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    found = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        found.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return tuple(found)
