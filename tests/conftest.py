"""What every test has: a home of its own, and the assurance that nobody's real one is touched."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from clusters import dask_cluster, ray_cluster

__all__ = ["dask_cluster", "ray_cluster"]

# Notebooks under tests/ are material of tests, not tests themselves.
collect_ignore_glob = ["*.ipynb"]

# No deadline: a machine that is busy with something else is no failure.
hypothesis.settings.register_profile("house", deadline=None, print_blob=True, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """A home for what runs outside a test function: kernels of example notebooks and of session fixtures."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        if name != "PREFECT_NB_SCREENSHOTS":
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="prefect_nb_tests_")
    os.environ["PREFECT_NB_HOME"] = home
    # Where signatures of executed notebooks go.
    os.environ["JUPYTER_DATA_DIR"] = f"{home}/jupyter"
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))


@pytest.fixture(autouse=True)
def prefect_nb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This test's own home, in `PREFECT_NB_HOME`; whatever opened it is closed at the end."""
    home = tmp_path / "prefect_nb_home"
    monkeypatch.setenv("PREFECT_NB_HOME", str(home))
    # A test that lets a notebook fail on purpose leaves no kernel behind unless it is about that.
    monkeypatch.setenv("PREFECT_NB_NOTEBOOK_KEPT_KERNELS", "0")
    yield home
    if "prefect_nb.home" in sys.modules:
        sys.modules["prefect_nb.home"].close_all()
