"""What `concurrency` and `rate_limit` have in common, plain or awaited."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect_nb.execution.context import current_flow, current_task
from prefect_nb.execution.limits import Hold, Limits
from prefect_nb.execution.logs import get_logger, get_run_logger
from prefect_nb.home import Home


def claimed(
    names: str | list[str] | None,
    occupy: int,
    *,
    decaying: bool,
    strict: bool,
    timeout_seconds: float | None,
    max_retries: int | None = None,
    holder: Any = None,
) -> tuple[Limits, Hold] | None:
    """Slots to ask for, on behalf of the run this code is in; None where no limit is named."""
    wanted = [names] if isinstance(names, str) else list(names or ())
    if not any(wanted):
        return None
    home = Home.current()
    run_id = getattr(holder, "id", None) or _run_id(home)
    hold = home.limits.claim(wanted, occupy, run_id=run_id, decaying=decaying, strict=strict)
    hold.limit_time(timeout_seconds, max_retries)
    return home.limits, hold


def stopping() -> str | None:
    """Why the run this code is in is being cancelled; None if it is not."""
    context = current_task.get() or current_flow.get()
    scope = getattr(context.execution, "scope", None) if context is not None else None
    return scope.reason if scope is not None and scope.stopping else None


def tell_of_missing(hold: Hold) -> None:
    """Warn of limits that do not exist."""
    if not hold.missing:
        return
    in_run = current_task.get() is not None or current_flow.get() is not None
    logger = get_run_logger() if in_run else get_logger("concurrency")
    logger.warning("Concurrency limits %r do not exist - skipping acquisition.", list(hold.missing))


def _run_id(home: Home) -> UUID | None:
    context = current_task.get() or current_flow.get()
    if context is not None:
        id: UUID = context.execution.run.id
        return id
    cell = home.current_cell()
    return cell.id if cell is not None else None
