"""`prefect-nb artifact`, `prefect-nb variable`, and what `flow-run inspect` says of metrics and artifacts."""

import json
import uuid

import pytest

from prefect_nb import flow, log_metric, task
from prefect_nb.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact
from prefect_nb.home import Home
from prefect_nb.variables import Variable


@pytest.fixture
def run():
    """A flow run that made three artifacts and reported a metric."""

    @task
    def train():
        for step in range(3):
            log_metric("loss", 3 - step)
        log_metric("bad", float("nan"))

    @flow(flow_run_name="the-otter")
    def f():
        train()
        create_markdown_artifact("# one", key="report", description="what was")
        create_markdown_artifact("# two \x1b[31m", key="report")
        create_table_artifact([{"a": "=cmd()", "b": 1}], key="rows")
        create_progress_artifact(30)

    f()
    Home.current().ledger.commit()


def test_ls_shows_the_newest_version_of_each_key(run, invoke, ask):
    assert [one["key"] for one in ask("artifact", "ls")] == ["rows", "report"]
    assert [one["key"] for one in ask("artifact", "ls", "--all")] == [None, "rows", "report", "report"]
    assert len(ask("artifact", "ls", "--all", "--limit", "1")) == 1
    lines = invoke("artifact", "ls").output.splitlines()
    assert lines[0].split() == ["Key", "Type", "Updated", "What", "ID"]
    assert lines[1].startswith("rows    table")
    assert invoke("artifact", "ls", "-a").output.count("markdown") == 2


def test_ls_of_nothing(invoke, ask):
    assert invoke("artifact", "ls").output == "No artifacts.\n"
    assert ask("artifact", "ls") == []


def test_inspect_shows_versions_newest_first(run, invoke, ask):
    newest, oldest = ask("artifact", "inspect", "report")
    assert (newest["data"], oldest["data"], oldest["description"]) == ("# two \x1b[31m", "# one", "what was")
    assert set(newest) == {
        *("id", "created", "updated", "key", "type", "description", "data", "metadata_", "flow_run_id", "task_run_id")
    }
    assert len(ask("artifact", "inspect", "report", "--limit", "1")) == 1
    text = invoke("artifact", "inspect", "report").output
    assert "\x1b" not in text
    assert text.index("# two") < text.index("# one")
    missing = invoke("artifact", "inspect", "repart")
    assert missing.exit_code == 2
    assert "Did you mean 'report'?" in missing.stderr


def test_export_has_no_formulas(run, invoke):
    assert invoke("artifact", "export", "rows").output == "a,b\n'=cmd(),1\n"
    assert json.loads(invoke("artifact", "export", "rows", "--format", "json").output) == [{"a": "'=cmd()", "b": 1}]
    assert invoke("artifact", "export", "report").exit_code == 2


def test_delete(run, invoke, ask):
    assert invoke("artifact", "delete", "report").output == "Deleted 2 artifact(s) with key 'report'.\n"
    id = ask("artifact", "ls", "--all")[0]["id"]
    assert invoke("artifact", "delete", "--id", id).output == f"Deleted artifact '{id}'.\n"
    assert invoke("artifact", "delete", "report").exit_code == 1
    assert invoke("artifact", "delete", "--id", str(uuid.uuid4())).exit_code == 1
    assert invoke("artifact", "delete").exit_code == 2
    assert invoke("artifact", "delete", "rows", "--id", id).exit_code == 2
    assert [one["key"] for one in ask("artifact", "ls", "--all")] == ["rows"]


def test_flow_run_inspect_tells_metrics_and_artifacts(run, invoke, ask):
    found = ask("flow-run", "inspect", "the-otter")
    loss, bad = found["metrics"]
    assert (loss["name"], loss["count"], loss["last"], loss["least"], loss["greatest"]) == ("loss", 3, 1.0, 1.0, 3.0)
    assert loss["task_run_id"] == found["task_runs"][0]["id"]
    assert (bad["last"], bad["least"]) == ("nan", None)
    assert [one["key"] for one in found["artifacts"]] == ["report", "rows", None]
    text = invoke("flow-run", "inspect", "the-otter").output
    assert "loss: last 1, least 1, greatest 3 (3 values)" in text
    assert "rows (table): 1 row of 2 columns" in text


def test_a_run_that_reported_nothing_says_nothing_of_it(invoke, ask):
    @flow(flow_run_name="quiet")
    def f():
        return 1

    f()
    assert not {"metrics", "artifacts"} & set(ask("flow-run", "inspect", "quiet"))
    assert "metrics" not in invoke("flow-run", "inspect", "quiet").output


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ('{"a": [1]}', {"a": [1]}), ("null", None), ("words, not JSON", "words, not JSON")]
)
def test_set_and_get(invoke, text, value):
    assert invoke("variable", "set", "v", text).output == "Set variable 'v'.\n"
    assert Variable.get("v", default="nothing") == value
    assert json.loads(invoke("variable", "get", "v").output) == value


def test_set_again_needs_overwrite(invoke, ask):
    invoke("variable", "set", "v", "1", "--tag", "a", "--tag", "b")
    refused = invoke("variable", "set", "v", "2")
    assert (refused.exit_code, refused.stderr) == (1, "Variable 'v' already exists. Use `--overwrite` to update it.\n")
    assert invoke("variable", "set", "v", "3", "--overwrite").exit_code == 0
    found = ask("variable", "inspect", "v")
    assert (found["name"], found["value"], found["tags"]) == ("v", 3, [])


@pytest.mark.parametrize("name", ["Bad", "a b", "x" * 256])
def test_a_bad_name(invoke, name):
    refused = invoke("variable", "set", name, "1")
    assert refused.exit_code == 2
    assert "Variable name must" in refused.stderr


def test_a_value_that_is_too_long_or_not_json(invoke):
    assert invoke("variable", "set", "v", "x" * 5000).exit_code == 2
    assert invoke("variable", "set", "v", "NaN").exit_code == 2


def test_variables_are_listed_shown_and_unset(invoke, ask):
    assert invoke("variable", "ls").output == "No variables.\n"
    Variable.set("beta", {"a": 1}, tags=["t"])
    Variable.set("alpha", 1)
    assert [one["name"] for one in ask("variable", "ls")] == ["alpha", "beta"]
    assert len(ask("variable", "ls", "--limit", "1")) == 1
    assert '{"a": 1}' in invoke("variable", "ls").output
    assert "tags" in invoke("variable", "inspect", "beta").output
    for command in ("get", "inspect", "unset", "delete"):
        missing = invoke("variable", command, "bata")
        assert missing.exit_code == 2
        assert "Did you mean 'beta'?" in missing.stderr
    assert invoke("variable", "unset", "beta").output == "Unset variable 'beta'.\n"
    assert invoke("variable", "delete", "alpha").exit_code == 0
    assert ask("variable", "ls") == []
