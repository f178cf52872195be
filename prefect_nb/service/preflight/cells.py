"""A notebook's cells as they are checked: Python, magics and shell commands told apart, without running any."""

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from prefect_nb.bodies.cells import cell_name, is_runnable, tags_of
from prefect_nb.bodies.document import INJECTED, PARAMETERS
from prefect_nb.model.name_flow import CellCode
from prefect_nb.service.preflight import magics
from prefect_nb.service.preflight.findings import Finding, Level

_CELL_MAGIC = re.compile(r"%%(!|\w[\w.]*)(.*)")
_CONTINUED = re.compile(r"\s*(?:[%!]|[\w\s,.]+=\s*[%!]).*\\$")
_OPTIONS = re.compile(r"(?:-\w+(?:\s+\d+(?=\s))?\s+)*")
_TASK_HEADING = re.compile(r"\s*(?:[^\s(>-](?:[^\s(>-]|-(?!>))*)?\s*(?:\(([^)]*)\))?\s*(?:->\s*(\w+(?:\s*,\s*\w+)*))?")
_RESULTS = re.compile(r"(?:^|\s)(?:-o|--out|--err|--proc)[\s=]+(\w+)")
_GIVEN = re.compile(r"(?:^|\s)(?:-p|--param)[\s=]+['\"]?(\w+)=(@\w+)?")
_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class Magic(NamedTuple):
    """A magic, as it is used in a cell."""

    kind: str
    """`line` or `cell`."""
    name: str
    rest: str
    line: int


