"""`prefect-nb` itself: the commands put together, errors turned into messages and exit codes."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from prefect_nb.cli import errors
from prefect_nb.cli.artifacts import artifact
from prefect_nb.cli.blocks import block
from prefect_nb.cli.check import check
from prefect_nb.cli.configuration import config
from prefect_nb.cli.doctor import doctor
from prefect_nb.cli.flow_runs import flow_run
from prefect_nb.cli.group import Group
from prefect_nb.cli.kernels import kernel
from prefect_nb.cli.limits import concurrency_limit, gcl, global_concurrency_limit
from prefect_nb.cli.profiles import profile
from prefect_nb.cli.run import run
from prefect_nb.cli.task_runs import task_run
from prefect_nb.cli.tasks import task
from prefect_nb.cli.variables import variable
from prefect_nb.cli.version import version
from prefect_nb.exceptions import PrefectSignal
from prefect_nb.settings import objects


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
        "check": check,
        "flow-run": flow_run,
        "kernel": kernel,
        "task-run": task_run,
        "task": task,
        "concurrency-limit": concurrency_limit,
        "global-concurrency-limit": global_concurrency_limit,
        "gcl": gcl,
        "artifact": artifact,
        "variable": variable,
        "doctor": doctor,
        "block": block,
        "config": config,
        "profile": profile,
        "version": version,
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error (also: PREFECT_NB_DEBUG=1).")
@click.option("-p", "--profile", "profile_name", metavar="NAME", help="Use this profile of settings.")
@click.pass_context
def main(context: click.Context, debug: bool, profile_name: str | None) -> None:  # noqa: ARG001 - `_debugging` looks
    """Run notebooks and Python flows, and look at every run there ever was.

    Examples:
      prefect-nb run report.ipynb -p year=2024
      prefect-nb flow-run ls
    """
    if profile_name is not None:
        context.with_resource(objects.variables_set({"PREFECT_NB_PROFILE": profile_name}))
