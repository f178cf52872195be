"""Facts of a run that the environment overrides, for trying a body outside any run.

`PREFECT__RUNTIME__FLOW_RUN__ID=abc` makes `runtime.flow_run.id` "abc"; so does every fact that is a text, a number or a
time. Lists and dicts cannot be said this way.
"""

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any


def fact(module: str, name: str, known: bool, read: Callable[[], Any]) -> Any:
    """A fact of the run, or what the environment says of it.

    Args:
        module: "flow_run", "task_run" or "deployment".
        name: of the fact.
        known: whether there is such a fact; of others the environment may speak all the same.
        read: gives it.

    Raises:
        AttributeError: there is no such fact.
        ValueError: it cannot be given by the environment.
    """
    text = os.environ.get(f"PREFECT__RUNTIME__{module}__{name}".upper())
    if text is None:
        if not known:
            raise AttributeError(f"prefect_nb.runtime.{module} has no attribute {name!r}")
        return read()
    actual = read() if known else None
    if isinstance(actual, bool):
        return text.strip().lower() in ("1", "true", "yes")
    if isinstance(actual, datetime):
        given = datetime.fromisoformat(text)
        return given if given.tzinfo is not None else given.replace(tzinfo=actual.tzinfo)
    if isinstance(actual, int | float):
        return type(actual)(text)
    if actual is None or isinstance(actual, str):
        return text
    raise ValueError(
        "This runtime context attribute cannot be mocked using an environment variable. Please use monkeypatch instead."
    )
