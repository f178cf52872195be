"""`import prefect_nb` is lazy and cheap."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "IPython",
    "anyio",
    "click",
    "ipykernel",
    "matplotlib",
    "nbclient",
    "nbformat",
    "numpy",
    "pandas",
    "papermill",
    "polars",
    "pyarrow",
    "pydantic",
    "rich",
    "sqlite_utils",
}


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps([name for name in sys.modules if '.' not in name]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def test_importing_the_package_loads_nothing_heavy():
    assert modules_after("import prefect_nb") & (HEAVY | {"asyncio", "msgspec", "sqlite3"}) == set()


def test_listing_the_package_loads_nothing_heavy():
    assert modules_after("import prefect_nb; assert 'flow' in dir(prefect_nb)") & HEAVY == set()


def test_importing_the_decorators_loads_nothing_heavy():
    assert modules_after("from prefect_nb import flow, task") & HEAVY == set()


@pytest.mark.parametrize("name", ["flow", "task"])
def test_decorating_loads_nothing_heavy(name: str):
    assert modules_after(f"from prefect_nb import {name}\n@{name}\ndef double(x: int): return 2 * x") & HEAVY == set()


def test_loaded_modules_are_seen():
    assert "pydantic" in modules_after("import pydantic")
