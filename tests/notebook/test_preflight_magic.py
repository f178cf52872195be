"""`%preflight` in a real kernel, and its picture."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from IPython.core.error import UsageError
from kernels import Kernel

from prefect_nb.notebook.magics import Magics
from prefect_nb.notebook.preflight_magic import LIMIT, preflight_parser, report_html, report_text
from prefect_nb.service.preflight import magics as preflight_magics
from prefect_nb.service.preflight.findings import Finding, Report


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.ipynb"


@pytest.fixture
def own_kernel(path: Path, kernel_environment: dict[str, str]) -> Iterator[Kernel]:
    """A kernel that knows its notebook's file."""
    kernel = Kernel({**kernel_environment, "JPY_SESSION_NAME": str(path)})
    yield kernel
    kernel.close()


def write(path: Path, *sources: str) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, path)


def test_in_the_notebook_itself(own_kernel: Kernel, path: Path):
    write(path, "%load_ext prefect_nb", "df = [1, 2]", "len(df)", "%preflight")
    own_kernel.run("df = [1, 2]")
    own_kernel.run("len(df)")
    [clean] = own_kernel.run("%preflight").displays
    assert clean["text/plain"] == "✓ Restart & Run All should pass: 4 cells checked, nothing was executed"
    assert "⚠" not in clean["text/html"]

    write(path, "%load_ext prefect_nb", "len(df)", "%preflight")  # the cell that made it is deleted
    [found] = own_kernel.run("%preflight").displays
    assert "it exists in this kernel (a list), made by In [" in found["text/plain"]
    assert "→ Put that cell back above cell 2: `df = [1, 2]`" in found["text/plain"]
    assert "Put that cell back above cell 2" in found["text/html"]

    [unsaved] = own_kernel.run("%preflight -p x=1").displays
    assert "was changed since it was saved" in unsaved["text/plain"]
    assert "There is no notebook" in own_kernel.run("%preflight none.ipynb", fails=True).stderr
    assert "usage: %preflight" in own_kernel.run("%preflight -h").stdout


def test_where_the_notebook_is_not_known(kernel: Kernel, path: Path):
    assert "name it: %preflight report.ipynb" in kernel.run("%preflight", fails=True).stderr
    write(path, "x = 1")
    [shown] = kernel.run(f"%preflight {path}").displays
    assert shown["text/plain"].startswith("✓")


def test_a_wrong_option():
    with pytest.raises(UsageError, match="did you mean --kernel"):
        preflight_parser("%preflight").parse("--kernal x")


def report(*findings: Finding) -> Report:
    return Report(
        path=os.path.join("folder", "a<b>.ipynb"), cells=3, kernel="python3", python="3.11.7", findings=findings
    )


def test_the_picture_is_harmless_and_small():
    evil = "<script>alert(1)</script>\x1b[31m" + "\u202e" + "x" * 2000
    many = [
        Finding(level="error", rule="r", message=evil, fix=evil, cell=n, heading=evil, cell_id="c", line=1)
        for n in range(500)
    ]
    html = report_html(report(*many), unsaved=True)
    assert len(html.encode()) < LIMIT
    assert "<script" not in html
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert re.search(r"… and \d+ more", html)
    assert "a&lt;b&gt;.ipynb" in html
    text = report_text(report(*many[:2]))
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_picture_needs_no_style():
    html = report_html(report(Finding(level="warning", rule="r", message="odd", cell=2, heading="Load", line=3)))
    bare = re.sub(r"<[^>]*>", " ", html)
    assert "⚠\N{NO-BREAK SPACE}warning" in bare
    assert "cell 2, line 3 (Load)" in bare
    assert "<style" not in html
    assert "class=" not in html


def test_it_knows_the_magics_of_the_extension():
    names = Magics(None, {}).functions()
    ours = {kind: {name for k, name in names if k == kind} for kind in ("line", "cell")}
    for kind in ("line", "cell"):
        assert ours[kind] <= preflight_magics.OURS[kind], "add it to OURS in service/preflight/magics.py"


def test_it_knows_the_magics_of_ipython(kernel: Kernel):
    listing = kernel.run(
        "import json\nm = get_ipython().magics_manager.magics\nprint(json.dumps({k: sorted(v) for k, v in m.items()}))"
    )
    there = json.loads(listing.stdout)
    for kind in ("line", "cell"):
        known = preflight_magics.known_after({"prefect_nb"}, kind)
        assert set(there[kind]) <= known
