"""The options that several magics share."""

from __future__ import annotations

from prefect_nb.notebook import options
from prefect_nb.notebook.options import Parser


def task_parser(magic: str) -> Parser:
    """What may follow the name, inputs and outputs on the first line of a `%%task` cell."""
    parser = Parser(
        magic,
        "[name[(inputs)] [-> outputs]] [options]",
        "Run this cell as a task. Its inputs are the variables it reads, its outputs the names it assigns. Where it ran\n"
        "before with the same code and the same inputs, the outputs are taken from there.",
        f"example:\n  {magic} clean(raw) -> tidy -r 2",
    )
    add_common(parser)
    parser.add_argument("--cache", action="store_true", default=True, help="reuse earlier results (default)")
    parser.add_argument("--no-cache", dest="cache", action="store_false", help="run it in any case, keep nothing")
    return parser


def add_common(parser: Parser) -> None:
    """Retries, timeout, tags and the log."""
    parser.add_argument("-r", "--retries", type=options.count, default=0, metavar="N", help="attempts after a failure")
    parser.add_argument(
        "--retry-delay", type=options.duration, default=0.0, metavar="TIME", help="pause before each, such as 5s"
    )
    parser.add_argument(
        "--timeout", type=options.duration, metavar="TIME", help="how long one attempt may take, such as 10m"
    )
    parser.add_argument(
        "--tag", dest="tags", action="append", default=[], metavar="TAG", help="tag the run; repeatable"
    )
    parser.add_argument("--log-prints", action="store_true", help="write prints to the run's log")


def add_runner(parser: Parser) -> None:
    """Where submitted tasks run, and the variable that keeps the flow run."""
    parser.add_argument(
        "--runner", choices=("threads", "processes"), default="threads", help="where submitted tasks run"
    )
    parser.add_argument("--max-workers", type=options.positive, metavar="N", help="how many of them at once")
    parser.add_argument("-o", "--out", type=options.variable, metavar="NAME", help="keep the run in this variable")
