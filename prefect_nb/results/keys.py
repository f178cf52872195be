"""Which names a result may be kept under: a plain relative path that means the same place on every storage."""

import re
import unicodedata

from prefect_nb.exceptions import InvalidNameError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_LONGEST_PART = 240
_LONGEST = 1024
_OURS = frozenset({"quarantine"})


def check_key(key: str) -> tuple[str, ...]:
    """The folders and the file name of a key such as "reports/2024/total.json".

    Raises:
        InvalidNameError: it is absolute or leads elsewhere (`..`, a drive, a URL, `~`, backslashes, escapes), names
            something hidden, or is spelled in a way that not every storage keeps apart.
    """
    problem = _problem(key)
    if problem is not None:
        raise InvalidNameError(
            f"{key!r} cannot be a result's storage key: {problem}. Use a relative path such as 'reports/total.json'."
        )
    return tuple(key.split("/"))


def _problem(key: str) -> str | None:
    if not key:
        return "it is empty"
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs"} for character in key):
        return "it holds a character that cannot be seen"
    if unicodedata.normalize("NFC", key) != key:
        return "its accents are written as characters of their own (not NFC)"
    if len(key.encode()) > _LONGEST:
        return f"it is longer than {_LONGEST} bytes"
    if "\\" in key:
        return "it holds a backslash"
    if key.startswith("/"):
        return "it is an absolute path"
    if _SCHEME.match(key):
        return "it begins like a drive or a URL"
    if _ESCAPE.search(key):
        return "it holds an escaped character"
    parts = key.split("/")
    if parts[0] in _OURS:
        return f"{parts[0]!r} is where damaged results are set aside"
    return next(filter(None, map(_problem_of_part, parts)), None)


def _problem_of_part(part: str) -> str | None:
    if not part:
        return "a part of it is empty"
    if part in {".", ".."}:
        return f"it holds {part!r}"
    if part.startswith("."):
        return f"{part!r} is hidden"
    if part.startswith("~"):
        return f"{part!r} begins with '~'"
    if part != part.strip() or part.endswith("."):
        return f"{part!r} begins or ends with a space, or ends with a dot"
    if len(part.encode()) > _LONGEST_PART:
        return f"a part of it is longer than {_LONGEST_PART} bytes"
    return None
