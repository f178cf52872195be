"""`Flow.from_source` and flows loaded from where they are written."""

import pytest

from prefect_nb import Flow, flow
from prefect_nb.exceptions import MissingFlowError, NotebookError, ObjectNotFound, ScriptError
from prefect_nb.flows import load_flow_from_entrypoint, safe_load_flow_from_entrypoint


@pytest.fixture
def jobs(tmp_path):
    (tmp_path / "loaded_jobs.py").write_text(
        "from prefect_nb import flow, task\n"
        "@task\ndef double(x): return 2 * x\n"
        "@flow\ndef nightly(n: int = 2):\n    return double(n)\n"
        "@flow\ndef other(): return 'other'\n"
    )
    (tmp_path / "needs_more.py").write_text(
        "import a_library_that_is_not_there\n"
        "from prefect_nb import flow\n"
        "LEVEL = a_library_that_is_not_there.LEVEL\n"
        "@flow(name='from afar')\ndef nightly(n: int = 2):\n    '''Does it.'''\n    return n\n"
        "@flow\ndef worse(n=a_library_that_is_not_there.x):\n    '''Needs it.'''\n"
    )
    return tmp_path


def test_a_flow_of_a_folder(jobs):
    loaded = Flow.from_source(jobs, "loaded_jobs.py:nightly")
    assert loaded(4) == 8
    assert flow.from_source(str(jobs), entrypoint="loaded_jobs.py:other")() == "other"


def test_a_notebook_of_a_folder(jobs):
    import nbformat

    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")]), jobs / "small.ipynb")
    assert Flow.from_source(jobs, "small.ipynb").name == "small"
    with pytest.raises(NotebookError):
        Flow.from_source(jobs, "missing.ipynb")


def test_what_is_not_there_is_named(jobs):
    with pytest.raises(ObjectNotFound, match="no folder"):
        Flow.from_source(jobs / "nowhere", "x.py:y")
    with pytest.raises(ObjectNotFound, match="no file"):
        Flow.from_source(jobs, "x.py:y")
    with pytest.raises(MissingFlowError, match="Did you mean 'nightly'"):
        Flow.from_source(jobs, "loaded_jobs.py:nigthly")


def test_missing_imports_do_not_keep_a_flow_from_being_looked_at(jobs):
    entrypoint = f"{jobs / 'needs_more.py'}:nightly"
    with pytest.raises(ScriptError, match="a_library_that_is_not_there"):
        load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    loaded = load_flow_from_entrypoint(entrypoint)
    assert (loaded.name, loaded.description, loaded(3)) == ("from afar", "Does it.", 3)
    assert safe_load_flow_from_entrypoint(entrypoint).name == "from afar"


def test_a_flow_whose_own_definition_cannot_be_executed_is_a_placeholder_that_says_why(jobs):
    entrypoint = f"{jobs / 'needs_more.py'}:worse"
    assert safe_load_flow_from_entrypoint(entrypoint) is None
    loaded = load_flow_from_entrypoint(entrypoint)
    assert (loaded.name, loaded.description) == ("worse", "Needs it.")
    with pytest.raises(ScriptError, match="a_library_that_is_not_there"):
        loaded()
