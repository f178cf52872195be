"""Which names a `%%task` cell takes from the notebook, and which it gives back."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_COMPREHENSIONS = frozenset({"listcomp", "setcomp", "dictcomp", "genexpr"})
DECLARATIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Names(NamedTuple):
    """What a statement, or several, does with names."""

    needed: frozenset[str]
    """Read at once, and perhaps before they are bound there."""
    later: frozenset[str]
    """Read by functions defined there, whenever those are called."""
    bound: frozenset[str]
    """Bound there, perhaps."""
    certain: frozenset[str]
    """Bound there for sure, or as good as, when the end is reached."""


NOTHING = Names(frozenset(), frozenset(), frozenset(), frozenset())


def names_of(body: Sequence[ast.stmt]) -> Names:
    """What statements that run one after the other do with names."""
    total = NOTHING
    for statement in body:
        total = _then(total, _of_statement(statement))
    return total


def _then(first: Names, second: Names) -> Names:
    return Names(
        first.needed | (second.needed - first.certain),
        first.later | second.later,
        first.bound | second.bound,
        first.certain | second.certain,
    )


def _either(branches: Iterable[Names]) -> Names:
    found = list(branches)
    return Names(
        frozenset().union(*(one.needed for one in found)),
        frozenset().union(*(one.later for one in found)),
        frozenset().union(*(one.bound for one in found)),
        frozenset.intersection(*(one.certain for one in found)),
    )


def _maybe(names: Names) -> Names:
    return names._replace(certain=frozenset())


def _of_statement(statement: ast.stmt) -> Names:
    match statement:
        case ast.If(test=test, body=body, orelse=orelse):
            return _then(_of_leaf(ast.Expr(test)), _either((names_of(body), names_of(orelse))))
        case (
            ast.For(target=target, iter=source, body=body, orelse=orelse)
            | ast.AsyncFor(target=target, iter=source, body=body, orelse=orelse)
        ):
            turn = _then(_of_target(target), names_of(body))
            # Taken to turn at least once: what a loop leaves behind is the cell's own, also on its next run.
            return _then(_of_leaf(ast.Expr(source)), _then(turn, _maybe(names_of(orelse))))
        case ast.While(test=test, body=body, orelse=orelse):
            return _then(_of_leaf(ast.Expr(test)), _then(names_of(body), _maybe(names_of(orelse))))
        case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
            return _then(_of_items(items), names_of(body))
        case ast.Try() | ast.TryStar():
            return _of_try(statement)
        case ast.Match(subject=subject, cases=cases):
            return _then(_of_leaf(ast.Expr(subject)), _either([NOTHING, *map(_of_case, cases)]))
    return _of_leaf(statement)


def _of_items(items: Sequence[ast.withitem]) -> Names:
    total = NOTHING
    for item in items:
        total = _then(total, _of_leaf(ast.Expr(item.context_expr)))
        if item.optional_vars is not None:
            total = _then(total, _of_target(item.optional_vars))
    return total


def _of_try(statement: ast.Try | ast.TryStar) -> Names:
    whole = _then(names_of(statement.body), names_of(statement.orelse))
    branches = [whole]
    for handler in statement.handlers:
        caught = _of_leaf(ast.Expr(handler.type)) if handler.type is not None else NOTHING
        alias = frozenset({handler.name}) if handler.name else frozenset()
        inner = names_of(handler.body)
        # The alias is unbound again when the handler ends.
        inner = inner._replace(needed=inner.needed - alias, later=inner.later - alias, bound=inner.bound - alias)
        branches.append(_then(_maybe(names_of(statement.body)), _then(caught, inner)))
    return _then(_either(branches), names_of(statement.finalbody))


def _of_case(case: ast.match_case) -> Names:
    captured = frozenset(
        name
        for node in ast.walk(case.pattern)
        for name in (getattr(node, "name", None), getattr(node, "rest", None))
        if isinstance(name, str)
    )
    values = [_of_leaf(ast.Expr(node.value)) for node in ast.walk(case.pattern) if isinstance(node, ast.MatchValue)]
    pattern = NOTHING
    for value in values:
        pattern = _then(pattern, value)
    pattern = _then(pattern, Names(frozenset(), frozenset(), captured, captured))
    guard = _of_leaf(ast.Expr(case.guard)) if case.guard is not None else NOTHING
    return _then(pattern, _then(guard, names_of(case.body)))


def _of_target(target: ast.expr) -> Names:
    # As if something was assigned to it.
    return _of_leaf(ast.Assign([target], ast.Constant(None)))


def _of_leaf(statement: ast.stmt) -> Names:
    """The names of a statement that has no statements of its own scope in it."""
    text = ast.unparse(ast.fix_missing_locations(statement))
    table = symtable.symtable(text, "<cell>", "exec")
    symbols = table.get_symbols()
    bound = frozenset(symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported())
    at_once, later = set[str](), set[str]()
    for symbol in symbols:
        if symbol.is_referenced():
            at_once.add(symbol.get_name())
    for child in table.get_children():
        _from_inside(child, at_once, later)
    if isinstance(statement, ast.Delete):
        bound = frozenset()
    walrus = {node.target.id for node in ast.walk(statement) if isinstance(node, ast.NamedExpr)}
    bound |= walrus
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        at_once.add(statement.target.id)
    return Names(frozenset(at_once - walrus), frozenset(later), bound, bound)


def _from_inside(table: symtable.SymbolTable, at_once: set[str], later: set[str]) -> None:
    """The notebook's names read in a scope within: at once in comprehensions and class bodies, later in functions."""
    is_now = table.get_type() == "class" or table.get_name() in _COMPREHENSIONS
    kept = at_once if is_now else later
    kept.update(symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced())
    for child in table.get_children():
        _from_inside(child, at_once if is_now else later, later)


