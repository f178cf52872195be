"""A notebook of trivial cells run by four programs; its own cells say how long they took.

    python notebooks.py {prefect-nb,papermill,nbclient,raw} NOTEBOOK

The first cell starts a clock and the last one writes down what it shows, so that every program is measured alike and
neither the start of the kernel nor the program's own imports count.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from sides import EXIT_TIMEOUT, Side, WorkloadError

RUNNERS = ("prefect-nb", "papermill", "nbclient", "raw")
SECONDS_FILE = "BENCHMARK_SECONDS_FILE"


def execution(side: Side, runner: str, cells: int) -> tuple[float, float]:
    """Seconds `runner` takes from the first to the last of `cells` cells, and from its start to its end.

    Raises WorkloadError.
    """
    with tempfile.TemporaryDirectory(dir=side.scratch) as folder:
        notebook, seconds = Path(folder, "trivial.ipynb"), Path(folder, "seconds.txt")
        write_notebook(notebook, cells)
        command = [str(side.python), __file__, runner, str(notebook)]
        if runner == "prefect-nb":
            command = [str(side.python.with_name("prefect-nb")), "run", str(notebook)]
        environment = {**side.environment, SECONDS_FILE: str(seconds)}
        started = perf_counter()
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=EXIT_TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise WorkloadError(str(error)) from error
        whole = perf_counter() - started
        if done.returncode or not seconds.exists():
            last_words = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
            raise WorkloadError(f"exit code {done.returncode}: {last_words[0]}")
        return float(seconds.read_text()), whole


def write_notebook(path: Path, cells: int) -> None:
    """Write a notebook of `cells` trivial cells between the two that keep the time."""
    first = "from time import perf_counter\nstarted = perf_counter()"
    last = (
        f"import os\nwith open(os.environ['{SECONDS_FILE}'], 'w') as file:\n"
        "    file.write(str(perf_counter() - started))"
    )
    sources = [first, *(f"x = {i}" for i in range(cells)), last]
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {
                "id": f"cell-{i}",
                "cell_type": "code",
                "source": source,
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for i, source in enumerate(sources)
        ],
    }
    path.write_text(json.dumps(notebook))


def with_papermill(path: str) -> None:
    """Run it with papermill, which saves after every cell."""
    import papermill

    papermill.execute_notebook(path, f"{path}.out.ipynb", progress_bar=False)


def with_nbclient(path: str) -> None:
    """Run it with nbclient, which saves at the end."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    nbformat.write(notebook, f"{path}.out.ipynb")


def with_raw_client(path: str) -> None:
    """No program at all: send the source, read messages until the kernel is idle again, read the reply."""
    import nbformat
    from jupyter_client.manager import start_new_kernel

    notebook = nbformat.read(path, as_version=4)
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for cell in notebook.cells:
            request = client.execute(cell.source, allow_stdin=False)
            while True:
                message = client.get_iopub_msg(timeout=EXIT_TIMEOUT)
                ours = message["parent_header"].get("msg_id") == request
                if ours and message["content"].get("execution_state") == "idle":
                    break
            reply = client.get_shell_msg(timeout=EXIT_TIMEOUT)
            if reply["content"]["status"] != "ok":
                raise RuntimeError(reply["content"]["evalue"])
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


if __name__ == "__main__":
    runner, path = sys.argv[1:]
    {"papermill": with_papermill, "nbclient": with_nbclient, "raw": with_raw_client}[runner](path)
