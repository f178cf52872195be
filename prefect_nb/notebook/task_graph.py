"""The notebook's `%%task` cells as a graph: which cell takes which name from which, in what order, and what is in conflict.

A cell depends on the one that makes a name it reads. Where one name goes through several cells (`load -> df`, then
`clean(df) -> df`), each takes it from the one before, and a reader takes what the last of them above it in the notebook made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TaskNode:
    """What is known of one `%%task` cell without running it."""

    name: str
    """The task's."""
    number: int | None = None
    """Which cell of the notebook it is, from 1; None where it is not known."""
    reads: frozenset[str] = NONE
    """What it reads that it has not made itself, be it in functions it calls."""
    gives: frozenset[str] = NONE
    """The names it leaves in the notebook."""
    changes: frozenset[str] = NONE
    """Of the names it reads: whose objects it plainly changes, such as by `df["a"] = 1`."""
    passing: frozenset[str] = NONE
    """Of the names it leaves: what was a loop's variable and the like."""
    takes: frozenset[str] = NONE
    """The inputs stated on its first line."""
    declares: Mapping[str, str] = field(default_factory=dict)
    """The functions, classes and imports in it, with their source."""
    late: frozenset[str] = NONE
    """Of these: what is there only when its body has run."""
    through: Mapping[str, str] = field(default_factory=dict)
    """Of the names it reads: those that only a function reads which it calls, with that function's name."""

    def states(self, name: str) -> bool:
        """Whether the first line says that it takes the name and gives it on."""
        return name in self.takes and name in self.gives


@dataclass(frozen=True)
class PlainNode:
    """A cell of the notebook that is no task."""

    number: int
    gives: frozenset[str]
    """The names it leaves in the notebook."""


@dataclass
class TaskGraph:
    """Task cells and what they need of each other."""

    nodes: dict[str, TaskNode]
    """In the order of the notebook, by what they are called in it: the task's name, numbered where there are several."""
    sources: dict[str, dict[str, str]]
    """For each cell: from which other one it takes which name."""
    after: dict[str, set[str]]
    """For each cell that changes something in place: the cells that must have read it before."""
    declared: dict[str, set[str]]
    """For each cell: those whose functions, classes or imports it uses. They need not have run."""
    conflicts: list[str]
    """Why it cannot run, in words; one for each conflict."""

    def needs(self, key: str) -> list[str]:
        """The cells that one takes names from."""
        return list(dict.fromkeys(self.sources[key].values()))

    def order(self, keys: Iterable[str] | None = None) -> list[str]:
        """Cells such that each comes after all it needs; else as in the notebook."""
        done: dict[str, None] = {}
        wanted = {*self.nodes} if keys is None else {*keys}

        def visit(key: str, above: tuple[str, ...]) -> None:
            if key in done or key in above:
                return
            for before in self._before(key):
                visit(before, (*above, key))
            done[key] = None

        for key in self.nodes:
            if key in wanted:
                visit(key, ())
        return [key for key in done if key in wanted]

    def with_needed(self, keys: Iterable[str]) -> set[str]:
        """These cells and everything they need."""
        return _reached(keys, {key: self.needs(key) for key in self.nodes})

    def with_declaring(self, keys: Iterable[str]) -> set[str]:
        """These cells and those whose functions, classes or imports they use."""
        return _reached(keys, self.declared)

    def with_dependents(self, keys: Iterable[str]) -> set[str]:
        """These cells and everything that needs them."""
        needing: dict[str, list[str]] = {key: [] for key in self.nodes}
        for key in self.nodes:
            for before in self.needs(key):
                needing[before].append(key)
        return _reached(keys, needing)

    def title(self, key: str) -> str:
        """A cell in a sentence: "`clean` (cell 5)"."""
        number = self.nodes[key].number
        return f"`{key}`" + (f" (cell {number})" if number is not None else "")

    def _before(self, key: str) -> list[str]:
        placed = {name: place for place, name in enumerate(self.nodes)}
        return sorted({*self.needs(key), *self.after[key]}, key=placed.__getitem__)


