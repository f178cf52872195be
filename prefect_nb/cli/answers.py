"""The answer to a paused run, from options and, in a terminal, from whoever sits at it."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from prefect_nb.exceptions import ParameterBindError
from prefect_nb.model.parameters import parse_cli_value
from prefect_nb.service.text import plain

if TYPE_CHECKING:
    from prefect_nb.service.control import Form


def ask(form: "Form | None", texts: Sequence[str]) -> dict[str, Any] | None:
    """The answer: what the options say; in a terminal, what they do not say is asked for. None where nothing is asked.

    Raises:
        ParameterBindError: an option is no `name=value`, or nothing is asked.
    """
    if form is None:
        if texts:
            raise ParameterBindError("--input: the flow run waits for no answer.")
        return None
    given = form.parse(texts)
    if not sys.stdin.isatty():
        return given
    if form.description:
        click.echo(plain(form.description, 10_000))
    for name, field in form.fields.items():
        if name not in given:
            given[name] = _prompted(name, field, form.is_text(name))
    return given


def _prompted(name: str, field: dict[str, Any], is_text: bool) -> Any:
    words = plain(field.get("title") or name)
    if field.get("description"):
        words += f" ({plain(field['description'])})"
    if field.get("type") == "boolean":
        return click.confirm(words, default=field.get("default"))
    choices = field.get("enum")
    return click.prompt(
        words,
        default=field.get("default"),
        type=click.Choice([str(choice) for choice in choices]) if choices and is_text else None,
        value_proc=None if choices and is_text else lambda text: parse_cli_value(text, str if is_text else None),
    )
