"""Two executed notebooks compared cell by cell: what was changed in their code, and what came out otherwise."""

import difflib
import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from prefect_nb.model.diff_tables import TableChange, compare_tables, html_tables, text_table
from prefect_nb.model.diff_texts import Spread, Tolerance, normal, same_text, text_spread, unified
from prefect_nb.model.notebook_outputs import RETURNED
from prefect_nb.model.words import plural

Kind = Literal["text", "table", "image", "error", "added", "removed"]

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_TEXTS = ("text/html", "image/svg+xml", "text/markdown", "text/latex", "application/json", "text/plain")
_ALIKE = 0.6
"""Cells without a common id are the same cell if their sources are at least so similar."""
_OWN_PICTURE = re.compile(r"(?:Flow run <code>|<code>%runs )[0-9a-f]{8}-")
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class CellView(msgspec.Struct, frozen=True):
    """A code cell of an executed notebook."""

    number: int
    id: str
    name: str
    source: str
    outputs: tuple[Mapping[str, Any], ...] = ()


class ImageChange(msgspec.Struct, frozen=True):
    """What changed from one picture to the other."""

    media_type: str
    before: str
    """Base64."""
    after: str
    sizes: tuple[str, str] | None = None
    """Width and height of each, `640x480`; None: not known."""
    share: float | None = None
    """The share of pixels that differ, 0 to 1; None: not known, or the sizes differ."""


class OutputChange(msgspec.Struct, frozen=True):
    """One output that came out otherwise."""

    kind: Kind
    summary: str
    lines: tuple[str, ...] = ()
    """The texts' lines that differ, each after `-`, `+` or a space."""
    table: TableChange | None = None
    image: ImageChange | None = None


class CellChange(msgspec.Struct, frozen=True):
    """A cell that was changed, or came out otherwise."""

    name: str
    before: int | None
    """Its number among the code cells, from 1; None: it was not there."""
    after: int | None
    source: tuple[str, ...] = ()
    """The lines of its code that differ."""
    outputs: tuple[OutputChange, ...] = ()


CompareImages = Callable[[str, str, str], ImageChange | None]
"""Media type, and two pictures in base64 that are not equal: what differs, or None if nothing that can be seen."""


def compare_cells(
    before: Sequence[CellView], after: Sequence[CellView], tolerance: Tolerance, images: CompareImages = ImageChange
) -> list[CellChange]:
    """The cells that differ, in the order of the later notebook; those that are gone stand where they were."""
    changes = []
    for one, other in match_cells(before, after):
        if one is None or other is None:
            there = one or other
            assert there is not None
            mark = "-" if other is None else "+"
            lines = tuple(f"{mark}{line}" for line in there.source.split("\n"))
            places = (one.number if one else None, other.number if other else None)
            changes.append(CellChange(there.name, *places, lines))
            continue
        source = unified(one.source, other.source) if one.source != other.source else ()
        outputs = tuple(compare_outputs(one.outputs, other.outputs, tolerance, images))
        if source or outputs:
            changes.append(CellChange(other.name, one.number, other.number, source, outputs))
    return changes


def match_cells(before: Sequence[CellView], after: Sequence[CellView]) -> list[tuple[CellView | None, CellView | None]]:
    """Which cell is which: by id, then by equal sources, then by similar ones."""
    by_id = {cell.id: cell for cell in after}
    pairs: dict[int, CellView] = {}
    taken: set[int] = set()

    def pair(one: CellView, other: CellView | None) -> None:
        if other is not None and one.number not in pairs and other.number not in taken:
            pairs[one.number] = other
            taken.add(other.number)

    for one in before:
        other = by_id.get(one.id)
        # Ids that are only numbers of places say little: another cell may stand there now.
        if other is not None and (not one.id.startswith("cell-") or _likeness(one.source, other.source) >= _ALIKE):
            pair(one, other)
    for one in before:
        pair(one, next((c for c in after if c.number not in taken and c.source == one.source), None))
    for one in before:
        left = [(_likeness(one.source, c.source), -c.number, c) for c in after if c.number not in taken]
        best = max(left, default=None, key=lambda item: item[:2])
        if one.number not in pairs and best is not None and best[0] >= _ALIKE:
            pair(one, best[2])
    return _in_order(before, after, pairs)


