"""Run logs: from `logging` and `print` to log lines of the right run.

`get_run_logger()` gives an adapter of the logger `prefect.flow_runs` or `prefect.task_runs` (Prefect's names). A handler
on their common parent turns records into `LogLine`s for the store and shows them on the console.
"""

from __future__ import annotations

import builtins
import logging
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_nb.exceptions import MissingContextError
from prefect_nb.execution import own_output
from prefect_nb.execution.context import current_flow, current_task
from prefect_nb.interfaces import Emit, LogLine
from prefect_nb.model import redaction
from prefect_nb.model.redaction import redact

if TYPE_CHECKING:
    LoggerAdapter = logging.LoggerAdapter[logging.Logger]
else:
    LoggerAdapter = logging.LoggerAdapter

MAX_LINE_BYTES = 64 * 1024
_MARGIN = 2048
_PART = 1024 * 1024

emit_to: ContextVar[Emit | None] = ContextVar("prefect_nb_emit", default=None)
"""Where this run's log lines go."""


@contextmanager
def sent_to(emit: Emit) -> Iterator[None]:
    """Around what is done for a run outside its body: log lines go here, unless they go somewhere already."""
    token = emit_to.set(emit) if emit_to.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            emit_to.reset(token)


log_prints: ContextVar[bool] = ContextVar("prefect_nb_log_prints", default=False)
"""Whether prints of the current body are logged."""

_runs = logging.getLogger("prefect")
_flow_logger = logging.getLogger("prefect.flow_runs")
_task_logger = logging.getLogger("prefect.task_runs")


class RunLogger(LoggerAdapter):
    """A logger whose records carry the run they belong to."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge the run's identity with the caller's own `extra`."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def getChild(self, suffix: str, extra: dict[str, Any] | None = None) -> RunLogger:  # noqa: N802 - logging's name
        """A logger of the same run whose name goes on with `suffix`."""
        return RunLogger(self.logger.getChild(suffix), {**(self.extra or {}), **(extra or {})})


def get_run_logger(context: Any = None, **extra: Any) -> RunLogger:  # noqa: ARG001 - Prefect's signature
    """The logger of the run this code runs in.

    Raises:
        MissingContextError: outside any run.
    """
    install()
    task, flow = current_task.get(), current_flow.get()
    if task is not None:
        return task_run_logger(task.execution.run, task.execution.task, **extra)
    if flow is not None:
        return flow_run_logger(flow.execution.run, flow.execution.flow, **extra)
    if _flow_logger.disabled and _task_logger.disabled:
        return RunLogger(_flow_logger, extra)
    hint = ""
    if threading.current_thread() is not threading.main_thread():
        hint = (
            " A thread that your code starts belongs to the run if it is given contextvars.copy_context().run to call."
        )
    raise MissingContextError(f"There is no active flow or task run context.{hint}")


@contextmanager
def disable_logger(name: str) -> Iterator[None]:
    """Inside: the logger of that name is silent."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def disable_run_logger() -> Iterator[None]:
    """Inside: run logs go nowhere, and `get_run_logger()` works outside any run. For trying a body on its own."""
    before = _flow_logger.disabled, _task_logger.disabled
    _flow_logger.disabled = _task_logger.disabled = True
    try:
        yield
    finally:
        _flow_logger.disabled, _task_logger.disabled = before


def get_logger(name: str | None = None) -> logging.Logger:
    """The logger `prefect`, or the one of that name under it."""
    if name is None or name == _runs.name:
        return _runs
    return logging.getLogger(name if name.startswith(f"{_runs.name}.") else f"{_runs.name}.{name}")


def flow_run_logger(run: Any, flow: Any = None, **extra: Any) -> RunLogger:
    """A logger for one flow run."""
    install()
    return RunLogger(
        _flow_logger,
        {
            "flow_run_name": run.name,
            "flow_run_id": str(run.id),
            "flow_name": getattr(flow, "name", None) or run.flow_name,
            **extra,
        },
    )


def task_run_logger(run: Any, task: Any = None, flow_run: Any = None, flow: Any = None, **extra: Any) -> RunLogger:
    """A logger for one task run, of the flow run given or the one this is called in."""
    install()
    here = current_flow.get()
    if flow_run is None and here is not None:
        flow_run = here.execution.run
    return RunLogger(
        _task_logger,
        {
            "task_run_id": str(run.id),
            "flow_run_id": str(run.flow_run_id) if run.flow_run_id else None,
            "task_run_name": run.name,
            "task_name": getattr(task, "name", None) or run.name,
            "flow_run_name": flow_run.name if flow_run is not None else None,
            "flow_name": getattr(flow, "name", None) or (flow_run.flow_name if flow_run is not None else None),
            **extra,
        },
    )


