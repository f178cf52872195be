"""`%%flow` in a real kernel: what runs, what is left in the notebook, what is shown, and how it ends."""

import re
import time

import pytest

TASKS = """
from prefect_nb import allow_failure, flow, get_run_logger, task

@task
def inc(x):
    return x + 1

@task
def fail(x):
    raise ValueError(f"no {x}")
"""


@pytest.fixture
def notebook(kernel):
    kernel.run(TASKS)
    return kernel


class TestNames:
    def test_futures_are_values_afterwards(self, notebook):
        notebook.run(
            "%%flow\none = inc.submit(1)\nmany = inc.map([1, 2])\npair = (inc.submit(4), 'x')\n"
            "deep = {'a': [inc.submit(5)]}\nstate = inc(8, return_state=True)\nplain = object"
        )

        outcome = notebook.run("one, many, type(many), pair, deep, state, plain is object")

        assert re.sub(r"\s", "", outcome.value) == "(2,[2,3],list,(5,'x'),{'a':[6]},9,True)"

    def test_so_are_those_that_completed_when_the_cell_fails(self, notebook):
        notebook.run("%%flow\ngood = inc.submit(1)\nbad = fail.submit(2)\nboth = [good, bad]\n1 / 0", fails=True)

        assert notebook.run("good, bad.state.name, both[0], both[1] is bad").value == "(2, 'Failed', 2, True)"

    def test_untouched_containers_stay_the_same_objects(self, notebook):
        notebook.run("rows = [1, 2]")
        notebook.run("%%flow\nsame = rows\nhere = inc.submit(1)")

        assert notebook.run("same is rows").value == "True"

    def test_a_name_whose_task_failed_fails_the_cell(self, notebook):
        outcome = notebook.run("%%flow\nresults = inc.map([1]) + [fail.submit(2)]", fails=True)

        assert outcome.ename == "ValueError"
        assert "This is what became of `results, number 1`; its task run is Failed." in outcome.traceback
        assert "✗ Failed  flow 'cell-flow'" in outcome.displays[0]["text/plain"]

    def test_unless_its_failure_is_allowed(self, notebook):
        notebook.run("%%flow -o run\nrisky = allow_failure(fail.submit(2))\nok = inc.submit(1)")

        assert notebook.run("run.state.name").value == "'Completed'"

    def test_a_cell_that_ends_with_futures_is_judged_by_them_alone(self, notebook):
        outcome = notebook.run("%%flow\nbad = fail.submit(2)\ninc.submit(1)")

        assert outcome.value == "2"

    def test_parameters_are_variables(self, notebook):
        notebook.run("frame = [1, 2]")

        outcome = notebook.run("%%flow -p n=3 -p rows=@frame -p msg='{a} $b' -o run\n(n, rows is frame, msg)")

        assert outcome.value == "(3, True, '{a} $b')"
        assert notebook.run("run._execution.run.parameters").value == "{'n': 3, 'rows': [1, 2], 'msg': '{a} $b'}"


class TestValue:
    @pytest.mark.parametrize(
        ("last", "shown"),
        [
            ("1 + 1", "2"),
            ("inc.submit(1)", "2"),
            ("[inc.submit(1), 7]", "[2, 7]"),
            ("inc.map([1, 2])", "[2, 3]"),
            ("inc(1);", None),
            ("inc(1)  # shown", "2"),
            ("x = 1", None),
            ("None", None),
        ],
    )
    def test_the_last_expression_is_shown(self, notebook, last, shown):
        assert notebook.run(f"%%flow\n{last}").value == shown

    def test_it_is_the_result_of_the_run(self, notebook):
        notebook.run("%%flow nightly -o run\ninc.submit(1)")

        outcome = notebook.run("run.flow_name, run.state.name, run.result(), str(run.id)[8], run.name[0].isalpha()")

        assert outcome.value == "('nightly', 'Completed', 2, '-', True)"

    def test_the_run_object_shows_its_picture(self, notebook):
        notebook.run("%%flow nightly -o run\nx = inc.submit(1)")

        assert "inc-" in notebook.run("from IPython.display import display\ndisplay(run)").html

    def test_the_run_object_is_there_when_the_cell_fails(self, notebook):
        notebook.run("%%flow -o run\n1 / 0", fails=True)

        assert notebook.run("run.state.name, run.result(raise_on_failure=False)").value == (
            "('Failed', ZeroDivisionError('division by zero'))"
        )


