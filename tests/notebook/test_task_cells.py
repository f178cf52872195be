"""`%%task` in a real kernel: inputs and outputs, reuse, and what is said on its one line."""

import re

import pytest

CLEAN = "%%task clean\nprint('computing')\ntidy = [2 * v for v in raw]\ntotal = sum(tidy)"


class TestInputsAndOutputs:
    def test_it_reads_and_binds_variables_of_the_notebook(self, kernel):
        kernel.run("raw = [1, 2]")

        outcome = kernel.run(CLEAN)

        assert re.fullmatch(r"computing\n✓ clean · [\d<. ]+ m?s\n", outcome.stdout)
        assert kernel.run("tidy, total, 'v' in globals()").value == "([2, 4], 6, False)"

    def test_stated_outputs_are_all_that_is_bound(self, kernel):
        kernel.run("raw = [3]")
        kernel.run("%%task clean(raw) -> tidy\ntidy = [-v for v in raw]\nscratch = 1")

        assert kernel.run("tidy, 'scratch' in globals()").value == "([-3], False)"

    def test_imports_functions_and_classes_are_the_notebooks(self, kernel):
        kernel.run(
            "%%task\nimport math\nfrom pathlib import Path\nclass Point:\n    x = 1\ndef area(r):\n    return math.pi * r\n"
            "points = [Point()]\na = area(1)\ndef late():\n    return a\nimport json"
        )

        outcome = kernel.run("Path.__name__, isinstance(points[0], Point), a == area(1) == late(), json.dumps(1)")
        assert outcome.value == "('Path', True, True, '1')"

    def test_a_variable_that_is_read_and_assigned(self, kernel):
        kernel.run("level = 3")
        kernel.run("%%task\nlevel += 1")

        assert kernel.run("level").value == "4"

    def test_a_variable_changed_in_place_is_an_output(self, kernel):
        for _ in range(2):
            kernel.run("log = ['in place']")
            outcome = kernel.run("%%task\nlog.append('more')")

            assert kernel.run("log").value == "['in place', 'more']"
        assert "cached" in outcome.stdout

    def test_magics_work_but_are_not_reused(self, kernel):
        for _ in range(2):
            outcome = kernel.run("%%task shell\nlines = !echo hello")

            assert "cached (" not in outcome.stdout
            assert "is not cached" in outcome.stderr
        assert kernel.run("lines[0]").value == "'hello'"

    def test_a_body_that_awaits(self, kernel):
        for _ in range(2):
            outcome = kernel.run("%%task waits\nimport asyncio\nawait asyncio.sleep(0)\nwaited = 5\nwaited")

            assert outcome.displays[0]["text/plain"] == "5"
        assert "✓ waits · cached" in outcome.stdout

    @pytest.mark.parametrize(
        ("cell", "words"),
        [
            ("%%task clean\ntidy = rwa + 1", "%%task clean needs `rwa`, which is not defined. Did you mean 'raw'?"),
            (
                "%%task\ntidy = aa + bb",
                "needs `aa` and `bb`, which are not defined. Run the cell that makes them first.",
            ),
            ("%%task clean(rwa)\ntidy = 1", "needs `rwa`"),
            ("%%task clean(x)\nraw = raw + x", "the cell reads `raw` before it assigns it; name it among the inputs"),
            ("%%task clean -> tidi\ntidy = 1", "the cell does not assign `tidi`. Did you mean 'tidy'?"),
            ("%%task clean(raw data)\ntidy = 1", "'raw data' is no name of a variable"),
            ("%%task clean --no-cach\ntidy = 1", "unknown option --no-cach; did you mean --no-cache?"),
            ("%%task clean\n\n", "there is nothing to run"),
        ],
    )
    def test_usage_errors(self, kernel, cell, words):
        kernel.run("raw = [1]\nx = 1")

        assert words in kernel.run(cell, fails=True).stderr