def split_declarations(body: Sequence[ast.stmt]) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """The imports, functions and classes a cell begins with, and the rest."""
    place = 0
    while place < len(body) and (isinstance(body[place], DECLARATIONS) or _is_text(body[place])):
        place += 1
    return list(body[:place]), list(body[place:])


def _is_text(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)


def declared(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The imports, functions and classes among the statements."""
    return (statement for statement in body if isinstance(statement, DECLARATIONS))


def sources_declared(body: Sequence[ast.stmt]) -> dict[str, str]:
    """The names of the imports, functions and classes among the statements, with their source."""
    found: dict[str, str] = {}
    for statement in declared(body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                name = alias.asname or alias.name.partition(".")[0]
                one = ast.Import([alias])
                if isinstance(statement, ast.ImportFrom):
                    one = ast.ImportFrom(statement.module, [alias], statement.level)  # type: ignore[assignment]
                found[name] = ast.unparse(one)
        else:
            found[statement.name] = found.get(statement.name, "") + ast.unparse(statement)  # type: ignore[attr-defined]
    return found


def in_passing(body: Sequence[ast.stmt]) -> frozenset[str]:
    """The names that are nothing but variables of loops and `with`, such as `i` in `for i in rows`."""
    targets: list[ast.expr] = []
    stored: set[ast.Name] = set()
    for node in (node for statement in body for node in ast.walk(statement)):
        match node:
            case (
                ast.For(target=target) | ast.AsyncFor(target=target) | ast.withitem(optional_vars=ast.expr() as target)
            ):
                targets.append(target)
            case ast.Name(ctx=ast.Store()):
                stored.add(node)
    passing = {node for target in targets for node in ast.walk(target) if node in stored}
    return frozenset({node.id for node in passing} - {node.id for node in stored - passing})


_CHANGING = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "remove", "reverse", "sort",
     "update"}
)  # fmt: skip


def changed_in_place(body: Sequence[ast.stmt]) -> frozenset[str]:
    """The names whose objects the statements plainly change: `df["a"] = 1`, `log.append(x)`, `df.drop(..., inplace=True)`.

    What functions defined there do is not looked at, nor is what a method of another name may do.
    """
    finder = _Changes()
    for statement in body:
        finder.visit(statement)
    return frozenset(finder.names)


class _Changes(ast.NodeVisitor):
    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Not now."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Not now."""

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Not now."""

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._part(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._part(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _CHANGING:
            self._note(call.func)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and any(_is_inplace(keyword) for keyword in node.keywords):
            self._note(node.func)
        self.generic_visit(node)

    def _part(self, node: ast.Subscript | ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._note(node)
        self.generic_visit(node)

    def _note(self, node: ast.expr) -> None:
        while isinstance(node, ast.Subscript | ast.Attribute):
            node = node.value
        if isinstance(node, ast.Name):
            self.names.add(node.id)


def _is_inplace(keyword: ast.keyword) -> bool:
    return keyword.arg == "inplace" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
