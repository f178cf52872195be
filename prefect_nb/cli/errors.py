"""From an exception to one clear message on stderr and an exit code.

0 done; 1 the run failed or crashed, or something is wrong; 2 bad usage or input, nothing was done; 3 suspended; 75 another process
took the run over; 130 interrupted or cancelled; 143 told to end (SIGTERM).
"""

import contextlib
import os
import sys

import click

from prefect_nb import exceptions as e
from prefect_nb.service.text import plain

OK, FAILED, USAGE, SUSPENDED, FENCED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 75, 130, 143

_BAD_INPUT = (
    e.ObjectNotFound,
    e.ObjectAlreadyExists,
    e.MissingFlowError,
    e.UnspecifiedFlowError,
    e.ScriptError,
    e.ParameterTypeError,
    e.ParameterBindError,
    e.SignatureMismatchError,
    e.ReservedArgumentError,
    e.InvalidNameError,
    e.ConfigurationError,
    e.NotPausedError,
    e.NotResumable,
    e.InvalidMove,
    e.NotebookError,
    e.StoreDamaged,
    e.StoreUnavailable,
)


def exit_code(error: BaseException) -> int:
    """What the process ends with when a command ends with this."""
    match error:
        case click.ClickException():
            return error.exit_code
        case e.Fenced():
            return FENCED
        case KeyboardInterrupt() | click.Abort() | e.CancelledRun() | e.RunCancelled():
            return INTERRUPTED
        case e.TerminationSignal():
            return TERMINATED
        case _ if isinstance(error, _BAD_INPUT):
            return USAGE
    return FAILED


def show(error: BaseException) -> None:
    """Say what is wrong, without a traceback."""
    match error:
        case click.UsageError():
            _show_usage(error)
        case click.ClickException():
            say(error.format_message())
        case KeyboardInterrupt() | click.Abort():
            say("Interrupted.")
        case e.TerminationSignal():
            say("Terminated.")
        case e.PrefectException():
            say(str(error))
        case _:
            say(
                f"{type(error).__name__}: {error}\n"
                "This is a fault of prefect_nb. Run `prefect-nb --debug ...` again to see where it comes from."
            )


def say(text: str) -> None:
    """A line of its own on stderr, without what could disturb a terminal."""
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"Error: {plain(text)}", err=True)


def silence() -> None:
    """Nobody reads what is printed any more: let nothing be said about that when the interpreter ends."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_usage(error: click.UsageError) -> None:
    context = error.ctx
    if context is not None:
        click.echo(context.get_usage(), err=True)
    say(error.format_message())
    if context is not None:
        click.echo(f"Try '{context.command_path} --help'.", err=True)
