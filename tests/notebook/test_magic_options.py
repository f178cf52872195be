"""The line of a magic: how it is read, and what is said when it is wrong."""

import pytest
from IPython.core.error import UsageError

from prefect_nb.notebook import options
from prefect_nb.notebook.magics import _flow_parser, _runs_parser
from prefect_nb.notebook.options import HelpAsked, Reference
from prefect_nb.notebook.parsers import task_parser
from prefect_nb.notebook.task_cells import Heading, read_heading


def flow(line):
    return _flow_parser("%%flow").parse(line)


def test_a_bare_line_has_the_defaults():
    chosen = flow("")

    assert (chosen.name, chosen.retries, chosen.timeout, chosen.parameters) == (None, 0, None, [])
    assert (chosen.runner, chosen.max_workers, chosen.tags, chosen.out) == ("threads", None, [], None)
    assert (chosen.log_prints, chosen.durable, chosen.cache) == (False, False, False)


def test_the_usual_line():
    chosen = flow("nightly -r 2 --retry-delay 5s --timeout 10m -p date=2026-01-01 --tag a --tag b -o run --durable")

    assert (chosen.name, chosen.retries, chosen.retry_delay, chosen.timeout) == ("nightly", 2, 5.0, 600.0)
    assert chosen.parameters == [("date", "2026-01-01")]
    assert (chosen.tags, chosen.out, chosen.durable) == (["a", "b"], "run", True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=3", 3),
        ("x=1.5", 1.5),
        ("x=None", None),
        ("x=[1,2]", [1, 2]),
        ("x=2026-01-01", "2026-01-01"),
        ("x='hello world'", "hello world"),
        ("'x=hello world'", "hello world"),
        ("x=a=b", "a=b"),
        ("x=", ""),
        ("x={a}", "{a}"),
        ("x=$a", "$a"),
        (r"x=C:\data\new", r"C:\data\new"),
        ("x=#3", "#3"),
    ],
)
def test_values_of_parameters(text, value):
    assert flow(f"-p {text}").parameters == [("x", value)]


def test_a_parameter_may_name_a_variable():
    ((name, value),) = flow("-p df=@frame").parameters

    assert (name, type(value)) == ("df", Reference)
    assert value.look_up({"frame": 7}) == 7
    with pytest.raises(UsageError, match=r"no variable 'frame'.*Did you mean 'frames'"):
        value.look_up({"frames": 7})


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("30s", 30), ("1.5h", 5400), ("250ms", 0.25), ("2 m", 120), ("1d", 86400)]
)
def test_lengths_of_time(text, seconds):
    assert options.duration(text) == seconds


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--retires 3", r"unknown option --retires; did you mean --retries\?"),
        ("nightly --time-out=3", r"unknown option --time-out; did you mean --timeout\?"),
        ("--zzzzzz", r"unknown option --zzzzzz\."),
        ("-r two", "'two' is no number"),
        ("-r -1", "'-1' is no number"),
        ("--timeout soon", "'soon' is no length of time; write 30s"),
        ("-p date", "'date' is not of the form name=value"),
        ("-p 1a=2", "'1a' is no name"),
        ("-p a=@b.c", "'b.c' is no name"),
        ("--runner dask", r"choose from .*threads.*processes"),
        ("--max-workers 0", "at least 1"),
        ("two names", "unexpected argument 'names'"),
        ("-o 'a b'", "'a b' is no name"),
        ("-p msg='hello", "a quote is not closed"),
        ("-r", "expected one argument"),
    ],
)
def test_usage_errors_say_what_to_do(line, words):
    with pytest.raises(UsageError, match=words) as refused:
        flow(line)

    assert "`%%flow -h`" in str(refused.value)


@pytest.mark.parametrize("make", [_flow_parser, task_parser, _runs_parser])
@pytest.mark.parametrize("line", ["-h", "--help", "name -h --nonsense"])
def test_every_magic_has_help(make, line):
    with pytest.raises(HelpAsked, match=r"usage: %%it \["):
        make("%%it").parse(line)


@pytest.mark.parametrize(
    ("line", "heading"),
    [
        ("", Heading(None, None, None, "")),
        ("clean", Heading("clean", None, None, "")),
        ("clean-up -r 2", Heading("clean-up", None, None, " -r 2")),
        ("clean(raw) -> tidy", Heading("clean", ("raw",), ("tidy",), "")),
        ("clean(a, b, a) -> x, y --no-cache", Heading("clean", ("a", "b"), ("x", "y"), " --no-cache")),
        ("clean->tidy", Heading("clean", None, ("tidy",), "")),
        ("clean()", Heading("clean", (), None, "")),
        ("(raw)", Heading(None, ("raw",), None, "")),
        ("'my task'(raw)", Heading("my task", ("raw",), None, "")),
        ("-r 2", Heading(None, None, None, "-r 2")),
    ],
)
def test_headings_of_task_cells(line, heading):
    assert read_heading(line) == heading


def test_an_input_must_be_a_name():
    with pytest.raises(UsageError, match="'raw data' is no name"):
        read_heading("clean(raw data)")
