"""Descriptions of parameters, read from a docstring in Google's or numpy's style."""

from __future__ import annotations

import re

_GOOGLE_HEADER = re.compile(r"^(Args|Arguments|Parameters|Params):\s*$")
_GOOGLE_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_NUMPY_ENTRY = re.compile(r"^\*{0,2}(\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")


def parameter_descriptions(docstring: str) -> dict[str, str]:
    """Descriptions by parameter name; empty if the docstring (cleaned of its indentation) has no such section."""
    lines = docstring.splitlines()
    for number, line in enumerate(lines):
        if _GOOGLE_HEADER.match(line):
            return _google(lines[number + 1 :])
        if line.rstrip() == "Parameters" and _is_underline(lines, number + 1):
            return _numpy(lines[number + 2 :])
    return {}


def _google(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    current: list[str] = []
    entry_indent = -1
    for line in lines:
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if text and indent == 0:
            break
        if entry_indent < 0 and text:
            entry_indent = indent
        entry = _GOOGLE_ENTRY.match(text) if indent == entry_indent else None
        if entry:
            current = found.setdefault(entry[1], [])
            text = entry[2]
        if text:
            current.append(text)
    return {name: " ".join(parts) for name, parts in found.items() if parts}


def _numpy(lines: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for number, line in enumerate(lines):
        text = line.strip()
        if text and not line[0].isspace():
            entry = _NUMPY_ENTRY.match(text)
            if entry is None or _is_underline(lines, number + 1):
                break
            names = re.findall(r"\w+", entry[1])
        elif text:
            for name in names:
                found.setdefault(name, []).append(text)
    return {name: " ".join(parts) for name, parts in found.items()}


def _is_underline(lines: list[str], number: int) -> bool:
    return number < len(lines) and re.match(r"^\s*-{3,}\s*$", lines[number]) is not None