class CheckedCell:
    """A code cell that a run would execute.

    Args:
        number: among these, from 1.
        cell: its JSON.
        before: the cell above it.
    """

    def __init__(self, number: int, cell: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        self.number = number
        self.id: str = cell["id"]
        self.source: str = cell["source"]
        self.tags = tags_of(cell)
        self.metadata: Mapping[str, Any] = cell["metadata"]
        self.execution_count = cell.get("execution_count")
        self.heading = cell_name(cell, before)
        self.magics: list[Magic] = []
        self.commands: list[str] = []
        """Shell commands, and the bodies of cells that are no Python."""
        self.tree: ast.Module | None = None
        self.error: SyntaxError | None = None
        self.text = ""
        """Its Python, lines as in the source."""
        self._heading: Magic | None = None
        self._read()

    @property
    def is_parameters(self) -> bool:
        """Whether it declares the notebook's parameters."""
        return PARAMETERS in self.tags or INJECTED in self.tags

    @property
    def may_fail(self) -> bool:
        """Whether an error in it does not end the run."""
        return "raises-exception" in self.tags

    def finding(
        self, level: Level, rule: str, message: str, fix: str | None = None, line: int | None = None
    ) -> Finding:
        """A finding about this cell."""
        if self.may_fail and level == "error":
            level = "info"
        return Finding(
            level=level, rule=rule, message=message, fix=fix,
            cell=self.number, cell_id=self.id, heading=self.heading, line=line,
        )  # fmt: skip

    def code(self, given: tuple[str, ...] = ()) -> CellCode:
        """The cell for `model.name_flow`; `given` are names that are bound before it."""
        heading = self._heading
        reads: tuple[str, ...] = ()
        results: tuple[str, ...] = ()
        outputs: tuple[str, ...] | None = None
        if heading is not None:
            results = tuple(_RESULTS.findall(heading.rest))
            if heading.name == "capture":
                results = tuple(word for word in heading.rest.split() if word.isidentifier())[:1]
            elif heading.name == "timeit":
                outputs = ()
            elif heading.name in ("flow", "prefect"):
                found = _GIVEN.findall(heading.rest)
                given += tuple(name for name, _ in found)
                reads = tuple(value[1:] for _, value in found if value)
            elif heading.name == "task":
                reads, outputs = _task_names(heading.rest)
        for magic in self.magics:
            if magic.kind == "line" and magic.name in magics.OURS["line"]:
                given += tuple(_RESULTS.findall(magic.rest))
        is_sure = not self.may_fail and not any(tag == "skip" or tag.startswith("skip-if") for tag in self.tags)
        return CellCode(self.number, self.tree, given, reads, results, outputs, is_sure, self._is_dynamic)

    @property
    def _is_dynamic(self) -> bool:
        unread = self.error is not None or (
            self._heading is not None and self._heading.name not in magics.PYTHON_CELLS | magics.TEXT_CELLS
        )
        return unread or any(one.kind == "line" and one.name in magics.DYNAMIC_LINES for one in self.magics)

    # Reading

    def _read(self) -> None:
        lines = self.source.split("\n")
        place = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
        found = _CELL_MAGIC.fullmatch(lines[place].rstrip()) if lines else None
        if found is None:
            self._read_python(self.source)
            return
        self._heading = Magic("cell", found[1], found[2], place + 1)
        self.magics.append(self._heading)
        body = "\n" * (place + 1) + "\n".join(lines[place + 1 :])
        if found[1] in magics.PYTHON_CELLS:
            self._read_python(body)
        else:
            self.commands.append(f"{found[2]}\n{body}")

    def _read_python(self, text: str) -> None:
        text = _one_line_magics(text)
        if self._is_automagic(text):
            word, _, rest = text.strip().partition(" ")
            self.magics.append(Magic("line", word, rest, 1))
            self.commands.append(text)
            return
        self.text = transformed(text)
        try:
            self.tree = parsed(self.text)
        except SyntaxError as error:
            self.error = error
            return
        self.tree = _Inline(self).visit(self.tree)

    @staticmethod
    def _is_automagic(text: str) -> bool:
        """`pip install x` on a line of its own: IPython takes it for a magic although it has no percent sign."""
        line = text.strip()
        word = line.partition(" ")[0]
        if "\n" in line or word not in magics.BUILT_IN["line"]:
            return False
        try:
            parsed(transformed(line))
        except SyntaxError:
            return True
        return line == word and word in ("ls", "ll", "pwd", "who", "whos", "history", "lsmagic")


class _Inline(ast.NodeTransformer):
    """Notes magics and shell commands, and puts what `%time` and its like run in their place."""

    def __init__(self, cell: CheckedCell) -> None:
        self._cell = cell

    def visit_Expr(self, node: ast.Expr) -> Any:
        used = _magic_call(node.value)
        if used is None or used[0] != "run_line_magic":
            return self.generic_visit(node)
        body = self._note(node.value, *used)
        if body is None or body.body == []:
            return node
        for inner in ast.walk(body):
            if hasattr(inner, "lineno"):
                ast.copy_location(inner, node)
        return body.body

    def visit_Call(self, node: ast.Call) -> Any:
        used = _magic_call(node)
        if used is None:
            return self.generic_visit(node)
        body = self._note(node, *used)
        if body is not None and len(body.body) == 1 and isinstance(body.body[0], ast.Expr):
            expression = body.body[0].value
            for inner in ast.walk(expression):
                if hasattr(inner, "lineno"):
                    ast.copy_location(inner, node)
            return expression
        return node

    def _note(self, node: ast.expr, method: str, words: list[str]) -> ast.Module | None:
        cell = self._cell
        if method in ("system", "getoutput"):
            cell.commands.append(words[0])
            return None
        name, rest = words[0], words[1] if len(words) > 1 else ""
        cell.magics.append(Magic("line" if method == "run_line_magic" else "cell", name, rest, node.lineno))
        if method != "run_line_magic" or name not in magics.PYTHON_LINES:
            cell.commands.append(f"{name} {rest}")
            return None
        try:
            return parsed(transformed(_OPTIONS.sub("", rest, count=1)))
        except SyntaxError:
            return None


def checked_cells(notebook: Mapping[str, Any]) -> list[CheckedCell]:
    """The cells that a run would execute, in order."""
    cells: list[CheckedCell] = []
    before: Mapping[str, Any] | None = None
    for cell in notebook["cells"]:
        if is_runnable(cell):
            cells.append(CheckedCell(len(cells) + 1, cell, before))
        before = cell
    return cells


def transformed(text: str) -> str:
    """IPython's syntax turned into Python, with the lines where they were."""
    from IPython.core.inputtransformer2 import TransformerManager

    blank = len(text) - len(text.lstrip("\n"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manager: Any = TransformerManager()  # type: ignore[no-untyped-call]
        return "\n" * blank + str(manager.transform_cell(text))


def parsed(text: str) -> ast.Module:
    """The tree of a cell, which may await at its top level.

    Raises:
        SyntaxError: it is no Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
            compile(text, "<cell>", "exec", flags=_FLAGS, dont_inherit=True)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error)) from None
    return tree


class Context(NamedTuple):
    """Where a node stands."""

    sure: bool
    """Whether it is run in any case when its cell is."""
    caught: frozenset[str]
    """The exceptions that are caught around it."""


_CONDITIONAL = (ast.If, ast.While, ast.IfExp, ast.BoolOp, ast.ExceptHandler, ast.Match)
_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def nodes_of(tree: ast.AST, context: Context | None = None) -> Iterator[tuple[ast.AST, Context]]:
    """All nodes below, in the order of the text, each with where it stands."""
    context = context or Context(True, frozenset())
    for child in ast.iter_child_nodes(tree):
        inner = context
        if isinstance(tree, _CONDITIONAL) and child is not getattr(tree, "test", None):
            inner = inner._replace(sure=False)
        if isinstance(child, _INNER):
            inner = inner._replace(sure=False)
        if isinstance(tree, ast.Try | ast.TryStar) and child in tree.body:
            names = {name for handler in tree.handlers for name in _names_caught(handler)}
            inner = inner._replace(caught=inner.caught | names)
        yield child, inner
        yield from nodes_of(child, inner)


def dotted(node: ast.AST) -> str:
    """`pd.read_csv` of the node that says so; of what is called, indexed or no name, an empty text before the dot."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def _names_caught(handler: ast.ExceptHandler) -> Iterator[str]:
    if handler.type is None:
        yield "BaseException"
        return
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    yield from (dotted(type_).rpartition(".")[2] for type_ in types)


def _magic_call(node: ast.expr) -> tuple[str, list[str]] | None:
    """The method and the texts of `get_ipython().run_line_magic("time", "f()")` and its like."""
    match node:
        case ast.Call(
            func=ast.Attribute(
                value=ast.Call(func=ast.Name(id="get_ipython")),
                attr="run_line_magic" | "run_cell_magic" | "system" | "getoutput" as method,
            ),
            args=arguments,
        ):
            words = [one.value for one in arguments if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            return (method, words) if words else None
    return None


def _one_line_magics(text: str) -> str:
    """Magics that go on in the next line joined, with empty lines after them."""
    lines = text.split("\n")
    for place in range(len(lines)):
        following = place
        while _CONTINUED.match(lines[place]) and following + 1 < len(lines):
            following += 1
            lines[place] = f"{lines[place][:-1]} {lines[following].strip()}"
            lines[following] = ""
    return "\n".join(lines)


def _task_names(rest: str) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """The inputs and the outputs that the heading of a `%%task` cell states."""
    found = _TASK_HEADING.match(rest)
    inputs = tuple(name.strip() for name in (found[1] or "").split(",") if name.strip()) if found else ()
    outputs = tuple(name.strip() for name in found[2].split(",")) if found and found[2] else None
    return tuple(name for name in inputs if name.isidentifier()), outputs