def _in_order(
    before: Sequence[CellView], after: Sequence[CellView], pairs: Mapping[int, CellView]
) -> list[tuple[CellView | None, CellView | None]]:
    partner = {other.number: number for number, other in pairs.items()}
    olds = {cell.number: cell for cell in before}
    found: list[tuple[CellView | None, CellView | None]] = []
    gone = [cell for cell in before if cell.number not in pairs]
    for other in after:
        old = olds.get(partner.get(other.number, -1))
        while old is not None and gone and gone[0].number < old.number:
            found.append((gone.pop(0), None))
        found.append((old, other))
    return [*found, *((cell, None) for cell in gone)]


def _likeness(one: str, other: str) -> float:
    if one == other:
        return 1.0
    matcher = difflib.SequenceMatcher(None, one[:5_000], other[:5_000], autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= _ALIKE else 0.0


# Outputs


def compare_outputs(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], tolerance: Tolerance, images: CompareImages
) -> list[OutputChange]:
    """The outputs of one cell that came out otherwise."""
    olds, news = _comparable(before), _comparable(after)
    changes: list[OutputChange] = []
    for place in range(max(len(olds), len(news))):
        old = olds[place] if place < len(olds) else None
        new = news[place] if place < len(news) else None
        if old is None or new is None:
            there = old or new
            assert there is not None
            changes.append(_lone(there, "removed" if new is None else "added"))
        elif (change := _compare(old, new, tolerance, images)) is not None:
            changes.append(change)
    return changes


