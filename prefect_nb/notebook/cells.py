"""A cell's body as code that runs in the notebook's namespace, with the lines and the text that its author sees."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Sequence
from functools import cached_property
from inspect import CO_COROUTINE
from types import CodeType
from typing import Any

from IPython.core.displayhook import DisplayHook


class Cell:
    """The body of a `%%flow` or `%%task` cell.

    Args:
        shell: the IPython shell.
        header: the cell's first line, which tracebacks show as a comment.
        body: the lines below it, magics and shell commands included.

    Raises:
        SyntaxError: with the place in the cell.
    """

    def __init__(self, shell: Any, header: str, body: str) -> None:
        self.shell = shell
        header = " ".join(header.split(None, 1))
        self.source = "\n".join([header, body.rstrip("\n")])
        """As its author wrote it."""
        self.execution_count = execution_count(shell)
        blank = len(body) - len(body.lstrip("\n"))
        # IPython drops empty lines at the top; the numbers of the others must not change.
        self.text = f"# {header}\n" + "\n" * blank + shell.transform_cell(body)
        self.filename: str = shell.compile.cache(self.text, self.execution_count, raw_code=self.text)
        self.tree: ast.Module = shell.transform_ast(shell.compile.ast_parse(self.text, filename=self.filename))
        self.is_silent: bool = DisplayHook.semicolon_at_end_of_expression(body)  # type: ignore[no-untyped-call]
        """Whether a semicolon at the end keeps the last value from being shown."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to run."""
        return not self.tree.body

    @cached_property
    def code(self) -> tuple[CodeType, CodeType | None]:
        """The statements, and the expression at the end if there is one."""
        body = list(self.tree.body)
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        statements = self.compile(ast.Module(body, []), "exec")
        if not isinstance(last, ast.Expr):
            return statements, None
        return statements, self.compile(ast.Expression(last.value), "eval")

    def compile(self, tree: ast.AST, mode: str) -> CodeType:
        """Compile a part of the cell; it may `await` at its top level."""
        compiler = self.shell.compile
        with compiler.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
            code: CodeType = compiler(tree, self.filename, mode)
        return code

    def execute(self, statements: Sequence[ast.stmt], namespace: dict[str, Any], into: dict[str, Any]) -> None:
        """Run some statements of the cell: globals are those of `namespace`, names are bound in `into`."""
        exec(self.compile(ast.Module([*statements], []), "exec"), namespace, into)  # noqa: S102

    @property
    def is_async(self) -> bool:
        """Whether the body awaits at its top level."""
        return any(code is not None and bool(code.co_flags & CO_COROUTINE) for code in self.code)

    @cached_property
    def assigned(self) -> list[str]:
        """The names the body binds at its top level, sorted."""
        table = symtable.symtable(self.text, self.filename, "exec")
        return sorted(symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned())

    def run(self, namespace: dict[str, Any]) -> Any:
        """Run the body; returns the value of the expression at the end, or None."""
        statements, last = self.code
        exec(statements, namespace)  # noqa: S102 - the user's own code, in the user's own kernel
        return eval(last, namespace) if last is not None else None  # noqa: S307

    async def await_run(self, namespace: dict[str, Any]) -> Any:
        """Run a body that awaits; returns as `run`."""
        statements, last = self.code
        await _evaluate(statements, namespace)
        return await _evaluate(last, namespace) if last is not None else None


async def _evaluate(code: CodeType, namespace: dict[str, Any]) -> Any:
    value = eval(code, namespace)  # noqa: S307
    return await value if code.co_flags & CO_COROUTINE else value


def execution_count(shell: Any) -> int:
    """The number in the brackets beside the cell that is running."""
    result = getattr(shell.displayhook, "exec_result", None)
    number = getattr(result, "execution_count", None)
    return int(number if number is not None else shell.execution_count)


def awaits(shell: Any, header: str, body: str) -> bool:
    """Whether a cell's body awaits at its top level.

    Raises:
        SyntaxError: the body is not Python.
    """
    return bool(body.strip()) and Cell(shell, header, body).is_async