class _RunHandler(logging.Handler):
    """Keeps records of runs and shows them."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = public(self.format(record))
            flow_run_id = _uuid(getattr(record, "flow_run_id", None))
            task_run_id = _uuid(getattr(record, "task_run_id", None))
            sink = emit_to.get()
            if sink is not None and (flow_run_id or task_run_id):
                at_us = int(record.created * 1_000_000)
                sink(LogLine(at_us, record.levelno, record.name, message, flow_run_id, task_run_id))
            # In a notebook the view and the traceback say it already.
            said = record.exc_info is not None and in_notebook()
            if show_on_console and not said:
                # The traceback is kept; on the console the exception itself, raised to the caller, shows it.
                # What was carried elsewhere is shown where it came from.
                shown = getattr(sink, "show", show if task_run_id is None else show_of_task)
                shown(_console_text(record, public(record.getMessage())), record.levelno)
        except Exception:
            self.handleError(record)


show_on_console = True
_console_lock = threading.Lock()


def _console_text(record: logging.LogRecord, message: str) -> str:
    import time

    task = getattr(record, "task_run_name", None)
    subject = f"Task run {task!r}" if task else f"Flow run {getattr(record, 'flow_run_name', '?')!r}"
    moment = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
    return f"{moment} | {record.levelname:<7} | {subject} - {message}\n"


def show(text: str, level: int) -> None:
    """Write a log line to the console."""
    # A notebook shows stderr in red; an ordinary log line is no error.
    stream = sys.stdout if in_notebook() and level < logging.WARNING else sys.stderr
    with _console_lock:
        stream.write(text)


def show_of_task(text: str, level: int) -> None:
    """Write a task run's log line to the console, unless a view shows it under the task run."""
    if not own_output.takes_line(text, level):
        show(text, level)


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def public(message: str) -> str:
    """A log message without secrets, of at most 64 KiB; what was cut off is counted."""
    margin = max(_MARGIN, len(redaction.known[0])) if redaction.known else _MARGIN
    if len(message) <= MAX_LINE_BYTES + margin:
        return _clipped(redact(message), None)
    # Cut first, as all that is done to a text takes as much memory again. A secret that the cut goes through is at the
    # end of what is left, and that end goes, too.
    return _clipped(redact(message[: MAX_LINE_BYTES + margin])[:-margin], _size(message))


def _clipped(message: str, size: int | None) -> str:
    data = message.encode("utf-8", "surrogatepass")
    if len(data) <= MAX_LINE_BYTES and size is None:
        return message
    kept = data[:MAX_LINE_BYTES].decode("utf-8", "ignore")
    return f"{kept}... [{(size or len(data)) - min(len(data), MAX_LINE_BYTES)} more bytes]"


def _size(message: str) -> int:
    if message.isascii():
        return len(message)
    parts = (message[start : start + _PART] for start in range(0, len(message), _PART))
    return sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)


def _uuid(text: str | None) -> UUID | None:
    return UUID(text) if text else None


_install_lock = threading.Lock()
_handler: _RunHandler | None = None
_print = builtins.print


def install() -> None:
    """Attach the handler, once a process."""
    global _handler, show_on_console
    if _handler is not None:
        return
    with _install_lock:
        if _handler is None:
            from prefect_nb.settings import get_settings

            settings = get_settings()
            level = settings.logging_level.upper()
            _runs.setLevel(int(level) if level.isdigit() else level)
            show_on_console = settings.logging_to_console
            handler = _RunHandler()
            handler.setFormatter(logging.Formatter("%(message)s"))
            for logger in (_flow_logger, _task_logger):
                logger.addHandler(handler)
            builtins.print = _logging_print
            _handler = handler


def _logging_print(*args: Any, **kwargs: Any) -> None:
    """`print`, which inside a run with `log_prints` writes to the run's log."""
    if not log_prints.get() or kwargs.get("file") not in (None, sys.stdout, sys.stderr):
        _print(*args, **kwargs)
        return
    if len(args) == 1 and type(args[0]) is str and not kwargs:
        get_run_logger().info("%s", args[0].rstrip())
        return
    import io

    buffer = io.StringIO()
    _print(*args, **{**kwargs, "file": buffer})
    text = buffer.getvalue()
    get_run_logger().info("%s", text.rstrip())
