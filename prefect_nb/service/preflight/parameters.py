"""A notebook's parameters: whether they are declared well, and whether what is given fits."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prefect_nb.bodies.document import Document
from prefect_nb.exceptions import ParameterBindError, ParameterTypeError
from prefect_nb.model.assignments import parse_cell, reads, targets_of
from prefect_nb.model.cli_values import parse_parameters
from prefect_nb.model.name_flow import names_bound
from prefect_nb.model.notebook_parameters import NotebookParameter, check_parameters
from prefect_nb.service.preflight.cells import CheckedCell
from prefect_nb.service.preflight.findings import Finding
from prefect_nb.service.text import one_line


class Parameters(NamedTuple):
    """What the notebook has of parameters."""

    declared: list[NotebookParameter] | None
    values: dict[str, Any]
    """Those given, as the notebook would have them."""
    findings: list[Finding]

    @property
    def at_start(self) -> tuple[str, ...]:
        """Names that a run sets before the first cell."""
        return tuple(self.values) if self.declared is None else ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names that the parameters cell has, with or without a default."""
        return tuple(parameter.name for parameter in self.declared or ())


def check_given(
    document: Document, cells: Sequence[CheckedCell], given: Mapping[str, Any], texts: Sequence[str]
) -> Parameters:
    """The parameters cell and the values given for it.

    Raises:
        ParameterBindError: a text is no `name=value`.
    """
    try:
        declared = document.parameters
    except ParameterBindError:
        return Parameters([], {}, [])  # the cell is no Python, as is said elsewhere
    findings: list[Finding] = []
    hints = {one.name: one.kind for one in declared or () if one.kind is not None}
    try:
        typed = parse_parameters(texts, hints)
    except ValueError as error:
        raise ParameterBindError(f"{error} Parameters are given as -p name=value.") from None
    values = {**given, **typed}
    tagged = [cell for cell in cells if cell.is_parameters]
    if declared is None:
        return Parameters(None, values, _untagged(cells, values))
    if tagged:
        findings += _cell_findings(tagged, declared)
    required = {one.name for one in declared if one.default_source is None}
    if values or required:
        findings += _value_findings(document, declared, values, tagged[0] if tagged else None)
    return Parameters(declared, values, findings)


def _untagged(cells: Sequence[CheckedCell], values: Mapping[str, Any]) -> list[Finding]:
    """Values for a notebook without a parameters cell: they are set at its top, and its cells may set them again."""
    findings: list[Finding] = []
    for name in values:
        setting = next((c for c in cells if c.tree is not None and name in names_bound(c.tree)), None)
        if setting is None:
            findings.append(
                Finding(
                    level="warning", rule="parameters", message=f"No cell is tagged `parameters`: `{name}` is set at the top",
                    fix="Put the parameters and their defaults into a cell, and tag it `parameters`.",
                )
            )  # fmt: skip
        else:
            findings.append(
                setting.finding(
                    "error", "parameters", f"`{name}` is given, but this cell sets it again: the given value is lost",
                    "Tag this cell `parameters` (in JupyterLab: Property Inspector, Cell Tags).",
                )
            )  # fmt: skip
    return findings


def _cell_findings(tagged: Sequence[CheckedCell], declared: Sequence[NotebookParameter]) -> list[Finding]:
    cell = tagged[0]
    findings = [
        other.finding("warning", "parameters", "Another cell is tagged `parameters`: only the first one counts",
                      f"Move its assignments into cell {cell.number}.")
        for other in tagged[1:] if "parameters" in other.tags
    ]  # fmt: skip
    lines = _lines(cell.source)
    for parameter in declared:
        line = lines.get(parameter.name, [None])[0]
        if len(lines.get(parameter.name, ())) > 1:
            findings.append(
                cell.finding("warning", "parameters", f"The parameter `{parameter.name}` is assigned twice",
                             "Keep the one that counts.", lines[parameter.name][1])
            )  # fmt: skip
        if parameter.annotation is None and parameter.kind is None:
            findings.append(
                cell.finding("warning", "parameters", f"The parameter `{parameter.name}` has no type: any value is taken",
                             f"Write `{parameter.name}: {_guess(parameter)} = {parameter.default_source}`.", line)
            )  # fmt: skip
        elif parameter.kind is not None and (problem := _unfit_default(parameter)) is not None:
            findings.append(cell.finding("error", "parameters", f"The default does not fit: {problem}", None, line))
    return findings


def _unfit_default(parameter: NotebookParameter) -> str | None:
    if not parameter.is_literal:
        return None
    try:
        check_parameters([parameter], {parameter.name: parameter.default})
    except ParameterTypeError as error:
        problem = str(error).partition("\n")[2].removeprefix(" - ")
        # JSON has no tuples, sets and bytes, but a default may be one.
        return None if "cannot be given to a notebook" in problem else problem
    except ParameterBindError:
        return None
    return None


def _value_findings(
    document: Document, declared: Sequence[NotebookParameter], values: dict[str, Any], cell: CheckedCell | None
) -> list[Finding]:
    try:
        values.update(document.check(values))
    except (ParameterBindError, ParameterTypeError) as error:
        messages = str(error).split("\n - ")[1:] or [str(error)]
        make = cell.finding if cell is not None else None
        known = ", ".join(one.name for one in declared)
        fix = f"The notebook has: {known}." if known else None
        if make is None:
            return [
                Finding(level="error", rule="parameters", message=one_line(text, 300), fix=fix) for text in messages
            ]
        return [make("error", "parameters", one_line(text, 300), fix) for text in messages]
    return []


def _lines(source: str) -> dict[str, list[int]]:
    """The lines on which each name is assigned a value of its own."""
    found: dict[str, list[int]] = {}
    for statement in parse_cell(source)[1].body:
        for target in targets_of(statement):
            if target.value is not None and not (target.name in found and reads(target.value, target.name)):
                found.setdefault(target.name, []).append(statement.lineno)
    return found


def _guess(parameter: NotebookParameter) -> str:
    kind = type(parameter.default).__name__ if parameter.is_literal and parameter.default is not None else "..."
    return "str" if kind == "NoneType" else kind
