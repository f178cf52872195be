"""What goes on around the cells of a notebook run, as the loop over its cells sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect_nb.bodies.cells import Cell, End

if TYPE_CHECKING:
    from prefect_nb.bodies.kernels import Kernel


class Attendant:
    """Is asked between cells and at the end, on the loop's thread. This one wants nothing; others are subclasses."""

    patience = 0.0
    """Seconds that code from `opening` or `aside` may take; then it is interrupted."""

    def opening(self) -> str:
        """Code to execute silently before the first cell; empty for none."""
        return ""

    def aside(self, cell: Cell, source: str, seconds: float) -> str:  # noqa: ARG002
        """Code to execute silently now that a cell has completed; empty for none.

        Args:
            cell: the cell.
            source: its code.
            seconds: how long it took.
        """
        return ""

    def set_aside(self, cell: Cell, seconds: float, error: str | None) -> None:
        """That code has been executed: how long it took, and what it raised if it did not go well."""

    def doing(self) -> str:
        """What the kernel is doing, such as "while running `train`"; asked when it has died."""
        return ""

    def wants(self, end: End) -> bool:  # noqa: ARG002
        """Whether the kernel is to be kept after this end."""
        return False

    def keep(self, kernel: Kernel, end: End) -> bool:  # noqa: ARG002
        """Keep the kernel, which is idle: whether somebody else sees to it from now on."""
        return False
