"""The comparison of two runs in lines of text."""

from collections.abc import Iterator, Sequence

from prefect_nb.model.notebook_diff import CellChange
from prefect_nb.service.diff.comparing import Change, RunDiff, Side
from prefect_nb.service.text import duration_text, one_line, plural

_LINES = 40
_EXAMPLES = 3


def sections(diff: RunDiff) -> Iterator[list[str]]:
    """Heads and what is below them, indented; lines of code begin with six spaces and `+`, `-` or a space."""
    yield [f"- {_side(diff.before)}", f"+ {_side(diff.after)}", verdict(diff)]
    for title, changes in (("Facts", diff.facts), ("Parameters", diff.parameters), ("Results", diff.results)):
        yield from _section(title, changes)
    for cell in diff.cells:
        yield ["", cell_title(cell), *_cell(cell)]
    yield from _section("Metrics, last values", diff.metrics)
    yield from _section("Task runs", diff.tasks)
    yield from _section("Cached", diff.cached)
    if diff.timings:
        yield ["", "Took longer or shorter", *(f"  {one_line(one.name)}: {one.words}" for one in diff.timings)]
    if diff.notes:
        yield ["", "Notes", *(f"  {one_line(note, 300)}" for note in diff.notes)]


def verdict(diff: RunDiff) -> str:
    """One line: what differs."""
    counts = (
        ("fact", diff.facts), ("parameter", diff.parameters), ("result", diff.results), ("cell", diff.cells),
        ("metric", diff.metrics), ("task run", diff.tasks),
    )  # fmt: skip
    words = [plural(len(found), what) for what, found in counts if found]
    return (
        f"{', '.join(words)} differ{'s' * (words == words[:1] and words[0].startswith('1 '))}"
        if words
        else "No difference"
    )


def change_words(change: Change) -> str:
    """`depth: 3 → 5`, `+ seed: 7`, `- seed: 7`."""
    name = one_line(change.name, 80)
    if change.before is None:
        return f"+ {name}: {one_line(change.after or '', 200)}"
    if change.after is None:
        return f"- {name}: {one_line(change.before, 200)}"
    return f"{name}: {one_line(change.before, 200)} → {one_line(change.after, 200)}" if change.before else (
        f"{name}: {one_line(change.after, 300)}"
    )  # fmt: skip


def cell_title(cell: CellChange) -> str:
    """`Cell 3 (Load)`, with what became of it."""
    number = cell.after if cell.after is not None else cell.before
    fate = " was removed" if cell.after is None else " is new" if cell.before is None else ""
    moved = f", cell {cell.before} before" if cell.before not in (None, number) and cell.after is not None else ""
    return f"Cell {number} ({one_line(cell.name, 60)}){moved}{fate}"


def _side(side: Side) -> str:
    took = f", {duration_text(side.took_us)}" if side.took_us is not None else ""
    started = f", started {side.started[:19].replace('T', ' ')} UTC" if side.started else ""
    return f"{one_line(side.flow_name, 60)}, run {one_line(side.name, 60)}: {side.state}{started}{took}"


def _section(title: str, changes: Sequence[Change]) -> Iterator[list[str]]:
    if changes:
        yield ["", title, *(f"  {change_words(change)}" for change in changes)]


def _cell(cell: CellChange) -> Iterator[str]:
    if cell.source:
        if cell.before is not None and cell.after is not None:
            yield "  code"
        yield from _code(cell.source)
    for output in cell.outputs:
        yield f"  {output.kind}: {output.summary}"
        yield from _code(output.lines)
        if output.table is not None:
            for column in output.table.columns:
                for row, old, new in column.examples[:_EXAMPLES]:
                    yield f"    {one_line(column.column, 40)} [{one_line(row, 40)}]: {one_line(old, 60)} → {one_line(new, 60)}"


def _code(lines: Sequence[str]) -> Iterator[str]:
    for line in lines[:_LINES]:
        yield f"      {line}"
    if len(lines) > _LINES:
        yield f"      … {len(lines) - _LINES:,} more lines"
