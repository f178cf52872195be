"""What runs in a transaction is committed together, or rolled back together."""

# What goes wrong in these tests goes wrong at the end of a block.
# ruff: noqa: PT012, TRY301

import asyncio
import logging
import threading

import pytest

from prefect_nb import flow, task
from prefect_nb.cache_policies import INPUTS
from prefect_nb.exceptions import ConfigurationError
from prefect_nb.home import close_all
from prefect_nb.states import Failed
from prefect_nb.task_runners import ProcessPoolTaskRunner
from prefect_nb.transactions import (
    AsyncTransaction,
    CommitMode,
    IsolationLevel,
    Transaction,
    TransactionState,
    atransaction,
    get_transaction,
    transaction,
)


class Broken(Exception):
    """What goes wrong in these tests."""


@pytest.fixture
def heard():
    return []


@pytest.fixture
def noted(heard):
    """Makes tasks whose body and hooks say their names."""

    def make(name, fails=False, **options):
        @task(name=name, **options)
        def noted_task(x=1):
            heard.append(name)
            if fails:
                raise Broken(name)
            return x

        @noted_task.on_rollback
        def rolled_back(_transaction):
            heard.append(f"-{name}")

        @noted_task.on_commit
        def committed(_transaction):
            heard.append(f"+{name}")

        return noted_task

    return make


def names_of(history, name):
    return [history.states(run.id) for run in history.task_runs() if run.name.startswith(name)]


class TestTasks:
    def test_an_error_calls_rollback_hooks_in_reverse_order_and_no_commit_hooks(self, noted, heard):
        a, b = noted("a"), noted("b")

        @flow
        def f():
            with transaction():
                a()
                b()
                raise Broken

        assert f(return_state=True).is_failed()
        assert heard == ["a", "b", "-b", "-a"]

    def test_the_failing_task_is_not_rolled_back_itself(self, noted, heard):
        a, b = noted("a"), noted("b", fails=True)

        @flow
        def f():
            with transaction():
                a()
                b()

        f(return_state=True)
        assert heard == ["a", "b", "-a"]

    def test_a_rolled_back_run_ends_as_rolled_back(self, noted, history):
        a = noted("a")

        @flow
        def f():
            with pytest.raises(Broken), transaction() as around:
                a()
                raise Broken
            return around.state.value

        assert f() == "ROLLED_BACK"
        assert names_of(history, "a") == [["Pending", "Running", "Completed", "RolledBack"]]
        (run,) = history.task_runs()
        assert (run.state_type.value, run.state_message) == ("COMPLETED", "Task rolled back as part of transaction")
        assert history.store.check() == []

    def test_commit_hooks_are_called_at_the_end_of_the_outermost_transaction(self, noted, heard):
        a, b = noted("a"), noted("b")

        @flow
        def f():
            with transaction() as outer:
                with transaction() as inner:
                    a()
                assert inner.is_active()
                b()
                heard.append("end")
            return outer.is_committed(), inner.is_committed()

        assert f() == (True, True)
        assert heard == ["a", "b", "end", "+a", "+b"]

    def test_a_task_alone_commits_right_after_it_completed_and_before_its_completion_hooks(self, noted, heard):
        a = noted("a", on_completion=[lambda *_: heard.append("completed")])

        @flow
        def f():
            a()
            heard.append("next")
            a.submit().wait()

        f()
        assert heard == ["a", "+a", "completed", "next", "a", "+a", "completed"]

    def test_it_works_outside_any_flow(self, noted, heard):
        a = noted("a")
        with transaction() as around:
            a()
        assert around.is_committed()
        with pytest.raises(Broken), transaction():
            a()
            raise Broken
        assert heard == ["a", "+a", "a", "-a"]

    @pytest.mark.parametrize("how", ["caught", "state", "submitted"])
    def test_a_task_that_fails_rolls_back_even_if_nobody_raises(self, noted, heard, how):
        a, b = noted("a"), noted("b", fails=True)

        @flow
        def f():
            with transaction() as around:
                a()
                if how == "caught":
                    with pytest.raises(Broken):
                        b()
                elif how == "state":
                    b(return_state=True)
                else:
                    b.submit().wait()
                heard.append(around.state.value)
            return around.state.value

        assert f() == "ROLLED_BACK"
        assert heard == ["a", "b", "-a", "ROLLED_BACK"]

    def test_an_attempt_that_is_retried_does_not_roll_back_what_is_around_it(self, noted, heard):
        a, tries = noted("a"), []

        @task(retries=1)
        def flaky():
            tries.append(1)
            if len(tries) == 1:
                raise Broken

        @flow
        def f():
            with transaction() as around:
                a()
                flaky()
            return around.is_committed()

        assert f()
        assert heard == ["a", "+a"]

    def test_a_submitted_and_mapped_run_is_part_of_it(self, noted, heard, history):
        a = noted("a")

        @flow
        def f():
            with transaction():
                a.submit().wait()
                a.map([1, 2, 3]).wait()
                raise Broken

        f(return_state=True)
        assert heard == ["a"] * 4 + ["-a"] * 4
        assert {names[-1] for names in names_of(history, "a")} == {"RolledBack"}

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_run_that_ends_after_its_transaction_shares_its_fate(self, heard, fails, history):
        goes_on = threading.Event()

        @task
        def late():
            goes_on.wait(10)

        late.on_commit(lambda _: heard.append("committed"))
        late.on_rollback(lambda _: heard.append("rolled back"))

        @flow
        def f():
            try:
                with transaction():
                    future = late.submit()
                    if fails:
                        raise Broken
            except Broken:
                pass
            goes_on.set()
            future.wait()

        f()
        assert heard == (["rolled back"] if fails else ["committed"])
        assert names_of(history, "late")[0][-1] == ("RolledBack" if fails else "Completed")

    def test_a_cached_run_in_a_rolled_back_transaction_stays(self, noted, heard, history):
        a = noted("a", cache_policy=INPUTS)

        @flow
        def f():
            a(5)
            with pytest.raises(Broken), transaction():
                assert a(5, return_state=True).name == "Cached"
                raise Broken
            assert a(5, return_state=True).name == "Cached"

        f()
        assert heard == ["a", "+a"]
        assert [names[-1] for names in names_of(history, "a")] == ["Completed", "Cached", "Cached"]

    def test_an_interrupt_rolls_back(self, noted, heard):
        a = noted("a")
        with pytest.raises(KeyboardInterrupt), transaction():
            a()
            raise KeyboardInterrupt
        assert heard == ["a", "-a"]

    def test_a_flow_called_inside_is_part_of_it(self, noted, heard):
        a = noted("a")

        @flow
        def inner():
            a()

        @flow
        def outer():
            with transaction():
                inner()
                raise Broken

        outer(return_state=True)
        assert heard == ["a", "-a"]


