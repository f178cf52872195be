"""Lengths of time as people write them: `30`, `30s`, `10m`, `1.5h`, `250ms`, `2d`."""

import re

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|min|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of(text: str) -> float:
    """Seconds; a number without a unit is seconds.

    Raises:
        ValueError: it is no length of time.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no length of time; write 30s, 10m or 1.5h")
    return float(found[1]) * _SECONDS[found[2] or "s"]
