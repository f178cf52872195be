"""The browser tests' own ground: a notebook is run by a real kernel, shown and saved."""

from lab import Lab


def test_a_notebook_is_run_shown_and_saved(lab: Lab):
    lab.write_notebook("sum.ipynb", "import os\nos.environ['PREFECT_NB_HOME']", "print(6 * 7)")
    lab.open_notebook("sum.ipynb")

    lab.run_all_cells()

    assert str(lab.server.home) in lab.output(0).inner_text()
    assert lab.output(1).inner_text().strip() == "42"
    assert [cell.execution_count for cell in lab.save("sum.ipynb").cells] == [1, 2]
    assert lab.screenshot("sum").stat().st_size > 0
    assert lab.errors == []


def test_a_page_starts_with_no_notebook_of_the_page_before(lab: Lab):
    lab.write_notebook("first.ipynb", "print('first')")
    lab.write_notebook("second.ipynb", "print('second')")
    lab.open_notebook("first.ipynb")

    lab.open_notebook("second.ipynb")
    lab.run_all_cells()

    assert lab.output(0).inner_text().strip() == "second"
    assert lab.page.locator(".jp-NotebookPanel").count() == 1
