"""A real JupyterLab and a real Chromium for the tests in this folder.

A test asks for `lab`: a fresh page on a server that the whole session shares. Pictures go to the folder that
PREFECT_NB_SCREENSHOTS names, else to pytest's temporary folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import JupyterServer, Lab, start_jupyter_server
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM_FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",  # it has none for root
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def jupyter_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    server = start_jupyter_server(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


# One a module: while Playwright is open its event loop counts as running in this thread, and asyncio tests would fail.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    if not executable.exists():
        pytest.fail(f"There is no browser at {executable}: run scripts/install-chromium.sh, or set CHROMIUM to one.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    yield context.new_page()
    context.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("PREFECT_NB_SCREENSHOTS", tmp_path / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def lab(page: Page, jupyter_server: JupyterServer, screenshots: Path) -> Iterator[Lab]:
    yield Lab(page, jupyter_server, screenshots)
    jupyter_server.shut_down_kernels()