class TestResults:
    def test_a_result_is_kept_when_the_transaction_commits(self, noted, history):
        a = noted("a", cache_policy=INPUTS)

        @flow
        def f():
            with transaction():
                first = a(7, return_state=True)
                assert first.result() == 7
                assert history.task_run(first.state_details.task_run_id).result is None
                assert a(7, return_state=True).name == "Completed"  # not kept yet: computed again
            assert history.task_run(first.state_details.task_run_id).result is not None
            assert a(7, return_state=True).name == "Cached"
            return first

        f()
        assert history.store.check() == []

    def test_a_rolled_back_result_is_forgotten(self, noted, heard, history):
        a = noted("a", cache_policy=INPUTS)

        @flow
        def f():
            with pytest.raises(Broken), transaction():
                a(7)
                raise Broken
            assert a(7, return_state=True).name == "Completed"
            assert a(7, return_state=True).name == "Cached"

        f()
        assert heard == ["a", "-a", "a", "+a"]
        assert history.task_runs()[0].result is None

    def test_a_committed_result_is_there_for_another_process(self, noted):
        a = noted("a", cache_policy=INPUTS)

        @flow
        def f():
            with transaction():
                a(7)

        f()
        close_all()
        assert a(7, return_state=True).name == "Cached"

    def test_one_that_cannot_be_kept_is_noted_and_the_run_stays_completed(self, history, caplog):
        @task(persist_result=True)
        def lock():
            return threading.Lock()

        @flow
        def f():
            with transaction() as around:
                lock()
            return around.is_committed()

        assert f()
        (run,) = history.task_runs()
        assert run.state_name == "Completed"
        assert run.result_note.startswith("not persisted")


