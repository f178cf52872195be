"""The body of a `%%task` cell as the function that its task calls; it can be carried to another process."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from prefect_nb.model.fingerprints import Unhashable, hash_value

VALUE = "__value__"
"""What the value of a body's last expression is bound to in it."""

_drawing = threading.Lock()
_LOOK_SECONDS = 0.05


class TaskBody:
    """What surrounds the call of a cell's code.

    Args:
        function: the cell's code: parameters are its inputs, it returns its names when it has ended.
        outputs: the names that are kept of these.
        is_kept: whether what it makes is kept, to be used again.
        is_silent: whether the value of its last expression is not to be shown.
        draws: of a cell that may run beside others: whether it makes figures with pyplot; None of one that runs alone.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        outputs: tuple[str, ...],
        is_kept: bool,
        is_silent: bool,
        draws: bool | None = None,
    ) -> None:
        self.function = as_cell(function)
        self.outputs = outputs
        self.is_kept = is_kept
        self.is_silent = is_silent
        self.draws = draws

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Call a body that does not await; gives what is kept of it."""
        with _turn_to_draw() if self.draws else contextlib.nullcontext():
            before = self.digests(inputs)
            return self.kept(self.function(**inputs), inputs, before)

    def digests(self, inputs: dict[str, Any]) -> dict[str, str]:
        """By which to see whether an input is changed in place."""
        if not self.is_kept:
            return {}
        try:
            return {name: hash_value(value) for name, value in inputs.items()}
        except Unhashable:
            return {}

    def kept(self, found: dict[str, Any], inputs: dict[str, Any], before: dict[str, str]) -> dict[str, Any]:
        """The outputs and what the cell shows, as they are kept; an input changed in place is an output, too."""
        if self.draws or (self.draws is None and self.is_kept):
            _show_figures()
        names = {name: found[name] for name in self.outputs if name in found}
        after = self.digests(inputs) if before else {}
        for name, value in inputs.items():
            if before.get(name) != after.get(name):
                names.setdefault(name, value)
        shown = None if self.is_silent or found.get(VALUE) is None else _bundle(found[VALUE])
        return {"names": names, "shown": shown}


def task_function(body: TaskBody, name: str, inputs: tuple[str, ...]) -> Callable[..., Any]:
    """What the task calls: parameters in, what is kept of the cell out."""
    if inspect.iscoroutinefunction(body.function):

        async def awaited(**given: Any) -> Any:
            before = body.digests(given)
            return body.kept(await body.function(**given), given, before)

        fn: Callable[..., Any] = awaited
    else:

        def called(**given: Any) -> Any:
            return body.call(given)

        fn = called
    parameters = [inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY) for one in inputs]
    fn.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    fn.__name__ = fn.__qualname__ = name
    fn.__module__ = "__main__"
    fn.__doc__ = None
    return fn


def as_cell(function: Any) -> Any:
    """The function, called in tracebacks what a cell is called, so that they show the cell's lines around the error."""
    called = types.FunctionType(
        function.__code__.replace(co_name="<module>", co_qualname="<module>"), function.__globals__
    )
    called.__doc__ = None
    return called


@contextlib.contextmanager
def _turn_to_draw() -> Iterator[None]:
    """Pyplot has one current figure for the whole process: cells that draw with it do so one after the other."""
    while not _drawing.acquire(timeout=_LOOK_SECONDS):  # not for good: a cell that is cancelled must hear of it
        pass
    try:
        yield
    finally:
        _drawing.release()


def _show_figures() -> None:
    """Show the open figures now, while the body's output is listened to, and not only when the cell has ended."""
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    pyplot = sys.modules.get("matplotlib.pyplot")
    if inline is not None and pyplot is not None and pyplot.get_fignums():
        inline.flush_figures()


def _bundle(value: Any) -> dict[str, Any]:
    from IPython.core.formatters import DisplayFormatter
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    # In another process there is no shell; what is made there is shown here.
    formatter: Any = DisplayFormatter() if shell is None else shell.display_formatter
    bundle: dict[str, Any] = formatter.format(value)[0]
    return bundle
