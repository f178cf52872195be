"""The parameters of a notebook: reading its parameters cell, checking values for it, writing them into source text.

A value becomes Python source here and nowhere else. What is written is parsed again and must consist of assignments
of constants to the names asked for; so neither a name nor a value can carry code into the kernel.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from prefect_nb.exceptions import ParameterBindError, ParameterTypeError
from prefect_nb.model.assignments import Edit, comments_of, override, parse_cell, reads, splice, targets_of
from prefect_nb.model.notebook_types import annotation_type, coerce
from prefect_nb.model.signatures import did_you_mean

__all__ = [
    "NotebookParameter",
    "annotation_type",
    "check_parameters",
    "injected_source",
    "override_source",
    "read_parameters",
]

# Python's parser refuses source nested deeper than 200 brackets.
_MAX_DEPTH = 100
# Python refuses to write or read longer decimal integers unless told otherwise (4300 digits).
_MAX_INT_BITS = 14_000
_NAMES_OF_IPYTHON = frozenset({"get_ipython", "In", "Out", "exit", "quit", "_"})
_IPYTHON_HISTORY = re.compile(r"_(\d+|i\d*|ii|iii|[ido]h)")
_TYPE_COMMENT = re.compile(r"type:\s*([\w.]+(?:\[.*\])?)\s*(.*)")
_JSON_HINTS = {
    "tuple": "give a list",
    "set": "give a list",
    "frozenset": "give a list",
    "bytes": "give text, base64 for instance",
    "bytearray": "give text, base64 for instance",
    "datetime": "give ISO text, value.isoformat()",
    "date": "give ISO text, value.isoformat()",
    "time": "give ISO text, value.isoformat()",
    "Timestamp": "give ISO text, value.isoformat()",
    "Decimal": "give text or a float",
    "PosixPath": "give text, str(path)",
    "WindowsPath": "give text, str(path)",
    "ndarray": "give a list, value.tolist()",
    "DataFrame": "write it to a file and give the path",
}


class NotebookParameter(msgspec.Struct, frozen=True):
    """One parameter as its cell declares it.

    `default_source` is None for a declaration without a value (`x: int`), which makes the parameter required.
    `default` is meaningful only if `is_literal`: otherwise the default is an expression that only the kernel can
    evaluate. `help` is the comment after it.
    """

    name: str
    annotation: str | None = None
    default_source: str | None = None
    default: Any = None
    is_literal: bool = False
    help: str = ""


def read_parameters(source: str) -> list[NotebookParameter]:
    """The parameters a cell declares at its top level, in order; what is no assignment is passed over.

    Understands `a = 1`, `a: int = 1  # help`, `a = None  # type: int  help`, `a = b = 1` and `a, b = 1, 2`. A name
    assigned twice has its last value, save where the second is computed from the first. Raises `ParameterBindError`
    if the cell is not Python.
    """
    readable, tree = parse_cell(source)
    comments = comments_of(readable)
    found: dict[str, NotebookParameter] = {}
    for statement, following in zip(tree.body, [*tree.body[1:], None], strict=False):
        line = statement.end_lineno or statement.lineno
        comment = "" if following is not None and following.lineno == line else comments.get(line, "")
        typed = _TYPE_COMMENT.fullmatch(comment)
        for target in targets_of(statement):
            annotation, help_text = target.annotation, comment
            if typed and annotation is None:
                annotation, help_text = typed[1], typed[2]
            before = found.get(target.name)
            if before is not None and reads(target.value, target.name):
                continue
            text = None if target.value is None else ast.get_source_segment(source, target.value)
            is_literal, default = _evaluate(text) if text and target.is_exact else (False, None)
            found[target.name] = NotebookParameter(
                name=target.name,
                annotation=annotation or (before.annotation if before else None),
                default_source=text,
                default=default,
                is_literal=is_literal,
                help=help_text or (before.help if before else ""),
            )
    return list(found.values())


def check_parameters(declared: Sequence[NotebookParameter] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values, checked and coerced by the declared annotations (`"5"` becomes 5 for an int).

    Values are JSON: None, bool, int, float (nan and infinities too), str, and lists and string-keyed dicts of these.
    Dates, datetimes and paths are given and kept as text. With `declared` None (a notebook without a parameters
    cell) any ASCII name goes.

    Raises `ParameterBindError` for a name that is unknown, missing or no usable name, `ParameterTypeError` with one
    line for each value that does not fit.
    """
    known = {parameter.name: parameter for parameter in declared or ()}
    for name in given:
        _check_name(name)
        if declared is None and not name.isascii():
            raise ParameterBindError(
                f"{name!r} cannot name a parameter: only one the notebook declares may be non-ASCII."
            )
        if declared is not None and name not in known:
            raise ParameterBindError(f"The notebook has no parameter '{name}'{_nearest(name, known)}")
    missing = [p.name for p in known.values() if p.default_source is None and p.name not in given]
    if missing:
        raise ParameterBindError(
            f"The notebook needs a value for {', '.join(map(repr, missing))}, which has no default."
        )
    checked: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        try:
            _check_value(value, name)
            checked[name] = _coerced(known.get(name), value)
        except ParameterTypeError as error:
            problems.append(f" - {error}")
        except ValueError as error:
            problems.append(f" - {name}: {error}")
    if problems:
        raise ParameterTypeError("The notebook was given invalid parameters:\n" + "\n".join(problems))
    return checked


def injected_source(values: Mapping[str, Any]) -> str:
    """The source of the cell that assigns the values: a `# Parameters` line, then one assignment a line.

    Raises `ParameterBindError` for a name and `ParameterTypeError` for a value that may not be written.
    """
    source = "# Parameters\n" + _assignments(values)
    _require_assignments(source, list(values))
    return source


