"""How much of a run's log is kept, and the line that stands for what is not."""

import logging
from typing import NamedTuple
from uuid import UUID

from prefect_nb.interfaces import LogLine


class LogLimit(NamedTuple):
    """How much one run may keep: a flow run with its task runs, or a task run outside any. The newest lines stay."""

    lines: int = 100_000
    bytes: int = 64 * 1024 * 1024


def log_of(line: LogLine) -> UUID | None:
    """The run whose log the line counts for."""
    return line.flow_run_id or line.task_run_id


def lines_left_out(at_us: int, count: int, limit: LogLimit, newest: LogLine) -> LogLine:
    """What stands in the place of the lines that went."""
    lines = "line was" if count == 1 else "lines were"
    message = (
        f"{count:,} older {lines} dropped here: a run keeps its newest {limit.lines:,}, {limit.bytes:,} bytes at most."
    )
    return LogLine(at_us, logging.WARNING, "prefect_nb.logs", message, newest.flow_run_id, newest.task_run_id)


def size_of(line: LogLine) -> int:
    """Its message's bytes."""
    return len(line.message) if line.message.isascii() else len(line.message.encode("utf-8", "backslashreplace"))
