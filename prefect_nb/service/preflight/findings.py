"""What a check of a notebook found."""

from typing import Any, Literal

import msgspec

from prefect_nb.service.text import plural

Level = Literal["error", "warning", "info"]

LEVELS: tuple[Level, ...] = ("error", "warning", "info")
GLYPHS: dict[Level, str] = {"error": "✗", "warning": "⚠", "info": "·"}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or may be."""

    level: Level
    """`error`: the run will fail; `warning`: it may, or will not do what is meant; `info`: worth knowing."""
    rule: str
    """What kind of finding this is, for programs: `undefined-name`, `missing-import`, ..."""
    message: str
    fix: str | None = None
    """What to do about it."""
    cell: int | None = None
    """Number of the cell among those that are executed, from 1; None: the notebook as a whole."""
    cell_id: str | None = None
    heading: str | None = None
    """The heading above the cell, or what else it is called."""
    line: int | None = None
    """In the cell, from 1."""

    @property
    def place(self) -> str:
        """Where it is, in words: `cell 3, line 2 (Load)`; empty for the whole notebook."""
        if self.cell is None:
            return ""
        line = f", line {self.line}" if self.line is not None else ""
        return f"cell {self.cell}{line}" + (f" ({self.heading})" if self.heading else "")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of one notebook found, the worst first, then in the order of the cells."""

    path: str
    cells: int
    """How many would be executed."""
    kernel: str | None
    """The kernel it was checked for; None: there is none."""
    python: str | None
    """That kernel's Python version; None: it could not be asked."""
    findings: tuple[Finding, ...]

    def of(self, level: Level) -> list[Finding]:
        """The findings of this level."""
        return [finding for finding in self.findings if finding.level == level]

    def passes(self, *, strict: bool = False) -> bool:
        """Whether nothing speaks against a run; if `strict`, not even a warning."""
        return not self.of("error") and not (strict and self.of("warning"))

    @property
    def verdict(self) -> str:
        """One line: `2 errors, 1 warning in 14 cells`."""
        counts = [plural(len(self.of(level)), level) for level in LEVELS[:2] if self.of(level)]
        checked = f"{plural(self.cells, 'cell')} checked"
        if not counts:
            return f"Restart & Run All should pass: {checked}, nothing was executed"
        return f"{', '.join(counts)}: {checked}, nothing was executed"

    def document(self) -> dict[str, Any]:
        """The report for programs."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        counts = {level: len(self.of(level)) for level in LEVELS}
        return {**found, "counts": counts, "passes": self.passes()}


def ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    """The worst first, then in the order of the cells."""
    return tuple(sorted(findings, key=lambda one: (LEVELS.index(one.level), one.cell or 0, one.line or 0)))