class TestBody:
    def test_magics_and_shell_commands(self, notebook):
        outcome = notebook.run("%%flow\nhere = %pwd\nlines = !echo hello\n!echo shown\n(type(here), lines[0])")

        assert (outcome.value, outcome.stdout) == ("(str, 'hello')", "shown\r\n")

    def test_functions_have_their_source(self, notebook):
        notebook.run("%%flow\n\nimport inspect\n\ndef double(x):\n    # twice\n    return 2 * x\n")

        assert notebook.run("print(inspect.getsource(double))").stdout == (
            "def double(x):\n    # twice\n    return 2 * x\n\n"
        )

    def test_it_runs_on_the_main_thread(self, notebook):
        outcome = notebook.run("%%flow\nimport threading\nthreading.current_thread() is threading.main_thread()")

        assert outcome.value == "True"

    def test_await(self, notebook):
        notebook.run("@task\nasync def later(x):\n    return x * 2")

        outcome = notebook.run(
            "%%flow -o run\nimport asyncio\nawait asyncio.sleep(0)\na = await later(1)\nb = later.submit(a)\n"
            "async with asyncio.timeout(10):\n    c = 3\nawait later(4)"
        )

        assert outcome.value == "8"
        assert notebook.run("a, b, c, run.state.name").value == "(2, 4, 3, 'Completed')"

    def test_a_comment_above_the_magic(self, notebook):
        outcome = notebook.run("# what this is\n\n%%flow\nx = 1\n1 / 0", fails=True)

        assert "----> 5 1 / 0" in outcome.traceback

    def test_prints_of_tasks_are_in_the_cell_that_started_them(self, notebook):
        # With the line's end in one piece: prints of several threads mix within a line.
        notebook.run("@task\ndef say(x):\n    print(f'said {x}\\n', end='')")

        first = notebook.run("%%flow\nsaid = say.map([1, 2])")
        second = notebook.run("%%flow\nsaid = say.map([3])")

        assert sorted(first.stdout.split("\n")) == ["", "said 1", "said 2"]
        assert second.stdout == "said 3\n"

    def test_a_print_after_the_last_line_is_still_the_cells(self, notebook):
        notebook.run(
            "import threading\ngate = threading.Event()\n@task\ndef wait():\n    gate.wait(30)\n    print('late')"
        )

        outcome = notebook.run("%%flow\nheld = wait.submit()\nprint('first')\ngate.set()")

        assert outcome.stdout == "first\nlate\n"

    def test_log_prints(self, notebook):
        notebook.run("%%flow --log-prints -o run\nprint('hello log')")

        shown = notebook.run("from IPython.display import display\ndisplay(run)").html
        assert "hello log" in shown


class TestOptions:
    def test_retries_run_the_whole_cell_again(self, notebook):
        notebook.run("tries = 0")
        notebook.run("%%flow -r 2 -o run\ntries += 1\nassert tries == 3, tries\ntries")

        assert notebook.run("tries, run._execution.run.run_count").value == "(3, 3)"

    def test_timeout(self, notebook):
        outcome = notebook.run("%%flow --timeout 50ms -o run\nimport threading\nthreading.Event().wait(60)", fails=True)

        assert outcome.ename == "FlowRunTimeoutError"
        assert notebook.run("run.state.name").value == "'TimedOut'"

    def test_tags_are_given_to_the_tasks_too(self, notebook):
        notebook.run("%%flow --tag blue --tag 'two words' -o run\ninc(1, return_state=True)")

        assert notebook.run("run._execution.run.tags").value == "('blue', 'two words')"

    def test_processes(self, notebook):
        notebook.run("import os\n@task\ndef pid():\n    return os.getpid()")
        notebook.run("%%flow --runner processes --max-workers 1\nelsewhere = pid.submit()\nhere = pid()")

        assert notebook.run("elsewhere != here == os.getpid()").value == "True"

    def test_cache_reuses_results_of_earlier_runs(self, notebook):
        notebook.run("%%flow --cache\nx = inc(41)")

        notebook.run("%%flow --cache\nx = inc(41)\nname = inc.submit(41).state.name")

        assert notebook.run("x, name").value == "(42, 'Cached')"

    def test_without_it_nothing_is_reused(self, notebook):
        outcomes = [notebook.run("%%flow\nx = inc(43)") for _ in range(2)]

        assert all("Cached" not in outcome.displays[0]["text/plain"] for outcome in outcomes)

    def test_help(self, notebook):
        for cell in ("%%flow -h", "%%flow -h\n", "%%flow nightly --help\n1 / 0"):
            assert notebook.run(cell).stdout.startswith("usage: %%flow [name] [options]\n")

    @pytest.mark.parametrize(
        ("cell", "words"),
        [
            ("%%flow --retires 3\nx = 1", "unknown option --retires; did you mean --retries?"),
            ("%%flow", "the cell body is empty"),
            ("%%flow\n\n", "nothing to run"),
            ("%%flow\n# only this", "nothing to run"),
            ("%%flow -p x=@nothing_there\n1", "there is no variable 'nothing_there'"),
        ],
    )
    def test_usage_errors_fail_the_cell(self, notebook, cell, words):
        outcome = notebook.run(cell, fails=True)

        assert outcome.stderr.startswith("UsageError: %%flow" if "@" not in cell else "UsageError: -p")
        assert words in outcome.stderr
        assert outcome.displays == []


