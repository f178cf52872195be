"""The assignments at the top level of a cell's source: found with their comments, and replaced in place."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from prefect_nb.exceptions import ParameterBindError

_MAGIC_LINE = re.compile(r"\s*[%!?]|[\w\s,]+=\s*[%!]|\s*[\w.]+\?{1,2}\s*$")


class Target(NamedTuple):
    """A name that an assignment binds to a value."""

    name: str
    annotation: str | None
    value: ast.expr | None
    is_exact: bool  # the value is this name's own, not something that is unpacked
    in_place: bool  # and no other name's, so that it can be replaced


class Edit(NamedTuple):
    """Put other text between two places (line from 1, column in bytes of UTF-8)."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


def parse_cell(source: str) -> tuple[str, ast.Module]:
    """The cell with its magics and shell commands replaced by `pass`, and that as a tree; line numbers stay.

    Raises `ParameterBindError` if the rest is not Python.
    """
    lines = source.split("\n")
    while True:
        readable = "\n".join(lines)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "C:\\data" is the notebook's affair
                return readable, ast.parse(readable)
        except SyntaxError as error:
            number = (error.lineno or 0) - 1
            if not 0 <= number < len(lines) or not _MAGIC_LINE.match(lines[number]):
                raise ParameterBindError(
                    f"The parameters cell is not valid Python: {error.msg} (line {error.lineno})."
                ) from error
            _mask(lines, number)
        except (ValueError, RecursionError, MemoryError) as error:
            raise ParameterBindError(f"The parameters cell is not valid Python: {error}.") from error


def _mask(lines: list[str], number: int) -> None:
    indent = re.match(r"\s*", lines[number])
    more = True
    while more and number < len(lines):
        more = lines[number].endswith("\\")
        lines[number] = f"{indent[0] if indent else ''}pass"
        number += 1


def comments_of(source: str) -> dict[int, str]:
    """The text of the comment on each line that has one."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return {}
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def targets_of(statement: ast.stmt) -> Iterator[Target]:
    """The names a statement binds, if it is an assignment."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        annotation = statement.annotation
        quoted = annotation.value if isinstance(annotation, ast.Constant) else None
        text = quoted if isinstance(quoted, str) else ast.unparse(annotation)
        yield Target(statement.target.id, text, statement.value, is_exact=True, in_place=True)
    elif isinstance(statement, ast.Assign):
        alone = len(statement.targets) == 1
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield Target(target.id, None, statement.value, is_exact=True, in_place=alone)
            elif isinstance(target, (ast.Tuple, ast.List)):
                yield from _unpacked(target.elts, statement.value, alone)


def _unpacked(targets: list[ast.expr], value: ast.expr, alone: bool) -> Iterator[Target]:
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
    if len(names) == len(targets) == len(values) and not any(isinstance(v, ast.Starred) for v in values):
        for name, element in zip(names, values, strict=True):
            yield Target(name, None, element, is_exact=True, in_place=alone)
    else:
        for name in names:
            yield Target(name, None, value, is_exact=False, in_place=False)


def reads(value: ast.expr | None, name: str) -> bool:
    """Whether the expression uses the name."""
    return value is not None and any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(value))


def override(statement: Any, target: Target, literal: str) -> tuple[Edit, list[ast.stmt]]:
    """The edit that gives the target its new value, and the statements it adds; the tree is changed alike."""
    end = (statement.end_lineno, statement.end_col_offset)
    if not target.in_place:
        assignment = f"{target.name} = {literal}"
        return Edit(end, end, f"; {assignment}"), ast.parse(assignment).body
    node = ast.parse(literal, mode="eval").body
    old = target.value
    if old is None:
        statement.value = node
        return Edit(end, end, f" = {literal}"), []
    if statement.value is old:
        statement.value = node
    else:
        statement.value.elts = [node if element is old else element for element in statement.value.elts]
    return Edit((old.lineno, old.col_offset), (old.end_lineno or 0, old.end_col_offset or 0), literal), []


def splice(source: str, edits: list[Edit]) -> str:
    """The source with the edits made, which must not overlap; those at one place in the order given."""
    data = source.encode()
    starts = [0]  # of each line, in bytes
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    parts: list[bytes] = []
    done = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        begin = starts[edit.start[0] - 1] + edit.start[1]
        parts += [data[done:begin], edit.text.encode()]
        done = starts[edit.end[0] - 1] + edit.end[1]
    return b"".join([*parts, data[done:]]).decode()
