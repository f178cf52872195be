"""The source of modules that a notebook imports from, found without importing them."""

from __future__ import annotations

import sys
from pathlib import Path

_LARGEST = 1_000_000


def source_of(module: str, folder: Path) -> str | None:
    """The source of a module as a notebook in that folder would find it; None where there is none to read.

    Args:
        module: its dotted name.
        folder: of the notebook, which is looked at first.
    """
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for base in (folder, *map(Path, sys.path)):
        place = base.joinpath(*parts)
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            try:
                if file.is_file() and file.stat().st_size <= _LARGEST:
                    return file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
    return None
