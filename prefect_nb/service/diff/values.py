"""Two values that runs kept, compared in words: numbers with a tolerance, arrays and tables by their parts."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect_nb.model.diff_tables import Table, compare_tables
from prefect_nb.model.diff_texts import Tolerance, same_text, spread
from prefect_nb.model.notebook_diff import number_text, spread_words, table_words
from prefect_nb.service.text import one_line, plural

_DEEPEST = 8
_MOST_CELLS = 50_000


def value_change(before: Any, after: Any, tolerance: Tolerance, depth: int = 0) -> str | None:
    """What differs between two values, in a few words; None: nothing."""
    if before is after:
        return None
    if _is_number(before) and _is_number(after):
        if tolerance.same(float(before), float(after)):
            return None
        return f"{number_text(float(before))} → {number_text(float(after))}"
    if type(before) is not type(after):
        return f"a {type(before).__name__}, then a {type(after).__name__}"
    if isinstance(before, str):
        return None if same_text(before, after, tolerance) else f"{one_line(before, 60)!r} → {one_line(after, 60)!r}"
    if hasattr(before, "columns") and hasattr(before, "index") and hasattr(before, "shape"):
        return _frames(before, after, tolerance)
    if hasattr(before, "shape") and hasattr(before, "dtype"):
        return _arrays(before, after, tolerance)
    if depth < _DEEPEST and isinstance(before, Mapping):
        return _parts(
            {k: (before.get(k, _NOTHING), after.get(k, _NOTHING)) for k in {**before, **after}}, tolerance, depth
        )
    if depth < _DEEPEST and isinstance(before, Sequence) and not isinstance(before, bytes):
        if len(before) != len(after):
            return f"{plural(len(before), 'item')}, then {len(after):,}"
        return _parts(dict(enumerate(zip(before, after, strict=True))), tolerance, depth)
    return _others(before, after)


_NOTHING = object()


def _parts(pairs: Mapping[Any, tuple[Any, Any]], tolerance: Tolerance, depth: int) -> str | None:
    words = []
    for key, (one, other) in pairs.items():
        if one is _NOTHING or other is _NOTHING:
            words.append(f"{one_line(str(key), 40)}: only in the {'second' if one is _NOTHING else 'first'}")
        elif (change := value_change(one, other, tolerance, depth + 1)) is not None:
            words.append(f"{one_line(str(key), 40)}: {change}")
    more = f"; {len(words) - 5} more" if len(words) > 5 else ""
    return "; ".join(words[:5]) + more or None


def _frames(before: Any, after: Any, tolerance: Tolerance) -> str | None:
    if before.size > _MOST_CELLS or after.size > _MOST_CELLS:
        return None if before.equals(after) else f"another table ({_shape(before)}, then {_shape(after)})"
    change = compare_tables(_table(before), _table(after), tolerance)
    return None if change is None else table_words(change)


def _table(frame: Any) -> Table:
    rows = {str(label): tuple(map(str, row)) for label, row in zip(frame.index, frame.to_numpy().tolist(), strict=True)}
    return Table(tuple(map(str, frame.columns)), rows)


def _arrays(before: Any, after: Any, tolerance: Tolerance) -> str | None:
    if before.shape != after.shape:
        return f"{_shape(before)}, then {_shape(after)}"
    if before.size > _MOST_CELLS or getattr(before.dtype, "kind", "O") not in "biuf":
        return None if bool((before == after).all()) else f"another array of {_shape(before)}"
    pairs = zip(before.reshape(-1).tolist(), after.reshape(-1).tolist(), strict=True)
    moved = spread([(float(a), float(b)) for a, b in pairs], tolerance)
    return None if moved is None else spread_words(moved)


def _others(before: Any, after: Any) -> str | None:
    try:
        if bool(before == after):
            return None
    except Exception:  # a value's own comparison may raise anything
        return "values that cannot be compared"
    if same_text(repr(before), repr(after), Tolerance(0.0)):
        return None  # objects that say the same of themselves and have no comparison of their own
    return f"{one_line(repr(before), 60)} → {one_line(repr(after), 60)}"


def _shape(value: Any) -> str:
    return " by ".join(f"{size:,}" for size in value.shape) or "one value"


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (type(value) is float or abs(value) < 2**1000)
    )
