"""Tags on cells of a notebook whose code knows nothing of us: retried, timed out, skipped, and all of it on record."""

import time
from pathlib import Path
from typing import Any

import pytest
from notebook_runs import read, statuses, text_of

from prefect_nb import Flow
from prefect_nb.bodies.cell_tags import PLAIN, Rules, rules_of
from prefect_nb.exceptions import NotebookError
from prefect_nb.home import Home
from prefect_nb.model.events import StateRecorded

FAILS_TWICE = "n = globals().get('n', 0) + 1\nprint('attempt', n)\nif n < 3: raise ValueError(f'not yet {n}')"


def states(run_id: Any) -> list[str]:
    return [e.name for e in Home.current().store.events(run_id) if isinstance(e, StateRecorded)]


def test_a_cell_is_retried_and_its_last_attempt_is_shown(write: Any, history: Any):
    output = Flow.from_notebook(write((FAILS_TWICE, "retry:2"), "print('on')"))()

    first, second = history.task_runs("cell")
    assert (first.state_name, first.run_count, first.retries) == ("Completed", 3, 2)
    assert states(first.id) == ["Running", "Retrying", "Retrying", "Completed"]
    assert second.state_name == "Completed"
    cell = read(output).cells[0]
    assert text_of(cell) == "attempt 3\n"
    assert statuses(output) == ["completed", "completed"]
    errors = [attempt["error"] for attempt in cell.metadata.prefect_nb_attempts]
    assert [error.partition(" failed: ")[2] for error in errors] == ["ValueError: not yet 1", "ValueError: not yet 2"]
    assert errors[0].startswith("Cell 1 of 2 (")
    assert all(a["start_time"] and a["end_time"] and a["duration"] >= 0 for a in cell.metadata.prefect_nb_attempts)
    assert history.problems() == []


def test_delays_grow_and_are_states_of_their_own(write: Any, history: Any):
    started = time.monotonic()

    Flow.from_notebook(write((FAILS_TWICE, "retry:2@200ms*2")))()

    assert time.monotonic() - started > 0.6
    (cell,) = history.task_runs("cell")
    assert cell.retry_delays == (0.2, 0.4)
    events = [e for e in Home.current().store.events(cell.id) if isinstance(e, StateRecorded)]
    assert [e.name for e in events] == [
        "Running",
        "AwaitingRetry",
        "Retrying",
        "AwaitingRetry",
        "Retrying",
        "Completed",
    ]
    assert "not yet 1" in events[1].message
    assert events[1].details.scheduled_time is not None
    assert events[4].at_us - events[3].at_us > 390_000


def test_when_no_attempt_is_left_the_cell_has_failed(write: Any, history: Any):
    state = Flow.from_notebook(write(("1 / 0", "retry:1"), "print('never')"))(return_state=True)

    assert state.is_failed()
    assert "division by zero" in state.message
    assert [run.run_count for run in history.task_runs("cell")] == [2, 0]
    assert history.cell_states() == ["Failed", "NotRun"]
    cell = read(history.only_run().output_path).cells[0]
    assert [output.ename for output in cell.outputs] == ["ZeroDivisionError"]
    assert len(cell.metadata.prefect_nb_attempts) == 1


def test_a_cell_that_leaves_the_notebook_is_not_tried_again(write: Any, history: Any):
    Flow.from_notebook(write(("import sys; sys.exit(3)", "retry:3")))(return_state=True)

    assert [run.run_count for run in history.task_runs("cell")] == [1]


def test_a_cell_times_out_and_another_attempt_may_do_better(write: Any, history: Any):
    slow_once = "import time\nn = globals().get('n', 0) + 1\nif n == 1: time.sleep(60)\nprint('quick', n)"
    output = Flow.from_notebook(write((slow_once, "timeout:500ms", "retry:1"), "print('on')"))()

    cell = read(output).cells[0]
    assert text_of(cell) == "quick 2\n"
    assert "took longer than 0.5 seconds" in cell.metadata.prefect_nb_attempts[0].error
    assert history.cell_states() == ["Completed", "Completed"]


def test_a_cell_that_times_out_for_good(write: Any, history: Any):
    started = time.monotonic()

    state = Flow.from_notebook(write(("import time; time.sleep(60)", "timeout:1s"), "x = 1"))(return_state=True)

    assert time.monotonic() - started < 15
    assert (state.type, state.name) == ("FAILED", "TimedOut")
    assert history.cell_states() == ["TimedOut", "NotRun"]
    assert "took longer than 1 seconds" in (history.task_runs("cell")[0].state_message or "")


def test_the_runs_own_timeout_ends_a_cell_that_would_be_retried(write: Any, history: Any):
    flow = Flow.from_notebook(write(("import time; time.sleep(60)", "retry:5"), "x = 1"), timeout_seconds=3)
    started = time.monotonic()

    state = flow(return_state=True)

    assert time.monotonic() - started < 3 + 4
    assert (state.type, state.name) == ("FAILED", "TimedOut")
    assert history.cell_states() == ["TimedOut", "NotRun"]
    assert history.task_runs("cell")[0].run_count == 1


def test_cells_are_skipped_by_tag_and_by_what_the_kernel_says(write: Any, history: Any):
    output = Flow.from_notebook(
        write(
            "full = False",
            ("raise ValueError('never')", "skip"),
            ("raise ValueError('never')", "skip-if:not(full)"),
            ("print('kept')", "skip-if:full"),
            ("raise ValueError('never')", "skip-execution"),
        )
    )()

    runs = history.task_runs("cell")
    assert [run.state_name for run in runs] == ["Completed", "Skipped", "Skipped", "Completed"]
    assert all(run.state_type == "COMPLETED" for run in runs)
    assert [run.state_message for run in runs[1:3]] == [
        "Skipped by its tag 'skip'.",
        "Skipped by its tag 'skip-if:not(full)'.",
    ]
    assert [run.run_count for run in runs] == [1, 0, 0, 1]
    assert statuses(output) == ["completed", "skipped", "skipped", "completed", "skipped"]
    assert text_of(read(output).cells[3]) == "kept\n"


def test_an_expression_that_fails_is_an_error_that_names_cell_tag_and_exception(write: Any, history: Any):
    state = Flow.from_notebook(write("x = 1", ("print(2)", "skip-if:fulll", "retry:2"), "x = 3"))(return_state=True)

    assert state.is_failed()
    assert state.message.endswith(
        "Cell 2 of 3 ('print(2)'): its tag 'skip-if:fulll' could not be evaluated: "
        "NameError: name 'fulll' is not defined"
    )
    assert history.cell_states() == ["Completed", "Failed", "NotRun"]
    assert statuses(history.only_run().output_path) == ["completed", "failed", "pending"]


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("retry:abc", "no number of retries. Write retry:3"),
        ("retry:0", "no number of retries"),
        ("retry:3@soon", "'soon' is no length of time"),
        ("retry", "needs a value. Write retry:3"),
        ("timeout:ten", "'ten' is no length of time; write 30s, 10m or 1.5h"),
        ("timeout:0", "no time at all"),
        ("skip-if:not", "JupyterLab ends a tag at the first space"),
        ("skip-if:", "needs a value"),
        ("timout:3", "did you mean 'timeout:3'"),
        ("retries:3", "did you mean 'retry:3'"),
        ("Retry:3", "did you mean 'retry:3'"),
        ("skip_if:x", "did you mean 'skip-if:x'"),
        ("skip:full", "did you mean 'skip-if:full'"),
    ],
)
def test_a_malformed_tag_is_found_before_anything_runs(
    write: Any, history: Any, prefect_nb_home: Path, tag: str, words: str
):
    with pytest.raises(NotebookError) as caught:
        Flow.from_notebook(write("print('one')", ("print('two')", tag)))

    assert f"Cell 2 (\"print('two')\") has the tag {tag!r}" in str(caught.value)
    assert words in str(caught.value)
    assert not prefect_nb_home.exists()


def test_every_malformed_tag_is_named_at_once(write: Any):
    with pytest.raises(NotebookError) as caught:
        Flow.from_notebook(write(("a = 1", "retry:x"), ("b = 1", "timeout:x"), ("c = 1", "retry:1", "retry:2")))

    assert [line[:6] for line in str(caught.value).splitlines()] == ["Cell 1", "Cell 2", "Cell 3"]
    assert "two tags 'retry'" in str(caught.value)


@pytest.mark.parametrize(
    "tag", ["step:load", "prev:load", "entry:3", "timer:3", "slideshow", "remove-input", "hide_cell", "a:b:c", "x:", 5]
)
def test_tags_of_others_are_left_alone(tag: Any):
    assert rules_of({"metadata": {"tags": [tag]}}) == PLAIN


def test_what_tags_say():
    assert rules_of({"metadata": {}}) is PLAIN
    rules = rules_of({"metadata": {"tags": ["retry: 3 @ 10s * 1.5", "timeout:1.5h", "skip-if:a or b"]}})
    assert rules == Rules(retries=3, delay=10, factor=1.5, timeout=5400, skip_if="a or b")
    assert rules.delays == (10, 15, 22.5)
