"""What a cell does with names, as a list of events in the order of evaluation; and what its functions do when called."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from prefect_nb.model.name_scopes import annotations_of, bound_in, diverts, own_nodes, parameters_of

Kind = Literal["read", "call", "bind", "delete", "enter", "leave", "dynamic"]

_RUNS_LATER = frozenset(
    {"task", "flow", "partial", "wraps", "cache", "lru_cache", "njit", "jit", "vectorize", "delayed", "contextmanager"}
)
"""Functions that take a function and do not call it yet."""
_RUNS_NOW = frozenset({"submit", "map", "delay", "starmap"})
"""Methods of a task or flow that call its function."""
_DYNAMIC = frozenset({"exec", "globals"})
_CATCH_ALL = frozenset({"Exception", "BaseException"})
_CONSTRUCTORS = ("__new__", "__init__", "__post_init__")


class Event(NamedTuple):
    """One thing that is done with a name of the notebook."""

    kind: Kind
    name: str
    line: int
    sure: bool
    """Whether it is done in any case."""
    cell: int
    within: str | None = None
    """The function it is done in."""
    code: Code | None = None
    """What calling the name runs."""
    alias: str | None = None
    """A name whose function this one now has, too."""
    awaited: bool = False


class Code:
    """What a function, or the making of an object, does when it is called."""

    def __init__(self, name: str, *, is_lazy: bool = False) -> None:
        self.name = name
        self.events: list[Event] = []
        self.is_lazy = is_lazy


class _Scope:
    def __init__(self, kind: Literal["function", "class", "comprehension"], names: Iterable[str] = ()) -> None:
        self.kind = kind
        self.names = set(names)
        self.globals: set[str] = set()
        self.codes: dict[str, Code] = {}


class Reading:
    """Reads trees into events.

    Args:
        cell: the number of the cell they are of.
    """

    def __init__(self, cell: int = 0) -> None:
        self.codes: list[Code] = []
        """Every function that was read."""
        self._cell = cell
        self._events: list[Event] = []
        self._scopes: list[_Scope] = []
        self._sure = True
        self._silent = False
        self._within: str | None = None
        self._awaited: ast.AST | None = None

    def events_of(self, tree: ast.Module) -> list[Event]:
        """What running the cell does."""
        self._events = []
        self._block(tree.body)
        return self._events

    def _visit(self, node: ast.AST) -> None:
        handler = _HANDLERS.get(type(node), Reading._children)
        handler(self, node)

    def _children(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            self._visit(child)

    # Names

    def _emit(
        self,
        kind: Kind,
        name: str,
        line: int,
        code: Code | None = None,
        alias: str | None = None,
        *,
        awaited: bool = False,
    ) -> None:
        event = Event(kind, name, line, self._sure, self._cell, self._within, code, alias, awaited)
        self._events.append(event)

    def _is_local(self, name: str) -> bool:
        for depth, scope in enumerate(reversed(self._scopes)):
            if name in scope.globals:
                return False
            if (scope.kind != "class" or depth == 0) and name in scope.names:
                return True
        return False

    def _local_code(self, name: str) -> Code | None:
        return next((scope.codes[name] for scope in reversed(self._scopes) if name in scope.codes), None)

    def _bind(self, name: str, line: int, code: Code | None = None, alias: str | None = None) -> None:
        # A walrus in a comprehension binds outside of it.
        scope = next((scope for scope in reversed(self._scopes) if scope.kind != "comprehension"), None)
        if scope is None or name in scope.globals:
            self._emit("bind", name, line, code, alias)
            return
        if scope.kind == "class":
            scope.names.add(name)
        if code is not None:
            scope.codes[name] = code

    def _name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            if not self._is_comprehension_target(node.id):
                self._bind(node.id, node.lineno)
        elif isinstance(node.ctx, ast.Del):
            if not self._is_local(node.id):
                self._emit("read", node.id, node.lineno)
                self._emit("delete", node.id, node.lineno)
        elif not self._is_local(node.id) and not self._silent:
            self._emit("read", node.id, node.lineno)

    def _is_comprehension_target(self, name: str) -> bool:
        return bool(self._scopes) and self._scopes[-1].kind == "comprehension" and name in self._scopes[-1].names

    def _global(self, node: ast.Global) -> None:
        if self._scopes:
            self._scopes[-1].globals.update(node.names)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self._emit("dynamic", "*", node.lineno)
            else:
                name = alias.asname or (alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name)
                self._bind(name, node.lineno)

    # Statements

    def _block(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            self._visit(statement)
            if not isinstance(statement, (ast.Return, ast.Raise)) and diverts(statement):
                self._sure = False  # what follows may not be reached

    @contextmanager
    def _as(self, *, sure: bool | None = None, silent: bool = False) -> Iterator[None]:
        before = self._sure, self._silent
        self._sure = self._sure and (sure is None or sure)
        self._silent = self._silent or silent
        yield
        self._sure, self._silent = before

    def _maybe(self, body: Sequence[ast.AST]) -> None:
        with self._as(sure=False):
            for node in body:
                self._visit(node)

    def _assign(self, node: ast.Assign) -> None:
        self._visit(node.value)
        target = node.targets[0]
        if len(node.targets) == 1 and isinstance(target, ast.Name):
            self._assign_name(target, node.value)
        else:
            for target in node.targets:
                self._visit(target)

    def _assign_name(self, target: ast.Name, value: ast.expr) -> None:
        """`f = lambda: ...`, `f = g` and `f = task(g)` make it a function that does the same."""
        code = alias = None
        if isinstance(value, ast.Lambda):
            code = self.codes[-1]
        else:
            inner = value.args[0] if isinstance(value, ast.Call) and value.args else value
            alias = inner.id if isinstance(inner, ast.Name) else None
        self._bind(target.id, target.lineno, code, alias)

    def _aug_assign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._visit(ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target))
        self._visit(node.value)
        self._visit(node.target)

    def _ann_assign(self, node: ast.AnnAssign) -> None:
        if not self._scopes or self._scopes[-1].kind == "class":
            self._visit(node.annotation)
        if node.value is not None:
            self._visit(node.value)
        if node.value is not None or not isinstance(node.target, ast.Name):
            self._visit(node.target)

    def _named_expr(self, node: ast.NamedExpr) -> None:
        self._visit(node.value)
        self._bind(node.target.id, node.lineno)

    def _if(self, node: ast.If) -> None:
        self._visit(node.test)
        self._maybe(node.body)
        self._maybe(node.orelse)

    def _while(self, node: ast.While) -> None:
        self._visit(node.test)
        self._loop(node, sure=isinstance(node.test, ast.Constant) and bool(node.test.value))

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        self._visit(node.iter)
        self._visit(node.target)
        self._loop(node)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, sure: bool = True) -> None:
        with self._as(sure=sure):
            self._block(node.body)
        self._maybe(node.orelse)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        hides = False
        for item in node.items:
            self._visit(item.context_expr)
            hides = hides or _last_name(item.context_expr) in ("suppress", "raises")
            if item.optional_vars is not None:
                self._visit(item.optional_vars)
        with self._as(sure=not hides):
            self._block(node.body)

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        caught = {name for handler in node.handlers for name in _caught(handler)}
        with self._as(sure=not caught & _CATCH_ALL, silent="NameError" in caught):
            self._block(node.body)
            self._block(node.orelse)
        for handler in node.handlers:
            with self._as(sure=False):
                if handler.type is not None:
                    self._visit(handler.type)
                bound_here = handler.name is not None and not self._scopes
                if bound_here:
                    self._emit("enter", str(handler.name), handler.lineno)
                self._block(handler.body)
                if bound_here:
                    self._emit("leave", str(handler.name), handler.lineno)
        self._block(node.finalbody)

    def _match(self, node: ast.Match) -> None:
        self._visit(node.subject)
        self._maybe(node.cases)

    def _match_as(self, node: ast.MatchAs) -> None:
        self._children(node)
        if node.name is not None:
            self._bind(node.name, node.lineno)

    def _match_star(self, node: ast.MatchStar) -> None:
        if node.name is not None:
            self._bind(node.name, node.lineno)

    def _match_mapping(self, node: ast.MatchMapping) -> None:
        self._children(node)
        if node.rest is not None:
            self._bind(node.rest, node.lineno)

    def _assert(self, node: ast.Assert) -> None:
        self._visit(node.test)
        if node.msg is not None:
            self._maybe([node.msg])

    # Expressions that run in part, or in a scope of their own

    def _if_exp(self, node: ast.IfExp) -> None:
        self._visit(node.test)
        self._maybe([node.body, node.orelse])

    def _bool_op(self, node: ast.BoolOp) -> None:
        self._visit(node.values[0])
        self._maybe(node.values[1:])

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        first, *others = node.generators
        self._visit(first.iter)
        targets = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        self._scopes.append(_Scope("comprehension", targets))
        self._visit(first.target)
        for test in first.ifs:
            self._visit(test)
        for generator in others:
            self._children(generator)
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for part in parts:
            self._visit(part)
        self._scopes.pop()

    def _await(self, node: ast.Await) -> None:
        self._awaited = node.value
        self._visit(node.value)

    def _call(self, node: ast.Call) -> None:
        awaited = self._awaited is node
        function = node.func
        self._visit(function)
        for argument in (*node.args, *node.keywords):
            self._visit(argument)
        called = function
        if isinstance(function, ast.Attribute) and function.attr in _RUNS_NOW:
            called = function.value
        if isinstance(called, ast.Name):
            self._called(called, awaited=awaited)
        if _last_name(function) not in _RUNS_LATER:
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                self._perhaps_called(argument)

    def _called(self, name: ast.Name, *, awaited: bool) -> None:
        if self._silent:
            return
        local = self._local_code(name.id) if self._is_local(name.id) else None
        if local is not None or not self._is_local(name.id):
            self._emit("call", name.id, name.lineno, local, awaited=awaited)
        if name.id in _DYNAMIC and not self._is_local(name.id):
            self._emit("dynamic", name.id, name.lineno)

    def _perhaps_called(self, argument: ast.expr) -> None:
        """A function that is handed to a call may be called by it."""
        with self._as(sure=False):
            if isinstance(argument, ast.Name):
                self._called(argument, awaited=True)
            elif isinstance(argument, ast.Lambda):
                code = next(code for code in reversed(self.codes) if code.name == _lambda_name(argument))
                self._emit("call", code.name, argument.lineno, code)

    # Functions and classes

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self._visit(decorator)
            if isinstance(decorator, ast.Name):
                self._called(decorator, awaited=False)
        self._defaults(node.args)
        for annotation in annotations_of(node):
            self._visit(annotation)
        is_lazy = isinstance(node, ast.AsyncFunctionDef) or any(
            isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in own_nodes(node.body)
        )
        code = Code(node.name, is_lazy=is_lazy)
        self._bind(node.name, node.lineno, code)
        self._body_of(code, node.args, node.body)

    def _lambda(self, node: ast.Lambda) -> None:
        self._defaults(node.args)
        body = ast.copy_location(ast.Expr(node.body), node.body)
        self._body_of(Code(_lambda_name(node)), node.args, [body])

    def _defaults(self, declared: ast.arguments) -> None:
        for default in (*declared.defaults, *(d for d in declared.kw_defaults if d is not None)):
            self._visit(default)

    def _body_of(self, code: Code, declared: ast.arguments, body: Sequence[ast.stmt]) -> None:
        names = {argument.arg for argument in parameters_of(declared)} | set(bound_in(body))
        outside = {n for node in own_nodes(body) if isinstance(node, (ast.Global, ast.Nonlocal)) for n in node.names}
        before = self._events, self._sure, self._silent, self._within
        self._events, self._sure, self._silent, self._within = code.events, True, False, code.name
        scope = _Scope("function", names - outside)
        self._scopes.append(scope)
        self._block(body)
        self._scopes.pop()
        self._events, self._sure, self._silent, self._within = before
        self.codes.append(code)

    def _class_def(self, node: ast.ClassDef) -> None:
        for expression in (*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)):
            self._visit(expression)
        scope = _Scope("class")
        self._scopes.append(scope)
        self._block(node.body)
        self._scopes.pop()
        making = Code(node.name)
        for name in _CONSTRUCTORS:
            if name in scope.codes:
                making.events += scope.codes[name].events
        self._bind(node.name, node.lineno, making)


_HANDLERS: dict[type[ast.AST], Callable[[Reading, Any], None]] = {
    ast.AnnAssign: Reading._ann_assign,
    ast.Assert: Reading._assert,
    ast.Assign: Reading._assign,
    ast.AsyncFor: Reading._for,
    ast.AsyncFunctionDef: Reading._function,
    ast.AsyncWith: Reading._with,
    ast.AugAssign: Reading._aug_assign,
    ast.Await: Reading._await,
    ast.BoolOp: Reading._bool_op,
    ast.Call: Reading._call,
    ast.ClassDef: Reading._class_def,
    ast.DictComp: Reading._comprehension,
    ast.For: Reading._for,
    ast.FunctionDef: Reading._function,
    ast.GeneratorExp: Reading._comprehension,
    ast.Global: Reading._global,
    ast.If: Reading._if,
    ast.IfExp: Reading._if_exp,
    ast.Import: Reading._import,
    ast.ImportFrom: Reading._import,
    ast.Lambda: Reading._lambda,
    ast.ListComp: Reading._comprehension,
    ast.Match: Reading._match,
    ast.MatchAs: Reading._match_as,
    ast.MatchMapping: Reading._match_mapping,
    ast.MatchStar: Reading._match_star,
    ast.Name: Reading._name,
    ast.NamedExpr: Reading._named_expr,
    ast.SetComp: Reading._comprehension,
    ast.Try: Reading._try,
    ast.TryStar: Reading._try,
    ast.While: Reading._while,
    ast.With: Reading._with,
}


def _lambda_name(node: ast.Lambda) -> str:
    return f"<lambda {node.lineno}:{node.col_offset}>"


def _last_name(node: ast.expr) -> str:
    """`map` of `pool.map(...)` and of `map`."""
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _caught(handler: ast.ExceptHandler) -> Iterator[str]:
    if handler.type is None:
        yield "BaseException"
        return
    yield from map(_last_name, handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type])
