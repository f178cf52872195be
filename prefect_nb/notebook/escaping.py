"""Text on its way into HTML that any front end keeps as it is."""

import html
from collections.abc import Sequence

from prefect_nb.service.text import one_line

LEFT = ' style="text-align:left"'


def escape(text: str, limit: int) -> str:
    """The text escaped for HTML, shortened until that takes at most `limit` bytes."""
    escaped = html.escape(text)
    while size(escaped) > limit:
        text = text[: len(text) * 3 // 4]
        escaped = html.escape(text) + "…"
    return escaped


def size(text: str) -> int:
    """Bytes in UTF-8."""
    return len(text.encode())


def safe_line(text: str, limit: int = 80) -> str:
    """The text cleaned, on one line, escaped."""
    return escape(one_line(text, limit), limit * 3)


def table_html(caption: str, columns: Sequence[str], rows: str) -> str:
    """A table around rows that are HTML already."""
    heads = "".join(f'<th scope="col"{LEFT}>{column}</th>' for column in columns)
    return (
        f'<table style="margin:6px 0 0"><caption style="text-align:left">{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )
