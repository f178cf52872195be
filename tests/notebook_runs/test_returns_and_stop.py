"""What a notebook returns, and how it ends early without having failed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
from click.testing import CliRunner
from notebook_runs import read, statuses, text_of

import prefect_nb
from prefect_nb import Flow, flow
from prefect_nb.cli import main
from prefect_nb.exceptions import NotebookError
from prefect_nb.model.notebook_outputs import RETURNED, Outputs
from prefect_nb.service import results

RETURN = "from prefect_nb import return_\n"


def test_the_call_gives_the_value_itself(write: Any, history: Any):
    nightly = Flow.from_notebook(
        write(
            ("depth = 3", "parameters"),
            RETURN + "import datetime\nreturn_({'depth': depth, 1: {2, 3}, 'at': datetime.date(2026, 1, 1)})",
            "print('goes on')",
        )
    )

    import datetime

    assert nightly(depth=5) == {"depth": 5, 1: {2, 3}, "at": datetime.date(2026, 1, 1)}

    run = history.only_run()
    assert run.result is not None
    assert results.state_of(run).value()["depth"] == 5  # what another process would find
    cell = read(run.output_path).cells[2]
    assert "'depth': 5" in cell.outputs[0].data["text/plain"]
    assert "<table>" in cell.outputs[0].data["text/html"]
    assert text_of(read(run.output_path).cells[3]) == "goes on\n"
    assert history.problems() == []


def test_data_frames_and_objects_of_the_notebook_need_no_json(write: Any):
    frame = Flow.from_notebook(
        write(RETURN + "import pandas as pd\nreturn_(pd.DataFrame({'at': pd.to_datetime(['2026-01-01']), 'n': [1.5]}))")
    )()
    assert isinstance(frame, pandas.DataFrame)
    assert str(frame["at"].dtype).startswith("datetime64")
    point = Flow.from_notebook(
        write(RETURN + "class Point:\n    def __init__(self): self.x = 3\nreturn_(Point())", name="points")
    )()
    assert point.x == 3


def test_named_outputs(write: Any, history: Any):
    outputs = Flow.from_notebook(write(RETURN + "return_(score=0.93, model=print, words=['a'])"))()

    assert isinstance(outputs, Outputs)
    assert (outputs.score, outputs["score"], outputs.words) == (0.93, 0.93, ["a"])
    assert list(outputs) == ["score", "model", "words"]
    assert dict(outputs)["model"] is print
    assert "score=0.93" in repr(outputs)
    assert "score" in dir(outputs)
    with pytest.raises(AttributeError, match="no 'scor'; its outputs are: 'score', 'model', 'words'"):
        outputs.scor  # noqa: B018

    shown = CliRunner().invoke(main, ["flow-run", "inspect", history.only_run().name])
    assert "returned" in shown.output
    assert "score = 0.93" in shown.output
    document = json.loads(
        CliRunner().invoke(main, ["flow-run", "inspect", history.only_run().name, "--output", "json"]).stdout
    )
    assert document["returned"][0] == {"name": "score", "type": "float", "value": "0.93"}


def test_without_a_returned_value_it_is_the_executed_notebook(write: Any):
    output = Flow.from_notebook(write("x = 1"))()

    assert isinstance(output, Path)
    assert output.suffix == ".ipynb"


def test_none_can_be_returned_and_the_last_call_wins(write: Any, caplog: pytest.LogCaptureFixture):
    assert Flow.from_notebook(write(RETURN + "return_(1)", "return_(None)"))() is None
    assert "return_ was called 2 times (in cells 1, 2); the last call counts." in caplog.text


def test_clearing_the_output_does_not_take_the_value_back(write: Any):
    code = RETURN + "from IPython.display import clear_output\nreturn_(7)\nclear_output()\nprint('on')"

    assert Flow.from_notebook(write(code))() == 7


def test_an_attempt_that_failed_returns_nothing(write: Any, caplog: pytest.LogCaptureFixture):
    code = RETURN + "n = globals().get('n', 0) + 1\nreturn_(n)\nif n == 1: raise ValueError('no')"

    assert Flow.from_notebook(write((code, "retry:1")))() == 2
    assert "called 2 times" not in caplog.text


def test_a_serializer_and_a_storage_of_ones_own(write: Any, history: Any, tmp_path: Path):
    flow_ = Flow.from_notebook(
        write(RETURN + "return_([1, 2])"), result_serializer="json", result_storage=tmp_path / "elsewhere"
    )

    assert flow_() == [1, 2]
    reference = history.only_run().result
    assert (reference.serializer, reference.storage) == ("json", str(tmp_path / "elsewhere"))


def test_what_cannot_be_kept_fails_the_cell_that_returns_it(write: Any, history: Any):
    with pytest.raises(NotebookError, match=r"Cell 1 of 1.*SerializationError"):
        Flow.from_notebook(write(RETURN + "import threading\nreturn_(threading.Lock())"))()


def test_both_ways_at_once_are_refused():
    with pytest.raises(TypeError, match="not both"):
        prefect_nb.return_(1, score=2)


def test_in_a_script_it_does_nothing(capsys: pytest.CaptureFixture[str], prefect_nb_home: Path):
    prefect_nb.return_({"a": 1})

    assert capsys.readouterr().out == ""
    assert not prefect_nb_home.exists()


def test_a_notebook_inside_a_flow_gives_its_value(write: Any):
    notebook = Flow.from_notebook(write(("n = 1", "parameters"), RETURN + "return_(n * 10)"))

    @flow
    def outer() -> int:
        return notebook(n=2) + notebook(n=3)

    assert outer() == 50


def test_stop_ends_a_notebook_completed(write: Any, history: Any):
    state = Flow.from_notebook(
        write(
            RETURN + "return_('half')",
            "print('looking')\nfrom prefect_nb import flow\nflow.stop('no new data')\nprint('never')",
            "print('never')",
        )
    )(return_state=True)

    assert (state.type, state.name, state.message) == ("COMPLETED", "Completed", "no new data")
    assert state.result() == "half"
    assert history.cell_states() == ["Completed", "Completed", "NotRun"]
    run = history.only_run()
    assert statuses(run.output_path) == ["completed", "completed", "pending"]
    cell = read(run.output_path).cells[1]
    assert text_of(cell) == "looking\nThe notebook ends here: no new data\n"
    assert [output.output_type for output in cell.outputs if output.output_type == "error"] == []
    assert read(run.output_path).metadata.papermill.exception is None
    assert history.problems() == []


def test_stop_in_a_flow_inside_a_notebook_ends_that_flow_only(write: Any, history: Any):
    output = Flow.from_notebook(
        write(
            "from prefect_nb import flow\n@flow\ndef inner():\n    flow.stop('enough')\nprint(inner())",
            "print('goes on')",
        )
    )()

    assert text_of(read(output).cells[1]) == "goes on\n"
    assert [run.state_message for run in history.flow_runs(kinds=("function",))] == ["enough"]


def test_the_command_says_so_and_exits_with_0(write: Any):
    source = write(RETURN + "return_(score=0.5)", "import prefect_nb; prefect_nb.stop('no new data')", "1 / 0")

    done = subprocess.run(
        [sys.executable, "-m", "prefect_nb", "run", str(source)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr
    assert "✓ Completed" in done.stdout
    assert "no new data" in done.stdout
    assert "score = 0.5" in done.stdout
    assert "1 NotRun" in done.stdout


def test_the_place_of_the_value_is_no_part_of_what_a_reader_sees(write: Any, history: Any):
    Flow.from_notebook(write(RETURN + "return_(1)"))()

    (output,) = read(history.only_run().output_path).cells[0].outputs
    assert set(output.data) == {"text/plain", "text/html", RETURNED}
    assert set(output.data[RETURNED]) == {"reference", "outputs"}
