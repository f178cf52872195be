"""What a notebook run does around its cells: keep variables after slow ones, keep the kernel when it failed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prefect_nb.bodies import parking
from prefect_nb.bodies.attending import Attendant
from prefect_nb.bodies.cells import Cell, End
from prefect_nb.execution import checkpoints, logs, scripts
from prefect_nb.execution.clock import now_us
from prefect_nb.interfaces import RunQuery
from prefect_nb.model.states import StateType
from prefect_nb.settings import Settings

if TYPE_CHECKING:
    from prefect_nb.bodies.kernels import Kernel
    from prefect_nb.execution.flow_runs import FlowExecution

KEPT_KERNELS = 2
_SHARE = 20
"""Keeping variables takes at most one part in so many of the time."""
_LEAST_SECONDS = 2.0
_LISTED = 10
_RESTORE_SECONDS = 600.0


def bounds_of(settings: Settings, wanted: bool | None = None) -> parking.Bounds:
    """How many kernels are kept at most, and for how long, by the settings.

    Args:
        settings: in force.
        wanted: whether this run's is to be kept; None: as the settings say, and not where a `CI` runs it.
    """
    from prefect_nb.bodies.memory import machine_memory

    number = settings.notebook_kept_kernels
    if number is None:
        number = 0 if os.environ.get("CI", "") not in ("", "0", "false") and wanted is None else KEPT_KERNELS
    size = settings.notebook_kept_kernels_max_bytes
    if size is None:
        machine = machine_memory()
        size = None if machine is None else machine // 4
    if wanted is not None:
        number = max(number, 1) if wanted else 0
    return parking.Bounds(number=number, seconds=settings.notebook_kept_kernel_seconds, memory=size)


class RunAttendant(Attendant):
    """Attends the cells of one notebook run.

    Args:
        execution: the run.
        bounds: how many kernels are kept; None: this one is not.
        restores: whether what was kept is to be brought back before the first cell.
    """

    def __init__(self, execution: FlowExecution, bounds: parking.Bounds | None, *, restores: bool) -> None:
        self._execution = execution
        self._home = execution.home
        self._logger = logs.flow_run_logger(execution.run, execution.flow)
        self._folder = scripts.folder_of(self._home.path, execution.run.id)
        self._bounds = bounds
        self._restores = restores
        settings = self._home.settings
        self._threshold = settings.notebook_checkpoint_seconds
        self._largest = settings.notebook_checkpoint_max_bytes
        self._began_us = now_us()
        self._since = 0.0
        self._took = 0.0
        self._new: list[checkpoints.ExecutedCell] = []
        self._told: set[str] = set()

    # Variables

    def opening(self) -> str:
        """Code that brings back what was kept."""
        if not self._restores:
            return ""
        self.patience = _RESTORE_SECONDS
        return checkpoints.restore_code(self._folder)

    def aside(self, cell: Cell, source: str, seconds: float) -> str:
        """Code that keeps the variables, after enough time that would be lost without."""
        if self._threshold <= 0:
            return ""
        self._new.append(checkpoints.ExecutedCell(cell.id, cell.number, cell.name, source))
        self._since += seconds
        if self._since < max(self._threshold, _SHARE * self._took):
            return ""
        self.patience = max(_LEAST_SECONDS, self._since / 2)
        return checkpoints.take_code(self._folder, self._new, self._largest, 0.8 * self.patience)

    def set_aside(self, cell: Cell, seconds: float, error: str | None) -> None:
        """Say what could not be kept, each variable once."""
        self._since, self._took = 0.0, seconds
        if error is not None:
            if "KeyboardInterrupt" in error:
                error = f"it would have taken longer than {self.patience:.0f} s"
            elif "ModuleNotFoundError" in error:
                self._threshold = 0.0
                error = f"{error}. The kernel's own Python needs prefect_nb for that"
            self._say("After cell %d the variables were not kept: %s.", cell.number, error)
            return
        self._new = []
        found = checkpoints.read_checkpoint(self._folder)
        new = [lost for lost in found.lost if lost.name not in self._told] if found is not None else []
        if new:
            self._told.update(lost.name for lost in new)
            more = f"; and {len(new) - _LISTED} more" if len(new) > _LISTED else ""
            names = "; ".join(str(lost) for lost in new[:_LISTED])
            self._say("After cell %d some variables were not kept: %s%s.", cell.number, names, more)

    def _say(self, text: str, *values: object) -> None:
        with logs.sent_to(self._execution.ledger.log):
            self._logger.info(text, *values)

    # The kernel

    def doing(self) -> str:
        """The task that runs, and for how long."""
        open_or_dead = (StateType.RUNNING, StateType.CRASHED)
        query = RunQuery(flow_run_id=self._execution.run.id, kinds=("task",), state_types=open_or_dead, limit=20)
        runs = [run for run in self._home.store.task_runs(query) if run.state_us >= self._began_us]
        if not runs:
            return ""
        # Somebody may have settled what died just now.
        run = max(runs, key=lambda run: (run.state_type is StateType.RUNNING, run.state_us))
        since = (now_us() - (run.start_us or run.state_us)) / 1e6
        return f"while running `{run.name}`" + (f" (for {since:.0f} s)" if since >= 2 else "")

    def wants(self, end: End) -> bool:
        """A cell failed, its kernel lives, and the engine will not try the notebook again by itself."""
        run = self._execution.run
        return (
            self._bounds is not None
            and self._bounds.number > 0
            and end.how in ("failed", "timed-out")
            and end.cell is not None
            and not end.is_last
            and run.parent_flow_run_id is None
            and run.run_count > run.retries
        )

    def keep(self, kernel: Kernel, end: End) -> bool:
        """Park the kernel."""
        assert end.cell is not None
        assert self._bounds is not None
        run = self._execution.run
        try:
            parked = parking.park(
                self._home.path, kernel, self._bounds, flow_run_id=run.id, run_name=run.name,
                notebook=run.input_path or "", cell_id=end.cell.id, cell_number=end.cell.number, cell_name=end.cell.name,
            )  # fmt: skip
        except OSError as error:
            self._logger.warning("The kernel could not be kept: %s", error)
            return False
        return parked is not None
