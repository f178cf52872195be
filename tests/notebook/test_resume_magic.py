"""`%resume` in a kernel: a notebook run that failed goes on, in its own kernel, from the one in which one looks at it."""

import json
from pathlib import Path

from kernels import Kernel


def write(path: Path, *sources: str) -> None:
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
        for n, source in enumerate(sources)
    ]
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))


def test_resume(kernel: Kernel, tmp_path: Path):
    path = tmp_path / "nightly.ipynb"
    write(path, "import os; start = os.getpid()", "1 / 0", "print(start == os.getpid())")
    ran = f"Flow.from_notebook({str(path)!r}, output_path={str(tmp_path / 'out.ipynb')!r})"
    kernel.run("import os; os.environ['PREFECT_NB_NOTEBOOK_KEPT_KERNELS'] = '1'")
    kernel.run(f"from prefect_nb import Flow\nstate = {ran}(return_state=True)")
    assert kernel.run("state.is_failed()").value == "True"
    write(path, "import os; start = os.getpid()", "pass", "print(start == os.getpid())")

    outcome = kernel.run("%resume")

    assert "1 of 3 cells is kept; the run goes on from cell 2" in outcome.stdout
    assert "Completed  flow run" in outcome.stdout
    outputs = json.loads((tmp_path / "out.ipynb").read_text())["cells"][2]["outputs"]
    assert outputs[0]["text"] == ["True\n"]
    again = kernel.run("%resume", fails=True)
    assert "No notebook run has failed" in again.stderr
