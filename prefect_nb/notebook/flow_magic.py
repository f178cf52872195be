"""`%flow` and its subcommands; alone, it lists the flows."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any, NamedTuple

from IPython.core.error import UsageError

from prefect_nb.exceptions import PrefectException
from prefect_nb.home import Home
from prefect_nb.notebook import queue_commands
from prefect_nb.notebook.options import HelpAsked, Parser
from prefect_nb.notebook.parsers import add_common, add_runner
from prefect_nb.service import history
from prefect_nb.service.text import did_you_mean


class Called(NamedTuple):
    """How `%flow` was called."""

    shell: Any
    names: dict[tuple[str, str], str]
    """What each magic is called in this shell, by kind and usual name."""

    @property
    def magic(self) -> str:
        """What `%flow` is called here, with its percent sign."""
        return "%" + self.names["line", "flow"]


class Subcommand(NamedTuple):
    """One word after `%flow`."""

    summary: str
    """What it does, for the help of `%flow`."""
    parser: Callable[[str], Parser]
    """Given what it is called, such as `%flow run`: the parser of what follows."""
    run: Callable[[Called, Namespace], Any]
    """Does it; the value is shown as that of the cell."""


def flow_magic(shell: Any, names: dict[tuple[str, str], str], line: str) -> Any:
    """Do what a line after `%flow` asks for.

    Raises:
        UsageError: there is no such subcommand or option, or what it asks for cannot be done.
    """
    called = Called(shell, names)
    word, _, rest = line.strip().partition(" ")
    if word in ("-h", "--help"):
        print(_overview(called.magic))  # noqa: T201 - it is the magic's output
        return None
    subcommand = SUBCOMMANDS.get(word or "list")
    if subcommand is None:
        near = did_you_mean(word, SUBCOMMANDS)
        raise UsageError(f"{called.magic}: there is no {word!r}.{near} `{called.magic} -h` shows what there is.")
    try:
        chosen = subcommand.parser(f"{called.magic} {word}".rstrip()).parse(rest)
        return subcommand.run(called, chosen)
    except HelpAsked as asked:
        print(str(asked))  # noqa: T201
        return None
    except PrefectException as error:
        if getattr(error, "_render_traceback_", None) is not None:  # it is that of a run
            raise
        raise UsageError(str(error)) from None


def _overview(magic: str) -> str:
    wide = max(map(len, SUBCOMMANDS))
    lines = [f"  {magic} {word.ljust(wide)}  {subcommand.summary}" for word, subcommand in SUBCOMMANDS.items()]
    return "\n".join([f"usage: {magic} [subcommand] [options]", "", *lines, "", f"`{magic} run -h` tells of one more."])


# list


def _list_parser(magic: str) -> Parser:
    return Parser(magic, "[-h]", "List the flows that have run, each with its newest run.")


def _list(called: Called, _: Namespace) -> None:
    from prefect_nb.notebook.listing import newest_of_each, show, table_of

    Home.current().ledger.commit()
    found = newest_of_each(history.flow_runs(limit=500))
    if found:
        show(table_of(found))
    else:
        cell_magic = "%%" + called.names["cell", "flow"]
        print(f"No flow has run yet. `{cell_magic} -h` tells how to run a cell as one.")  # noqa: T201


# run and graph


def _run_parser(magic: str) -> Parser:
    parser = Parser(
        magic,
        "[task ...] [options]",
        "Run the notebook's %%task cells as one flow run, in the order in which they need each other's names; cells that\n"
        "do not need each other run side by side. With the names of tasks: those cells, and what they need.",
        f"example:\n  {magic}\n  {magic} train --plan\n  {magic} --from clean --max-workers 4",
    )
    _add_selection(parser)
    parser.add_argument("--name", help="name of the flow (default: the notebook's)")
    add_common(parser)
    add_runner(parser)
    parser.add_argument(
        "--plan", action="store_true", help="run nothing; say of each cell whether it would run or is cached, and why"
    )
    return parser


def _graph_parser(magic: str) -> Parser:
    parser = Parser(
        magic,
        "[task ...] [options]",
        "Draw the notebook's %%task cells and what they need of each other, each with the state of its newest run.",
        f"example:\n  {magic}\n  {magic} train",
    )
    _add_selection(parser)
    return parser


def _add_selection(parser: Parser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="task", help="a %%%%task cell: only it and what it needs")
    parser.add_argument(
        "--from",
        dest="start",
        action="append",
        default=[],
        metavar="TASK",
        help="only this cell and what needs it; repeatable",
    )


def _run(called: Called, chosen: Namespace) -> None:
    from prefect_nb.notebook.graph_run import plan_task_cells, run_task_cells

    where: dict[str, Any] = {"only": chosen.tasks, "start": chosen.start, "shell": called.shell, "names": called.names}
    if chosen.plan:
        print(plan_task_cells(**where))  # noqa: T201 - it is the magic's output
        return
    run_task_cells(
        chosen.name,
        **where,
        runner=chosen.runner,
        max_workers=chosen.max_workers,
        tags=chosen.tags,
        retries=chosen.retries,
        retry_delay=chosen.retry_delay,
        timeout=chosen.timeout,
        log_prints=chosen.log_prints,
        out=chosen.out,
    )


def _graph(called: Called, chosen: Namespace) -> Any:
    from prefect_nb.notebook.graph_run import task_graph

    return task_graph(only=chosen.tasks, start=chosen.start, shell=called.shell, names=called.names)


def _of_queue(summary: str, parser: Callable[[str], Parser], run: Callable[[Any, Namespace], None]) -> Subcommand:
    return Subcommand(summary, parser, lambda called, chosen: run(called.shell, chosen))


SUBCOMMANDS: dict[str, Subcommand] = {
    "list": Subcommand("list the flows that have run", _list_parser, _list),
    "run": Subcommand("run the notebook's task cells as one flow", _run_parser, _run),
    "graph": Subcommand("draw what the task cells need of each other", _graph_parser, _graph),
    "queue": _of_queue("list the detached cells", queue_commands.queue_parser, queue_commands.queue),
    "cancel": _of_queue("cancel a detached cell, or any flow run", queue_commands.cancel_parser, queue_commands.cancel),
    "move": _of_queue("change a detached cell's place in the queue", queue_commands.move_parser, queue_commands.move),
    "wait": _of_queue("wait for detached cells", queue_commands.wait_parser, queue_commands.wait),
    "clear": _of_queue("take all waiting cells out of the queue", queue_commands.clear_parser, queue_commands.clear),
}
