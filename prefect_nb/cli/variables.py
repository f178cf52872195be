"""`prefect-nb variable`."""

import json
from typing import Any

import click

from prefect_nb.cli.errors import FAILED, OK
from prefect_nb.cli.group import Group
from prefect_nb.cli.output import as_json, facts, limit_option, output_option, table
from prefect_nb.execution.clock import now_us
from prefect_nb.service import variables
from prefect_nb.service.text import ago, one_line


@click.group(cls=Group, name="variable")
def variable() -> None:
    """Named values that flows read.

    Example:
      prefect-nb variable set threshold 0.5
    """


@variable.command()
@limit_option(100)
@output_option
def ls(limit: int, output: str) -> None:
    """List variables by name.

    Example:
      prefect-nb variable ls
    """
    found = variables.listing(limit)
    if output == "json":
        as_json([variables.document(one) for one in found])
        return
    if not found:
        click.echo("No variables.")
        return
    now = now_us()
    table(
        ("Name", "Value", "Tags", "Created", "Updated"),
        (
            (
                one_line(one.name, 60),
                one_line(_text(one.value), 40),
                one_line(", ".join(one.tags), 30),
                ago(one.created_us, now),
                ago(one.updated_us, now),
            )
            for one in found
        ),
    )


@variable.command()
@click.argument("name")
def get(name: str) -> None:
    """Print a variable's value as JSON.

    Example:
      prefect-nb variable get threshold
    """
    click.echo(_text(variables.find(name).value))


@variable.command(name="set")
@click.argument("name")
@click.argument("value")
@click.option("--overwrite", is_flag=True, help="Replace the variable if it exists.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag the variable; repeatable.")
def set_(name: str, value: str, overwrite: bool, tags: tuple[str, ...]) -> int:
    """Set a variable. VALUE is JSON; what is not JSON is a text.

    Example:
      prefect-nb variable set threshold 0.5 --overwrite
    """
    try:
        variables.check_name(name)
        parsed = variables.check_value(_parsed(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if variables.put(name, parsed, list(tags), overwrite) is None:
        click.echo(f"Variable {name!r} already exists. Use `--overwrite` to update it.", err=True)
        return FAILED
    click.echo(f"Set variable {name!r}.")
    return OK


@variable.command()
@click.argument("name")
def unset(name: str) -> None:
    """Drop a variable.

    Example:
      prefect-nb variable unset threshold
    """
    if not variables.unset(name):
        raise variables.not_found(name)
    click.echo(f"Unset variable {one_line(name)!r}.")


@variable.command()
@click.argument("name")
@click.pass_context
def delete(context: click.Context, name: str) -> None:
    """Drop a variable, as `unset` does.

    Example:
      prefect-nb variable delete threshold
    """
    context.invoke(unset, name=name)


@variable.command()
@click.argument("name")
@output_option
def inspect(name: str, output: str) -> None:
    """Show a variable.

    Example:
      prefect-nb variable inspect threshold --output json
    """
    found = variables.find(name)
    if output == "json":
        as_json(variables.document(found))
        return
    now = now_us()
    click.echo(f"variable {one_line(found.name)}")
    facts(
        [
            ("id", found.id),
            ("value", _text(found.value)),
            ("tags", ", ".join(map(one_line, found.tags))),
            ("created", ago(found.created_us, now)),
            ("updated", ago(found.updated_us, now)),
        ]
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
