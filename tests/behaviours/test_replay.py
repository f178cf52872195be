"""What a cached task's body shows is kept beside its result and shown again, marked, on a hit."""

# ruff: noqa: T201  # what is printed is the subject

import logging
import sys
import threading

import pytest

from prefect_nb import flow, get_run_logger, task
from prefect_nb.cache_policies import INPUTS, TASK_SOURCE
from prefect_nb.execution import replay
from prefect_nb.home import Home
from prefect_nb.task_runners import ProcessPoolTaskRunner

CACHED = {"cache_policy": INPUTS + TASK_SOURCE}


@task(**CACHED)
def speak(x):
    print("out", x)
    print("err", x, file=sys.stderr)
    sys.stdout.write("written\n")
    return x


def test_prints_are_shown_live_and_again_on_a_hit(capsys):
    speak(1)
    live = capsys.readouterr()
    assert (live.out, live.err) == ("out 1\nwritten\n", "err 1\n")

    speak(1)
    again = capsys.readouterr()
    mark, *rest = again.out.splitlines()
    assert mark.startswith("cached output of speak (")
    assert rest == ["out 1", "written"]
    assert again.err == "err 1\n"


def test_the_order_of_both_streams_is_kept(capsys):
    @task(**CACHED)
    def t():
        print("a")
        print("b", file=sys.stderr)
        print("c")

    t()
    Home.current().ledger.commit()
    (run,) = Home.current().store.resolve_run("t")
    shown = Home.current().results.get(run.result.outputs)

    assert [item[:2] for item in shown["items"]] == [["stdout", "a\n"], ["stderr", "b\n"], ["stdout", "c\n"]]


def test_submitted_tasks_on_threads_do_not_mix(capsys):
    barrier = threading.Barrier(4)

    @task(cache_key_fn=lambda _, given: f"talk {given['x']}", persist_result=True)
    def talk(x):
        for _ in range(5):
            barrier.wait(20)
            print("talk", x)
        return x

    @flow
    def work():
        return talk.map(range(4)).result()

    work()
    capsys.readouterr()
    for x in range(4):
        talk(x)
        _, *rest = capsys.readouterr().out.splitlines()
        assert rest == [f"talk {x}"] * 5


def test_async_tasks_that_take_turns_do_not_mix(capsys):
    import asyncio

    @task(**CACHED)
    async def talk(x):
        for _ in range(3):
            print("talk", x)
            await asyncio.sleep(0)
        return x

    @flow
    async def work():
        return await asyncio.gather(talk(1), talk(2))

    asyncio.run(work())
    capsys.readouterr()
    asyncio.run(talk(2))

    assert capsys.readouterr().out.splitlines()[1:] == ["talk 2"] * 3


def test_log_lines_on_the_console_are_part_of_it_and_the_log_names_their_run(capsys, history):
    @task(log_prints=True, **CACHED)
    def t():
        print("as a log line")
        get_run_logger().warning("careful")

    @flow
    def work():
        t()

    work()
    capsys.readouterr()
    work()

    first, second = history.task_runs()
    err = capsys.readouterr().err
    assert f"Task run '{first.name}' - as a log line" in err
    assert "careful" in err
    (line,) = history.logs(task_run_id=second.id)
    assert line.message.startswith(f"The output of task run '{first.name}' ({first.id})")


def test_a_task_inside_another_is_part_of_what_that_shows(capsys):
    @task
    def inner():
        print("inner")

    @task(cache_key_fn=lambda *_: "outer", persist_result=True)
    def outer():
        print("before")
        inner()
        print("after")

    outer()
    capsys.readouterr()
    outer()

    assert capsys.readouterr().out.splitlines()[1:] == ["before", "inner", "after"]


def test_a_hit_inside_a_cached_task_is_shown_once_again(capsys):
    @task(cache_key_fn=lambda *_: "outer", persist_result=True)
    def outer():
        speak(7)

    speak(7)
    outer()
    capsys.readouterr()
    outer()

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "cached output of outer",
        "cached output of speak",
        "out 7",
        "written",
    ]


