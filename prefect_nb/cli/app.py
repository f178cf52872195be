"""`prefect-nb` itself: the commands put together, errors turned into messages and exit codes."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from prefect_nb.cli import errors
from prefect_nb.cli.configuration import config
from prefect_nb.cli.doctor import doctor
from prefect_nb.cli.flow_runs import flow_run
from prefect_nb.cli.group import Group
from prefect_nb.cli.limits import concurrency_limit, gcl, global_concurrency_limit
from prefect_nb.cli.run import run
from prefect_nb.cli.task_runs import task_run
from prefect_nb.cli.tasks import task
from prefect_nb.cli.version import version
from prefect_nb.exceptions import PrefectSignal


class App(Group):
    """The outermost group: every way out of a command ends here."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; a command's return value is the exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a terminal that has no glyph for a state gets a question mark
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            errors.silence()
            code = errors.FAILED
        except (Exception, KeyboardInterrupt, PrefectSignal) as error:
            if _debugging(args):
                raise
            errors.show(error)
            code = errors.exit_code(error)
        sys.exit(code or errors.OK)


def _debugging(args: Sequence[str] | None) -> bool:
    given = list(sys.argv[1:] if args is None else args)
    return given[:1] == ["--debug"] or os.environ.get("PREFECT_NB_DEBUG", "0") not in ("", "0")


@click.group(
    cls=App,
    commands={
        "run": run,
        "flow-run": flow_run,
        "task-run": task_run,
        "task": task,
        "concurrency-limit": concurrency_limit,
        "global-concurrency-limit": global_concurrency_limit,
        "gcl": gcl,
        "doctor": doctor,
        "config": config,
        "version": version,
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error (also: PREFECT_NB_DEBUG=1).")
def main(debug: bool) -> None:
    """Run notebooks and Python flows, and look at every run there ever was.

    Examples:
      prefect-nb run report.ipynb -p year=2024
      prefect-nb flow-run ls
    """