class TestErrors:
    def test_the_users_frames_and_no_others(self, notebook):
        outcome = notebook.run("%%flow\n\ndef outer():\n    return fail(1)\n\nouter()", fails=True)

        assert (outcome.ename, outcome.evalue) == ("ValueError", "no 1")
        assert "----> 6 outer()" in outcome.traceback
        assert "----> 4     return fail(1)" in outcome.traceback
        assert '----> 9     raise ValueError(f"no {x}")' in outcome.traceback
        assert "prefect_nb/" not in outcome.traceback
        assert "run_cell_magic" not in outcome.traceback
        assert outcome.traceback.count("ValueError: no 1") == 1

    def test_of_a_body_that_awaits(self, notebook):
        outcome = notebook.run("%%flow\nimport asyncio\nawait asyncio.sleep(0)\n1 / 0", fails=True)

        assert "----> 4 1 / 0" in outcome.traceback
        assert "prefect_nb/" not in outcome.traceback

    def test_a_cause_is_shown_without_machinery_too(self, notebook):
        outcome = notebook.run(
            "%%flow\ntry:\n    fail(1)\nexcept ValueError as e:\n    raise KeyError('b') from e", fails=True
        )

        assert "ValueError: no 1" in outcome.traceback
        assert "KeyError: 'b'" in outcome.traceback
        assert "prefect_nb/" not in outcome.traceback

    def test_a_syntax_error_is_shown_in_its_line(self, notebook):
        outcome = notebook.run("%%flow\nx = 1\ny = = 2", fails=True)

        assert re.search(r"Cell In\[\d+\], line 3\n +y = = 2", outcome.traceback)
        assert outcome.displays == []

    def test_debug_begins_where_it_failed(self, notebook):
        notebook.run("%%flow\ndef broken():\n    depth = 7\n    return 1 / 0\nbroken()", fails=True)

        # The debugger asks for input, which a test cannot give: look at where it would begin.
        outcome = notebook.run(
            "tb = get_ipython().InteractiveTB.tb\nwhile tb.tb_next: tb = tb.tb_next\ntb.tb_frame.f_locals['depth']"
        )
        assert outcome.value == "7"

    def test_an_error_keeps_what_it_is(self, notebook):
        notebook.run("%%flow -o run\nfail(1)", fails=True)

        assert (
            notebook.run(
                "import pickle\nerror = run.result(raise_on_failure=False)\npickle.loads(pickle.dumps(error)).args, vars(error)"
            ).value
            == "(('no 1',), {})"
        )

    def test_the_next_cell_runs(self, notebook):
        notebook.run("%%flow\nfail(1)", fails=True)

        assert notebook.run("%%flow\ninc(1)").value == "2"


