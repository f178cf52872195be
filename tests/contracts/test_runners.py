"""What a runner promises: every piece of work is answered exactly once, whatever becomes of it and of its place."""

import contextlib
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_nb.engine.commands import Interrupted, Outcome, Raised, Returned, Stopped, TimedOut
from prefect_nb.exceptions import CrashedRun, RunCancelled, SerializationError, TaskRunTimeoutError
from prefect_nb.interfaces import Emit, LogLine, Runner, Work
from prefect_nb.runners import ProcessRunner, ThreadRunner, threads
from prefect_nb.runners.aside import Held, arguments

LOCAL = {"threads": ThreadRunner, "processes": ProcessRunner}
RUNNERS = ["threads", "processes", "dask", "ray"]
REMOTE = ["processes", "dask", "ray"]
CLUSTERS = ("dask", "ray")
WAIT = 60.0


class Answers:
    """Outcomes and log lines by the order in which they came, and the wait for them."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.outcomes: list[tuple[Any, Outcome]] = []
        self.lines: list[LogLine] = []
        self._news = threading.Condition()

    def start(self, work: Work, label: Any = None) -> None:
        self.runner.start(work, functools.partial(self._done, label), self._emit)

    def _done(self, label: Any, outcome: Outcome) -> None:
        with self._news:
            self.outcomes.append((label, outcome))
            self._news.notify_all()

    def _emit(self, line: LogLine) -> None:
        with self._news:
            self.lines.append(line)
            self._news.notify_all()

    def wait(self, outcomes: int = 0, lines: int = 0) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.outcomes) >= outcomes and len(self.lines) >= lines, WAIT)

    def call(self, work: Work) -> Outcome:
        before = len(self.outcomes)
        self.start(work)
        self.wait(before + 1)
        return self.outcomes[-1][1]


@contextlib.contextmanager
def opened(runner: Runner) -> Iterator[Answers]:
    try:
        yield Answers(runner)
    finally:
        runner.close()


def made(name: str, request: pytest.FixtureRequest) -> Callable[[int], Runner]:
    """What makes a runner of this kind; those on clusters always have two workers."""
    if name == "dask":
        cluster = request.getfixturevalue("dask_cluster")
        from prefect_nb.runners import dask

        def on_dask(_: int) -> Runner:
            client = dask.connect(cluster, {})
            return dask.DaskRunner(client, True, functools.partial(dask.release, client, None, None))

        return on_dask
    if name == "ray":
        post = request.getfixturevalue("ray_cluster")
        from prefect_nb.runners import ray

        return lambda _: ray.RayRunner(post)
    return LOCAL[name]


@pytest.fixture(params=RUNNERS)
def kind(request: pytest.FixtureRequest) -> Callable[[int], Runner]:
    return made(request.param, request)


@pytest.fixture
def answers(kind: Callable[[int], Runner]) -> Iterator[Answers]:
    with opened(kind(2)) as opened_answers:
        yield opened_answers


@pytest.fixture(params=REMOTE)
def remote(request: pytest.FixtureRequest) -> Iterator[Answers]:
    with opened(made(request.param, request)(2)) as opened_answers:
        yield opened_answers


@pytest.fixture(params=["dask", "ray"])
def on_cluster(request: pytest.FixtureRequest) -> Iterator[Answers]:
    with opened(made(request.param, request)(2)) as opened_answers:
        yield opened_answers


@pytest.fixture
def processes() -> Iterator[Answers]:
    with opened(ProcessRunner(2)) as opened_answers:
        yield opened_answers


def line(message: str) -> LogLine:
    return LogLine(at_us=1, level=20, name="test", message=message)


def value_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Returned)
    return outcome.value.get() if isinstance(outcome.value, Held) else outcome.value


def assert_raised(outcome: Outcome, error: type[Exception]) -> str:
    assert isinstance(outcome, Raised)
    assert type(outcome.error) is error
    return str(outcome.error)


# --------------------------------------------------------------------------------------------------------- every runner


def test_work_is_answered_with_its_outcome(answers: Answers) -> None:
    assert answers.call(lambda emit: Returned({"a": [1, None]})) == Returned({"a": [1, None]})


def test_every_kind_of_outcome_comes_back(answers: Answers) -> None:
    def outcomes() -> list[Outcome]:
        return [
            Returned(None),
            Raised(ValueError("bad")),
            TimedOut(TaskRunTimeoutError("late")),
            Interrupted(SystemExit(3), "exit"),
            Stopped(RunCancelled("no"), "told to"),
            Stopped(),
        ]

    for number, expected in enumerate(outcomes()):
        outcome = answers.call(lambda emit, number=number: outcomes()[number])
        assert repr(outcome) == repr(expected)


def test_what_is_raised_against_the_promise_is_an_outcome_too(answers: Answers) -> None:
    def fail(emit: Emit) -> Outcome:
        raise LookupError("oh")

    def leave(emit: Emit) -> Outcome:
        raise SystemExit(2)

    assert assert_raised(answers.call(fail), LookupError) == "oh"
    assert isinstance(answers.call(leave), Interrupted)
    assert answers.call(lambda emit: Returned(1)) == Returned(1)


def test_each_is_answered_once_and_started_in_order(kind: Callable[[int], Runner]) -> None:
    with opened(kind(1)) as answers:
        for number in range(50):
            answers.start(lambda emit, number=number: Returned(number), number)
        answers.wait(50)
        answers.runner.close()

    # A cluster may be ahead of itself: it starts in order, on several workers.
    ordered = (
        sorted(answers.outcomes, key=lambda answer: answer[0]) if answers.runner.name in CLUSTERS else answers.outcomes
    )
    assert ordered == [(number, Returned(number)) for number in range(50)]


def test_log_lines_arrive_while_the_work_runs(answers: Answers, tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)

    def work(emit: Emit) -> Outcome:
        emit(line("first"))
        fifo.read_text()
        emit(line("second"))
        return Returned(None)

    answers.start(work)
    answers.wait(lines=1)
    assert answers.outcomes == []
    fifo.write_text("go")
    answers.wait(outcomes=1, lines=2)

    assert answers.lines == [line("first"), line("second")]


def test_no_more_than_max_workers_at_once(kind: Callable[[int], Runner], tmp_path: Path) -> None:
    def work(emit: Emit) -> Outcome:
        import uuid

        mine = tmp_path / f"{uuid.uuid4()}.running"
        mine.touch()
        count = len(list(tmp_path.glob("*.running")))
        for _ in range(20_000):
            pass
        mine.unlink()
        return Returned(count)

    with opened(kind(2)) as answers:
        for _ in range(40):
            answers.start(work)
        answers.wait(40)

    assert {outcome.value for _, outcome in answers.outcomes} <= {1, 2}


def test_works_run_beside_each_other(answers: Answers, tmp_path: Path) -> None:
    fifo = tmp_path / "meet"
    os.mkfifo(fifo)

    answers.start(lambda emit: Returned(fifo.write_text("met")))
    answers.start(lambda emit: Returned(fifo.read_text()))
    answers.wait(2)

    assert {outcome.value for _, outcome in answers.outcomes} == {3, "met"}


def test_close_waits_for_what_was_started_and_takes_no_more(kind: Callable[[int], Runner]) -> None:
    answers = Answers(kind(1))
    for number in range(5):
        answers.start(lambda emit, number=number: Returned(number))
    answers.runner.close()

    assert len(answers.outcomes) == 5
    with pytest.raises(RuntimeError, match="closed"):
        answers.start(lambda emit: Returned(1))
    answers.runner.close()


def test_close_without_waiting_still_answers(kind: Callable[[int], Runner]) -> None:
    answers = Answers(kind(1))
    for number in range(3):
        answers.start(lambda emit, number=number: Returned(number))
    answers.runner.close(wait=False)
    answers.wait(3)
    answers.runner.close()

    assert {outcome.value for _, outcome in answers.outcomes} == {0, 1, 2}


def test_an_error_in_done_or_emit_does_not_harm_the_runner(answers: Answers, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Any) -> None:
        raise ValueError("broken")

    def work(emit: Emit) -> Outcome:
        with contextlib.suppress(ValueError):
            emit(line("x"))
        return Returned(1)

    for _ in range(4):
        answers.runner.start(work, broken, broken)

    assert answers.call(lambda emit: Returned(2)) == Returned(2)
    answers.runner.close()
    assert "could not be handed back" in caplog.text


@pytest.mark.parametrize("kind", LOCAL.values(), ids=LOCAL)
def test_a_silly_number_of_workers_is_refused(kind: Callable[[int], Runner]) -> None:
    with pytest.raises(ValueError, match="max_workers"):
        kind(-1)


# -------------------------------------------------------------------------------------------------------------- threads


def test_a_pool_of_one_lets_works_wait_for_each_other_ten_deep() -> None:
    runner = ThreadRunner(1)

    def nested(depth: int, emit: Emit) -> Outcome:
        if depth == 0:
            return Returned(0)
        inner = Answers(runner)
        inner.start(functools.partial(nested, depth - 1))
        with runner.blocked(), runner.blocked():
            inner.wait(1)
        return Returned(inner.outcomes[0][1].value + 1)

    with opened(runner) as answers:
        assert answers.call(functools.partial(nested, 10)) == Returned(10)
        # Nothing was lost in the accounts: still one at a time, and in order.
        for number in range(20):
            answers.start(lambda emit, number=number: Returned(number), number)
        answers.wait(21)
    assert [label for label, _ in answers.outcomes[1:]] == list(range(20))


def test_after_a_wait_the_pool_keeps_to_its_size_again() -> None:
    runner = ThreadRunner(1)
    with opened(runner) as answers:

        def waits(emit: Emit) -> Outcome:
            inner = Answers(runner)
            with runner.blocked():
                inner.call(lambda emit: Returned(None))
            return Returned(None)

        answers.call(waits)
        running = threading.Semaphore(1)

        def alone(emit: Emit) -> Outcome:
            free = running.acquire(blocking=False)
            sum(range(5_000))
            if free:
                running.release()
            return Returned(free)

        for _ in range(50):
            answers.start(alone)
        answers.wait(51)

    assert all(outcome.value for _, outcome in answers.outcomes[1:])


def test_blocked_changes_nothing_on_a_thread_of_somebody_else() -> None:
    runner = ThreadRunner(1)
    gate = threading.Event()
    with opened(runner) as answers:
        answers.start(lambda emit: Returned(gate.wait(WAIT)), "first")
        answers.start(lambda emit: Returned(gate.is_set()), "second")
        with runner.blocked():
            gate.set()
        answers.wait(2)

    assert answers.outcomes == [("first", Returned(True)), ("second", Returned(True))]


def test_many_works_that_wait_all_get_a_thread() -> None:
    barrier = threading.Barrier(40)
    with opened(ThreadRunner()) as answers:
        for _ in range(40):
            answers.start(lambda emit: Returned(barrier.wait(WAIT)))
        answers.wait(40)

    assert sorted(outcome.value for _, outcome in answers.outcomes) == list(range(40))


def test_short_works_are_done_by_few_threads() -> None:
    runner = ThreadRunner()
    with opened(runner) as answers:
        for number in range(2_000):
            answers.start(lambda emit: Returned(None), number)
        answers.wait(2_000)

    assert sorted(label for label, _ in answers.outcomes) == list(range(2_000))
    assert runner._made < threads.DEFAULT_MAX_WORKERS


def test_threads_are_named_daemons_used_again_and_end_when_idle() -> None:
    runner = ThreadRunner(4, idle_seconds=0.05)
    seen: set[threading.Thread] = set()

    def work(emit: Emit) -> Outcome:
        thread = threading.current_thread()
        seen.add(thread)
        return Returned((thread.name.rpartition("-")[0], thread.daemon))

    with opened(runner) as answers:
        assert answers.call(work) == Returned(("prefect_nb", True))
        for thread in list(seen):
            thread.join(WAIT)
        assert not any(thread.is_alive() for thread in seen)
        assert answers.call(work) == Returned(("prefect_nb", True))


def test_no_work_is_lost_between_idleness_and_the_end_of_a_thread() -> None:
    with opened(ThreadRunner(3, idle_seconds=0.0)) as answers:
        for number in range(500):
            assert answers.call(lambda emit, number=number: Returned(number)) == Returned(number)


def test_an_idle_thread_holds_on_to_nothing() -> None:
    class Big:
        pass

    with opened(ThreadRunner(1)) as answers:
        big = Big()
        gone = weakref.ref(big)
        answers.call(functools.partial(lambda big, emit: Returned(None), big))
        del big
        answers.call(lambda emit: Returned(None))
        gc.collect()
        assert gone() is None


def test_where_the_system_gives_no_more_threads_those_there_are_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    with opened(ThreadRunner(5)) as answers:
        answers.start(lambda emit: Returned(gate.wait(WAIT)))

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        for number in range(3):
            answers.start(lambda emit, number=number: Returned(number))
        gate.set()
        answers.wait(4)
        with pytest.raises(RuntimeError, match="can't start"):
            Answers(ThreadRunner(1)).start(lambda emit: Returned(None))

    assert [outcome.value for _, outcome in answers.outcomes] == [True, 0, 1, 2]


# ------------------------------------------------------------------------------------------------------------ processes


def test_processes_are_others_and_are_used_again(processes: Answers) -> None:
    first = processes.call(lambda emit: Returned(os.getpid()))

    assert first != Returned(os.getpid())
    assert processes.call(lambda emit: Returned(os.getpid())) == first
    assert (ProcessRunner.remote, ThreadRunner.remote) == (True, False)


def test_arguments_that_cannot_travel_are_named(remote: Answers) -> None:
    def body(parameters: dict[str, Any], emit: Emit) -> Outcome:
        return Returned(parameters)

    lock = threading.Lock()
    texts = [
        assert_raised(remote.call(functools.partial(body, {"n": 1, "guard": lock})), SerializationError),
        assert_raised(remote.call(lambda emit: Returned(lock)), SerializationError),
    ]

    assert "guard (of type _thread.lock)" in texts[0]
    assert "lock (of type _thread.lock)" in texts[1]


def test_arguments_that_cannot_be_read_there_are_said(remote: Answers) -> None:
    class Odd:
        def __reduce__(self) -> Any:
            return (int, ("not a number",))

    odd = Odd()
    text = assert_raised(remote.call(lambda emit: Returned(odd)), SerializationError)

    assert "cannot be read in the worker process: ValueError: invalid literal" in text


def test_a_value_that_cannot_come_back_is_said(remote: Answers) -> None:
    def work(emit: Emit) -> Outcome:
        return Returned({"a": (n for n in range(3))})

    text = assert_raised(remote.call(work), SerializationError)

    assert "type dict" in text
    assert "a (of type generator)" in text


def test_a_value_that_cannot_be_read_here_is_said(remote: Answers) -> None:
    here = os.getpid()

    class Homesick:
        def __reduce__(self) -> Any:
            return (build, ())

    def build() -> Any:
        if os.getpid() == here:
            raise LookupError("not here")
        return Homesick()

    text = assert_raised(remote.call(lambda emit: Returned(Homesick())), SerializationError)

    assert "LookupError: not here" in text


def test_objects_of_a_class_defined_here_come_back_as_that_class(remote: Answers) -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    class OwnError(Exception):
        pass

    def fail(emit: Emit) -> Outcome:
        raise OwnError("mine")

    outcome = remote.call(lambda emit: Returned(Point(3)))

    assert isinstance(outcome, Returned)
    assert type(outcome.value) is Point
    assert assert_raised(remote.call(fail), OwnError) == "mine"


def test_an_exception_brings_its_traceback_as_text(remote: Answers) -> None:
    def deep_inside(emit: Emit) -> Outcome:
        raise ValueError("bad")

    outcome = remote.call(deep_inside)

    assert isinstance(outcome, Raised)
    assert "in deep_inside" in str(outcome.error.__cause__)
    assert "ValueError: bad" in str(outcome.error.__cause__)


class TwoArguments(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "text"),
    [(TwoArguments, "TwoArguments: 7: seven"), (HoldsALock, "HoldsALock: holds a lock")],
)
def test_an_exception_that_cannot_travel_comes_as_text(remote: Answers, error: type[Exception], text: str) -> None:
    arguments = (7, "seven") if error is TwoArguments else ()

    def broken_body(emit: Emit) -> Outcome:
        raise error(*arguments)

    outcome = remote.call(broken_body)

    assert assert_raised(outcome, RuntimeError) == text
    assert "in broken_body" in str(outcome.error.__cause__)


def test_an_exception_without_words_comes_back(remote: Answers) -> None:
    def broken_body(emit: Emit) -> Outcome:
        raise Mute

    outcome = remote.call(broken_body)

    assert isinstance(outcome, Raised)
    assert type(outcome.error).__name__ == "Mute"
    assert "in broken_body" in str(outcome.error.__cause__)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda: os._exit(7), "worker process died (exit code 7)"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "worker process died (signal 9"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "worker process died (signal 15"),
    ],
    ids=["exit", "SIGKILL", "SIGTERM"],
)
def test_a_process_that_dies_takes_only_its_own_work_with_it(
    processes: Answers, tmp_path: Path, end: Callable[[], None], said: str
) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    processes.start(lambda emit: Returned(fifo.read_text()), "neighbour")
    processes.start(lambda emit: Returned(end()), "dies")
    for number in range(3):
        processes.start(lambda emit, number=number: Returned(number), number)
    processes.wait(4)
    fifo.write_text("unharmed")
    processes.wait(5)

    outcomes = dict(processes.outcomes)
    death = outcomes.pop("dies")
    assert isinstance(death, Interrupted)
    assert type(death.error) is CrashedRun
    assert said in death.message
    assert outcomes == {"neighbour": Returned("unharmed"), **{number: Returned(number) for number in range(3)}}


def test_a_process_that_died_idle_is_replaced_unseen(processes: Answers) -> None:
    outcome = processes.call(lambda emit: Returned(os.getpid()))
    assert isinstance(outcome, Returned)
    for worker in processes.runner._workers._free:
        worker.kill()
        worker._process.wait()

    replaced = processes.call(lambda emit: Returned(os.getpid()))

    assert isinstance(replaced, Returned)
    assert replaced != outcome


def test_kill_ends_what_runs_and_only_that(tmp_path: Path) -> None:
    runner = ProcessRunner(1)
    with opened(runner) as answers:

        def endless(emit: Emit) -> Outcome:
            emit(line("running"))
            signal.pause()
            return Returned(None)

        answers.start(endless, "endless")
        answers.start(lambda emit: Returned("next"), "next")
        answers.wait(lines=1)
        runner.kill()
        answers.wait(2)

    outcomes = dict(answers.outcomes)
    assert isinstance(outcomes["endless"], Interrupted)
    assert outcomes["next"] == Returned("next")


def test_processes_ignore_sigint(processes: Answers) -> None:
    def work(emit: Emit) -> Outcome:
        os.kill(os.getpid(), signal.SIGINT)
        return Returned("still here")

    assert processes.call(work) == Returned("still here")


def test_a_process_forked_by_the_work_does_not_hide_its_death(processes: Answers, tmp_path: Path) -> None:
    fifo = tmp_path / "end"
    os.mkfifo(fifo)

    def work(emit: Emit) -> Outcome:
        if os.fork() == 0:
            fifo.read_text()
            os._exit(0)
        os._exit(5)

    try:
        assert isinstance(processes.call(work), Interrupted)
    finally:
        fifo.write_text("end")


def test_large_payloads_and_many_lines_go_both_ways(remote: Answers) -> None:
    blob = b"x" * 20_000_000

    def work(emit: Emit) -> Outcome:
        for number in range(500):
            emit(line(f"{number} " + "x" * 1_000))
        return Returned(blob)

    outcome = remote.call(work)

    assert isinstance(outcome, Returned)
    assert value_of(outcome) == blob
    assert [text.message.split()[0] for text in remote.lines] == [str(number) for number in range(500)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_close_leaves_no_process_behind() -> None:
    with opened(ProcessRunner(2)) as answers:
        outcome = answers.call(lambda emit: Returned(os.getpid()))

    assert isinstance(outcome, Returned)
    assert not is_alive(outcome.value)


_PROGRAM = """
import os, threading
from prefect_nb.engine.commands import Returned
from prefect_nb.runners import ProcessRunner

