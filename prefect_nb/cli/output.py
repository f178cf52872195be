"""How things look: tables, states with glyph and word, JSON. Rich is imported where something is drawn."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from prefect_nb.model.runs import Run
from prefect_nb.model.states import GLYPHS, StateType
from prefect_nb.service.history import NAMED_STATES
from prefect_nb.service.text import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES: dict[StateType, str] = {
    StateType.COMPLETED: "green",
    StateType.FAILED: "red",
    StateType.RUNNING: "blue",
    StateType.PENDING: "bright_black",
    StateType.SCHEDULED: "yellow",
    StateType.PAUSED: "bright_black",
    StateType.CANCELLING: "bright_black",
    StateType.CANCELLED: "bright_black",
    StateType.CRASHED: "bright_red",
}
_UNBOUNDED = 10_000


def console(stderr: bool = False) -> "Console":
    """A console; what is not a terminal gets whole lines however long, so that nothing is cut off for `grep`."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream, highlight=False, markup=False, emoji=False, width=None if stream.isatty() else _UNBOUNDED
    )


def state_text(type_: StateType | None, name: str) -> "Text":
    """Glyph and word; the word keeps the terminal's own colour."""
    from rich.text import Text

    glyph = GLYPHS[type_] if type_ is not None else "·"
    return Text.assemble((glyph, STYLES[type_] if type_ is not None else ""), f" {one_line(name, 30)}")


def state_of(run: Run) -> "Text":
    """The run's state."""
    return state_text(run.state_type, run.state_name)


def state_words(run: Run) -> str:
    """The run's state as plain text."""
    return f"{GLYPHS[run.state_type]} {one_line(run.state_name, 30)}"


def counts_text(counts: Mapping[str, int]) -> str:
    """`✓ 3 Completed, ✗ 1 Failed`, what went wrong first."""

    def order(item: tuple[str, int]) -> tuple[bool, int]:
        return NAMED_STATES.get(item[0]) in (StateType.COMPLETED, None), -item[1]

    words = []
    for name, number in sorted(counts.items(), key=order):
        type_ = NAMED_STATES.get(name)
        words.append(f"{GLYPHS[type_] if type_ else '·'} {number} {one_line(name, 30)}")
    return ", ".join(words)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """Print a table without lines around it; a cell is text or rich text, never markup."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    with out.capture() as captured:
        out.print(drawn)
    # Padding at the ends of lines helps nobody.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values in two columns; those without a value are left out."""
    kept = [(name, value) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        first, *more = str(value).split("\n")
        click.echo(f"  {name:<{width}}  {first}")
        for line in more:
            click.echo(f"  {'':<{width}}  {line}")


def as_json(document: Any) -> None:
    """Print a document for programs."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--output json`: the parameter `output` is "text" or "json"."""
    return click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="For people (default) or programs."
    )(command)


def limit_option(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--limit N`."""
    return click.option(
        "-n", "--limit", type=click.IntRange(min=1), default=default, show_default=True, help="At most so many."
    )
