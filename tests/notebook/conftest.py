"""Kernels for the tests of the notebook layer: started once, with folders of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel


@pytest.fixture(scope="session")
def kernel_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of kernels that share one home and touch nothing else."""
    folder = tmp_path_factory.mktemp("kernels")
    private = {name: str(folder / name.lower()) for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    for path in private.values():
        Path(path).mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**environment, **private, "PREFECT_NB_HOME": str(folder / "prefect_nb_home")}


@pytest.fixture(scope="session")
def session_kernel(kernel_environment: dict[str, str]) -> Iterator[Kernel]:
    kernel = Kernel(kernel_environment)
    yield kernel
    kernel.close()


@pytest.fixture(scope="session")
def session_other_kernel(kernel_environment: dict[str, str]) -> Iterator[Kernel]:
    kernel = Kernel({**kernel_environment, "PYTHONHASHSEED": "4711"})
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(session_kernel: Kernel) -> Kernel:
    """A kernel in which no cell has run."""
    session_kernel.reset()
    return session_kernel


@pytest.fixture
def other_kernel(session_other_kernel: Kernel) -> Kernel:
    """Another process on the same home, as after a restart."""
    session_other_kernel.reset()
    return session_other_kernel
