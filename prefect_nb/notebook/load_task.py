"""`%load_task run/task`: a failed task's inputs as variables, its body in the next cell."""

from __future__ import annotations

from typing import Any

from IPython.core.error import UsageError

from prefect_nb.exceptions import PrefectException
from prefect_nb.notebook.options import Parser
from prefect_nb.service.text import one_line


def load_task_parser(magic: str) -> Parser:
    """The options of `%load_task`."""
    parser = Parser(
        magic,
        "run/task",
        "Bring a failed task here: its inputs become variables under their own names, and its body goes into the next cell,\n"
        "where it can be executed line by line. Nothing is executed by itself.",
        f"example:\n  {magic} quick-fox/clean",
    )
    parser.add_argument("task", help="run/task; a task run's name or id; a flow run of which one task failed; a task")
    return parser


def run_load_task(shell: Any, magic: str, line: str) -> None:
    """Set the variables and write the cell.

    Raises:
        UsageError: there is no such task run, or its inputs were not kept.
    """
    from prefect_nb.home import Home
    from prefect_nb.service.failed_tasks import load_task

    chosen = load_task_parser(magic).options(line)
    if chosen is None:
        return
    Home.current().ledger.commit()
    try:
        loaded = load_task(chosen.task)
    except PrefectException as error:
        raise UsageError(str(error)) from None
    replaced = [
        name for name in loaded.inputs if name in shell.user_ns and shell.user_ns[name] is not loaded.inputs[name]
    ]
    cell = loaded.cell(shell.user_ns)
    shell.user_ns.update(loaded.inputs)
    shell.set_next_input(cell)
    names = ", ".join(loaded.inputs) or "no inputs"
    print(f"{one_line(loaded.run.name, 60)}: {names}. Its body is in the next cell.")  # noqa: T201
    if replaced:
        print(f"These variables had other values before: {', '.join(replaced)}.")  # noqa: T201
    for name, why in loaded.missing.items():
        print(f"{name} is not here: {why}.")  # noqa: T201
