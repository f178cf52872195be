"""The command line: `prefect-nb`. Each command asks `service` and shows what it says."""

from prefect_nb.cli.app import main

__all__ = ["main"]