def _comparable(outputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The outputs, printed text joined, without the pictures of runs and what is compared as a result."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        kind = output.get("output_type")
        if kind == "stream":
            same = next((o for o in found if o["output_type"] == "stream" and o["name"] == output.get("name")), None)
            if same is not None:
                same["text"] += _joined(output.get("text"))
            else:
                found.append({"output_type": "stream", "name": output.get("name"), "text": _joined(output.get("text"))})
        elif kind == "error" or not _is_of_a_run(output):
            found.append(dict(output))
    return found


def _is_of_a_run(output: Mapping[str, Any]) -> bool:
    data = output.get("data", {})
    return RETURNED in data or _OWN_PICTURE.search(_joined(data.get("text/html"))) is not None


def _compare(
    old: Mapping[str, Any], new: Mapping[str, Any], tolerance: Tolerance, images: CompareImages
) -> OutputChange | None:
    if "error" in (old["output_type"], new["output_type"]):
        return _compare_errors(old, new)
    if "stream" in (old["output_type"], new["output_type"]):
        one, other = _text_of(old), _text_of(new)
        return None if same_text(one, other, tolerance) else _text_change(one, other, tolerance)
    olds, news = old.get("data", {}), new.get("data", {})
    for kind in IMAGES:
        if kind in olds and kind in news:
            one, other = ("".join(_joined(data[kind]).split()) for data in (olds, news))
            change = None if one == other else images(kind, one, other)
            return None if change is None else OutputChange("image", _image_words(change), image=change)
    for kind in _TEXTS:
        if kind in olds and kind in news:
            return _compare_texts(kind, _joined(olds[kind]), _joined(news[kind]), tolerance)
    one, other = _text_of(old), _text_of(new)
    return None if same_text(one, other, tolerance) else _text_change(one, other, tolerance)


def _compare_texts(kind: str, one: str, other: str, tolerance: Tolerance) -> OutputChange | None:
    readable = (_without_tags(one), _without_tags(other)) if kind == "text/html" else (one, other)
    if same_text(*readable, tolerance):
        return None
    tables = (html_tables(one), html_tables(other)) if kind == "text/html" else ([], [])
    if len(tables[0]) == len(tables[1]) == 1:
        change = compare_tables(tables[0][0], tables[1][0], tolerance)
        if change is not None:
            return OutputChange("table", table_words(change), table=change)
    return _text_change(*readable, tolerance)


def _text_change(one: str, other: str, tolerance: Tolerance) -> OutputChange:
    old, new = text_table(one), text_table(other)
    if old is not None and new is not None:
        change = compare_tables(old, new, tolerance)
        if change is not None:
            return OutputChange("table", table_words(change), table=change)
    moved = text_spread(one, other, tolerance)
    return OutputChange("text", spread_words(moved) if moved else "another text", unified(one, other, tolerance))


def _compare_errors(old: Mapping[str, Any], new: Mapping[str, Any]) -> OutputChange | None:
    one, other = _error_text(old), _error_text(new)
    if normal(one) == normal(other):
        return None
    if old["output_type"] == new["output_type"]:
        return OutputChange("error", "another error", unified(one, other))
    summary = "it fails now" if new["output_type"] == "error" else "it does not fail any more"
    return OutputChange("error", summary, unified(one, other))


def _error_text(output: Mapping[str, Any]) -> str:
    if output["output_type"] != "error":
        return ""
    return f"{output.get('ename')}: {output.get('evalue')}"


def _lone(output: Mapping[str, Any], kind: Literal["added", "removed"]) -> OutputChange:
    mark = "+" if kind == "added" else "-"
    if output["output_type"] == "error":
        summary = "it fails now" if kind == "added" else "it does not fail any more"
        return OutputChange("error", summary, (f"{mark}{_error_text(output)}",))
    text = normal(_text_of(output))
    lines = tuple(f"{mark}{line}" for line in text.split("\n")[:20])
    return OutputChange(kind, "an output more" if kind == "added" else "an output less", lines)


def _text_of(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return str(output["text"])
    data = output.get("data", {})
    for kind in ("text/plain", *_TEXTS):
        if kind in data:
            return _without_tags(_joined(data[kind])) if kind == "text/html" else _joined(data[kind])
    return ", ".join(sorted(data))


def _joined(text: Any) -> str:
    if isinstance(text, list):
        return "".join(map(str, text))
    if text is None:
        return ""
    return text if isinstance(text, str) else msgspec.json.encode(text, order="sorted").decode()


def _without_tags(text: str) -> str:
    plain = html.unescape(_TAG.sub("\n", text))
    return "\n".join(line.strip() for line in plain.split("\n") if line.strip())


# Words


def number_text(value: float) -> str:
    """A number for people, short."""
    return f"{value:.4g}"


def spread_words(found: Spread) -> str:
    """`3 numbers, by up to 0.02 (1.5 %)`."""
    share = f" ({100 * found.relative:.3g} %)" if found.relative != float("inf") else ""
    return f"{plural(found.count, 'number')}, by up to {number_text(found.absolute)}{share}"


def table_words(change: TableChange) -> str:
    """What changed in a table, on one line."""
    words = []
    for what, names in (
        ("new column", change.columns_added), ("removed column", change.columns_removed),
        ("new row", change.rows_added), ("removed row", change.rows_removed),
    ):  # fmt: skip
        if names:
            shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
            words.append(f"{plural(len(names), what)} ({shown})")
    for column in change.columns[:4]:
        moved = f": by up to {number_text(column.spread.absolute)}" if column.spread is not None else ""
        words.append(f"`{column.column}`: {plural(column.cells, 'cell')}{moved}")
    if len(change.columns) > 4:
        words.append(f"{len(change.columns) - 4} more columns")
    return "; ".join(words) or "another order"


def _image_words(change: ImageChange) -> str:
    if change.sizes is not None and change.sizes[0] != change.sizes[1]:
        return f"another size: {change.sizes[0]}, then {change.sizes[1]}"
    if change.share is not None:
        return f"{100 * change.share:.3g} % of the pixels"
    return "another picture"