class TestInterrupt:
    @pytest.mark.parametrize(
        "body",
        [
            "print('begun')\nthreading.Event().wait(60)",
            "held = wait.submit()\nprint('begun')",
            "print('begun')\nawait asyncio.sleep(60)",
            "held = later.submit()\nprint('begun')\nawait asyncio.sleep(0)",
        ],
        ids=["body", "waiting for a task", "awaiting body", "awaiting a task"],
    )
    def test_the_flow_is_cancelled_and_the_cell_says_so_on_one_line(self, notebook, body):
        notebook.run(
            "import asyncio, threading, time\n@task\ndef wait():\n    for _ in range(6000):\n        time.sleep(0.01)\n"
            "@task\nasync def later():\n    await asyncio.sleep(60)"
        )
        request = notebook.start(f"%%flow -o run\n{body}")
        begun = notebook.end_of(request, until="begun")

        notebook.interrupt()
        outcome = notebook.end_of(request, so_far=begun)

        assert outcome.status == "error"
        assert re.fullmatch(
            r"⊘ Flow run '[\w-]+' is Cancelled: Interrupted from the keyboard\.", outcome.traceback.strip()
        )
        assert notebook.run("run.state.name").value == "'Cancelled'"
        assert notebook.run("%%flow\nprint('alive')").stdout == "alive\n"

    @pytest.mark.parametrize(
        "body",
        [
            "held = [stuck.submit() for _ in range(3)]\nprint('begun')",
            "held = [stuck.submit() for _ in range(3)]\nprint('begun')\nawait asyncio.sleep(0)",
            "await asyncio.sleep(0)\nprint('begun')\ntime.sleep(60)",
        ],
        ids=["waiting for tasks", "awaiting tasks", "an awaiting body that does not await"],
    )
    def test_the_second_interrupt_does_not_wait_for_what_cannot_be_stopped(self, notebook, body):
        notebook.run("import asyncio, time\n@task\ndef stuck():\n    time.sleep(60)")
        request = notebook.start(f"%%flow -o run\n{body}")
        begun = notebook.end_of(request, until="begun")

        notebook.interrupt()
        started = time.monotonic()
        # Signals that come at once are one signal.
        time.sleep(0.5)
        notebook.interrupt()
        outcome = notebook.end_of(request, so_far=begun)

        assert time.monotonic() - started < 4, "the grace of five seconds was waited for"
        assert outcome.status == "error"
        assert "is Cancelled: Interrupted from the keyboard." in outcome.traceback
        states = "{run.state_name for run in Home.current().store.task_runs(RunQuery(flow_run_id=run.id))}"
        found = notebook.run(
            f"from prefect_nb.home import Home\nfrom prefect_nb.interfaces import RunQuery\n{states} <= {{'Cancelled'}}"
        )
        assert found.value == "True"
        assert notebook.run("%%flow\nprint('alive')").stdout == "alive\n"

    def test_a_cancel_from_another_process(self, notebook, other_kernel):
        request = notebook.start(
            "%%flow waits-to-be-cancelled\nimport threading\nprint('begun')\nthreading.Event().wait(60)"
        )
        begun = notebook.end_of(request, until="begun")

        other_kernel.run(
            "from prefect_nb.home import Home\nfrom prefect_nb.execution.clock import now_us\n"
            "from prefect_nb.interfaces import RunQuery\nstore = Home.current().store\n"
            "(run,) = store.flow_runs(RunQuery(flow_name='waits-to-be-cancelled', limit=1))\n"
            "store.add_request(run.id, 'cancel', now_us(), {'reason': 'No longer wanted.'})"
        )
        outcome = notebook.end_of(request, so_far=begun)

        assert re.fullmatch(r"⊘ Flow run '[\w-]+' is Cancelled: No longer wanted\.", outcome.traceback.strip())
        assert notebook.run("%%flow\nprint('alive')").stdout == "alive\n"


