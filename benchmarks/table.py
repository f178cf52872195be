"""One measured line, its target, and the table made of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

Samples = Sequence[float] | str
"""What was measured, or why nothing was."""


@dataclass(frozen=True)
class Target:
    """What the line must reach: so many times better than the peer, at most this much, at least this much."""

    ratio: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    def text(self, unit: str) -> str:
        """The target in words."""
        parts = []
        if self.ratio is not None:
            parts.append(f"≥ {self.ratio:.3g}x")
        if self.at_most is not None:
            parts.append(f"≤ {shown(self.at_most, unit)}")
        if self.at_least is not None:
            parts.append(f"≥ {shown(self.at_least, unit)}")
        return ", ".join(parts) or "-"

    def reached(self, value: float, ratio: float | None) -> bool | None:
        """Whether it is; None where nothing can be said, the peer not having been measured."""
        if self.ratio is not None and ratio is None:
            return None
        reached = [
            self.ratio is None or (ratio is not None and ratio >= self.ratio),
            self.at_most is None or value <= self.at_most,
            self.at_least is None or value >= self.at_least,
        ]
        return all(reached)


@dataclass(frozen=True)
class Result:
    """One line of the table. `more_is_better` turns the ratio round."""

    work: str
    unit: str
    ours: Samples
    peer: Samples
    target: Target = Target()
    more_is_better: bool = False
    note: str = ""

    def ratio(self) -> float | None:
        """How many times better than the peer's our median is."""
        if isinstance(self.ours, str) or isinstance(self.peer, str):
            return None
        better, worse = median(self.ours), median(self.peer)
        if self.more_is_better:
            better, worse = worse, better
        return worse / better if better > 0 else None

    def cells(self) -> list[str]:
        """The texts of the line, column by column."""
        ratio = self.ratio()
        reached = None if isinstance(self.ours, str) else self.target.reached(median(self.ours), ratio)
        return [
            self.work,
            cell(self.ours, self.unit),
            cell(self.peer, self.unit),
            "-" if ratio is None else f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2f}x",
            self.target.text(self.unit),
            {True: "yes", False: "NO", None: "-"}[reached] if self.target != Target() else "-",
            self.note,
        ]

    def line(self) -> str:
        """The line for the terminal."""
        return " | ".join(self.cells())


def cell(samples: Samples, unit: str) -> str:
    """The median, or the words for there being none."""
    return samples if isinstance(samples, str) else shown(median(samples), unit)


def shown(value: float, unit: str) -> str:
    """`value` with its unit; seconds as whatever reads best."""
    if unit == "s":
        for factor, smaller in ((1e6, "µs"), (1e3, "ms")):
            if value * factor < 1000:
                return f"{value * factor:.3g} {smaller}"
        return f"{value:.3g} s"
    return f"{value:,.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.3g} {unit}"


def render(results: Iterable[Result]) -> str:
    """A Markdown table."""
    head = ["work", "prefect_nb", "the other", "ratio", "target", "reached", "note"]
    rows = [head, ["---"] * len(head), *(result.cells() for result in results)]
    return "".join(f"| {' | '.join(text.replace('|', '/') for text in row)} |\n" for row in rows)
