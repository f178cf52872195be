"""A whole notebook as a task: submitted, mapped, retried, cached, with futures as its parameters."""

from __future__ import annotations

import enum
import hashlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect_nb.flows import Flow, NotebookFlow
from prefect_nb.model.policies import INPUTS, NO_CACHE, CachePolicy
from prefect_nb.tasks import Task

_OF_THE_RUN = frozenset(
    {"cell_timeout_seconds", "kernel_name", "output_path", "startup_timeout_seconds", "timeout_seconds"}
)


class _LeftOut(enum.Enum):
    """Stands for a parameter that has no default, after one that has."""

    HERE = 0


@dataclass(eq=False, repr=False)
class NotebookSource(CachePolicy):
    """The notebook's cells, as they were when the task was made."""

    version: str = ""

    def compute_key(self, *_args: Any, **_kwargs: Any) -> str:
        """Return a digest of the notebook's source."""
        return self.version


def notebook_task(path: str | os.PathLike[str], *, cache: bool | CachePolicy = False, **options: Any) -> Task[..., Any]:
    """A task whose body is a whole notebook.

        clean = notebook_task("clean.ipynb", retries=1, cache=True)

        @flow
        def nightly(day):
            return report(clean.submit(day))

    Called, it runs the notebook in a kernel of its own and gives what the notebook gave to `return_`; without one, the
    path of the executed notebook. Positional arguments are the parameters in the order in which its parameters cell
    declares them. In the history the notebook's run is a child flow run of the task run.

    Args:
        path: the `.ipynb`, read now; every run executes what was read.
        cache: reuse what the notebook gave for the same parameters while its cells are the same, in this flow run and in
            others. Or a cache policy, to which the notebook's source is added.
        options: those of `task`; and of the notebook's run `kernel_name`, `output_path`, `cell_timeout_seconds`,
            `startup_timeout_seconds`, `timeout_seconds`.

    Raises:
        NotebookError: there is no such file, it is no notebook, its kernel is not installed, or it has a tag that cannot
            be understood.
        ParameterBindError: its parameters cell is not Python.
        TypeError: there is no such option.
    """
    own = {name: options.pop(name) for name in _OF_THE_RUN & options.keys()}
    flow = Flow.from_notebook(path, **own)
    policy = INPUTS if cache is True else (cache or NO_CACHE)
    if policy != NO_CACHE:
        policy = policy + NotebookSource(version=flow.body.document.version)
        options.setdefault("persist_result", True)
    options.setdefault("cache_policy", policy)
    options.setdefault("name", flow.name)
    options.setdefault("description", flow.description)
    return Task(_function(flow), **options)


def _function(flow: NotebookFlow) -> Any:
    """A function of the notebook's parameters, in order, that runs the flow."""

    def run(*args: Any, **parameters: Any) -> Any:
        given = signature.bind(*args, **parameters).arguments
        rest = given.pop(free, {}) if free is not None else {}
        return flow(**{name: value for name, value in {**given, **rest}.items() if value is not _LeftOut.HERE})

    document = flow.body.document
    signature, free = _positional(inspect.signature(flow.fn).parameters)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__name__ = document.stem
    # Notebooks of one name in different folders are different tasks.
    run.__qualname__ = f"{document.stem}-{hashlib.sha256(document.path.encode()).hexdigest()[:8]}"
    run.__doc__ = flow.fn.__doc__
    return run


def _positional(declared: Mapping[str, inspect.Parameter]) -> tuple[inspect.Signature, str | None]:
    """The same parameters, by position too; and the name of the one that takes any, if there is one."""
    free = next((name for name, one in declared.items() if one.kind is inspect.Parameter.VAR_KEYWORD), None)
    parameters: list[inspect.Parameter] = []
    optional = False
    for one in declared.values():
        if one.name == free:
            parameters.append(one)
            continue
        has_default = one.default is not inspect.Parameter.empty
        # What is missing, the flow itself says.
        default = _LeftOut.HERE if optional and not has_default else one.default
        optional = optional or has_default
        parameters.append(one.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    return inspect.Signature(parameters), free
