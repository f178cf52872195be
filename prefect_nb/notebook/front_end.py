"""What is known of the front end that a cell was sent from."""

from __future__ import annotations

import sys
from typing import Any


def answers_questions(kernel: Any) -> bool:
    """Whether a person sits at the front end.

    Front ends do not say so; but one that answers no questions (`allow_stdin`) is a program that executes notebooks.
    """
    try:
        return bool(kernel.get_parent("shell")["content"]["allow_stdin"])
    except Exception:
        return False


def is_notebook(kernel: Any) -> bool:
    """Whether the cell is one of a notebook, where an output can be replaced; a console says nothing of cells."""
    try:
        return isinstance(kernel.get_parent("shell")["metadata"].get("cellId"), str)
    except Exception:
        return False


def is_watched(shell: Any) -> bool:
    """Whether the kernel, or the terminal, goes on to live after the last cell, with somebody who looks at it."""
    kernel = getattr(shell, "kernel", None)
    return sys.stdin.isatty() if kernel is None else answers_questions(kernel)