def override_source(cell_source: str, values: Mapping[str, Any]) -> str:
    """The parameters cell with the given values in place of those it assigns; all else stays as it is.

    Because the cell is run as a whole, what it derives (`b = a * 10`) follows the override. An assignment that reads
    its own name (`path = Path(path)`) stays. A name the cell does not assign at its top level is appended. Raises as
    `injected_source` does, and `ParameterBindError` if the cell is not Python.
    """
    literals = {name: _literal(_checked(name, value)) for name, value in values.items()}
    edits: list[Edit] = []
    body: list[ast.stmt] = []
    assigned: set[str] = set()
    for statement in parse_cell(cell_source)[1].body:
        body.append(statement)
        for target in list(targets_of(statement)):
            literal = literals.get(target.name)
            if literal is None or (target.name in assigned and reads(target.value, target.name)):
                continue
            assigned.add(target.name)
            if isinstance(statement, ast.AnnAssign) and (kind := ast.unparse(statement.annotation)).endswith(
                "SecretStr"
            ):
                literal = f"{kind}({literal})"
            edit, addition = override(statement, target, literal)
            edits.append(edit)
            body += addition
    appended = _assignments({name: value for name, value in values.items() if name not in assigned})
    source = splice(cell_source, edits)
    if appended:
        source += ("" if not source or source.endswith("\n") else "\n") + appended
        body += ast.parse(appended).body
    if ast.dump(parse_cell(source)[1]) != ast.dump(ast.Module(body, type_ignores=[])):
        raise ParameterBindError(f"The parameters cell could not be rewritten for {', '.join(map(repr, values))}.")
    return source


def _evaluate(text: str) -> tuple[bool, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return True, ast.literal_eval(f"({text}\n)")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False, None


def _check_name(name: Any) -> None:
    usable = (
        type(name) is str
        and name.isidentifier()
        and unicodedata.normalize("NFKC", name) == name
        and not keyword.iskeyword(name)
        and not name.startswith("__")
        and name not in _NAMES_OF_IPYTHON
        and not _IPYTHON_HISTORY.fullmatch(name)
    )
    if not usable:
        raise ParameterBindError(
            f"{ascii(name)[:80]} cannot name a parameter: it must be a plain Python name, not a keyword, and not one "
            "that Python or IPython uses itself."
        )


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    if not known:
        return "; it declares none. Tag the cell that assigns its parameters 'parameters'."
    return did_you_mean(name, known) or f"; it has {', '.join(map(repr, known))}."


def _checked(name: str, value: Any) -> Any:
    _check_name(name)
    _check_value(value, name)
    return value


def _check_value(value: Any, where: str, depth: int = 0) -> None:
    """Raise `ParameterTypeError` unless the value, and all inside it, is JSON that survives being written."""
    kind = type(value)
    if depth > _MAX_DEPTH:
        raise ParameterTypeError(
            f"{where[:80]}: nested more than {_MAX_DEPTH} deep; write it to a file and give the path."
        )
    if kind is str:
        _check_text(value, where)
    elif kind is int and value.bit_length() > _MAX_INT_BITS:
        raise ParameterTypeError(f"{where}: an integer of {value.bit_length()} bits is too large; give it as text.")
    elif kind is list:
        for index, member in enumerate(value):
            _check_value(member, f"{where}[{index}]", depth + 1)
    elif kind is dict:
        for key, member in value.items():
            if type(key) is not str:
                raise ParameterTypeError(f"{where}: the key {ascii(key)[:60]} is no text; JSON has text keys only.")
            _check_text(key, where)
            _check_value(member, f"{where}[{ascii(key)[:60]}]", depth + 1)
    elif kind not in (type(None), bool, int, float):
        raise ParameterTypeError(f"{where}: {_json_hint(kind)}.")


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ParameterTypeError(
            f"{where}: the character {text[error.start]!a} at {error.start} is half of a surrogate pair, no text."
        ) from None


def _json_hint(kind: type) -> str:
    hint = next((_JSON_HINTS[base.__name__] for base in kind.__mro__ if base.__name__ in _JSON_HINTS), None)
    if hint is None and kind.__module__.partition(".")[0] == "numpy":
        hint = "give value.item()"
    return (
        f"a {kind.__qualname__} cannot be given to a notebook, only None, bool, int, float, str, list and dict can; "
        + (hint or "give it as one of these, or write it to a file and give the path")
    )


def _coerced(parameter: NotebookParameter | None, value: Any) -> Any:
    kind = annotation_type(parameter.annotation) if parameter else None
    none_by_default = parameter is not None and parameter.is_literal and parameter.default is None
    if kind is None or (value is None and none_by_default):
        return value
    return coerce(kind, value)


def _literal(value: Any) -> str:
    """Python source of a checked value, on one line and free of unprintable characters."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_literal(member)}" for key, member in value.items()) + "}"
    return repr(value)


def _assignments(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {_literal(_checked(name, value))}\n" for name, value in values.items())


def _require_assignments(source: str, names: list[str]) -> None:
    body = ast.parse(source).body
    sound = len(body) == len(names) and all(
        isinstance(statement, ast.Assign)
        and [ast.dump(target) for target in statement.targets] == [ast.dump(ast.Name(name, ast.Store()))]
        and _is_constant(statement.value)
        for statement, name in zip(body, names, strict=True)
    )
    if not sound:
        raise ParameterTypeError(f"The values of {', '.join(map(repr, names))} could not be written as constants.")


def _is_constant(node: ast.expr) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.List():
            return all(map(_is_constant, node.elts))
        case ast.Dict():
            return all(isinstance(key, ast.Constant) for key in node.keys) and all(map(_is_constant, node.values))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return True
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value="nan" | "inf" | "-inf")], keywords=[]):
            return True
        case _:
            return False
