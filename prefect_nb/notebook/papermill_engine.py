"""The papermill engine `prefect_nb`: `papermill in.ipynb out.ipynb --engine prefect_nb`.

papermill reads the notebook, injects the parameters and reports errors in its own way; the cells are executed by our
loop, so the run is in the history, tasks in the notebook belong to it, and the cells' states are true.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papermill.engines import Engine, NotebookExecutionManager
from papermill.iorw import papermill_io
from papermill.log import logger

from prefect_nb.bodies.document import Notebook, is_url
from prefect_nb.bodies.saving import encoded
from prefect_nb.interfaces import Entry

if TYPE_CHECKING:
    from prefect_nb.execution.flow_runs import FlowExecution

_NOT_OFFERED = ("log_output", "stdout_file", "stderr_file")


class PrefectNbEngine(Engine):  # type: ignore[misc]
    """Executes notebooks that papermill has prepared, as runs of prefect_nb.

    Of papermill's options it takes `execution_timeout` (seconds for each cell), `start_timeout`, `progress_bar` and
    `cwd`; output is not logged, and the output notebook is written when there is something new, not after every cell.
    """

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str | None,
        output_path: str | None = None,
        progress_bar: bool | dict[str, Any] = True,
        input_path: Any = None,
        start_timeout: float = 60,
        execution_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Execute the cells; returns the notebook, in which papermill looks for errors.

        Raises:
            KernelDied: the kernel did not start, or died.
            NotebookError: a cell took too long, or the output cannot be written.
            CancelledRun: somebody cancelled the run.
        """
        from prefect_nb.bodies.document import Document
        from prefect_nb.execution.notebook_runs import NotebookBody
        from prefect_nb.flows import NotebookFlow

        for name in _NOT_OFFERED:
            if options.get(name):
                logger.warning("The engine prefect_nb does not offer %s.", name)
        executed: list[Any] = []
        document = Document(json.loads(json.dumps(nb)), _whole(input_path) or "notebook.ipynb", injected=True)
        body = NotebookBody(
            document,
            kernel_name=kernel_name,
            output_path=_whole(output_path),
            save=output_path is not None,
            # papermill's choice: where it was called, or its `cwd`, which is the current folder now.
            folder=Path.cwd(),
            cell_timeout_seconds=execution_timeout,
            startup_timeout_seconds=start_timeout,
            executed=executed.append,
        )
        flow = NotebookFlow.of(body)
        bar = _Bar(NotebookExecutionManager(nb, progress_bar=progress_bar))
        try:
            state = flow.start(flow.signature.bind((), {}), return_state=True, on_start=bar.follow)
        finally:
            bar.close()
        if executed:
            _fill(nb, executed[0])
        if not state.is_completed() and not _papermill_sees_error(nb):
            state.result()
        return nb


class _Bar:
    """papermill's progress bar, moved on by what is committed of the run's cells."""

    def __init__(self, manager: NotebookExecutionManager) -> None:
        self._manager = manager
        self._execution: FlowExecution | None = None

    def follow(self, execution: FlowExecution) -> None:
        """Watch this run."""
        self._execution = execution
        execution.ledger.observers.append(self)

    def committed(self, entries: Sequence[Entry]) -> None:
        """Some events have been committed."""
        for entry in entries:
            ours = self._execution is not None and entry.flow_run_id == self._execution.run.id
            if ours and getattr(entry.run, "kind", "") == "cell" and entry.run.is_final and self._manager.pbar:
                self._manager.pbar.update(1)

    def close(self) -> None:
        """The run has ended."""
        if self._execution is not None:
            self._execution.ledger.observers.remove(self)
        self._manager.cleanup_pbar()


def _whole(path: Any) -> str | None:
    """An absolute path: a relative one is meant from where papermill was called, also when it has changed folders."""
    if not isinstance(path, str) or is_url(path):
        return path if isinstance(path, str) else None
    return str(Path(getattr(papermill_io.get_handler("local"), "_cwd", None) or Path.cwd(), path))


def _fill(nb: Any, executed: Notebook) -> None:
    """Make papermill's notebook what was executed."""
    import nbformat

    whole = nbformat.reads(encoded(executed).decode(), as_version=4)  # type: ignore[no-untyped-call]
    for cell in whole.cells:
        # papermill asks each cell for both.
        cell.metadata.setdefault("tags", [])
        cell.metadata.setdefault("papermill", {})
    nb.cells, nb.metadata, nb.nbformat_minor = whole.cells, whole.metadata, whole.nbformat_minor


def _papermill_sees_error(nb: Any) -> bool:
    """Whether papermill itself will raise, with its markers in the notebook: for any error but an exit with code 0."""
    return any(
        output.output_type == "error" and not (output.ename == "SystemExit" and output.evalue in ("", "0"))
        for cell in nb.cells
        for output in cell.get("outputs", ())
    )