class TestReuse:
    def test_outputs_come_back(self, kernel, other_kernel):
        for process in (kernel, other_kernel):
            process.run("raw = [10, 20]")
            outcome = process.run(CLEAN)
            assert process.run("tidy, total").value == "([20, 40], 60)"

        mark, printed, last = outcome.stdout.splitlines()
        assert "cached output of clean" in mark
        assert printed == "computing"
        assert last == "✓ clean · cached (same code, same inputs, just now)"

    @pytest.mark.parametrize(
        ("what", "cell", "hit"),
        [
            ("an input", "raw = [1, 2.0]", False),
            ("the code", "%%task clean\ntidy = [double(v + v) for v in raw]", False),
            ("a helper", "def double(v): return v * 2", False),
            ("a comment", "# note\n%%task clean\n\n# why\ntidy  = [double(2 * v) for v in raw]", True),
            ("the name", "%%task renamed\ntidy = [double(2 * v) for v in raw]", True),
            ("options", "%%task clean(raw) -> tidy -r 3\ntidy = [double(2 * v) for v in raw]", True),
            ("something else", "unrelated = 3", True),
            ("the output", "tidy = 'old'", True),
        ],
    )
    def test_what_changes_and_what_does_not(self, kernel, what, cell, hit):
        kernel.run(f"raw = [1, 2]\ndef double(v): return 2 * v, {what!r}")
        original = "%%task clean\ntidy = [double(2 * v) for v in raw]"
        kernel.run(original)
        changed = cell.replace("v * 2", f"v * 2, {what!r}")

        last = kernel.run(changed) if "%%task" in changed else (kernel.run(changed), kernel.run(original))[1]

        assert ("cached (" in last.stdout) is hit

    def test_no_cache(self, kernel):
        outcomes = [kernel.run("%%task plain --no-cache\nfree = 1") for _ in range(2)]

        assert all("cached" not in outcome.stdout for outcome in outcomes)

    def test_what_cannot_be_hashed_is_run_again_with_a_warning(self, kernel):
        kernel.run("import threading\nlock = threading.Lock()")
        for _ in range(2):
            outcome = kernel.run("%%task locked\nheld = lock.locked()")

            assert outcome.stdout.startswith("✓ locked · ")
            assert "cached (" not in outcome.stdout
            assert "is not cached" in outcome.stderr
            assert "input lock" in outcome.stderr

    def test_what_cannot_be_kept_is_said(self, kernel):
        outcome = kernel.run("%%task opened\nimport threading\nkey = threading.Lock()")

        assert "not persisted" in outcome.stdout
        assert kernel.run("key.locked()").value == "False"


class TestShown:
    def test_the_last_value_also_on_a_hit(self, kernel):
        cell = "%%task shown\nfigures = {'shown': 1}\nfigures"

        first, second = kernel.run(cell), kernel.run(cell)

        assert first.displays == second.displays == [{"text/plain": "{'shown': 1}"}]

    def test_not_after_a_semicolon(self, kernel):
        assert kernel.run("%%task quiet\nq = 1\nq;").displays == []

    def test_attempts(self, kernel):
        kernel.run("tries = []")

        outcome = kernel.run("%%task flaky -r 2 --no-cache\ntries.append(1)\nassert len(tries) == 2")

        assert re.search(r"^✓ flaky · 2 attempts · ", outcome.stdout, re.MULTILINE)

    def test_an_error_in_its_line(self, kernel):
        outcome = kernel.run("%%task broken\nx = 1\n\nx / 0", fails=True)

        assert re.fullmatch(r"✗ broken · .*\n", outcome.stdout)
        assert "----> 4 x / 0" in outcome.traceback
        assert "prefect_nb/" not in outcome.traceback
        assert kernel.run("'x' in globals()").value == "False"

    def test_a_timeout(self, kernel):
        outcome = kernel.run("%%task slow --timeout 50ms\nimport threading\nthreading.Event().wait(60)", fails=True)

        assert outcome.ename == "TaskRunTimeoutError"
        assert outcome.stdout.startswith("✗ slow · TimedOut")

    def test_an_interrupt(self, kernel):
        kernel.run("import threading")
        request = kernel.start("%%task stuck --no-cache\nprint('begun')\nthreading.Event().wait(60)")
        begun = kernel.end_of(request, until="begun")

        kernel.interrupt()

        assert kernel.end_of(request, so_far=begun).traceback.strip() == "⊘ stuck · interrupted"

    def test_inside_a_notebook_of_flows(self, kernel):
        kernel.run("%%task first\na1 = 5")

        assert kernel.run("%%flow\nb1 = a1 + 1\nb1").value == "6"

    @pytest.mark.parametrize("cell", ["%%task -h", "%%task(raw) -h", "%%task clean(raw) -> tidy -h\n1 / 0"])
    def test_help(self, kernel, cell):
        assert kernel.run(cell).stdout.startswith("usage: %%task [name[(inputs)] [-> outputs]] [options]\n")
