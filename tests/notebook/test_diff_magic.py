"""`%diff` in a real kernel."""

import re

import pytest
from IPython.core.error import UsageError
from kernels import Kernel

from prefect_nb.notebook.diff_magic import LIMIT, diff_parser

FLOWS = """
from prefect_nb import flow

@flow
def grow(size):
    return size

one = grow(1, return_state=True).state_details.flow_run_id
two = grow(2, return_state=True).state_details.flow_run_id
print(one, two)
"""


def test_two_runs_of_this_kernel(kernel: Kernel):
    one, two = kernel.run(FLOWS).stdout.split()[-2:]
    [shown] = kernel.run(f"%diff {one} {two}").displays
    assert "1 parameter differs" in shown["text/plain"]
    assert "size: 1 → 2" in shown["text/plain"]
    assert re.search("<del[^>]*>1</del>", shown["text/html"])
    assert "<h2" not in shown["text/html"]  # it would be a heading of the notebook
    assert len(shown["text/html"].encode()) < LIMIT
    assert "There is no flow run" in kernel.run(f"%diff {one} none-such", fails=True).stderr
    assert "usage: %diff" in kernel.run("%diff -h").stdout


def test_wrong_options():
    with pytest.raises(UsageError, match="did you mean --rtol"):
        diff_parser("%diff").parse("a b --rtl 1")
    with pytest.raises(UsageError, match="after"):
        diff_parser("%diff").parse("a")
