"""What scripts leave for the test to see."""

import os
import sys


def note(what: str) -> None:
    """A line in the execution log for every body that runs, written before anything can kill the process."""
    descriptor = os.open(os.environ["EXECUTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{os.getpid()} {what}\n".encode())
    finally:
        os.close(descriptor)


def say(answer: object) -> None:
    """Tell the test."""
    sys.stdout.write(f"{answer}\n")
