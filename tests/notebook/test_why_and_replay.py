"""`%why`, and what a cached task showed, in a notebook."""

import re

from kernels import Kernel

PRELUDE = """
from prefect_nb import flow, task
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE
cached = dict(cache_policy=INPUTS + TASK_SOURCE)
"""


def test_prints_and_displays_come_again_marked(kernel: Kernel) -> None:
    kernel.run(PRELUDE)
    kernel.run(
        """
from IPython.display import HTML, display, update_display
@task(**cached)
def picture(x):
    print("before", x)
    display(HTML(f"<b>figure {x}</b>"))
    handle = display(HTML("<i>0 %</i>"), display_id=True)
    handle.update(HTML("<i>100 %</i>"))
    print("after", x)
    return x
"""
    )
    live = kernel.run("picture(1)")
    again = kernel.run("picture(1)")

    assert live.stdout == "before 1\nafter 1\n"
    mark, *rest = re.sub(r"\x1b\[\d*m", "", again.stdout).splitlines()
    assert mark.startswith("cached output of picture (")
    assert rest == ["before 1", "after 1"]
    assert [bundle["text/html"] for bundle in live.displays] == ["<b>figure 1</b>", "<i>100 %</i>"]
    assert [bundle["text/html"] for bundle in again.displays] == ["<b>figure 1</b>", "<i>100 %</i>"]


def test_it_comes_again_after_a_restart(kernel: Kernel, other_kernel: Kernel) -> None:
    code = "@task(**cached)\ndef told(x):\n    print('told', x)\n    return x"
    for one in (kernel, other_kernel):
        one.run(PRELUDE)
        one.run(code)
    kernel.run("told(1)")

    again = other_kernel.run("told(1)")

    assert again.stdout.splitlines()[1:] == ["told 1"]
    assert "\x1b[90mcached output of told" in again.stdout


def test_tasks_submitted_to_threads_show_it_under_their_cell(kernel: Kernel) -> None:
    kernel.run(PRELUDE)
    kernel.run("@task(**cached)\ndef far(x):\n    print('far', x)\n    return x")
    kernel.run("@flow\ndef work():\n    far.submit(1).wait()")
    kernel.run("work()")

    assert "far 1" in kernel.run("work()").stdout


def test_figures_of_a_task_cell(kernel: Kernel) -> None:
    kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt")
    cell = "%%task draw\nplt.plot([1, 2, 3])\nprint('drawn');"
    live = kernel.run(cell)
    again = kernel.run(cell)

    assert sum("image/png" in bundle for bundle in live.displays) == 1
    assert sum("image/png" in bundle for bundle in again.displays) == 1
    assert "drawn" in again.stdout
    assert "cached (same code, same inputs" in again.stdout


def test_why_of_a_task_cell_that_was_edited(kernel: Kernel) -> None:
    kernel.run("def normalise(x):\n    return x / 2")
    kernel.run("raw = 8")
    kernel.run("%%task wash(raw)\ntidy = normalise(raw)")
    assert "first run of this task" in kernel.run("%why wash").stdout
    kernel.run("%%task wash(raw)\ntidy = normalise(raw)")
    assert "hit: same as 'wash' of" in kernel.run("%why wash").stdout
    kernel.run("def normalise(x):\n    return x / 3")
    kernel.run("%%task wash(raw)\ntidy = normalise(raw)")

    shown = kernel.run("%why").stdout

    assert "helper `normalise` changed (line `return x / 2` -> `return x / 3`)" in shown


def test_why_of_variables_and_of_everything(kernel: Kernel) -> None:
    kernel.run(PRELUDE)
    kernel.run("@task(**cached)\ndef step(x, depth):\n    return x")
    kernel.run("%%flow -o run\nstep(1, 5)\nstep(1, 6)")

    assert "input `depth` is 6, was 5" in kernel.run("%why step").stdout
    assert len(kernel.run("%why").stdout.splitlines()) == 2
    assert len(kernel.run("%why run").stdout.splitlines()) == 2
    assert kernel.run("run.why()").value == kernel.run("import prefect_nb; prefect_nb.why(run)").value


def test_why_of_nothing_and_its_help(kernel: Kernel) -> None:
    assert "There is no task run" in kernel.run("%why nonsense", fails=True).stderr
    assert "example:" in kernel.run("%why -h").stdout


def test_a_flow_of_the_notebook_is_retried_there(kernel: Kernel) -> None:
    kernel.run(PRELUDE + "calls = []\nbroken = [1]")
    kernel.run("@task(persist_result=True)\ndef one():\n    calls.append('one')\n    return [1]")
    kernel.run("@task\ndef two(x):\n    calls.append('two')\n    assert not broken\n    return 2")
    kernel.run("@flow\ndef work():\n    return two(one())")
    kernel.run("state = work(return_state=True)\nbroken.clear()\ncalls.clear()")

    kernel.run("value = work.retry(state.state_details.flow_run_id)")

    assert kernel.run("value, calls").value == "(2, ['two'])"
