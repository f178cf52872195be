"""JupyterLab as a person uses it: a server, and a page on it that opens notebooks, runs them and takes pictures."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Locator, Page

# Loops inside the page: a promise that Playwright's wait_for_function gets counts as true before it is kept.
_KERNEL_READY = """
async ([path, seconds]) => {
  const deadline = Date.now() + seconds * 1000;
  let seen = 'nothing';
  while (Date.now() < deadline) {
    const context = window.jupyterapp?.shell?.currentWidget?.context;
    const kernel = context?.sessionContext?.session?.kernel;
    seen = `path ${context?.path}, connection ${kernel?.connectionStatus}, status ${kernel?.status}`;
    if (context?.path === path && kernel?.connectionStatus === 'connected' && kernel.status === 'idle') {
      return kernel.id;
    }
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  throw new Error(`no kernel was ready after ${seconds} s: ${seen}`);
}
"""

# Without these a news toast covers the corner of every screenshot.
_QUIET = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}

# A notebook that names no kernel is met with a dialog.
_PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@dataclass
class JupyterServer:
    """A running JupyterLab. Its kernels keep their history in `home`."""

    url: str
    token: str
    root: Path
    """The folder whose notebooks it shows."""
    home: Path
    process: subprocess.Popen[bytes]
    log: Path

    def request(self, method: str, path: str) -> Any:
        """Answer of the server's REST interface, e.g. `request("GET", "api/sessions")`."""
        request = urllib.request.Request(
            f"{self.url}/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            body = response.read()
        return json.loads(body) if body else None

    def shut_down_kernels(self) -> None:
        """End every session and its kernel."""
        for session in self.request("GET", "api/sessions"):
            self.request("DELETE", f"api/sessions/{session['id']}")

    def stop(self) -> None:
        """End the server with its kernels."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_jupyter_server(folder: Path) -> JupyterServer:
    """A JupyterLab on a free loopback port that reads and writes nothing outside `folder`."""
    root, home, log = folder / "notebooks", folder / "home", folder / "server.log"
    root.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    environment |= {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PREFECT_NB_HOME": str(home),
    }
    defaults = folder / "config" / "labconfig" / "default_setting_overrides.json"
    defaults.parent.mkdir(parents=True)
    defaults.write_text(json.dumps(_QUIET))
    token, port = secrets.token_hex(16), _free_port()
    command = [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}"),
        "--LabApp.expose_app_in_browser=True",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=root, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    server = JupyterServer(f"http://127.0.0.1:{port}", token, root, home, process, log)
    try:
        _wait_until_it_answers(server, seconds=90)
    except BaseException:
        server.stop()
        raise
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(server: JupyterServer, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            server.request("GET", "api/status")
        except OSError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab did not start:\n{server.log.read_text()}") from None
            time.sleep(0.1)
        else:
            return


class Lab:
    """A browser page on a `JupyterServer`."""

    def __init__(self, page: Page, server: JupyterServer, screenshots: Path) -> None:
        self.page = page
        self.server = server
        self.screenshots = screenshots
        self.errors: list[str] = []
        """Exceptions that scripts of the page did not catch."""
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def write_notebook(self, name: str, *cells: str) -> Path:
        """Save a notebook of code cells where the server finds it."""
        path = self.server.root / name
        notebook = new_notebook(cells=[new_code_cell(source) for source in cells], metadata=_PYTHON)
        nbformat.write(notebook, path)
        return path

    def open_notebook(self, name: str, seconds: float = 60) -> None:
        """Show a notebook of the server's folder and wait until its kernel answers.

        The toolbar says idle before there is a kernel, and a run is then swallowed: so the kernel itself is asked.
        """
        # `reset` forgets the workspace of the page before.
        self.page.goto(f"{self.server.url}/lab/tree/{name}?reset&token={self.server.token}")
        self.page.locator(".jp-NotebookPanel:visible").wait_for(timeout=seconds * 1000)
        self.page.evaluate(_KERNEL_READY, [name, seconds])

    def turn_to(self, name: str, seconds: float = 60) -> None:
        """Show a notebook in a tab of its own beside those that are open, or the tab that it has, its kernel ready."""
        self.page.evaluate(
            "path => window.jupyterapp.commands.execute('docmanager:open', {path}).then(() => null)", name
        )
        self.page.evaluate(_KERNEL_READY, [name, seconds])

    def command(self, name: str) -> None:
        """Execute a JupyterLab command and wait for its end."""
        self.page.evaluate("name => window.jupyterapp.commands.execute(name).then(() => null)", name)

    def start_all_cells(self) -> None:
        """Begin to run every cell; returns at once."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def run_all_cells(self) -> None:
        """Run every cell and wait until the last one is done or one failed."""
        self.command("notebook:run-all-cells")

    def run_cells(self, *cells: int) -> None:
        """Run these cells, from 0, one after the other, each to its end."""
        for cell in cells:
            self.cell(cell).locator(".jp-InputPrompt").click()
            self.command("notebook:run-cell")

    def start_cell(self, cell: int) -> None:
        """Begin to run one cell, from 0; returns at once."""
        self.cell(cell).locator(".jp-InputPrompt").click()
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")

    def cell(self, cell: int) -> Locator:
        """The n-th cell, from 0, with its output."""
        return self.page.locator(".jp-NotebookPanel:visible .jp-Cell").nth(cell)

    def output(self, cell: int) -> Locator:
        """What is shown under the n-th cell, from 0."""
        return self.page.locator(".jp-NotebookPanel:visible .jp-Cell").nth(cell).locator(".jp-Cell-outputArea")

    def save(self, name: str) -> nbformat.NotebookNode:
        """Save the notebook that is shown and read it back from the disk."""
        self.command("docmanager:save")
        return nbformat.read(self.server.root / name, as_version=4)

    def screenshot(self, name: str) -> Path:
        """Keep a picture of the page as `<name>.png`."""
        path = self.screenshots / f"{re.sub(r'[^-.a-z0-9_]+', '_', name, flags=re.IGNORECASE)}.png"
        self.page.screenshot(path=path)
        return path
