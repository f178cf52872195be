"""The graph of a flow's calls without running its tasks: `flow.visualize()`.

The flow's own code is executed; each call of a task or sub-flow only leaves a node and gives a stand-in for its value.
"""

from __future__ import annotations

import asyncio
import html
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from prefect_nb.execution import inputs, portal
from prefect_nb.execution.context import visualizing

HINT = (
    "\nIt's possible you are trying to visualize a flow that contains code that directly interacts with the result of a "
    "task inside of the flow.\nTry passing a `viz_return_value` to the task decorator, e.g. "
    "`@task(viz_return_value=[1, 2, 3])`."
)
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _LETTER = 40, 32, 24, 44, 7.6


class VizTask:
    """Stands for the value of a call, and for its future."""

    def __init__(self, name: str, upstream_tasks: list[VizTask] | None = None, kind: str = "task") -> None:
        self.name = name
        self.upstream_tasks = upstream_tasks or []
        self.kind = kind

    def result(self, *_args: Any, **_options: Any) -> Any:
        """Of a future: the same stand-in."""
        return self

    def wait(self, *_args: Any, **_options: Any) -> None:
        """Of a future: nothing to wait for."""

    def __iter__(self) -> Iterator[VizTask]:
        # A stand-in has no known length: one element stands for all.
        yield self

    def __repr__(self) -> str:
        return f"VizTask({self.name!r})"


class TaskVizTracker:
    """What has been called so far."""

    def __init__(self) -> None:
        self.tasks: list[VizTask] = []
        self._counts: Counter[str] = Counter()
        self._values: dict[int, tuple[Any, VizTask]] = {}

    def called(self, callee: Any, given: Any, wait_for: Any, how: str) -> Any:
        """A task or flow is called; what stands for what that gives.

        Args:
            callee: the task or flow.
            given: its arguments.
            wait_for: what has to come first.
            how: "call", "submit" or "map".
        """
        kind = "task" if hasattr(callee, "viz_return_value") else "flow"
        stands_for = self.add(callee.name, (given, wait_for), getattr(callee, "viz_return_value", None), kind)
        return asyncio.sleep(0, stands_for) if how == "call" and callee.isasync else stands_for

    def add(self, name: str, parameters: Any, value: Any, kind: str) -> Any:
        """Note a call; returns what stands for its value.

        Args:
            name: of the task or flow.
            parameters: its arguments; stand-ins in them are what it depends on.
            value: the task's `viz_return_value`; None for a stand-in.
            kind: "task" or "flow".
        """
        upstream = list(dict.fromkeys(self._found(parameters)))
        node = VizTask(f"{name}-{self._counts[name]}", upstream, kind)
        self._counts[name] += 1
        self.tasks.append(node)
        if value is None:
            return node
        self._values[id(value)] = value, node
        return value

    def _found(self, value: Any, depth: int = 0) -> Iterator[VizTask]:
        if isinstance(value, VizTask):
            yield value
            return
        known = self._values.get(id(value))
        if known is not None and known[0] is value:
            yield known[1]
        if depth > 16:
            return
        children = inputs.parts(value)
        for child in children or ():
            yield from self._found(child, depth + 1)


class Edge(NamedTuple):
    """One call that another depends on, by their names."""

    source: str
    target: str