class TestAttempts:
    def test_a_body_sees_the_transaction_that_its_attempt_is(self):
        seen = []

        @task
        def t():
            mine = get_transaction()
            seen.append((mine.is_active(), mine.get_parent(), mine is get_transaction()))

        @flow
        def f():
            assert get_transaction() is None
            t()
            with transaction() as around:
                assert get_transaction() is around
                t()
                t.submit().wait()
            return around, len(around.children)

        around, children = f()
        assert seen == [(True, None, True), (True, around, True), (True, around, True)]
        assert children == 2

    def test_what_a_failed_attempt_called_is_rolled_back_before_the_next(self, noted, heard, history):
        inner, tries = noted("inner", persist_result=True), []

        @task(retries=1)
        def outer():
            inner()
            tries.append(1)
            if len(tries) == 1:
                raise Broken

        outer.on_commit(lambda _: heard.append("+outer"))

        @flow
        def f():
            outer()

        f()
        assert heard == ["inner", "-inner", "inner", "+inner", "+outer"]
        assert [names[-1] for names in names_of(history, "inner")] == ["RolledBack", "Completed"]

    def test_results_of_inner_tasks_are_kept_at_once_and_forgotten_if_the_outer_attempt_fails(self, noted, history):
        inner = noted("inner", cache_policy=INPUTS)

        @task
        def outer(fails):
            first = inner(3, return_state=True)
            assert history.task_run(first.state_details.task_run_id).result is not None
            assert inner(3, return_state=True).name == "Cached"
            if fails:
                raise Broken

        @flow
        def f():
            with pytest.raises(Broken):
                outer(True)
            outer(False)
            return inner(3, return_state=True).name

        assert f() == "Cached"
        assert [names[-1] for names in names_of(history, "inner")] == [
            "RolledBack", "Cached", "Completed", "Cached", "Cached",
        ]  # fmt: skip

    def test_an_inner_failure_that_the_outer_body_handles_rolls_nothing_back(self, noted, heard):
        a, b = noted("a"), noted("b", fails=True)

        @task
        def outer():
            a()
            with pytest.raises(Broken):
                b()

        @flow
        def f():
            outer()

        f()
        assert heard == ["a", "b", "+a"]

    def test_a_flow_called_in_a_task_is_part_of_the_attempt(self, noted, heard):
        a = noted("a")

        @flow
        def inner():
            a()

        @task
        def outer():
            inner()
            raise Broken

        @flow
        def f():
            outer()

        f(return_state=True)
        assert heard == ["a", "-a"]

    def test_an_explicit_one_inside_a_task_commits_with_the_attempt(self, noted, heard):
        a = noted("a")

        @task
        def outer():
            with transaction() as inside:
                a()
                assert inside.get_parent() is not None
            heard.append("outer")

        outer.on_commit(lambda _: heard.append("+outer"))

        @flow
        def f():
            outer()

        f()
        assert heard == ["a", "outer", "+a", "+outer"]

    def test_in_a_process_what_a_failed_body_called_is_rolled_back_there(self, history):
        @task
        def inner():
            return 1

        @task
        def outer(fails):
            assert get_transaction().get("word") == "given"
            inner()
            if fails:
                raise Broken

        @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
        def f():
            with transaction() as around:
                around.set("word", "given")
                assert outer.submit(False).state is not None
                outer.submit(True).wait()

        f()
        assert sorted(names[-1] for names in names_of(history, "inner")) == ["Completed", "RolledBack"]


class TestValues:
    def test_children_get_copies_of_their_parents_values(self):
        @task
        def t():
            mine = get_transaction()
            assert mine.get("n") == 1
            assert mine.get("absent", "default") == "default"
            mine.get("list").append(2)
            mine.set("n", 2)
            assert mine.get("n") == 2

        with transaction() as around:
            around.set("n", 1)
            around.set("list", [1])
            t()
            with transaction() as inner:
                assert inner.get("n") == 1
                inner.set("n", 9)
            assert (around.get("n"), around.get("list")) == (1, [1])

    def test_a_missing_value_without_default_is_an_error(self):
        with transaction() as around, pytest.raises(ValueError, match="Could not retrieve value for unknown key: no"):
            around.get("no")


