"""The parameters of a notebook: reading its parameters cell, checking values for it, writing them into source text.

Where the cell declares a type, values are objects of it (`date(2026, 1, 1)`, `Path("data")`, a member of an enum);
elsewhere they are JSON. What is written is parsed again and must consist of assignments of constants to the names asked
for; so neither a name nor a value can carry code into the kernel. Secrets are not written at all.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import keyword
import re
import unicodedata
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import PosixPath, WindowsPath
from typing import Any

import msgspec

from prefect_nb.exceptions import ParameterBindError, ParameterTypeError
from prefect_nb.model.assignments import Edit, comments_of, override, parse_cell, reads, splice, targets_of
from prefect_nb.model.notebook_literals import imports_for, is_constant, literal, secret_literal
from prefect_nb.model.notebook_names import FindSource, names_of
from prefect_nb.model.notebook_types import (
    Names,
    annotation_type,
    as_text,
    coerce,
    default_type,
    is_secret,
    takes_objects,
)
from prefect_nb.model.redaction import MASK
from prefect_nb.model.signatures import did_you_mean

__all__ = [
    "NotebookParameter",
    "annotation_type",
    "check_parameters",
    "injected_source",
    "override_source",
    "read_parameters",
    "recorded_values",
]

# Python's parser refuses source nested deeper than 200 brackets.
_MAX_DEPTH = 100
# Python refuses to write or read longer decimal integers unless told otherwise (4300 digits).
_MAX_INT_BITS = 14_000
_NAMES_OF_IPYTHON = frozenset({"get_ipython", "In", "Out", "exit", "quit", "_"})
_IPYTHON_HISTORY = re.compile(r"_(\d+|i\d*|ii|iii|[ido]h)")
_PARAM_COMMENT = re.compile(r"@param\b\s*(\[.*?\])?\s*(\{.*\})?.*")
_PARAM_TYPES = {"boolean": "bool", "date": "date", "integer": "int", "number": "float", "string": "str"}
_PARAM_TYPE = re.compile(r"\btype:\s*[\"']?(\w+)")
_TYPE_COMMENT = re.compile(r"type:\s*([\w.]+(?:\[.*\])?)\s*(.*)")
_JSON_HINTS = {
    "tuple": "give a list",
    "set": "give a list",
    "frozenset": "give a list",
    "bytes": "give text, base64 for instance",
    "bytearray": "give text, base64 for instance",
    "datetime": "declare the parameter as `name: datetime`, or give ISO text, value.isoformat()",
    "date": "declare the parameter as `name: date`, or give ISO text, value.isoformat()",
    "time": "declare the parameter as `name: time`, or give ISO text, value.isoformat()",
    "timedelta": "declare the parameter as `name: timedelta`, or give seconds, value.total_seconds()",
    "Timestamp": "give ISO text, value.isoformat()",
    "Decimal": "declare the parameter as `name: Decimal`, or give text or a float",
    "PosixPath": "declare the parameter as `name: Path`, or give text, str(path)",
    "WindowsPath": "declare the parameter as `name: Path`, or give text, str(path)",
    "UUID": "declare the parameter as `name: UUID`, or give text, str(value)",
    "ndarray": "give a list, value.tolist()",
    "DataFrame": "write it to a file and give the path",
}
_OBJECTS = frozenset(
    {
        datetime.date, datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID,
        PosixPath, WindowsPath,
    }
)  # fmt: skip


class NotebookParameter(msgspec.Struct, frozen=True):
    """One parameter as its cell declares it.

    `default_source` is None for a declaration without a value (`x: int`), which makes the parameter required.
    `default` is meaningful only if `is_literal`: otherwise the default is an expression that only the kernel can
    evaluate. `help` is the comment after it. `names` says what names of the cell mean that types are made of.
    """

    name: str
    annotation: str | None = None
    default_source: str | None = None
    default: Any = None
    is_literal: bool = False
    help: str = ""
    names: Names = {}

    @property
    def kind(self) -> Any | None:
        """The type of its values: by its annotation, or by a default that is an object; None for any JSON."""
        if self.annotation is not None:
            return annotation_type(self.annotation, self.names)
        return None if self.is_literal else default_type(self.default_source, self.names)

    @property
    def is_secret(self) -> bool:
        """Whether its value is never shown nor written down."""
        return is_secret(self.kind)

    @property
    def wants_text(self) -> bool:
        """Whether the notebook works with the text of what its annotation names: `day: date = "2026-01-01"`."""
        return self.is_literal and isinstance(self.default, str)


def read_parameters(source: str, find_source: FindSource | None = None) -> list[NotebookParameter]:
    """The parameters a cell declares at its top level, in order; what is no assignment is passed over.

    Understands `a = 1`, `a: int = 1  # help`, `a = None  # type: int  help`, Colab's `a = 1  #@param {type:"integer"}`,
    `a = b = 1` and `a, b = 1, 2`. A name assigned twice has its last value, save where the second is computed from the
    first. Raises `ParameterBindError` if the cell is not Python.

    Args:
        source: of the cell.
        find_source: gives the source of a module that the cell imports enums from.
    """
    readable, tree = parse_cell(source)
    comments = comments_of(readable)
    names = names_of(tree, find_source)
    found: dict[str, NotebookParameter] = {}
    for statement, following in zip(tree.body, [*tree.body[1:], None], strict=False):
        line = statement.end_lineno or statement.lineno
        comment = "" if following is not None and following.lineno == line else comments.get(line, "")
        typed = _TYPE_COMMENT.fullmatch(comment)
        form = _PARAM_COMMENT.fullmatch(comment)
        for target in targets_of(statement):
            annotation, help_text = target.annotation, comment
            if typed and annotation is None:
                annotation, help_text = typed[1], typed[2]
            elif form:
                annotation, help_text = annotation or _form_type(form[1], form[2]), ""
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
                names=names,
            )
    return list(found.values())


def check_parameters(declared: Sequence[NotebookParameter] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values, checked and coerced by the declared annotations (`"5"` becomes 5 for an int).

    Values are JSON: None, bool, int, float (nan and infinities too), str, and lists and string-keyed dicts of these;
    and objects where the cell declares their type: dates, paths, members of enums, ... Those may be given as text, too;
    they stay text where the declared default is text. With `declared` None (a notebook without a parameters cell) any
    ASCII name goes.

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
            checked[name] = _coerced(known.get(name), value, name)
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


def override_source(
    cell_source: str, values: Mapping[str, Any], declared: Sequence[NotebookParameter] | None = None
) -> str:
    """The parameters cell with the given values in place of those it assigns; all else stays as it is.

    Because the cell is run as a whole, what it derives (`b = a * 10`) follows the override. An assignment that reads
    its own name (`path = Path(path)`) stays. A name the cell does not assign at its top level is appended, and what the
    values need is imported. A secret is taken from the kernel's environment (`notebook_literals.secret_variable`).
    Raises as `injected_source` does, and `ParameterBindError` if the cell is not Python.

    Args:
        cell_source: of the parameters cell.
        values: as `check_parameters` left them.
        declared: what the cell declares; None: it is read again.
    """
    known = {one.name: one for one in (read_parameters(cell_source) if declared is None else declared)}
    literals = {name: _source_of(known.get(name), name, value) for name, value in values.items()}
    edits: list[Edit] = []
    body: list[ast.stmt] = []
    assigned: set[str] = set()
    for statement in parse_cell(cell_source)[1].body:
        body.append(statement)
        for target in list(targets_of(statement)):
            text = literals.get(target.name)
            if text is None or (target.name in assigned and reads(target.value, target.name)):
                continue
            assigned.add(target.name)
            edit, addition = override(statement, target, text)
            edits.append(edit)
            body += addition
    appended = "".join(f"{name} = {text}\n" for name, text in literals.items() if name not in assigned)
    source = splice(cell_source, edits)
    if appended:
        source += ("" if not source or source.endswith("\n") else "\n") + appended
        body += ast.parse(appended).body
    if ast.dump(parse_cell(source)[1]) != ast.dump(ast.Module(body, type_ignores=[])):
        raise ParameterBindError(f"The parameters cell could not be rewritten for {', '.join(map(repr, values))}.")
    return _with_imports(source, imports_for("\n".join(literals.values())))


def _with_imports(source: str, imports: str) -> str:
    """The cell with further imports at its top, below what has to come first."""
    if not imports:
        return source
    first = 0
    for statement in parse_cell(source)[1].body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            first = statement.end_lineno or first
    lines = source.splitlines(keepends=True)
    return "".join([*lines[:first], imports, *lines[first:]])


def _source_of(parameter: NotebookParameter | None, name: str, value: Any) -> str:
    _check_name(name)
    if parameter is not None and parameter.is_secret and value is not None:
        return secret_literal(name, _wrapper_of(parameter))
    _check_value(value, name, objects=parameter is not None and takes_objects(parameter.kind))
    return literal(value)


def _wrapper_of(parameter: NotebookParameter) -> str | None:
    """How the cell writes the class of a secret: `SecretStr`, `pydantic.Secret[str]`; None where it has only text."""
    if parameter.wants_text:
        return None
    for text in (parameter.annotation, parameter.default_source):
        for node in ast.walk(ast.parse(text, mode="eval")) if text else ():
            if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
                written = ast.unparse(node)
                if is_secret(annotation_type(written, parameter.names)) and "Optional" not in written:
                    return written
    return None


def recorded_values(declared: Sequence[NotebookParameter] | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the notebook's own metadata: objects as text, secrets masked."""
    secret = {parameter.name for parameter in declared or () if parameter.is_secret}
    return {name: MASK if name in secret and value is not None else as_text(value) for name, value in values.items()}