def test_only_the_attempt_that_succeeded_counts(capsys):
    attempts = []

    @task(retries=1, cache_key_fn=lambda *_: "key", persist_result=True)
    def t():
        attempts.append(1)
        print("attempt", len(attempts))
        if len(attempts) == 1:
            raise ValueError

    t()
    capsys.readouterr()
    t()

    assert capsys.readouterr().out.splitlines()[1:] == ["attempt 2"]


def test_more_than_a_mebibyte_is_cut_off_and_said(capsys):
    @task(**CACHED)
    def t():
        print("x" * 1000)
        print("y" * replay.LIMIT_BYTES)
        print("never")

    t()
    capsys.readouterr()
    t()

    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["x" * 1000, "cached output of t was cut off after 1 MiB"]


def test_processes_send_back_what_their_bodies_show(capfd):
    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def work():
        return speak.submit(3).result()

    work()
    capfd.readouterr()
    work()

    again = capfd.readouterr()
    assert again.out.splitlines()[1:] == ["out 3", "written"]
    assert again.err.splitlines()[-1] == "err 3"


def test_a_silent_task_shows_nothing_and_keeps_nothing(capsys, history):
    @task(**CACHED)
    def t():
        return 1

    t()
    t()

    assert capsys.readouterr().out == ""
    assert [run.result.outputs for run in history.task_runs()] == [None, None]


def test_it_can_be_switched_off(capsys, monkeypatch):
    speak(1)
    capsys.readouterr()
    monkeypatch.setenv("PREFECT_NB_TASKS_REPLAY_OUTPUT", "false")
    speak(1)
    assert capsys.readouterr().out == ""

    speak(2)
    monkeypatch.setenv("PREFECT_NB_TASKS_REPLAY_OUTPUT", "true")
    capsys.readouterr()
    speak(2)
    assert capsys.readouterr().out == ""


def test_tasks_that_are_not_cached_are_not_listened_to(history):
    seen = []

    @task
    def t():
        seen.append(sys.stdout)

    @task(cache_key_fn=lambda *_: "key", persist_result=True)
    def u():
        seen.append(sys.stdout)

    before = sys.stdout
    t()
    u()

    assert seen[0] is before
    assert seen[1] is not before
    assert sys.stdout is before


def test_output_that_is_gone_does_not_spoil_the_hit(capsys, history, caplog):
    speak(1)
    reference = history.task_runs()[0].result.outputs
    (Home.current().path / "results" / reference.sha256[:2] / reference.sha256).write_bytes(b"nothing")
    capsys.readouterr()

    with caplog.at_level(logging.CRITICAL):
        assert speak(1) == 1

    assert history.task_runs()[-1].state_name == "Cached"
    assert capsys.readouterr().out == ""


def test_what_somebody_redirects_inside_is_theirs(capsys):
    import contextlib
    import io

    @task(**CACHED)
    def t():
        buffer = io.StringIO()
        with contextlib.redirect_stdout(buffer):
            print("hidden")
        print("shown")
        return buffer.getvalue()

    assert t() == "hidden\n"
    capsys.readouterr()
    assert t() == "hidden\n"

    assert capsys.readouterr().out.splitlines()[1:] == ["shown"]


def test_bundles_without_a_front_end_are_shown_as_text(capsys):
    replay._show(("display", {"text/html": "<b>bold</b>", "text/plain": "bold"}, {}))

    assert capsys.readouterr().out == "bold\n"


@pytest.mark.parametrize("text", ["plain", "größer", "\ud800 lone"])
def test_any_text_can_be_kept(text):
    outputs = replay.Outputs("t")
    outputs.text("stdout", text)
    outputs.close()
    results = Home.current().results
    reference = replay.keep(outputs, results.put(1), results)

    assert results.get(reference.outputs)["items"] == [["stdout", text]]
