"""`prefect-nb version`."""

import importlib.metadata
import platform

import click


@click.command()
def version() -> None:
    r"""Show the version.

    \b
    Example:
      prefect-nb version
    """
    click.echo(f"prefect_nb {importlib.metadata.version('prefect-nb')}")
    click.echo(f"Python     {platform.python_version()} on {platform.system()}")
