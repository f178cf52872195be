"""What a notebook returns: named outputs, and how a value is described where it cannot be shown whole."""

from __future__ import annotations

import html
import reprlib
from typing import Any

RETURNED = "application/vnd.prefect-nb.returned+json"
"""The MIME type of the output that says where the returned value is kept."""
_PLAIN = (str, int, float, bool, type(None))
_LONGEST = 200


class Outputs(dict[str, Any]):
    """Named outputs of a notebook: `outputs["score"]` and `outputs.score`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            has = ", ".join(map(repr, self)) or "none"
            raise AttributeError(f"The notebook returned no {name!r}; its outputs are: {has}.") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __repr__(self) -> str:
        return f"Outputs({', '.join(f'{name}={shown(value)}' for name, value in self.items())})"

    def _repr_html_(self) -> str:
        return as_html(described(self))


def described(value: Any) -> list[dict[str, str]]:
    """A returned value as rows of `name`, `type` and `value`; a single value has an empty name."""
    items = value.items() if isinstance(value, Outputs) else [("", value)]
    return [{"name": name, "type": type(one).__name__, "value": shown(one)} for name, one in items]


def shown(value: Any) -> str:
    """A value in a few words: plain ones as they are, tables and arrays by their shape."""
    if isinstance(value, _PLAIN):
        text = repr(value)
    elif isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "ndim") and value.ndim:
        text = f"{type(value).__name__} of {' x '.join(map(str, value.shape))}"
    else:
        try:
            text = reprlib.repr(value)
        except Exception:  # whatever a value's own repr raises
            text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def in_words(rows: list[dict[str, str]]) -> str:
    """`0.93`, or `score = 0.93`, one line each."""
    return "\n".join(f"{row['name']} = {row['value']}" if row["name"] else row["value"] for row in rows)


def as_html(rows: list[dict[str, str]]) -> str:
    """A small table that any front end shows."""
    cells = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{html.escape(text)}</td>' for text in _texts(row)) + "</tr>"
        for row in rows
    )
    return f'<table><caption style="text-align:left">returned</caption><tbody>{cells}</tbody></table>'


def _texts(row: dict[str, str]) -> list[str]:
    return [text for text in (row["name"], row["value"], row["type"]) if text]
