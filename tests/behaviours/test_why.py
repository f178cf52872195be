"""What `why` says of a task run: a hit, the first difference, or why it could not be cached."""

import datetime
import logging
import threading
import types

import pytest

import prefect_nb
from prefect_nb import flow, task
from prefect_nb.cache_policies import DEFAULT, INPUTS, NO_CACHE, TASK_SOURCE
from prefect_nb.exceptions import ObjectNotFound
from prefect_nb.home import Home
from prefect_nb.service.why import Answer, Answers, why

CACHED = {"cache_policy": INPUTS + TASK_SOURCE}


def defined(code: str, name: str = "step", **options):
    """A task out of source text, as a notebook's cell defines it."""
    import linecache

    filename = f"<cell {len(linecache.cache)}>"
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    module = types.ModuleType("cells")
    exec(compile(code, filename, "exec"), module.__dict__)
    return task(**{**CACHED, **options})(module.__dict__[name])


def test_a_hit_names_the_run_it_was_taken_from(history):
    @task(name="clean", **CACHED)
    def clean(x):
        return x

    @flow
    def work():
        clean(1)
        clean(1)

    work()
    first, second = history.task_runs()

    answer = why(second)

    assert (answer.kind, answer.other.id) == ("hit", first.id)
    assert answer.reason.startswith(f"hit: same as '{first.name}' of ")
    assert "(kept just now)" in answer.reason
    assert str(answer) == f"{second.name}: {answer.reason}"


def test_the_first_run():
    @task(**CACHED)
    def t(x):
        return x

    t(1)

    assert why(t).reason == "first run of this task"


def test_an_input_that_changed_is_named_with_both_values():
    @task(**CACHED)
    def t(x, depth):
        return x

    t(1, depth=5)
    t(1, depth=6)

    answer = why(t)

    assert answer.kind == "miss"
    assert answer.reason.startswith("miss: input `depth` is 6, was 5; compared with 't' of ")


def test_it_is_compared_with_the_likest_run_not_with_the_newest(history):
    @task(**CACHED)
    def t(x, depth):
        return x

    @flow
    def work(depth):
        t.map(range(4), depth).wait()

    work(5)
    work(6)

    for run in history.task_runs()[4:]:
        assert why(run).differences == ("input `depth` is 6, was 5",)


def test_a_helper_that_changed_is_shown_by_its_line():
    code = "def normalise(x):\n    return x / {}\n\ndef step(x):\n    return normalise(x)\n"
    defined(code.format(2))(8)
    changed = defined(code.format(3))
    changed(8)

    assert why(changed).differences == ("helper `normalise` changed (line `return x / 2` -> `return x / 3`)",)


def test_the_task_itself_that_changed_is_shown_by_its_line():
    defined("def step(x):\n    return x + 1\n")(8)
    changed = defined("def step(x):\n    y = x + 1\n    return y\n")
    changed(8)

    (difference,) = why(changed).differences
    assert difference.startswith("its code changed (line `return x + 1` -> `y = x + 1`")


def test_several_differences_are_counted_and_listed():
    @task(**CACHED)
    def t(x, y):
        return x

    t(1, 1)
    t(2, 2)

    answer = why(t)
    assert "input `x` is 2, was 1 (and 1 more)" in answer.reason
    assert answer.differences[1] == "input `y` is 2, was 1"


def test_another_flow_run_under_the_default_policy(history):
    @task(persist_result=True)
    def t(x):
        return x

    @flow
    def work():
        t(1)

    work()
    work()

    answer = why(history.task_runs()[-1])
    assert "another flow run; RUN_ID is part of the default policy, INPUTS + TASK_SOURCE shares" in answer.reason


def test_results_that_are_not_kept():
    @task
    def t(x):
        return x

    t(1)

    answer = why(t)
    assert answer.kind == "uncached"
    assert answer.reason.startswith("not cached because: its results are not kept")


def test_the_policy_that_caches_nothing():
    @task(cache_policy=NO_CACHE, persist_result=True)
    def t(x):
        return x

    t(1)

    assert why(t).reason.startswith("not cached because: its cache policy is NONE")


def test_an_input_that_cannot_be_hashed_is_named_with_the_reason():
    @task(**CACHED)
    def t(conn):
        return 1

    t(threading.Lock())

    reason = why(t).reason
    assert reason.startswith("not cached because: unhashable input conn")
    assert "lock" in reason