class FlowGraph:
    """The calls of a flow and what they depend on. A notebook shows it as a picture.

    Args:
        name: of the flow.
        tasks: the calls, in order.
    """

    def __init__(self, name: str, tasks: list[VizTask]) -> None:
        self.name = name
        self.nodes = {task.name: task.kind for task in tasks}
        self.edges = [Edge(upstream.name, task.name) for task in tasks for upstream in task.upstream_tasks]

    def mermaid(self) -> str:
        """The graph in Mermaid's language."""
        lines = ["flowchart TD"]
        lines += [f'    {_identifier(name)}["{html.escape(name)}"]' for name in self.nodes]
        lines += [f"    {_identifier(edge.source)} --> {_identifier(edge.target)}" for edge in self.edges]
        return "\n".join(lines)

    def dot(self) -> str:
        """The graph in Graphviz's language."""

        def quoted(name: str) -> str:
            escaped = name.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'

        lines = [f"digraph {quoted(self.name)} {{"]
        lines += [f"    {quoted(name)};" for name in self.nodes]
        lines += [f"    {quoted(edge.source)} -> {quoted(edge.target)};" for edge in self.edges]
        return "\n".join([*lines, "}"])

    def text(self) -> str:
        """One line a call: its name, and what it depends on."""
        upstream: dict[str, list[str]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            upstream[edge.target].append(edge.source)
        lines = [f"{name}{' <- ' + ', '.join(before) if before else ''}" for name, before in upstream.items()]
        return "\n".join([f"Flow {self.name!r}", *(f"  {line}" for line in lines)])

    def svg(self) -> str:
        """The graph as an SVG picture: a call is below everything it depends on."""
        places, width, height = self._placed()
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="13">'
        )
        parts = [head, f"<title>{html.escape(f'Calls of flow {self.name}')}</title>"]
        for edge in self.edges:
            (x1, y1, _), (x2, y2, _) = places[edge.source], places[edge.target]
            bend = (y2 - y1 - _HEIGHT) / 2
            parts.append(
                f'<path d="M{x1:.0f},{y1 + _HEIGHT:.0f} c0,{bend:.0f} {x2 - x1:.0f},{bend:.0f} '
                f'{x2 - x1:.0f},{y2 - y1 - _HEIGHT:.0f}" fill="none" stroke="#808080" stroke-width="1.4"/>'
                f'<circle cx="{x2:.0f}" cy="{y2:.0f}" r="3" fill="#808080"/>'
            )
        for name, (x, y, wide) in places.items():
            radius = 4 if self.nodes[name] == "flow" else _HEIGHT / 2
            parts.append(
                f'<rect x="{x - wide / 2:.0f}" y="{y:.0f}" width="{wide:.0f}" height="{_HEIGHT}" rx="{radius:.0f}" '
                f'fill="#f4f6fa" stroke="#4a6fa5"/>'
                f'<text x="{x:.0f}" y="{y + _HEIGHT / 2 + 4.5:.0f}" text-anchor="middle" fill="#1c2733">'
                f"{html.escape(name)}</text>"
            )
        return "".join([*parts, "</svg>"])

    def save(self, path: str | Path) -> Path:
        """Write the graph to a file; its ending says how: .svg, .mmd (Mermaid), .dot or .txt.

        Raises:
            ValueError: another ending.
        """
        path = Path(path)
        made = {".svg": self.svg, ".mmd": self.mermaid, ".dot": self.dot, ".gv": self.dot, ".txt": self.text}
        if path.suffix not in made:
            raise ValueError(f"A graph cannot be saved as {path.name!r}: the ending must be one of {', '.join(made)}.")
        path.write_text(made[path.suffix]())
        return path

    def _placed(self) -> tuple[dict[str, tuple[float, float, float]], float, float]:
        """Middle, top and width of each node's box; width and height of the picture."""
        upstream: dict[str, list[str]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            upstream[edge.target].append(edge.source)
        layer: dict[str, int] = {}
        for name in self.nodes:  # calls come after what they depend on
            layer[name] = 1 + max((layer[before] for before in upstream[name]), default=-1)
        rows: list[list[str]] = [[] for _ in range(1 + max(layer.values(), default=0))]
        for name, depth in layer.items():
            rows[depth].append(name)
        wide = {name: _WIDTH + _LETTER * len(name) for name in self.nodes}
        width = max((sum(wide[name] + _GAP_X for name in row) for row in rows), default=0) + _GAP_X
        places: dict[str, tuple[float, float, float]] = {}
        for depth, row in enumerate(rows):

            def middle(name: str) -> float:
                before = [places[source][0] for source in upstream[name]]
                return sum(before) / len(before) if before else 0.0

            row.sort(key=middle)
            x = (width - sum(wide[name] + _GAP_X for name in row) + _GAP_X) / 2
            for name in row:
                places[name] = x + wide[name] / 2, _GAP_Y / 2 + depth * (_HEIGHT + _GAP_Y), wide[name]
                x += wide[name] + _GAP_X
        return places, width, len(rows) * (_HEIGHT + _GAP_Y)

    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]:
        return {"image/svg+xml": self.svg(), "text/plain": self.text()}

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"FlowGraph({self.name!r}, {len(self.nodes)} calls)"


def _identifier(name: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in name)


def graph_of(flow: Any, parameters: dict[str, Any]) -> FlowGraph:
    """Execute a flow's own code with stand-ins for its tasks.

    Raises:
        Exception: whatever that code raises, with a hint at `viz_return_value`.
    """
    warnings.warn(
        "`flow.visualize()` executes the code of your flow that is in no @task or @flow.", UserWarning, stacklevel=3
    )
    drawing = TaskVizTracker()
    args, kwargs = flow.signature.call_args(parameters)
    token = visualizing.set(drawing)
    try:
        if flow.isasync:
            portal.run_sync(awaited(drawing, flow.whole, *args, **kwargs))
        else:
            flow.whole(*args, **kwargs)
    except Exception as error:
        try:
            hinted: Exception = type(error)(f"{error}{HINT}")
        except Exception:  # an exception with arguments of its own
            raise error from None
        raise hinted from error
    finally:
        visualizing.reset(token)
    return FlowGraph(flow.name, drawing.tasks)


async def awaited(drawing: Any, fn: Any, *args: Any, **kwargs: Any) -> None:
    """Call and await a flow's own code, wherever it runs, with its tasks drawn and not run."""
    visualizing.set(drawing)
    await fn(*args, **kwargs)
