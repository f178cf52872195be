"""`%resume`: going on with a failed notebook run, from the notebook in which one looks at it."""

from __future__ import annotations

from IPython.core.error import UsageError

from prefect_nb.exceptions import PrefectException
from prefect_nb.notebook.options import Parser


def resume_parser(magic: str) -> Parser:
    """The options of `%resume`."""
    parser = Parser(
        magic,
        "[run] [options]",
        "Go on with a notebook run from the cell that failed, once that is corrected: in its own kernel while it is kept,\n"
        "later in a new one with the variables that were kept on the way. Without a name: the newest that failed.",
        f"example:\n  {magic} quick-fox",
    )
    parser.add_argument("run", nargs="?", help="a flow run: its name, its id or the beginning of its id")
    parser.add_argument("--from-cell", metavar="CELL", help="go on from this cell, named by its number or its id")
    parser.add_argument("--restart", action="store_true", help="run the notebook from the top, in a new kernel")
    return parser


def run_resume(magic: str, line: str) -> None:
    """Go on with the run, and say how, and what came of it.

    Args:
        magic: what the magic is called here.
        line: what follows it.

    Raises:
        UsageError: the options do not fit, or the run cannot be gone on with; the message says why.
    """
    from prefect_nb.service import control, history, parked

    chosen = resume_parser(magic).options(line)
    if chosen is None:
        return
    try:
        run = parked.newest_failed() if chosen.run is None else history.find_flow_run(chosen.run)
        finished = control.resume(run, from_cell=chosen.from_cell, restart=chosen.restart, tell=print)
    except PrefectException as error:
        raise UsageError(str(error)) from None
    now = finished.run
    message = f": {now.state_message}" if now.state_message and not now.state.is_completed() else ""
    print(f"{now.state_name}  flow run {now.name}{message}")  # noqa: T201
    if now.output_path is not None:
        print(f"  notebook  {now.output_path}")  # noqa: T201
