"""Where Python's scopes begin and end in a tree."""

import ast
from collections.abc import Iterable, Iterator, Sequence

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def diverts(statement: ast.stmt) -> bool:
    """Whether what follows the statement in its block may not be reached."""
    ends: tuple[type[ast.stmt], ...] = (ast.Return, ast.Raise, ast.Break, ast.Continue)
    if isinstance(statement, (ast.For, ast.AsyncFor, ast.While)):
        ends = (ast.Return, ast.Raise)
    return any(isinstance(node, ends) for node in own_nodes([statement]))


def own_nodes(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes below, save those in scopes of their own."""
    for node in body:
        yield node
        if not isinstance(node, _SCOPES) and not isinstance(node, _COMPREHENSIONS):
            yield from own_nodes(ast.iter_child_nodes(node))


def bound_in(body: Sequence[ast.stmt]) -> Iterator[str]:
    """The names a function's body binds."""
    for node in own_nodes(body):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.MatchMapping(rest=str(name)):
                yield name
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                yield from (inner.target.id for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))


def parameters_of(declared: ast.arguments) -> list[ast.arg]:
    """A function's parameters."""
    stars = [argument for argument in (declared.vararg, declared.kwarg) if argument is not None]
    return [*declared.posonlyargs, *declared.args, *declared.kwonlyargs, *stars]


def annotations_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    """The annotations of a function's parameters and result."""
    for argument in parameters_of(node.args):
        if argument.annotation is not None:
            yield argument.annotation
    if node.returns is not None:
        yield node.returns
