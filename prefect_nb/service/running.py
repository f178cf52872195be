"""Running a Python flow or a notebook: prepare everything that can be wrong with the input, then run it.

What `prepare` refuses has left no trace in the history; what `run` is given becomes a run.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.bodies.document import is_url
from prefect_nb.exceptions import (
    ConfigurationError,
    Fenced,
    InvalidNameError,
    NotResumable,
    ObjectNotFound,
    ParameterBindError,
    ParameterTypeError,
    RecoveryLimit,
    StorageFull,
    StoreDamaged,
    StoreUnavailable,
)
from prefect_nb.execution.context import tags as tagged
from prefect_nb.execution.loading import load_flow
from prefect_nb.execution.secrets import LARGEST
from prefect_nb.flows import Flow
from prefect_nb.model.cli_values import parse_parameters
from prefect_nb.model.codec import DEEPEST, is_deeper
from prefect_nb.model.runs import FlowRun
from prefect_nb.service import history
from prefect_nb.service.progress import Progress, following, observing
from prefect_nb.service.text import did_you_mean


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to run, beyond what the flow itself says. None leaves the flow's own option."""

    name: str | None = None
    """The run's name."""
    tags: tuple[str, ...] = ()
    durable: bool = False
    timeout_seconds: float | None = None
    output_path: str | Path | None = None
    """Where the executed notebook goes; a URL, or a path in a folder that is there."""
    kernel_name: str | None = None
    keep_kernel: bool | None = None
    """Whether a notebook's kernel is kept when a cell fails, to go on in; None: as the settings say."""


class Prepared(msgspec.Struct, frozen=True):
    """A flow with parameters that fit it."""

    flow: Any
    parameters: dict[str, Any]
    options: RunOptions


class Finished(msgspec.Struct, frozen=True):
    """What became of a run."""

    run: FlowRun
    error: BaseException | None
    """What the run raised, where it is known."""
    cells: dict[str, int]
    """State name -> number of the notebook's cells."""
    tasks: dict[str, int]
    """State name -> number of the task runs, those of child flow runs included."""
    state: Any = None
    """The final state as the run left it in this process, its value at hand; None where it raised."""


Watch = Callable[[Progress], AbstractContextManager[Any]]
"""Shows the progress while its block lasts."""


def prepare(
    target: str,
    parameters: Mapping[str, Any] | None = None,
    texts: Sequence[str] = (),
    options: RunOptions | None = None,
) -> Prepared:
    """Load the flow and check everything it is given.

    Args:
        target: a notebook's path, or an entrypoint (see `loading.load_flow`).
        parameters: values by name.
        texts: `name=value` pairs as typed on a command line, added to `parameters`.
        options: how to run.

    Raises:
        ObjectNotFound, NotebookError, MissingFlowError, UnspecifiedFlowError, ScriptError: there is no such flow.
        ParameterBindError: a parameter is unknown (the nearest is named), missing or no `name=value`.
        ParameterTypeError: values that do not fit; each is named with the reason.
        InvalidNameError: the run's name cannot be one.
        ConfigurationError: options that do not fit the target.
    """
    options = options or RunOptions()
    flow = loaded(target, options)
    try:
        given = {**(parameters or {}), **parse_parameters(texts, flow.signature.hints())}
    except ValueError as error:
        raise ParameterBindError(f"{error} Parameters are given as -p name=value.") from None
    _check_extent(given)
    bound = flow.signature.bind_names(given)
    flow.validate_parameters(bound)
    return Prepared(flow, bound, options)


def loaded(target: str, options: RunOptions) -> Flow[..., Any]:
    """The flow of a target, with these options. Raises as `prepare`, but for parameters."""
    _check_name(options.name)
    return _notebook_flow(target, options) if target.endswith(".ipynb") else _python_flow(target, options)


def _check_extent(given: Mapping[str, Any]) -> None:
    try:
        size = len(msgspec.json.encode(dict(given)))
    except (TypeError, ValueError):  # objects of this process, not JSON from elsewhere
        size = 0
    except RecursionError:
        size = LARGEST + 1
    if size > LARGEST or is_deeper(given, DEEPEST):
        raise ParameterTypeError(
            f"Parameters may have {LARGEST:,} bytes of JSON and be nested {DEEPEST} deep. Give a path to large data."
        )