class Point:
    def __init__(self, x): self.x = x

def work(emit):
    return Returned((Point(os.getpid()), __name__))

runner = ProcessRunner(1)
answered = threading.Event()
def done(outcome):
    point, name = outcome.value
    assert isinstance(point, Point)
    print(point.x, name, flush=True)
    answered.set()
runner.start(work, done, print)
assert answered.wait(60)
"""
_BUSY_AT_EXIT = """
started = threading.Event()
runner.start(lambda emit: (emit("running"), threading.Event().wait()), print, lambda line: started.set())
assert started.wait(60)
"""
_KILLED = "os.kill(os.getpid(), 9)\n"


@pytest.mark.parametrize("way", ["-c", "stdin", "script", "interactive"])
@pytest.mark.parametrize("rest", ["", _BUSY_AT_EXIT, _BUSY_AT_EXIT + _KILLED], ids=["idle", "busy", "killed"])
def test_any_main_program_works_and_leaves_no_process_and_no_noise(tmp_path: Path, way: str, rest: str) -> None:
    program = _PROGRAM + rest
    script = tmp_path / "program.py"
    script.write_text(program)
    arguments = {"-c": ["-c", program], "stdin": ["-"], "script": [str(script)], "interactive": ["-i", "-q"]}[way]
    # The interactive interpreter wants an empty line after a block.
    typed = f"exec({program!r})\n" if way == "interactive" else program
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        input=typed,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )

    # Worker processes have the same standard output, so it ended, in time, only because they had.
    assert done.stdout.split()[1] == "__main__"
    assert done.returncode == (-signal.SIGKILL if rest.endswith(_KILLED) else 0)
    assert done.stderr.replace(">>>", "").strip() == ""


# ------------------------------------------------------------------------------------------------------------- clusters


def returning(size: int) -> Work:
    return lambda emit: Returned(b"x" * size)


class Sized:
    """A work with arguments, as the calls of task runs are."""

    def __init__(self, **parameters: Any) -> None:
        self.parameters = parameters

    def __getstate__(self) -> dict[str, Any]:
        return {"parameters": arguments(self.parameters)}

    def __call__(self, emit: Emit) -> Outcome:
        return Returned({name: (len(value), id(value)) for name, value in self.parameters.items()})


class Stoppable:
    def __call__(self, emit: Emit) -> Outcome:
        self.told = threading.Event()
        emit(line("running"))
        return Returned(self.told.wait(WAIT))

    def stop(self) -> None:
        self.told.set()


def test_a_large_value_stays_there_until_it_is_asked_for(on_cluster: Answers) -> None:
    small, large = on_cluster.call(returning(1_000)), on_cluster.call(returning(1_000_000))

    assert small == Returned(b"x" * 1_000)
    assert isinstance(large, Returned)
    assert isinstance(large.value, Held)
    assert large.value.get() == b"x" * 1_000_000
    assert large.value.get() is large.value.get()


def test_a_value_that_stays_there_is_given_to_the_next_work_without_coming_here(on_cluster: Answers) -> None:
    held = on_cluster.call(returning(1_000_000)).value

    def measure(values: list[Any], emit: Emit) -> Outcome:
        return Returned((len(values[0]), values[0] is values[1]))

    assert on_cluster.call(functools.partial(measure, [held, held])) == Returned((1_000_000, True))
    assert held.place is not None


def test_a_value_that_must_come_home_does(on_cluster: Answers) -> None:
    class Wanted:
        comes_home = True

        def __call__(self, emit: Emit) -> Outcome:
            return Returned(b"x" * 1_000_000)

    assert on_cluster.call(Wanted()) == Returned(b"x" * 1_000_000)


def test_values_there_outlive_the_runner(request: pytest.FixtureRequest) -> None:
    for name in CLUSTERS:
        with opened(made(name, request)(2)) as answers:
            held = answers.call(returning(1_000_000)).value

        assert held.place is None
        assert held.get() == b"x" * 1_000_000


def test_large_arguments_go_there_once(on_cluster: Answers) -> None:
    large, same, small = b"x" * 2_000_000, b"x" * 2_000_000, b"x" * 10
    for _ in range(3):
        (size, _), (other, _), (little, _) = on_cluster.call(Sized(a=large, b=same, c=small)).value.values()
        assert (size, other, little) == (2_000_000, 2_000_000, 10)

    assert len(on_cluster.runner._shared) == 1


def test_a_changed_argument_is_another(on_cluster: Answers) -> None:
    def first(parameters: dict[str, Any], emit: Emit) -> Outcome:
        return Returned(parameters["a"][0])

    class Body(Sized):
        def __call__(self, emit: Emit) -> Outcome:
            return Returned(self.parameters["a"][0])

    values = list(range(500_000))
    found = [on_cluster.call(Body(a=values)).value]
    values[0] = 7
    found.append(on_cluster.call(Body(a=values)).value)

    assert found == [0, 7]


def test_a_work_that_knows_how_to_stop_is_told_to(request: pytest.FixtureRequest) -> None:
    with opened(made("dask", request)(2)) as answers:
        answers.start(Stoppable())
        answers.wait(lines=1)
        answers.runner.kill()
        answers.wait(1)

        assert answers.outcomes[0][1] == Returned(True)
        assert answers.call(lambda emit: Returned("next")) == Returned("next")


def test_kill_ends_what_runs_and_what_has_not_begun(on_cluster: Answers) -> None:
    def endless(emit: Emit) -> Outcome:
        emit(line("running"))
        while True:
            threading.Event().wait(0.01)

    for number in range(2):
        on_cluster.start(endless if on_cluster.runner.name == "ray" else Stoppable(), number)
    on_cluster.wait(lines=2)
    on_cluster.start(lambda emit: Returned("never"), "waiting")
    on_cluster.runner.kill()
    on_cluster.wait(3)

    outcomes = dict(on_cluster.outcomes)
    assert isinstance(outcomes["waiting"], Interrupted)
    assert {type(outcomes[0]), type(outcomes[1])} <= {Interrupted, Returned}
