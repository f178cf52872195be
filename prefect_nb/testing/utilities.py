"""What a test suite of flows needs.

import pytest
from prefect_nb.testing.utilities import prefect_test_harness

@pytest.fixture(autouse=True, scope="session")
def a_home_of_our_own():
    with prefect_test_harness():
        yield
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect_nb.home import Home


@contextmanager
def prefect_test_harness(server_startup_timeout: int | None = None) -> Iterator[Path]:  # noqa: ARG001
    """Run everything inside against a temporary home, which is gone afterwards; yields its path.

    Args:
        server_startup_timeout: accepted for compatibility; there is no server to start.
    """
    variable = "PREFECT_NB_HOME"
    before = os.environ.get(variable)
    path = Path(tempfile.mkdtemp(prefix="prefect_nb_test_"))
    os.environ[variable] = str(path)
    try:
        yield path
    finally:
        Home.current().close()
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
        shutil.rmtree(path, ignore_errors=True)
