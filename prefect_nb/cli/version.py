"""`prefect-nb version`."""

import importlib.metadata
import platform

import click

from prefect_nb.cli.group import Command


@click.command(cls=Command)
def version() -> None:
    """Show the version.

    Example:
      prefect-nb version
    """
    click.echo(f"prefect_nb {importlib.metadata.version('prefect-nb')}")
    click.echo(f"Python     {platform.python_version()} on {platform.system()}")