def run(prepared: Prepared, watch: Watch = nullcontext) -> Finished:
    """Run it to its end on this thread; whatever the flow raises is in the result.

    Raises:
        Fenced: another process has taken the run over.
        StoreUnavailable, StoreDamaged, StorageFull: the history cannot be written; there is no run.
    """
    options = prepared.options
    fields: dict[str, Any] = {} if options.name is None else {"name": options.name}

    def start(flow: Flow[..., Any], on_start: Callable[[UUID], None]) -> Any:
        with tagged(*options.tags):
            outcome = flow.start(
                prepared.parameters,
                return_state=True,
                on_start=lambda execution: on_start(execution.run.id),
                **fields,
            )
            return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    return execute(prepared.flow, start, watch)


def run_flow(
    target: str, parameters: Mapping[str, Any] | None = None, *, watch: Watch = nullcontext, **options: Any
) -> Finished:
    """Prepare and run a Python flow or a notebook; the options are those of `RunOptions`.

    Raises:
        PrefectException: as `prepare` and `run` say.
    """
    return run(prepare(target, parameters, options=RunOptions(**options)), watch)


def execute(
    flow: Flow[..., Any],
    start: Callable[[Flow[..., Any], Callable[[UUID], None]], Any],
    watch: Watch,
) -> Finished:
    """Start a run by `start`, which tells the run's id as soon as there is one, and see it to its end."""
    home = history.settled_home()
    progress = Progress(history.usual_us(flow.name))
    ids: list[UUID] = []

    def began(id: UUID) -> None:
        ids.append(id)
        progress.begin(id)

    error: BaseException | None = None
    state: Any = None
    # The tasks of a notebook run in its kernel, another process.
    informed = following(home, progress) if flow.kind == "notebook" else observing(home, progress)
    try:
        with informed, watch(progress):
            state = start(flow, began)
        if state.is_failed() or state.is_crashed():
            error = state.exception()
    except (Fenced, NotResumable, RecoveryLimit, StorageFull, StoreDamaged, StoreUnavailable):
        raise  # these are not about what the flow did; what it raised is in its state
    except BaseException as raised:
        error = raised
    found = home.store.flow_run(ids[0]) if ids else None
    if found is None:
        assert error is not None
        raise error
    counted_cells, tasks = history.count_states(found.id)
    return Finished(found, error, counted_cells, tasks, state)


def _python_flow(target: str, options: RunOptions) -> Flow[..., Any]:
    of_notebooks = (
        ("an output notebook", options.output_path),
        ("a kernel", options.kernel_name),
        ("--keep-kernel", options.keep_kernel),
    )
    for option, given in of_notebooks:
        if given is not None:
            raise ConfigurationError(f"{target} is a Python flow: {option} can be given for a notebook only.")
    flow: Flow[..., Any] = load_flow(target)
    changes: dict[str, Any] = {"timeout_seconds": options.timeout_seconds, "durable": options.durable or None}
    return flow.with_options(**changes) if any(value is not None for value in changes.values()) else flow


def _notebook_flow(target: str, options: RunOptions) -> Flow[..., Any]:
    path = Path(target)
    if not is_url(target) and not path.is_file():
        others = [other.name for other in path.parent.glob("*.ipynb")] if path.parent.is_dir() else []
        raise ObjectNotFound(f"There is no notebook {path.absolute()}.{did_you_mean(path.name, others)}")
    if options.output_path is not None and not is_url(str(options.output_path)):
        folder = Path(options.output_path).expanduser().absolute().parent
        if not folder.is_dir():
            raise ConfigurationError(
                f"{options.output_path} cannot be written: there is no folder {folder}. Make it, or give another path."
            )
    given = {
        "durable": options.durable or None,
        "timeout_seconds": options.timeout_seconds,
        "output_path": options.output_path,
        "kernel_name": options.kernel_name,
    }
    flow = Flow.from_notebook(target, **{name: value for name, value in given.items() if value is not None})
    flow.body.keep_kernel = options.keep_kernel
    return flow


def _check_name(name: str | None) -> None:
    if name is None:
        return
    if not name.strip() or len(name) > 255 or any(ord(char) < 32 for char in name):
        raise InvalidNameError(
            f"{name!r} cannot be a run's name: 1 to 255 characters, none of them a control character."
        )


__all__ = ["Finished", "Prepared", "RunOptions", "Watch", "execute", "prepare", "run", "run_flow"]
