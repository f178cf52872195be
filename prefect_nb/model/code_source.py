"""From a code object to the syntax tree it was compiled from, and a digest of it that no comment or move changes."""

import ast
import linecache
import textwrap
import weakref
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from xxhash import xxh3_128

from prefect_nb.model.fingerprint_parts import seal

_FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_LAMBDA = "<lambda>"
_OURS = frozenset({"task", "flow"})


class Source(NamedTuple):
    """What a function's source says: its digest, and the dotted names its decorators use."""

    digest: bytes
    decorator_names: tuple[tuple[str, ...], ...]


class _Parsed(NamedTuple):
    lines: list[str]
    functions: dict[tuple[int, str], list[_FunctionNode]]
    compiled: frozenset[CodeType] | None


_sources: dict[int, tuple["weakref.ref[CodeType]", Source]] = {}
_nodes: dict[str, _FunctionNode | str] = {}
_files: dict[str, _Parsed] = {}


def source_of(function: FunctionType) -> Source:
    """Return the source digest of a function: its syntax tree, or its bytecode where no trustworthy text is found.

    The text kept on the function as `__prefect_nb_source__` comes first, then what `linecache` holds, cells included.
    """
    code = function.__code__
    known = _sources.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    node = _attached_node(function) or _located_node(function)
    source = _read(node) if node is not None else Source(bytecode_digest(code), ())
    identity = id(code)
    _sources[identity] = (weakref.ref(code, lambda _: _sources.pop(identity, None)), source)
    return source


def source_text(digest: str) -> str | None:
    """Return the source, without comments, of a function this process has read, by its hex digest."""
    found = _nodes.get(digest)
    if isinstance(found, ast.AST):
        try:
            found = ast.unparse(found)
        except RecursionError:
            return None
        _nodes[digest] = found
    return found


def _read(node: _FunctionNode) -> Source:
    names = [name for decorator in _foreign_decorators(node) for name in dotted_names(decorator)]
    digest = tree_digest(node)
    _nodes.setdefault(digest.hex(), node)
    return Source(digest, tuple(sorted(set(names))))


def _attached_node(function: FunctionType) -> _FunctionNode | None:
    text = getattr(function, "__prefect_nb_source__", None)
    if not isinstance(text, str):
        return None
    try:
        tree = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return None
    # functools.wraps copies attributes: a wrapper may carry the text of what it wraps
    name = function.__code__.co_name
    found = [node for node in _function_nodes(tree) if _name(node) == name]
    return found[0] if found and (name != _LAMBDA or len(found) == 1) else None


def _function_nodes(tree: ast.AST) -> Iterator[_FunctionNode]:
    return (node for node in ast.walk(tree) if isinstance(node, _FunctionNode))


def _name(node: _FunctionNode) -> str:
    return _LAMBDA if isinstance(node, ast.Lambda) else node.name


def _first_line(node: _FunctionNode) -> int:
    return min([node.lineno, *(item.lineno for item in _decorators(node))])


def _decorators(node: ast.AST) -> list[ast.expr]:
    return list(getattr(node, "decorator_list", ()))


def _located_node(function: FunctionType) -> _FunctionNode | None:
    code = function.__code__
    parsed = _parse_file(code.co_filename, function.__globals__)
    if parsed is None or (parsed.compiled is not None and code not in parsed.compiled):
        return None
    found = parsed.functions.get((code.co_firstlineno, code.co_name), [])
    if len(found) > 1:
        spans = set(code.co_positions())
        bodies = [(node, node.body) for node in found if isinstance(node, ast.Lambda)]
        found = [node for node, body in bodies if _span(body) in spans]
    return found[0] if len(found) == 1 else None