def test_a_key_function_that_gives_no_key():
    @task(cache_key_fn=lambda context, parameters: None, persist_result=True)
    def t(x):
        return x

    t(1)

    assert why(t).reason == "not cached because: its cache policy made no key"


def test_a_key_function_that_raises():
    @task(cache_key_fn=lambda context, parameters: 1 / 0, persist_result=True)
    def t(x):
        return x

    t(1)

    assert "its key could not be computed: ZeroDivisionError" in why(t).reason


def test_caching_that_is_switched_off(monkeypatch):
    monkeypatch.setenv("PREFECT_NB_TASKS_DISABLE_CACHING", "true")

    @task(**CACHED)
    def t(x):
        return x

    t(1)

    assert "switched off by the setting tasks_disable_caching" in why(t).reason


def test_a_refresh():
    @task(**CACHED)
    def t(x):
        return x

    t(1)
    t.with_options(refresh_cache=True)(1)

    assert why(t).reason == "miss: not looked for because: refresh_cache=True"


def test_an_expired_result(history):
    @task(cache_expiration=datetime.timedelta(microseconds=1), **CACHED)
    def t(x):
        return x

    t(1)
    t(1)

    assert why(t).reason.startswith("miss: the kept result had expired (")


def test_a_damaged_result(history, caplog):
    @task(**CACHED)
    def t(x):
        return x

    t(1)
    Home.current().ledger.commit()
    reference = history.task_runs()[0].result
    path = Home.current().path / "results" / reference.sha256[:2] / reference.sha256
    path.write_bytes(b"nothing")
    with caplog.at_level(logging.CRITICAL):
        t(1)

    assert why(t).reason.startswith("miss: the kept result cannot be used (damaged)")


def test_an_earlier_run_that_failed_left_nothing():
    broken = [True]

    @task(cache_key_fn=lambda *_: "one key", persist_result=True)
    def t():
        if broken:
            raise ValueError

    t(return_state=True)
    broken.clear()
    t()

    assert "which is Failed: nothing was kept of it" in why(t).reason


def test_a_result_that_could_not_be_kept(caplog):
    @task(persist_result=True, cache_policy=NO_CACHE)
    def t():
        return threading.Lock()

    t()

    assert "not persisted" in why(t).reason


def test_a_run_that_did_not_start(history):
    @task
    def broken():
        raise ValueError

    @task
    def after(x):
        return x

    @flow
    def work():
        after.submit(broken.submit()).wait()

    work(return_state=True)
    (run,) = [run for run in history.task_runs() if run.name.startswith("after")]

    assert why(run).kind == "not run"
    assert why(run).reason.startswith("did not run: it is NotReady: Upstream task run")


def test_whatever_stands_for_a_run_may_be_given(history):
    @task(**CACHED)
    def t(x):
        return x

    @flow
    def work():
        future = t.submit(1)
        future.wait()
        state = t(1, return_state=True)
        given.extend([future, state, t.map([2, 3])])

    given = []
    work()
    future, state, futures = given
    (flow_run,) = history.flow_runs()
    run = history.task_run(future.task_run_id)

    for what in (run, run.id, str(run.id), run.name, future):
        answer = why(what)
        assert isinstance(answer, Answer)
        assert answer.run.id == run.id
    assert why(state).kind == "hit"
    assert [answer.run.id for answer in why(futures)] == [one.task_run_id for one in futures]
    for what in (None, flow_run, flow_run.id, flow_run.name, work):
        answers = why(what)
        assert isinstance(answers, Answers)
        assert len(answers) == 4
        assert len(str(answers).splitlines()) == 4


def test_a_task_is_found_by_its_name(history):
    @task(**CACHED)
    def wash(x):
        return x

    @flow
    def work():
        wash(1)
        wash(2)

    work()

    assert why("wash").run.id == history.task_runs()[-1].id


def test_what_has_not_run():
    @task
    def t():
        pass

    with pytest.raises(ObjectNotFound, match="has not run yet"):
        why(t)
    with pytest.raises(ObjectNotFound, match="No task has run"):
        why()
    with pytest.raises(ObjectNotFound, match="no task run"):
        why("nonsense")
    with pytest.raises(TypeError, match="stands for no run"):
        why(3)


def test_the_public_name():
    assert prefect_nb.why is why
    assert DEFAULT is not None
