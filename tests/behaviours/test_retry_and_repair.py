"""Retrying and repairing a flow run in place: what runs again, what is taken over, what the history says."""

import contextlib

import pytest

from prefect_nb import allow_failure, flow, task
from prefect_nb.cache_policies import NO_CACHE
from prefect_nb.exceptions import NotResumable, ObjectNotFound
from prefect_nb.home import Home
from prefect_nb.service import repair as service

KEPT = {"persist_result": True}


@pytest.fixture
def diary():
    """What was called, in order."""
    return []


def run_id_of(state):
    return state.state_details.flow_run_id


def kept(diary, name, broken=()):
    """A task that writes its name and argument down and fails for what is in `broken`."""

    @task(name=name, cache_policy=NO_CACHE, **KEPT)
    def body(x=None):
        diary.append(f"{name} {x}" if isinstance(x, int) else name)
        if name in broken or (isinstance(x, int) and x in broken):
            raise ValueError(f"{name} is broken")
        return [name, x]

    return body


def test_one_failed_child_of_fifty_and_the_sum_that_needs_it(diary, history):
    broken = {17}
    child, total = kept(diary, "child", broken), kept(diary, "total")

    @flow
    def work():
        return total.submit(child.map(range(50))).result()

    state = work(return_state=True)
    assert state.is_failed()
    assert len(diary) == 50
    diary.clear()
    broken.clear()

    again = work.retry(run_id_of(state), return_state=True)

    assert again.is_completed()
    assert diary == ["child 17", "total"]
    runs = history.task_runs(flow_run_id=run_id_of(state))
    assert len(runs) == 51
    assert sorted(run.run_count for run in runs) == [1] * 50 + [2]
    (flow_run,) = history.flow_runs()
    assert (flow_run.state_name, flow_run.run_count, flow_run.epoch) == ("Completed", 2, 2)
    (retried,) = [run for run in runs if run.run_count == 2]
    assert history.states(retried.id) == ["Pending", "Running", "Failed", "Pending", "Running", "Completed"]
    assert history.store.check() == []


def test_a_diamond_only_its_broken_side_and_what_depends_on_it(diary):
    broken = {"right"}
    top, left = kept(diary, "top"), kept(diary, "left")
    right, bottom = kept(diary, "right", broken), kept(diary, "bottom")

    @flow
    def work():
        root = top.submit()
        return bottom.submit([left.submit(root), right.submit(root)]).result()

    state = work(return_state=True)
    diary.clear()
    broken.clear()
    work.retry(run_id_of(state))
    assert diary == ["right", "bottom"]

    diary.clear()
    work.repair(run_id_of(state), ["left"])
    assert diary == ["left", "bottom"]

    diary.clear()
    work.repair(run_id_of(state), ["top"])
    assert (diary[0], sorted(diary[1:3]), diary[3]) == ("top", ["left", "right"], "bottom")


def test_direct_calls_are_followed_by_the_objects_they_pass_on(diary):
    broken = {"c"}
    a, b, c = kept(diary, "a"), kept(diary, "b"), kept(diary, "c", broken)

    @flow
    def work():
        return c(b(a()))

    state = work(return_state=True)
    diary.clear()
    broken.clear()
    work.retry(run_id_of(state))
    assert diary == ["c"]
    diary.clear()

    # What was reached in the retry only is followed, too.
    work.repair(run_id_of(state), ["b"])
    assert diary == ["b", "c"]


def test_what_coped_with_a_failure_runs_again_when_the_failure_is_mended(diary):
    broken = {"source"}
    source, report = kept(diary, "source", broken), kept(diary, "report")

    @flow
    def work():
        future = source.submit()
        report.submit(allow_failure(future)).wait()
        return future

    state = work(return_state=True)
    assert state.is_failed()
    diary.clear()
    broken.clear()

    work.retry(run_id_of(state))

    assert diary == ["source", "report"]


def test_a_plain_number_is_compared_where_nobody_knows_where_it_came_from():
    calls, broken = [], {"a"}

    @task(**KEPT)
    def a():
        if broken:
            raise ValueError
        return 5

    @task(cache_key_fn=None, **KEPT)
    def b(x):
        calls.append(x)
        return x

    @flow
    def work():
        try:
            number = a()
        except ValueError:
            number = 0
        b(1)
        b(number)
        if broken:
            raise RuntimeError

    state = work(return_state=True)
    calls.clear()
    broken.clear()

    work.retry(run_id_of(state))

    assert calls == [5]


def test_nested_tasks_are_called_by_the_task_around_them(diary, history):
    broken = {"second"}
    first, second = kept(diary, "first"), kept(diary, "second", broken)

    @task(cache_policy=NO_CACHE, **KEPT)
    def outer():
        diary.append("outer")
        return [first(), second()]

    @flow
    def work():
        return outer()

    state = work(return_state=True)
    diary.clear()
    broken.clear()
    work.retry(run_id_of(state))
    # What a nested task kept is rolled back with the task that called it.
    assert diary == ["outer", "first", "second"]
    assert sorted(run.run_count for run in history.task_runs()) == [2, 2, 2]

    diary.clear()
    work.repair(run_id_of(state), ["first"])
    assert diary == ["outer", "first"]

    diary.clear()
    work.repair(run_id_of(state), ["outer"])
    assert diary == ["outer", "first", "second"]


