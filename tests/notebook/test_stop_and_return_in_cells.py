"""`flow.stop` and `return_` in a notebook that a person works in."""


def test_stop_ends_the_flow_of_a_cell_and_nothing_else(kernel):
    kernel.run("from prefect_nb import flow, task\n@task\ndef inc(x): return x + 1")

    outcome = kernel.run("%%flow -o run nightly\nbefore = inc(1)\nflow.stop('no new data')\nafter = 1")

    assert outcome.ename == ""
    assert kernel.run("before, 'after' in globals(), run.state.name, run.state.message").value == (
        "(2, False, 'Completed', 'no new data')"
    )


def test_stop_ends_a_flow_of_a_cell_that_awaits(kernel):
    kernel.run("import asyncio\nfrom prefect_nb import flow")

    kernel.run("%%flow -o run nightly\nawait asyncio.sleep(0)\nflow.stop('enough')")

    assert kernel.run("run.state.message").value == "'enough'"


def test_stop_in_a_plain_cell_says_where_it_belongs(kernel):
    kernel.run("from prefect_nb import flow")

    outcome = kernel.run("flow.stop('nowhere')", fails=True)

    assert outcome.ename == "MissingContextError"
    assert "%%flow" in outcome.evalue


def test_return_shows_the_value_where_nobody_runs_the_notebook(kernel):
    outcome = kernel.run("from prefect_nb import return_\nreturn_(score=0.5, words=['a'])")

    (bundle,) = outcome.displays
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/plain"] == "returned score = 0.5\nwords = ['a']"
    assert "<td" in bundle["text/html"]
    assert outcome.value is None


def test_a_sweep_is_shown_as_a_table(kernel):
    kernel.run(
        "from prefect_nb import flow\nfrom prefect_nb.notebooks import sweep\n@flow\ndef square(n): return n * n"
    )

    outcome = kernel.run("done = sweep(square, n=[2, 3])\nprint(done)\nprint(done._repr_html_())")

    assert "n  state      duration" in outcome.stdout
    assert "✓ Completed" in outcome.stdout
    assert "<td" in outcome.stdout
