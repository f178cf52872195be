"""Two runs of one notebook or flow compared: what was given, what was changed, what came out, how long it took."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.bodies.cells import cell_name, tags_of
from prefect_nb.bodies.document import INJECTED, Document
from prefect_nb.exceptions import NotebookError
from prefect_nb.model.diff_texts import Tolerance
from prefect_nb.model.notebook_diff import CellChange, CellView, compare_cells
from prefect_nb.model.runs import FlowRun, Run, TaskRun
from prefect_nb.service import history, metrics
from prefect_nb.service.diff.images import compare_images
from prefect_nb.service.diff.values import value_change
from prefect_nb.service.documents import iso
from prefect_nb.service.results import state_of
from prefect_nb.service.text import duration_text, one_line

SLOWER_US = 500_000
"""Microseconds: lengths of time are told apart only if they differ by so much,"""
SLOWER_TIMES = 1.5
"""and by this factor: less is noise."""


class Side(msgspec.Struct, frozen=True):
    """One of the two runs."""

    id: UUID
    name: str
    flow_name: str
    state: str
    started: str | None
    """ISO 8601, UTC."""
    took_us: int | None


class Change(msgspec.Struct, frozen=True):
    """Something that both runs have, or one: in words, before and after. None: it is not there."""

    name: str
    before: str | None
    after: str | None


class Timing(msgspec.Struct, frozen=True):
    """How long something took in both runs (microseconds), where that differs by more than noise."""

    name: str
    before_us: int
    after_us: int

    @property
    def words(self) -> str:
        """`1.0 s → 3.2 s (3.2 times as long)`."""
        times = self.after_us / max(1, self.before_us)
        much = f"{times:.3g} times as long" if times >= 1 else f"{1 / times:.3g} times as fast"
        return f"{duration_text(self.before_us)} → {duration_text(self.after_us)} ({much})"


class RunDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two runs. Timings, and whether a task was cached, are told but are no difference."""

    before: Side
    after: Side
    facts: tuple[Change, ...]
    """State, version, Python, kernel, tags."""
    parameters: tuple[Change, ...]
    cells: tuple[CellChange, ...]
    tasks: tuple[Change, ...]
    """Task runs that ended in another state, or that one run has not."""
    metrics: tuple[Change, ...]
    """Their last values."""
    results: tuple[Change, ...]
    """What was returned and kept."""
    cached: tuple[Change, ...]
    timings: tuple[Timing, ...]
    notes: tuple[str, ...]
    """What could not be compared."""

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        found = (self.facts, self.parameters, self.cells, self.tasks, self.metrics, self.results)
        return not any(found)

    def document(self) -> dict[str, Any]:
        """The comparison for programs; pictures are left out."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        for cell in found["cells"]:
            for output in cell["outputs"]:
                if output["image"] is not None:
                    output["image"] = {k: v for k, v in output["image"].items() if k not in ("before", "after")}
                if output["table"] is not None:
                    for column in output["table"]["columns"]:
                        column["spread"] = _finite(column["spread"])
        return {"same": self.is_same, **found}


def diff_runs(a: str | UUID | FlowRun, b: str | UUID | FlowRun, *, rtol: float = 1e-9, atol: float = 0.0) -> RunDiff:
    """Compare two flow runs: what changed from the first to the second.

    Args:
        a: a flow run: its name, its id or the beginning of its id.
        b: another.
        rtol: numbers that differ by at most this share count as the same.
        atol: and so do those that differ by at most this much.

    Raises:
        ObjectNotFound, ConfigurationError: there is no such run, or there are several.
        ValueError: a tolerance below 0.
    """
    if not (rtol >= 0 and atol >= 0):
        raise ValueError(f"Tolerances are 0 or more, not rtol={rtol}, atol={atol}.")
    return _Comparison(_run(a), _run(b), Tolerance(rtol, atol)).diff()


def _run(which: str | UUID | FlowRun) -> FlowRun:
    return which if isinstance(which, FlowRun) else history.find_flow_run(str(which))


class _Comparison:
    """Two runs and what is known of them."""

    def __init__(self, before: FlowRun, after: FlowRun, tolerance: Tolerance) -> None:
        self._runs = (before, after)
        self._tolerance = tolerance
        self._notes: list[str] = []
        self._notebooks = (self._notebook(before), self._notebook(after))
        self._below = (dict(_below(before)), dict(_below(after)))

    def diff(self) -> RunDiff:
        before, after = self._runs
        tasks, cached = self._tasks()
        if before.flow_name != after.flow_name:
            self._notes.append("These are runs of different flows.")
        return RunDiff(
            before=_side(before),
            after=_side(after),
            facts=tuple(_changes(self._facts(0), self._facts(1))),
            parameters=tuple(_changes(_parameters(before), _parameters(after))),
            cells=tuple(self._cells()),
            tasks=tuple(tasks),
            metrics=tuple(self._metrics()),
            results=tuple(self._results()),
            cached=tuple(cached),
            timings=tuple(self._timings()),
            notes=tuple(self._notes),
        )

    # The notebooks

    def _notebook(self, run: FlowRun) -> Document | None:
        if run.kind != "notebook":
            return None
        if run.output_path is None:
            self._notes.append(f"Run {one_line(run.name)} saved no notebook: its cells cannot be compared.")
            return None
        try:
            return Document.read(run.output_path)
        except NotebookError as error:
            self._notes.append(f"The notebook of run {one_line(run.name)} cannot be compared: {error}")
            return None

    def _cells(self) -> list[CellChange]:
        one, other = self._notebooks
        if one is None or other is None:
            return []
        return compare_cells(_views(one), _views(other), self._tolerance, compare_images)

    def _facts(self, which: int) -> dict[str, str]:
        run, document = self._runs[which], self._notebooks[which]
        metadata = document.notebook["metadata"] if document is not None else {}
        facts = {
            "flow": run.flow_name,
            "state": "Completed" if run.state_name == "Cached" else run.state_name,
            "message": run.state_message or "",
            "version": run.flow_version or "",
            "code": run.entrypoint or run.input_path or "",
            "kernel": (metadata.get("kernelspec") or {}).get("name") or "",
            "Python": (metadata.get("language_info") or {}).get("version") or "",
            "tags": ", ".join(sorted(run.tags)),
        }
        return {name: one_line(str(value), 300) for name, value in facts.items() if value}

    # Task runs

    def _tasks(self) -> tuple[list[Change], list[Change]]:
        one, other = self._below
        found: list[Change] = []
        cached: list[Change] = []
        for key in {**one, **other}:
            old, new = one.get(key), other.get(key)
            states = (old.state_name if old else None, new.state_name if new else None)
            is_cell = "cell" in (old and old.kind, new and new.kind)
            if states[0] == states[1] or (is_cell and None in states):
                continue  # cells that come and go are told as cells
            kind = cached if {*states} == {"Completed", "Cached"} else found
            kind.append(Change(key, *states))
        return found, cached

    def _timings(self) -> Iterator[Timing]:
        pairs: list[tuple[str, Run, Run]] = [("the whole run", *self._runs)]
        one, other = self._below
        pairs += [(key, one[key], other[key]) for key in one if key in other]
        for name, old, new in pairs:
            before, after = _took(old), _took(new)
            if before is None or after is None or "Cached" in (old.state_name, new.state_name):
                continue
            least, most = sorted((before, after))
            if most - least >= SLOWER_US and most >= SLOWER_TIMES * least:
                yield Timing(name, before, after)

    # What came out

    def _metrics(self) -> Iterator[Change]:
        one, other = (self._last_values(which) for which in (0, 1))
        for key in {**one, **other}:
            old, new = one.get(key), other.get(key)
            if old is None or new is None or not self._tolerance.same(old, new):
                yield Change(key, *(None if value is None else f"{value:.9g}" for value in (old, new)))

    def _last_values(self, which: int) -> dict[str, float]:
        names = {run.id: key for key, run in self._below[which].items()}
        found: dict[str, float] = {}
        for one in metrics.summaries(self._runs[which]):
            of = names.get(one.task_run_id) if one.task_run_id is not None else None
            found[f"{one.name} ({of})" if of else one.name] = one.last
        return found

    def _results(self) -> Iterator[Change]:
        one, other = self._runs
        if one.result is None or other.result is None or one.result.sha256 == other.result.sha256:
            return
        try:
            values = [state_of(run).result() for run in self._runs]
        except Exception as error:  # whatever loading a value of another process raises
            self._notes.append(f"The results cannot be compared: {one_line(str(error), 200)}")
            return
        if all(str(value) == run.output_path for value, run in zip(values, self._runs, strict=True)):
            return  # where the executed notebook is, is no result
        if all(isinstance(value, dict) for value in values):
            old, new = values
            for name in {**old, **new}:
                if name not in old or name not in new:
                    yield Change(str(name), *("returned" if name in value else None for value in values))
                elif (change := value_change(old[name], new[name], self._tolerance)) is not None:
                    yield _result(str(name), change)
        elif (change := value_change(values[0], values[1], self._tolerance)) is not None:
            yield _result("result", change)


def _result(name: str, change: str) -> Change:
    before, arrow, after = change.partition(" → ")
    return Change(name, before, after) if arrow and ";" not in change else Change(name, "", change)


def _side(run: FlowRun) -> Side:
    return Side(run.id, run.name, run.flow_name, run.state_name, iso(run.start_us), _took(run))


def _took(run: Run) -> int | None:
    return run.end_us - run.start_us if run.start_us is not None and run.end_us is not None else None


def _parameters(run: FlowRun) -> dict[str, str]:
    given: Mapping[str, Any] = run.parameters
    if run.kind == "notebook" and list(given) == ["parameters"] and isinstance(given["parameters"], dict):
        given = given["parameters"]  # a notebook without a parameters cell
    return {name: one_line(repr(value), 300) for name, value in given.items()}


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            yield Change(name, before.get(name), after.get(name))


def _views(document: Document) -> list[CellView]:
    """The code cells; not the one into which a run wrote its parameters, which are compared as parameters."""
    views: list[CellView] = []
    above: Mapping[str, Any] | None = None
    for cell in document.notebook["cells"]:
        if cell["cell_type"] == "code" and cell["source"].strip() and INJECTED not in tags_of(cell):
            outputs: Sequence[Mapping[str, Any]] = cell.get("outputs") or ()
            views.append(CellView(len(views) + 1, cell["id"], cell_name(cell, above), cell["source"], tuple(outputs)))
        above = cell
    return views


def _below(run: FlowRun, path: str = "") -> Iterator[tuple[str, TaskRun]]:
    """Everything called in a run, under names that are the same in another run: the task, and the how manieth call."""
    names: dict[str, int] = {}
    for task_run in history.all_task_runs(run.id):
        name = _name(task_run)
        names[name] = names.get(name, 0) + 1
        yield path + name + (f" ({names[name]})" if names[name] > 1 else ""), task_run
    flows: dict[str, int] = {}
    for child in history.child_flow_runs(run.id):
        flows[child.flow_name] = flows.get(child.flow_name, 0) + 1
        number = f" ({flows[child.flow_name]})" if flows[child.flow_name] > 1 else ""
        yield from _below(child, f"{path}{one_line(child.flow_name, 40)}{number} > ")


def _name(run: TaskRun) -> str:
    if run.kind == "cell":
        return f"cell {one_line(run.name, 60)}"
    # The run's own name has chance in it, or arguments; its task's has not.
    return one_line(run.task_key.rpartition("-")[0].rpartition(".")[2] or run.name, 60)


def _finite(spread: dict[str, Any] | None) -> dict[str, Any] | None:
    """JSON has no word for infinities."""
    if spread is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in spread.items()}
