"""Names that a cell uses and that are not there then, in words, with what the running kernel knows of them."""

import ast
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect_nb.model.name_flow import Problem, missing_names, names_bound
from prefect_nb.model.words import type_name
from prefect_nb.service.preflight.cells import CheckedCell, parsed, transformed
from prefect_nb.service.preflight.findings import Finding, Level
from prefect_nb.service.text import did_you_mean, one_line

_USUAL = {
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "mpl": "import matplotlib as mpl",
    "sns": "import seaborn as sns",
    "pl": "import polars as pl",
    "px": "import plotly.express as px",
    "go": "import plotly.graph_objects as go",
    "xr": "import xarray as xr",
    "gpd": "import geopandas as gpd",
    "nx": "import networkx as nx",
    "sm": "import statsmodels.api as sm",
    "tf": "import tensorflow as tf",
    "dt": "import datetime as dt",
    "Path": "from pathlib import Path",
    "date": "from datetime import date",
    "timedelta": "from datetime import timedelta",
    "defaultdict": "from collections import defaultdict",
    "Counter": "from collections import Counter",
    "partial": "from functools import partial",
    "dataclass": "from dataclasses import dataclass",
    "tqdm": "from tqdm.auto import tqdm",
    "Literal": "from typing import Literal",
    "Any": "from typing import Any",
    "flow": "from prefect_nb import flow",
    "task": "from prefect_nb import task",
    "get_run_logger": "from prefect_nb import get_run_logger",
}


class Live:
    """What the kernel of the notebook has in it.

    Args:
        namespace: its variables.
        history: the sources it executed, by execution count (IPython's `In`).
    """

    def __init__(self, namespace: Mapping[str, Any], history: Sequence[str]) -> None:
        self._namespace = namespace
        self._history = history

    def origin(self, name: str, cells: Sequence[CheckedCell]) -> tuple[str, str | None] | None:
        """What the kernel knows of a name, and the source of the cell that made it if that is gone."""
        if name not in self._namespace:
            return None
        exists = f"it exists in this kernel (a {type_name(self._namespace[name])})"
        present = {cell.source.strip() for cell in cells}
        for number in range(len(self._history) - 1, 0, -1):
            source = self._history[number]
            if name in source and name in _bound_in(source):
                if source.strip() in present:
                    return exists, None
                return f"{exists}, made by In [{number}], a cell that is gone or was changed since", source
        return exists, None


def name_findings(
    cells: Sequence[CheckedCell], parameters: Iterable[str], at_start: Iterable[str], live: Live | None
) -> list[Finding]:
    """Names that are missing when they are used.

    Args:
        cells: in their order.
        parameters: names that the parameters cell has, whatever it assigns.
        at_start: names that are there before the first cell.
        live: the notebook's kernel, if this is asked in it.
    """
    given = tuple(parameters)
    codes = [cell.code(given if cell.is_parameters else ()) for cell in cells]
    by_number = {cell.number: cell for cell in cells}
    defined = {name for cell in cells if cell.tree is not None for name in names_bound(cell.tree)}
    return [
        _finding(problem, by_number[problem.cell], cells, defined, live) for problem in missing_names(codes, at_start)
    ]


def _finding(
    problem: Problem, cell: CheckedCell, cells: Sequence[CheckedCell], defined: set[str], live: Live | None
) -> Finding:
    name = problem.name
    level: Level = "error" if problem.is_sure and not problem.is_guess else "warning"
    words = [f"`{name}` is used{_through(problem)}"]
    fix = None
    match problem.why:
        case "later":
            same = problem.place == problem.cell
            words.append(
                "before this cell assigns it" if same else f"but cell {problem.place}, further down, defines it"
            )
            fix = (
                f"Assign `{name}` above line {problem.line}."
                if same
                else f"Move the part of cell {problem.place} that makes `{name}` above cell {problem.cell}."
            )
        case "deleted":
            words.append(f"but cell {problem.place} deletes it (`del {name}`)")
            fix = "Take the `del` away, or make the name anew."
        case "handler":
            words.append(f"but Python deletes it when its `except ... as {name}` in cell {problem.place} ends")
            fix = f"Give it another name in the handler: `error = {name}`."
        case "task":
            words.append(f"but it stays inside the %%task of cell {problem.place}, which does not name it an output")
            fix = f"Add it to that cell's heading: `-> ..., {name}`."
        case "nowhere":
            words.append("but no cell defines it")
            fix = _how_to_define(name, defined)
    known = live.origin(name, cells) if live is not None else None
    if known is not None:
        words.append(f"- {known[0]}")
        if known[1] is not None:
            fix = f"Put that cell back above cell {problem.cell}: `{one_line(' ⏎ '.join(known[1].strip().splitlines()), 120)}`"
    elif problem.why == "nowhere" and fix is None:
        fix = "Perhaps its cell was deleted: define it above, or take the use away."
    if problem.is_guess:
        words.append("(a star import, `%run` or the like before it may bring it)")
    if problem.cells:
        words.append(f"(also used in {_cells(problem.cells)})")
    return cell.finding(level, "undefined-name", " ".join(words), fix, problem.line)


def _through(problem: Problem) -> str:
    if problem.through is None or problem.read_at is None:
        return " here"
    cell, line = problem.read_at
    what = "the lambda" if problem.through.startswith("<") else f"`{problem.through}()`"
    return f" by {what}, called here (cell {cell}, line {line} reads it),"


def _how_to_define(name: str, defined: set[str]) -> str | None:
    if name == "__file__":
        return "A notebook has no `__file__`; it runs in its own folder: use `Path.cwd()`."
    if name in _USUAL:
        return f"Add `{_USUAL[name]}` to a cell above."
    if name in sys.stdlib_module_names:
        return f"Add `import {name}` to a cell above."
    return did_you_mean(name, sorted(defined)).strip() or None


def _cells(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, numbers[:6])) + (", ..." if len(numbers) > 6 else "")
    return f"cell {shown}" if len(numbers) == 1 else f"cells {shown}"


def _bound_in(source: str) -> frozenset[str]:
    try:
        tree = parsed(transformed(source))
    except SyntaxError:
        return frozenset()
    bodies = [tree]
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="run_cell_magic"), args=[_, _, ast.Constant(value=str(body))]):
                bodies.append(_tree(body))
            case ast.Call(func=ast.Attribute(attr="run_line_magic"), args=[_, ast.Constant(value=str(body))]):
                bodies.append(_tree(body))
    return frozenset().union(*map(names_bound, bodies))


def _tree(source: str) -> ast.Module:
    try:
        return parsed(transformed(source))
    except SyntaxError:
        return ast.Module([], [])