def test_a_sub_flow_that_failed_runs_again_and_one_that_completed_does_not(diary, history):
    broken = {"bad"}
    good, bad, before = kept(diary, "good"), kept(diary, "bad", broken), kept(diary, "before")

    @flow(**KEPT)
    def fine():
        diary.append("fine")
        return good()

    @flow(**KEPT)
    def shaky():
        diary.append("shaky")
        return [before(), bad()]

    @flow
    def work():
        return [fine(), shaky()]

    state = work(return_state=True)
    assert diary == ["fine", "good", "shaky", "before", "bad"]
    diary.clear()
    broken.clear()

    work.retry(run_id_of(state))

    assert diary == ["shaky", "bad"]
    assert {run.flow_name: run.run_count for run in history.flow_runs()} == {"work": 2, "fine": 1, "shaky": 2}
    assert {run.state_name for run in history.flow_runs()} == {"Completed"}
    assert len(history.flow_runs()) == 3

    diary.clear()
    work.repair(run_id_of(state), ["good"])
    assert diary == ["fine", "good"]


def test_a_completed_sub_flow_whose_result_was_not_kept_goes_on_as_the_same_run(diary, history):
    broken = {"last"}
    part, last = kept(diary, "part"), kept(diary, "last", broken)

    @flow
    def inner():
        diary.append("inner")
        return part()

    @flow
    def work():
        inner()
        last()

    state = work(return_state=True)
    diary.clear()
    broken.clear()

    work.retry(run_id_of(state))

    assert diary == ["inner", "last"]
    assert len(history.flow_runs()) == 2


def test_the_cache_does_not_answer_for_a_task_that_is_repaired(diary):
    @task(**KEPT)
    def t(x):
        diary.append("t")
        return [x]

    @task(**KEPT)
    def u(x):
        diary.append("u")
        return x

    @flow
    def work():
        return u(t(1))

    state = work(return_state=True)
    diary.clear()

    assert work.repair(run_id_of(state), ["t"]) == [1]
    assert diary == ["t", "u"]


def test_a_result_that_is_damaged_is_computed_again_and_nothing_else(diary, history):
    a, b = kept(diary, "a"), kept(diary, "b")

    @flow
    def work():
        return b(a())

    state = work(return_state=True)
    diary.clear()
    reference = history.task_runs()[0].result
    (Home.current().path / "results" / reference.sha256[:2] / reference.sha256).unlink()

    preview = service.preview(history.flow_runs()[0])
    assert [run.name[:1] for run in preview.lost] == ["a"]
    assert [run.name[:1] for run in preview.reused] == ["b"]

    work.repair(run_id_of(state))

    assert diary == ["a"]
    assert [run.run_count for run in history.task_runs()] == [2, 1]


def test_results_that_were_not_kept_are_told_before(history):
    @task
    def loose():
        return 1

    @task(**KEPT)
    def broken():
        raise ValueError

    @flow
    def work():
        loose()
        broken()

    work(return_state=True)

    preview = service.preview(history.flow_runs()[0])

    assert [run.name[:5] for run in preview.lost] == ["loose"]
    assert [run.name[:6] for run in preview.again] == ["broken"]
    assert preview.reused == []


def test_a_run_goes_on_under_its_id_when_its_code_was_mended(history):
    def make(mended):
        if mended:

            @task(name="fetch", **KEPT)
            def fetch():
                return 1

        else:

            @task(name="fetch", **KEPT)
            def fetch():
                raise ValueError

        @flow
        def work():
            return fetch()

        return work

    state = make(False)(return_state=True)
    assert make(True).retry(run_id_of(state)) == 1

    (run,) = history.task_runs()
    assert history.states(run.id) == ["Pending", "Running", "Failed", "Pending", "Running", "Completed"]


def test_a_cancelled_and_a_crashed_run_can_be_retried(diary, history):
    broken = {"second"}
    first = kept(diary, "first")

    @task(name="second", cache_policy=NO_CACHE, **KEPT)
    def second():
        diary.append("second")
        if broken:
            raise KeyboardInterrupt

    @flow
    def work():
        first()
        second()

    with contextlib.suppress(KeyboardInterrupt):
        work()
    (run,) = history.flow_runs()
    assert run.state_name == "Crashed"
    broken.clear()
    diary.clear()

    work.retry(run.id)

    assert diary == ["second"]


def test_asking_does_not_count_as_recovery(history):
    broken = [True]

    @flow
    def work():
        if broken:
            raise ValueError

    state = work(return_state=True)
    for _ in range(5):
        work.retry(run_id_of(state), return_state=True)
    broken.clear()

    assert work.retry(run_id_of(state), return_state=True).is_completed()
    assert history.flow_runs()[0].recoveries == 0


def test_what_cannot_be_retried_or_repaired(history):
    @flow
    def inner():
        raise ValueError

    @flow
    def fine():
        return 1

    @flow
    def outer():
        inner()

    state = fine(return_state=True)
    with pytest.raises(NotResumable, match="completed; there is nothing to retry"):
        fine.retry(run_id_of(state))
    with pytest.raises(ObjectNotFound, match="has no task run 'nonsense'"):
        fine.repair(run_id_of(state), ["nonsense"])
    with pytest.raises(ObjectNotFound, match="There is no flow run"):
        fine.retry(Home.current().owner_id)

    outer(return_state=True)
    (child,) = [run for run in history.flow_runs() if run.flow_name == "inner"]
    with pytest.raises(NotResumable, match="is part of flow run"):
        inner.retry(child.id)
    assert history.flow_run(run_id_of(state)).epoch == 1


def test_an_async_flow(diary):
    import asyncio

    broken = {"b"}
    a, b = kept(diary, "a"), kept(diary, "b", broken)

    @flow
    async def work():
        a()
        return b()

    state = asyncio.run(work(return_state=True))
    diary.clear()
    broken.clear()

    asyncio.run(work.retry(run_id_of(state)))

    assert diary == ["b"]
