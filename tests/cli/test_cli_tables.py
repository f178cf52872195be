"""What the reading commands show, to people and to programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import command

from prefect_nb import flow, get_run_logger, tags, task
from prefect_nb.home import Home


@task
def double(x: int) -> int:
    get_run_logger().info("doubling %d", x)
    return 2 * x


@task(name="unlucky", retries=1)
def unlucky() -> None:
    raise ValueError("thirteen")


@flow
def good(n: int = 2) -> int:
    get_run_logger().warning("n is %d", n)
    return double(n)


@flow
def bad() -> None:
    unlucky()


@flow
def around() -> int:
    return good(7)


@pytest.fixture
def runs() -> None:
    with tags("nightly"):
        good()
    bad(return_state=True)
    Home.current().ledger.commit()


def test_nothing_has_run_yet(invoke):
    assert invoke("flow-run", "ls").stdout == "No flow runs.\n"
    assert invoke("task-run", "ls").stdout == "No task runs.\n"


def test_flow_runs_as_a_table(invoke, runs):
    header, first, second = invoke("flow-run", "ls").stdout.splitlines()

    assert header.split() == ["State", "Name", "Flow", "Started", "Took", "ID"]
    assert first.startswith("✗ Failed")
    assert " bad " in first
    assert second.startswith("✓ Completed")
    assert "just now" in second


@pytest.mark.parametrize(
    ("options", "flows"),
    [
        ([], ["bad", "good"]),
        (["--limit", "1"], ["bad"]),
        (["--state", "failed"], ["bad"]),
        (["--state", "failed", "--state", "Completed"], ["bad", "good"]),
        (["--flow", "good"], ["good"]),
        (["--tag", "nightly"], ["good"]),
        (["--tag", "nightly", "--state", "failed"], []),
    ],
)
def test_flow_runs_are_filtered(ask, runs, options, flows):
    assert [run["flow_name"] for run in ask("flow-run", "ls", *options)] == flows


def test_nothing_fits(invoke, runs):
    assert invoke("flow-run", "ls", "--tag", "weekly").stdout == "No flow run fits.\n"


def test_one_flow_run(invoke, ask, runs):
    name = ask("flow-run", "ls", "--flow", "bad")[0]["name"]

    text = invoke("flow-run", "inspect", name).stdout

    assert text.startswith(f"✗ Failed  flow bad, run {name}")
    assert "Task runs (1)" in text
    assert "✗ Failed  unlucky" in text
    assert "2 attempts" in text
    assert "ValueError: thirteen" in text
    document = ask("flow-run", "inspect", name)
    assert document["task_runs"][0]["run_count"] == 2
    assert document["child_flow_runs"] == []


def test_child_runs_are_shown(invoke, ask):
    around()
    Home.current().ledger.commit()
    found = ask("flow-run", "ls", "--flow", "around")[0]

    lines = invoke("flow-run", "inspect", found["id"]).stdout.splitlines()
    heading = lines.index("Task runs (1), child flow runs (1)")
    child, below = lines[heading + 1 :]
    assert child.startswith("  ✓ Completed  flow good, run ")
    assert below.startswith("    ✓ Completed  double-")
    document = ask("flow-run", "inspect", found["id"])
    assert [run["kind"] for run in document["task_runs"]] == ["subflow"]
    (good_run,) = document["child_flow_runs"]
    assert good_run["flow_name"] == "good"
    assert [run["task_key"].split("-")[0] for run in good_run["task_runs"]] == ["double"]
    said = [line.split(" | ")[2] for line in invoke("flow-run", "logs", found["id"]).stdout.splitlines()]
    assert said == [
        f"Flow run '{good_run['name']}' - n is 7",
        f"Task run '{good_run['task_runs'][0]['name']}' - doubling 7",
    ]


def test_attempts_and_cached_tasks_are_shown(invoke, ask):
    cached = double.with_options(cache_key_fn=lambda *_: "one", persist_result=True)

    @flow
    def inner() -> None:
        cached(1)
        cached(1)
        unlucky(return_state=True)

    @flow
    def outside() -> None:
        inner(return_state=True)

    outside()

    lines = invoke("flow-run", "inspect", ask("flow-run", "ls", "--flow", "outside")[0]["id"]).stdout.splitlines()
    assert "Task runs (3), child flow runs (1)" in lines
    assert any(line.startswith("    ✓ Cached  double-") for line in lines)
    assert any(line.startswith("    ✗ Failed  unlucky-") and "2 attempts" in line for line in lines)


def test_a_long_tree_is_cut(invoke, ask):
    @flow
    def long() -> None:
        for x in range(103):
            double(x)

    long()
    name = ask("flow-run", "ls")[0]["name"]

    lines = invoke("flow-run", "inspect", name).stdout.splitlines()
    assert lines[-1] == f"  ... and 3 more; `prefect-nb flow-run inspect {name} --output json` has them all."
    assert len(ask("flow-run", "inspect", name)["task_runs"]) == 103


def test_a_run_that_is_done_cannot_be_cancelled(invoke, ask, runs):
    id = ask("flow-run", "ls", "--flow", "good")[0]["id"]

    result = invoke("flow-run", "cancel", id)

    assert result.exit_code == 2
    assert "has ended already: it is Completed" in result.stderr
    assert result.stdout == ""


def test_task_runs(invoke, ask, runs):
    parent = ask("flow-run", "ls", "--flow", "good")[0]
    (found,) = ask("task-run", "ls", "--flow-run", parent["name"])

    assert found["flow_run_id"] == parent["id"]
    assert len(ask("task-run", "ls")) == 2
    assert [run["state"]["name"] for run in ask("task-run", "ls", "--state", "failed")] == ["Failed"]
    assert found["name"] in invoke("task-run", "ls").stdout
    text = invoke("task-run", "inspect", found["id"]).stdout
    assert text.startswith(f"✓ Completed  task {found['name']}")
    assert parent["id"] in text
    assert ask("task-run", "inspect", found["name"]) == found


def test_logs(invoke, ask, runs):
    name = ask("flow-run", "ls", "--flow", "good")[0]["name"]

    lines = invoke("flow-run", "logs", name).stdout.splitlines()

    task_name = ask("task-run", "ls", "--flow-run", name)[0]["name"]
    assert [line.split(" | ")[1:] for line in lines] == [
        ["WARNING ", "n is 2"],
        ["INFO    ", f"Task run '{task_name}' - doubling 2"],
    ]
    assert len(invoke("flow-run", "logs", name, "--level", "warning").stdout.splitlines()) == 1
    assert invoke("flow-run", "logs", name, "--follow").stdout.splitlines() == lines
    first = json.loads(invoke("flow-run", "logs", name, "--output", "json").stdout.splitlines()[0])
    assert (first["level"], first["message"]) == (30, "n is 2")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["flow-run", "inspect", "nosuch"], "There is no flow run with the id or name 'nosuch'"),
        (["task-run", "inspect", "nosuch"], "There is no task run with the id or name 'nosuch'"),
        (["flow-run", "ls", "--state", "faild"], "Did you mean 'Failed'"),
        (["flow-run", "ls", "--flow", "godo"], "Did you mean 'good'"),
        (["flow-run", "ls", "--limit", "0"], "--limit"),
        (["flow-run", "ls", "--limt", "3"], "--limit"),
        (["flow-run", "lss"], "Did you mean 'ls'"),
        (["flow-runs"], "Did you mean 'flow-run'"),
        (["frobnicate"], "The commands are: run, check, flow-run"),
        (["task-run", "ls", "--flow-run", "nosuch"], "There is no flow run"),
        (["flow-run", "resume", "nosuch"], "There is no flow run"),
        (["flow-run", "cancel", "nosuch"], "There is no flow run"),
    ],
)
def test_mistakes_are_explained(invoke, runs, args, words):
    result = invoke(*args)

    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_an_unknown_level_is_explained(invoke, ask, runs):
    name = ask("flow-run", "ls")[0]["name"]

    result = invoke("flow-run", "logs", name, "--level", "wraning")

    assert result.exit_code == 2
    assert "Did you mean 'warning'" in result.stderr


HOSTILE = "[red]x[/red] \x1b[31mANSI\x1b]0;t\x07 two\nlines \u202egnp.exe " + "w" * 100


def test_hostile_names_cannot_disturb(invoke, ask):
    @flow
    def hostile(text: str) -> None:
        get_run_logger().error(text)
        double.with_options(task_run_name=HOSTILE.replace("{", ""))(1)
        raise ValueError(text)

    run = hostile.start({"text": HOSTILE}, return_state=True, name=HOSTILE, tags=(HOSTILE,))
    assert run.is_failed()
    Home.current().ledger.commit()  # a run's log is written a moment after its end
    id = ask("flow-run", "ls")[0]["id"]
    assert ask("flow-run", "ls")[0]["name"] == HOSTILE
    outputs = [
        invoke(*args).stdout
        for args in (
            ["flow-run", "ls"],
            ["flow-run", "inspect", id],
            ["flow-run", "logs", id],
            ["task-run", "ls"],
            ["flow-run", "inspect", HOSTILE],
        )
    ]

    for text in outputs:
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
        assert "[red]x[/red]" in text
    assert len(outputs[0].splitlines()) == 2
    assert len(outputs[3].splitlines()) == 2


def test_a_terminal_without_the_glyphs_gets_question_marks(runs):
    result = subprocess.run(
        command("flow-run", "ls"),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "iso-8859-1"},
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1].startswith(b"? Failed")


def test_a_reader_that_goes_away_is_no_error(runs):
    process = subprocess.Popen(command("flow-run", "ls"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    process.wait()

    assert errors == b""


def test_settings(invoke, ask, monkeypatch: pytest.MonkeyPatch, prefect_nb_home: Path):
    monkeypatch.setenv("PREFECT_NB_RECOVERY_LIMIT", "7")

    text = invoke("config", "view").stdout

    assert [line.split() for line in text.splitlines() if line.startswith("recovery")] == [
        ["recovery_limit", "7", "PREFECT_NB_RECOVERY_LIMIT"]
    ]
    assert ask("config", "view")["home"] == {"value": str(prefect_nb_home), "source": "PREFECT_NB_HOME"}


def test_a_setting_that_does_not_fit(invoke, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_NB_RECOVERY_LIMIT", "often")

    result = invoke("config", "view")

    assert result.exit_code == 2
    assert "PREFECT_NB_RECOVERY_LIMIT='often'" in result.stderr


def test_version(invoke):
    from prefect_nb import __version__

    assert invoke("version").stdout.startswith(f"prefect_nb {__version__}\n")


@pytest.mark.parametrize("args", [["--help"], ["version"], ["run", "--help"], ["flow-run", "ls", "--help"]])
def test_help_loads_nothing_heavy(args: list[str]):
    program = (
        "import sys\nfrom prefect_nb.cli import main\n"
        f"try: main({args!r})\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'pandas', 'numpy', 'papermill', 'nbformat', 'nbclient', 'pydantic', 'rich', 'IPython', 'sqlite_utils'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert result.stdout.endswith("heavy: []\n"), result.stdout + result.stderr


def every_command():
    import click

    from prefect_nb.cli import main

    def walk(found: click.Command, path: list[str]):
        if isinstance(found, click.Group):
            for name, child in found.commands.items():
                yield from walk(child, [*path, name])
        yield path

    return list(walk(main, []))


@pytest.mark.parametrize("path", every_command(), ids=lambda path: " ".join(["prefect-nb", *path]))
def test_each_command_teaches_by_an_example(invoke, path: list[str]):
    result = invoke(*path, "--help")

    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "\\b" not in result.stdout
    examples = result.stdout.split("Example", 1)[1].partition("\n\n")[0].splitlines()[1:]
    assert examples
    shown = (
        ["gcl", *path[1:]] if path[:1] == ["global-concurrency-limit"] else path
    )  # one command, shown by its short name
    for line in examples:
        assert " ".join(["prefect-nb", *shown]) in line
        assert line.count("prefect-nb") == 1