def build(nodes: Sequence[TaskNode], plain: Sequence[PlainNode] = ()) -> TaskGraph:
    """The graph of these cells, given in the order of the notebook; its `conflicts` say what is wrong with it."""
    named = _numbered(nodes)
    graph = TaskGraph(
        nodes=named,
        sources={key: {} for key in named},
        after={key: set() for key in named},
        declared={key: set() for key in named},
        conflicts=[],
    )
    read = sorted({name for node in named.values() for name in node.reads})
    made = sorted({name for node in named.values() for name in (*node.gives, *node.declares)})
    for name in dict.fromkeys([*read, *made]):
        graph.conflicts += _declared_twice(graph, name)
        graph.conflicts += _link(graph, name)
    for cell in plain:
        graph.conflicts += _with_plain(graph, cell, plain)
    graph.conflicts += _cycles(graph)
    return graph


def _numbered(nodes: Sequence[TaskNode]) -> dict[str, TaskNode]:
    names, named = {node.name for node in nodes}, dict[str, TaskNode]()
    for node in nodes:
        key, number = node.name, 1
        while key in named or (number > 1 and key in names):
            number += 1
            key = f"{node.name}-{number}"
        named[key] = node
    return named


# One name


def _link(graph: TaskGraph, name: str) -> list[str]:
    """Say of each cell that reads the name where it takes it from; the conflicts in that."""
    nodes = graph.nodes
    givers = [key for key, node in nodes.items() if name in node.gives]
    readers = [key for key, node in nodes.items() if name in node.reads]
    origins = [key for key in givers if not nodes[key].states(name)]
    if len(origins) > 1:
        meant = [key for key in origins if name not in nodes[key].passing]
        if len(meant) > 1 or (not meant and readers):
            return [_assigned_twice(graph, name, meant or origins)]
        givers = [key for key in givers if key in meant or key not in origins]
        origins = meant
    wild = [key for key in readers if name in nodes[key].changes and key not in givers]
    for key in wild:
        others = [other for other in readers if other != key]
        if others:
            return [_changed_by(graph, name, key, [*origins, *others])]
    versions = [*origins, *(key for key in givers if key not in origins)]
    for key in readers:
        _take(graph, name, key, versions)
    for other, node in nodes.items():
        for key in readers if name in node.declares else ():
            if name in node.late:
                graph.sources[key].setdefault(name, other)
            else:
                graph.declared[key].add(other)
    return []


def _take(graph: TaskGraph, name: str, key: str, versions: Sequence[str]) -> None:
    """Let a cell take the name from the version that it should see, if from any."""
    places = {other: place for place, other in enumerate(graph.nodes)}
    if key in versions:
        number = versions.index(key)
        if number:
            graph.sources[key][name] = versions[number - 1]
        return
    above = [version for version in versions if places[version] < places[key]]
    if above:
        number = versions.index(above[-1])
    elif versions and name not in graph.nodes[versions[0]].reads:
        number = len(versions) - 1
    else:  # what the notebook has, before the first of them goes on with it
        number = -1
    if number >= 0:
        graph.sources[key][name] = versions[number]
    for later in versions[number + 1 : number + 2]:
        if name in graph.nodes[later].changes:
            graph.after[later].add(key)


def _assigned_twice(graph: TaskGraph, name: str, origins: Sequence[str]) -> str:
    where = _and(map(graph.title, origins))
    words = f"`{name}` is assigned by {where}."
    going_on = next((key for key in reversed(origins) if name in graph.nodes[key].reads), None)
    if going_on is not None:
        called = graph.nodes[going_on].name
        words += f" If {graph.title(going_on)} goes on with what is there, state it: %%task {called}({name}) -> {name}."
        return f"{words} Else give one of them another name."
    return f"{words} Give one of them another name, or state the outputs of one without it: %%task name -> outputs, or None."


