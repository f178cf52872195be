"""`prefect-nb version`."""

import platform

import click

from prefect_nb import __version__


@click.command()
def version() -> None:
    r"""Show the version.

    \b
    Example:
      prefect-nb version
    """
    click.echo(f"prefect_nb {__version__}")
    click.echo(f"Python     {platform.python_version()} on {platform.system()}")
