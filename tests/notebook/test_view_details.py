"""What a row opens into, and who answers the panel, in a real kernel."""

import ast

from prefect_nb.notebook.view_details import place_of
from prefect_nb.notebook.view_messages import COMMANDS, answer

TASKS = """
from prefect_nb import get_run_logger, task

@task
def load(n):
    get_run_logger().warning("only %s rows", n)
    return list(range(n))

@task
def divide(rows, by):
    return [row / by for row in rows]
"""


def look(kernel, name):
    """The details of a task run, as the panel gets them."""
    code = (
        "from prefect_nb.home import Home\nfrom prefect_nb.service import history\n"
        "from prefect_nb.notebook.view_messages import answer\nHome.current().ledger.commit()\n"
        f"run = next(run for run in history.task_runs() if run.name.startswith({name!r}))\n"
        "answer({'command': 'details', 'run': run.id.hex, 'seq': 3}, {})"
    )
    return ast.literal_eval(kernel.run(code).value)


def test_a_failed_run_shows_where_it_failed_and_where_its_input_came_from(kernel):
    kernel.run(TASKS)
    outcome = kernel.run("%%flow broken\nrows = load.submit(3)\ndivide(rows, 0)", fails=True)
    shown = look(kernel, "divide")
    assert {name: shown[name] for name in ("answer", "seq", "ok")} == {"answer": True, "seq": 3, "ok": True}
    error, *facts = shown["details"]
    assert error["message"] == "ZeroDivisionError: division by zero"
    assert error["line"] == "return [row / by for row in rows]"
    assert error["where"].startswith("In [")
    assert error["where"].endswith("line 10")
    assert error["traceback"].startswith("Traceback (most recent call last):")
    assert any(fact.get("name") == "Input rows" and fact["text"].startswith("load-") for fact in facts)
    assert "return [row / by for row in rows]" in outcome.html
    assert "line 10" in outcome.displays[0]["text/plain"]


def test_a_run_shows_its_log(kernel):
    kernel.run(TASKS)
    kernel.run("%%flow fine\nload(3)")
    (log,) = [part for part in look(kernel, "load")["details"] if part["kind"] == "log"]
    assert [(level, text) for _, level, text in log["lines"]] == [("WARNING", "only 3 rows")]
    assert log["left_out"] == 0


def test_a_cached_run_says_why(kernel):
    kernel.run(TASKS.replace("@task\ndef load", "@task(persist_result=True)\ndef load"))
    kernel.run("%%flow first --cache\nload(41)")
    kernel.run("%%flow second --cache\nload(41)")
    facts = {part["name"]: part["text"] for part in look(kernel, "load")["details"] if part["kind"] == "fact"}
    assert facts["Why"].startswith("cached: same as 'load-")


def test_the_usual_duration_comes_from_past_runs(kernel):
    kernel.run(TASKS)
    for _ in range(3):
        kernel.run("%%flow habit -o habit\nload(1)")
    code = (
        "from prefect_nb.notebook.view_facts import Facts\nfrom prefect_nb.notebook.view_board import Board\n"
        "from prefect_nb.home import Home\nfrom prefect_nb.service import history\nHome.current().ledger.commit()\n"
        "board, facts = Board(habit.id), Facts()\n"
        "board.put([Home.current().store.flow_run(habit.id), *history.all_task_runs(habit.id)])\n"
        "facts.look(board.picture(0))\n[0 < facts.usual_us[key] < 5_000_000 for key in sorted(facts.usual_us)]"
    )
    assert kernel.run(code).value == "[True, True]"


def test_others_can_add_to_the_details_and_do_no_harm_when_they_fail(kernel):
    kernel.run(TASKS)
    kernel.run("%%flow more\nload(3)")
    kernel.run(
        "from prefect_nb.notebook import view_details\nkept = view_details.SOURCES[:]\n"
        "view_details.SOURCES[:] = [lambda run: 1 / 0, lambda run: [{'kind': 'text', 'text': run.name}]]"
    )
    parts = look(kernel, "load")["details"]
    kernel.run("view_details.SOURCES[:] = kept")
    assert {"kind": "fact", "name": "Output", "text": "It cannot be shown: division by zero"} in parts
    assert any(part["kind"] == "text" and part["text"].startswith("load-") for part in parts)
    assert parts[-1]["kind"] == "log"


def test_messages_of_others_are_not_answered_and_broken_ones_are():
    for message in (None, [], {"a": 1}, {"command": 3}):
        assert answer(message, {}) is None
    wrong = answer({"command": "details", "run": "no id", "seq": 8}, {})
    assert (wrong["ok"], wrong["seq"], wrong["answer"]) == (False, 8, True)
    assert "did not work" in wrong["message"]


def test_a_panels_own_commands_come_first():
    assert "details" in COMMANDS
    assert answer({"command": "rows", "groups": [1], "seq": 1}, {"rows": lambda m: {"ok": True, "n": m["groups"]}}) == {
        "ok": True,
        "n": [1],
        "answer": True,
        "seq": 1,
    }


def test_the_failing_line_is_the_users_own():
    traceback = (
        "Traceback (most recent call last):\n"
        '  File "/app/pipelines/clean.py", line 12, in clean\n    frame.merge(other)\n    ^^^^^\n'
        '  File "/usr/lib/python3.11/site-packages/pandas/core/frame.py", line 999, in merge\n    raise KeyError(on)\n'
        "KeyError: 'id'\n"
    )
    assert str(place_of(traceback)) == "clean.py, line 12, in clean: frame.merge(other)"
    only_library = traceback.replace("/app/pipelines", "/usr/lib/python3.11/site-packages/x")
    assert str(place_of(only_library)) == "frame.py, line 999, in merge: raise KeyError(on)"
    assert place_of("ValueError: no frames") is None