def _changed_by(graph: TaskGraph, name: str, key: str, others: Sequence[str]) -> str:
    called, rest = graph.nodes[key].name, _and(map(graph.title, dict.fromkeys(others)))
    return (
        f"{graph.title(key)} changes `{name}` in place, and {rest} use it, too. State that it goes on with it: "
        f"%%task {called}({name}) -> {name}; or let it work on a copy."
    )


def _declared_twice(graph: TaskGraph, name: str) -> list[str]:
    declaring = [key for key, node in graph.nodes.items() if name in node.declares]
    giving = [key for key, node in graph.nodes.items() if name in node.gives]
    if len({graph.nodes[key].declares[name] for key in declaring}) > 1:
        return [f"`{name}` is defined in different ways by {_and(map(graph.title, declaring))}. Rename one of them."]
    if declaring and giving:
        where = _and(map(graph.title, (declaring[0], giving[0])))
        return [f"`{name}` is defined by {where}, once as a function, class or import. Rename one of them."]
    return []


# Plain cells


def _with_plain(graph: TaskGraph, cell: PlainNode, plain: Sequence[PlainNode]) -> list[str]:
    conflicts = []
    for key, node in graph.nodes.items():
        if node.number is None:
            continue
        for name in sorted(node.reads & cell.gives):
            source = graph.sources[key].get(name)
            made = graph.nodes[source].number if source is not None else None
            if source is None and cell.number > node.number:
                before = any(name in other.gives and other.number < node.number for other in plain)
                first = all(cell.number <= other.number or name not in other.gives for other in plain)
                if not before and first:
                    conflicts.append(
                        f"{graph.title(key)} reads `{name}`, which only cell {cell.number} below it makes. Move that "
                        f"cell above it, or make it a task: %%task."
                    )
            elif source is not None and made is not None and made < cell.number < node.number:
                conflicts.append(
                    f"{graph.title(key)} reads `{name}` of {graph.title(source)}, which cell {cell.number} between them "
                    f"assigns, too; that cell is no task and would not run. Make it one, or give one of them another name."
                )
    return conflicts


# Cycles


def _cycles(graph: TaskGraph) -> list[str]:
    conflicts, seen = [], set[str]()
    for start in graph.nodes:
        path = None if start in seen else _cycle(graph, start)
        if path is not None and not seen.intersection(path):
            seen.update(path)
            spelled = " -> ".join([*path, path[0]])
            reasons = [_why(graph, one, other) for one, other in zip(path, [*path[1:], path[0]], strict=True)]
            conflicts.append(f"These cells need each other in a circle: {spelled} ({'; '.join(reasons)}).")
    return conflicts


def _cycle(graph: TaskGraph, start: str) -> list[str] | None:
    """The shortest way from a cell back to itself, each step to one that needs the one before."""
    needing: dict[str, list[str]] = {key: [] for key in graph.nodes}
    for key in graph.nodes:
        for before in graph._before(key):
            needing[before].append(key)
    paths, found = [[start]], {start}
    while paths:
        path = paths.pop(0)
        for key in needing[path[-1]]:
            if key == start:
                return path
            if key not in found:
                found.add(key)
                paths.append([*path, key])
    return None


def _why(graph: TaskGraph, before: str, key: str) -> str:
    names = sorted(name for name, source in graph.sources[key].items() if source == before)
    if not names:
        return f"`{key}` changes in place what `{before}` reads"
    through = graph.nodes[key].through.get(names[0])
    by = f" through `{through}()`" if through is not None else ""
    return f"`{key}` reads `{names[0]}` of `{before}`{by}"


def _reached(keys: Iterable[str], steps: Mapping[str, Collection[str]]) -> set[str]:
    found, waiting = set[str](), list(keys)
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += steps[key]
    return found


def _and(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