def _form_type(choices: str | None, options: str | None) -> str | None:
    """The annotation that the form of a Colab parameter stands for; None for any value."""
    if choices is not None:
        try:
            values = ast.literal_eval(choices)
        except (ValueError, SyntaxError):
            return None
        free = options is not None and "allow-input" in options
        return None if free else f"Literal[{', '.join(map(repr, values))}]"
    kind = _PARAM_TYPE.search(options or "")
    return _PARAM_TYPES.get(kind[1]) if kind else None


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


def _check_value(value: Any, where: str, depth: int = 0, *, objects: bool = False) -> None:
    """Raise `ParameterTypeError` unless the value, and all inside it, is JSON (or `objects`) that survives writing."""
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
            _check_value(member, f"{where}[{index}]", depth + 1, objects=objects)
    elif kind is dict:
        for key, member in value.items():
            if type(key) is not str:
                raise ParameterTypeError(f"{where}: the key {ascii(key)[:60]} is no text; JSON has text keys only.")
            _check_text(key, where)
            _check_value(member, f"{where}[{ascii(key)[:60]}]", depth + 1, objects=objects)
    elif kind not in (type(None), bool, int, float) and not (
        objects and (kind in _OBJECTS or isinstance(value, enum.Enum))
    ):
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


def _coerced(parameter: NotebookParameter | None, value: Any, name: str) -> Any:
    kind = parameter.kind if parameter is not None else None
    objects = takes_objects(kind)
    _check_value(value, name, objects=objects)
    none_by_default = parameter is not None and parameter.is_literal and parameter.default is None
    if parameter is None or kind is None or (value is None and none_by_default):
        return value
    coerced = coerce(kind, value)
    if objects and parameter.wants_text:
        return value if isinstance(value, str) else as_text(coerced)
    _check_value(coerced, name, objects=objects)
    return coerced


def _assignments(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {literal(_checked(name, value))}\n" for name, value in values.items())


def _require_assignments(source: str, names: list[str]) -> None:
    body = ast.parse(source).body
    sound = len(body) == len(names) and all(
        isinstance(statement, ast.Assign)
        and [ast.dump(target) for target in statement.targets] == [ast.dump(ast.Name(name, ast.Store()))]
        and is_constant(statement.value)
        for statement, name in zip(body, names, strict=True)
    )
    if not sound:
        raise ParameterTypeError(f"The values of {', '.join(map(repr, names))} could not be written as constants.")