class TestKeys:
    def test_the_second_entry_finds_it_committed_and_stages_nothing(self, heard):
        for attempt in range(2):
            with transaction(key="k") as around:
                assert around.is_committed() == (attempt == 1)
                assert around.read() is None if attempt == 0 else around.read().result == {"attempt": 0}
                around.stage({"attempt": attempt}, on_commit_hooks=[lambda _: heard.append("committed")])
            assert around.is_committed()
        assert heard == ["committed"]

    def test_overwrite_begins_anew(self):
        for attempt in range(3):
            with transaction(key="k", overwrite=True) as around:
                assert around.is_active()
                around.stage(attempt)
        with transaction(key="k") as around:
            assert around.read().result == 2

    def test_nothing_is_kept_without_write_on_commit_or_after_a_rollback(self):
        with transaction(key="k", write_on_commit=False) as around:
            around.stage(1)
        with pytest.raises(Broken), transaction(key="k") as around:
            around.stage(1)
            raise Broken
        with transaction(key="k") as around:
            assert around.is_active()

    def test_a_nested_one_is_kept_when_the_outermost_commits(self):
        for attempt in range(2):
            try:
                with transaction(key="outer") as outer:
                    with transaction(key="inner") as inner:
                        inner.stage(5)
                    assert inner.is_staged()
                    with transaction(key="inner") as again:
                        assert again.is_active()
                    if attempt == 0:
                        raise Broken
            except Broken:
                assert inner.is_rolled_back()
        assert outer.is_committed()
        assert inner.is_committed()

    def test_a_value_that_cannot_be_kept_rolls_back(self, heard, caplog):
        with transaction(key="k") as around:
            around.stage(threading.Lock(), on_rollback_hooks=[lambda _: heard.append("rolled back")])
        assert around.is_rolled_back()
        assert heard == ["rolled back"]
        assert "the transaction will not be committed" in caplog.text

    def test_a_task_with_that_cache_key_shares_it(self):
        @task(cache_key_fn=lambda *_: "shared")
        def t():
            return "computed"

        with transaction(key="shared") as around:
            around.stage("staged")
        state = t(return_state=True)
        assert (state.name, state.result()) == ("Cached", "staged")

    def test_serializable_needs_something_that_locks(self):
        with (
            pytest.raises(ConfigurationError, match="lock manager"),
            transaction(key="k", isolation_level=IsolationLevel.SERIALIZABLE),
        ):
            pass
        assert get_transaction() is None


class TestModes:
    def test_eager_commits_at_its_own_end(self, heard):
        with pytest.raises(Broken), transaction() as outer:
            with transaction(key="k", commit_mode=CommitMode.EAGER) as inner:
                inner.stage(5, on_commit_hooks=[lambda _: heard.append("committed")])
            assert inner.is_committed()
            raise Broken
        assert outer.is_rolled_back()
        assert inner.is_committed()
        assert heard == ["committed"]

    def test_off_commits_only_when_told(self):
        with transaction(commit_mode=CommitMode.OFF) as around:
            pass
        assert around.is_rolled_back()
        with transaction(commit_mode=CommitMode.OFF) as around:
            assert around.commit()
        assert around.is_committed()

    @pytest.mark.parametrize("mode", list(CommitMode))
    def test_children_take_the_mode_of_their_parent(self, mode):
        with transaction(commit_mode=mode), transaction() as inner:
            assert inner.commit_mode is mode

    def test_an_error_in_a_nested_one_rolls_back_the_parent_though_it_is_caught(self, noted, heard):
        a, b = noted("a"), noted("b")

        @flow
        def f():
            with transaction() as outer:
                a()
                try:
                    with transaction() as inner:
                        b()
                        raise Broken
                except Broken:
                    heard.append("caught")
                return outer.is_rolled_back(), inner.is_rolled_back()

        assert f() == (True, True)
        assert heard == ["a", "b", "-b", "-a", "caught"]


