"""The floors hold, and the contracts that say so break when they do not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# (file, text added to it, contract that must break)
TRESPASSES = [
    ("model/states.py", "def late():\n    from prefect_nb.store import sqlite\n", "floors"),
    (
        "engine/rules.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import prefect_nb.execution\n",
        "floors",
    ),
    ("tasks.py", "import prefect_nb.flows\n", "floors"),
    ("new_room.py", "", "floors"),
    ("engine/rules.py", "import time\n", "pure"),
    ("model/runs.py", "def late():\n    import socket\n", "pure"),
    ("exceptions.py", "import subprocess\n", "pure"),
    ("engine/rules.py", "import random\n", "engine-asks"),
    ("execution/__init__.py", "from prefect_nb import store\n", "store-by-home"),
    ("service/__init__.py", "import sqlite3\n", "sqlite-in-store"),
    ("results/__init__.py", "import sqlite_utils\n", "sqlite-in-store"),
    ("model/runs.py", "import prefect_nb.model.events\n", "acyclic"),
]


def lint_imports(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml on the `prefect_nb` that lies in `folder`."""
    command = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports_command as lint; lint()"]
    options = ("--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo", *options)
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package that a test may spoil."""
    shutil.copytree(ROOT / "prefect_nb", tmp_path / "prefect_nb", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_contracts_are_kept():
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "trespass", "contract"), TRESPASSES, ids=[f"{file}-{contract}" for file, _, contract in TRESPASSES]
)
def test_a_forbidden_import_breaks_its_contract(house: Path, file: str, trespass: str, contract: str):
    with (house / "prefect_nb" / file).open("a") as code:
        code.write(f"\n{trespass}")

    result = lint_imports(house, "--contract", contract)

    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 1 broken" in result.stdout