def _span(node: ast.expr) -> tuple[int | None, int | None, int | None, int | None]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _parse_file(filename: str, namespace: dict[str, Any]) -> _Parsed | None:
    linecache.checkcache(filename)
    lines = linecache.getlines(filename, namespace)
    known = _files.get(filename)
    if known is not None and known.lines is lines:
        return known
    text = "".join(lines)
    if not text:
        return None
    try:
        tree = ast.parse(text)
        compiled = _compiled(text, filename) if _is_on_disk(filename) else None
    except (SyntaxError, ValueError):
        return None
    functions: dict[tuple[int, str], list[_FunctionNode]] = {}
    for node in _function_nodes(tree):
        functions.setdefault((_first_line(node), _name(node)), []).append(node)
    parsed = _files[filename] = _Parsed(lines, functions, compiled)
    return parsed


def _is_on_disk(filename: str) -> bool:
    entry = linecache.cache.get(filename)
    return entry is not None and len(entry) > 1 and entry[1] is not None


def _compiled(text: str, filename: str) -> frozenset[CodeType]:
    """Compile a file's present text: a function whose code is not among it was loaded before the file was edited."""
    return frozenset(nested_code(compile(text, filename, "exec", dont_inherit=True)))


def nested_code(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested_code(constant)


def bytecode_digest(code: CodeType) -> bytes:
    """Return a digest of what a function does, for code whose text is lost. Python's minor versions differ in it."""
    constants = [
        bytecode_digest(item) if isinstance(item, CodeType) else _constant(item).encode("utf-8", "surrogatepass")
        for item in code.co_consts
    ]
    names = (code.co_name, *code.co_names, "", *code.co_varnames, "", *code.co_freevars, "", *code.co_cellvars)
    counts = f"{code.co_argcount},{code.co_posonlyargcount},{code.co_kwonlyargcount},{code.co_flags}"
    return seal(
        "bytecode", counts.encode(), code.co_code, code.co_exceptiontable, *map(str.encode, names), b"", *constants
    )


def tree_digest(node: ast.AST) -> bytes:
    """Return a digest of a syntax tree without positions, docstrings and the decorators that make tasks and flows."""
    hasher = xxh3_128(b"syntax tree\0")
    for token in _tokens(node):
        data = token.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.digest()


def _tokens(node: ast.AST) -> Iterator[str]:
    # written out here, not by ast.dump, whose text changes with Python's version
    yield type(node).__name__
    for field, value in ast.iter_fields(node):
        if field == "body" and isinstance(value, list) and _has_docstring(value):
            value = value[1:] or [ast.Pass()]
        elif field == "decorator_list":
            value = _foreign_decorators(node)
        if (value is None and not isinstance(node, ast.Constant)) or value == [] or field in ("kind", "type_comment"):
            continue
        yield f".{field}"
        yield from _field_tokens(value)
    yield ")"


def _field_tokens(value: object) -> Iterator[str]:
    if isinstance(value, ast.AST):
        yield from _tokens(value)
    elif isinstance(value, list):
        yield "["
        for item in value:
            yield from _field_tokens(item)
        yield "]"
    else:
        yield _constant(value)


def _constant(value: object) -> str:
    if isinstance(value, frozenset):
        return f"frozenset:{sorted(map(_constant, value))}"
    if isinstance(value, tuple):
        return f"tuple:{[*map(_constant, value)]}"
    return f"{type(value).__name__}:{value!r}"


def _has_docstring(body: list[Any]) -> bool:
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _foreign_decorators(node: ast.AST) -> list[ast.expr]:
    return [item for item in _decorators(node) if not _makes_a_run(item)]


def _makes_a_run(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
    return name in _OURS


def dotted_names(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield the names a tree reads, with the attributes taken of them: `mod.sub.f(x)` gives (mod, sub, f) and (x,)."""
    if isinstance(tree, ast.Attribute):
        chain, base = [tree.attr], tree.value
        while isinstance(base, ast.Attribute):
            chain.append(base.attr)
            base = base.value
        if isinstance(base, ast.Name):
            yield (base.id, *reversed(chain))
            return
    elif isinstance(tree, ast.Name):
        yield (tree.id,)
        return
    for child in ast.iter_child_nodes(tree):
        yield from dotted_names(child)