class TestHooks:
    def test_an_error_in_a_rollback_hook_is_logged_and_the_others_run(self, heard, caplog):
        def bad(_transaction):
            heard.append("bad")
            raise Broken

        with pytest.raises(KeyError), transaction() as outer:
            with transaction() as inner:
                inner.stage(1, on_rollback_hooks=[lambda _: heard.append("inner")])
            outer.stage(1, on_rollback_hooks=[lambda _: heard.append("first"), bad])
            raise KeyError
        assert heard == ["bad", "first", "inner"]
        assert outer.is_rolled_back()
        assert "An error was encountered while running rollback hook 'bad'" in caplog.text

    def test_an_error_in_a_commit_hook_rolls_back_that_transaction_and_the_others_commit(self, heard, caplog):
        def bad(_transaction):
            raise Broken

        with transaction() as outer:
            with transaction() as first:
                first.stage(1, on_commit_hooks=[bad], on_rollback_hooks=[lambda _: heard.append("rolled back")])
            with transaction() as second:
                second.stage(1, on_commit_hooks=[lambda _: heard.append("committed")])
        assert heard == ["rolled back", "committed"]
        assert (first.state, second.state, outer.state) == (
            TransactionState.ROLLED_BACK, TransactionState.COMMITTED, TransactionState.COMMITTED,
        )  # fmt: skip
        assert "An error was encountered while committing transaction None" in caplog.text

    def test_a_commit_hook_that_fails_leaves_the_tasks_value_to_its_caller(self, noted):
        a = noted("a", persist_result=True)

        @a.on_commit
        def bad(_transaction):
            raise Broken

        @flow
        def f():
            return a(4)

        assert f() == 4

    def test_async_hooks_are_awaited_in_plain_code(self, heard):
        async def hook(_transaction):
            await asyncio.sleep(0)
            heard.append("awaited")

        with transaction() as around:
            around.stage(1, on_commit_hooks=[hook])
        assert heard == ["awaited"]

    def test_hooks_say_in_the_log_what_they_do(self, caplog):
        def hook(_transaction):
            pass

        log = logging.getLogger("a.logger")
        with caplog.at_level(logging.INFO), transaction(logger=log) as around:
            around.stage(1, on_commit_hooks=[hook])
        assert [record.getMessage() for record in caplog.records] == [
            "Running commit hook 'hook'",
            "Commit hook 'hook' finished running successfully",
        ]


class TestAsync:
    async def test_async_tasks_and_hooks_in_an_async_flow(self, heard):
        @task
        async def a():
            heard.append("a")

        @a.on_commit
        async def committed(_transaction):
            await asyncio.sleep(0)
            heard.append("+a")

        @a.on_rollback
        async def rolled_back(_transaction):
            await asyncio.sleep(0)
            heard.append("-a")

        @flow
        async def f():
            async with atransaction() as around:
                assert type(around) is AsyncTransaction
                await a()
            with pytest.raises(Broken):
                async with atransaction() as other:
                    await a()
                    raise Broken
            with pytest.raises(Broken), transaction():
                await asyncio.gather(a(), a())
                raise Broken
            return around.is_committed(), other.is_rolled_back()

        assert await f() == (True, True)
        assert heard == ["a", "+a", "a", "-a", "a", "a", "-a", "-a"]

    async def test_an_async_one_has_no_plain_with(self):
        with pytest.raises(NotImplementedError, match="async with"), AsyncTransaction():
            pass

    async def test_keys(self):
        async with atransaction(key="k") as around:
            assert await around.read() is None
            around.stage(3)
        async with atransaction(key="k") as around:
            assert around.is_committed()
            assert (await around.read()).result == 3


class TestByHand:
    def test_begin_commit_and_rollback(self):
        made = Transaction()
        assert made.is_pending()
        made.begin()
        made.stage(1)
        assert made.is_staged()
        assert made.commit()
        assert not made.commit()
        assert not made.rollback()
        assert made.is_committed()

    def test_rollback_inside_the_block(self, noted, heard):
        a = noted("a")
        with transaction() as around:
            a()
            assert around.rollback()
        assert around.is_rolled_back()
        assert heard == ["a", "-a"]

    def test_it_cannot_be_entered_twice(self):
        with Transaction() as around, pytest.raises(RuntimeError, match="already entered"), around:
            pass

    def test_a_task_that_returns_a_failed_state_rolls_back(self, noted, heard):
        a = noted("a")

        @task
        def refuses():
            return Failed(message="no")

        with transaction() as around:
            a()
            refuses(return_state=True)
        assert around.is_rolled_back()
        assert heard == ["a", "-a"]


class TestFlowRetries:
    def test_a_retried_flow_runs_what_was_rolled_back_again(self, noted, heard):
        a, tries = noted("a", persist_result=True), []

        @flow(retries=1)
        def f():
            tries.append(1)
            with transaction():
                a()
                if len(tries) == 1:
                    raise Broken

        f()
        assert heard == ["a", "-a", "a", "+a"]
