"""`prefect-nb` as a process of its own."""

import sys


def command(*args: str) -> list[str]:
    """The command line of `prefect-nb` with these arguments, in the environment under test."""
    return [sys.executable, "-m", "prefect_nb", *args]