class TestView:
    def test_any_flow_run_started_in_a_cell_has_it(self, notebook):
        outcome = notebook.run("@flow\ndef pipeline():\n    return sum(inc.map([1, 2]).result())\npipeline()")

        assert outcome.value == "5"
        assert len(outcome.displays) == 1
        assert "✓ Completed  flow 'pipeline'" in outcome.displays[0]["text/plain"]

    def test_one_output_also_with_sub_flows(self, notebook):
        notebook.run("@flow\ndef inner():\n    return inc(1)")

        outcome = notebook.run("%%flow outer\nx = inner()")

        assert len(outcome.displays) == 1
        assert "inc-" in outcome.displays[0]["text/plain"]

    def test_in_the_kernel_of_a_notebook_run(self, notebook):
        notebook.run("%%flow whole-notebook -o run\nx = 1")
        notebook.run("from prefect_nb.execution import attachment\nattachment.attach(attachment.Attachment(run.id, 1))")

        outcome = notebook.run("%%flow -o child\nx = inc(1)\nx")
        task = notebook.run("%%task\ny = x")
        notebook.run("attachment.attach(None)")

        assert outcome.value == "2"
        assert "✓ Completed  flow 'cell-flow'" in outcome.displays[0]["text/plain"]
        assert task.stdout.startswith("✓ cell-task")
        assert notebook.run("child._execution.run.parent_flow_run_id == run.id").value == "True"

    def test_the_ledger_is_left_without_observers(self, notebook):
        notebook.run("%%flow\nx = 1")
        notebook.run("%%flow\n1 / 0", fails=True)

        shown = "[one for one in Home.current().ledger.observers if 'notebook' in type(one).__module__]"
        assert notebook.run(f"from prefect_nb.home import Home\n{shown}").value == "[]"

    def test_loading_again_changes_nothing(self, notebook):
        notebook.run("%load_ext prefect_nb")
        notebook.run("%reload_ext prefect_nb")
        notebook.run(
            "import importlib, prefect_nb.notebook.magics as m\nimportlib.reload(m)\nm.register(get_ipython())"
        )

        outcome = notebook.run("%%flow\nimport asyncio\nawait asyncio.sleep(0)\nx = inc(1)")

        assert len(outcome.displays) == 1


class TestRuns:
    def test_a_table_newest_first(self, notebook):
        notebook.run("%%flow table-a\nx = 1")
        notebook.run("%%flow table-b\n1 / 0", fails=True)

        rows = notebook.run("%runs -n 2").displays[0]["text/plain"].split("\n")

        assert rows[0].split() == ["State", "Flow", "Run", "Started", "Took", "Id"]
        assert [row.split()[:3] for row in rows[1:]] == [["✗", "Failed", "table-b"], ["✓", "Completed", "table-a"]]

    def test_by_state_and_by_flow(self, notebook):
        notebook.run("%%flow only-this\nx = 1")
        notebook.run("%%flow only-this\n1 / 0", fails=True)

        assert notebook.run("%runs --flow only-this --state failed").displays[0]["text/plain"].count("only-this") == 1
        assert notebook.run("%runs --flow only-this").displays[0]["text/html"].count("only-this") == 2

    def test_one_run(self, notebook):
        notebook.run("%%flow pictured -o run\nx = inc(1)")

        html = notebook.run("%runs {run.id}".replace("{run.id}", notebook.run("print(run.id)").stdout.strip())).html

        assert "pictured" in html
        assert "inc-" in html

    def test_errors_are_short(self, notebook):
        notebook.run("%%flow known-flow\nx = 1")

        assert "There is no flow run" in notebook.run("%runs nothing-like-it", fails=True).stderr
        assert "Did you mean 'known-flow'?" in notebook.run("%runs --flow knwon-flow", fails=True).stderr

    def test_flows(self, notebook):
        notebook.run("%%flow listed-once\nx = 1")
        notebook.run("%%flow listed-once\nx = 2")

        assert notebook.run("%flow").displays[0]["text/plain"].count("listed-once") == 1

    @pytest.mark.parametrize("magic", ["%runs", "%flow"])
    def test_help(self, notebook, magic):
        assert notebook.run(f"{magic} -h").stdout.startswith(f"usage: {magic} [")


def test_where_another_extension_has_the_name(kernel):
    kernel.run(
        "def theirs(line): print('theirs', line)\n"
        "shell = get_ipython()\nours = shell.magics_manager.magics['line']['flow']\n"
        "shell.register_magic_function(theirs, 'line', 'flow')\n"
        "from prefect_nb.notebook.magics import register\nregister(shell)"
    )
    try:
        assert kernel.run("%flow mode reactive").stdout == "theirs mode reactive\n"
        assert kernel.run("%prefect -h").stdout.startswith("usage: %prefect")
        assert kernel.run("%%flow\n1").value == "1"
    finally:
        kernel.run(
            "shell.register_magic_function(ours, 'line', 'flow')\ndel shell.magics_manager.magics['line']['prefect']"
        )
