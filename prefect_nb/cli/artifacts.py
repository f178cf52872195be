"""`prefect-nb artifact`."""

from uuid import UUID

import click

from prefect_nb.cli.errors import FAILED, OK
from prefect_nb.cli.group import Group
from prefect_nb.cli.output import as_json, facts, limit_option, output_option, table
from prefect_nb.execution.clock import now_us
from prefect_nb.interfaces import Artifact
from prefect_nb.service import artifacts
from prefect_nb.service.text import ago, one_line, plain


@click.group(cls=Group, name="artifact")
def artifact() -> None:
    """Look at what runs left for people to see, export tables, delete.

    Example:
      prefect-nb artifact ls
    """


@artifact.command()
@click.option("-a", "--all", "every", is_flag=True, help="Every version, and artifacts without a key.")
@limit_option(100)
@output_option
def ls(every: bool, limit: int, output: str) -> None:
    """List artifacts: the newest version of each key, newest first.

    Example:
      prefect-nb artifact ls --all --limit 20
    """
    found = artifacts.listing(every, limit)
    if output == "json":
        as_json([artifacts.document(one) for one in found])
        return
    if not found:
        click.echo("No artifacts.")
        return
    now = now_us()
    table(
        ("Key", "Type", "Updated", "What", "ID"),
        (
            (
                one_line(one.key or "", 40),
                one_line(one.type or "", 20),
                ago(one.updated_us, now),
                one_line(one.description or artifacts.summary(one), 60),
                str(one.id),
            )
            for one in found
        ),
    )


@artifact.command()
@click.argument("key")
@limit_option(10)
@output_option
def inspect(key: str, limit: int, output: str) -> None:
    """Show the artifact of a key in its versions, newest first.

    Example:
      prefect-nb artifact inspect report --limit 1 --output json
    """
    found = artifacts.versions(key, limit)
    if output == "json":
        as_json([artifacts.document(one) for one in found])
        return
    for number, one in enumerate(found):
        if number:
            click.echo()
        _show(one)


@artifact.command()
@click.argument("key")
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
def export(key: str, form: str) -> None:
    """Print the newest version of a table for other programs.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.

    Example:
      prefect-nb artifact export rows > rows.csv
    """
    (newest,) = artifacts.versions(key, 1)
    if form == "json":
        as_json(artifacts.as_records(newest))
    else:
        click.echo(artifacts.as_csv(newest), nl=False)


@artifact.command()
@click.argument("key", required=False)
@click.option("--id", "id", type=click.UUID, help="Only the artifact of this id.")
def delete(key: str | None, id: UUID | None) -> int:
    """Delete the artifact of a key in all its versions, or the one of an id.

    Example:
      prefect-nb artifact delete report
    """
    if (key is None) == (id is None):
        raise click.UsageError("Please provide either a key or an artifact's --id.")
    number = artifacts.delete(id, key)
    if not number:
        named = f"id '{id}'" if id is not None else f"key {one_line(key or '')!r}"
        click.echo(f"Artifact with {named} not found.", err=True)
        return FAILED
    click.echo(f"Deleted artifact '{id}'." if id else f"Deleted {number} artifact(s) with key '{key}'.")
    return OK


def _show(one: Artifact) -> None:
    now = now_us()
    click.echo(f"{one_line(one.type or 'artifact')} {one_line(one.key or '')}".rstrip())
    shown = plain(one.data, 4000) if one.type == "markdown" and isinstance(one.data, str) else artifacts.summary(one)
    facts(
        [
            ("id", one.id),
            ("description", plain(one.description, 2000) if one.description else None),
            ("created", ago(one.created_us, now)),
            ("updated", ago(one.updated_us, now) if one.updated_us != one.created_us else None),
            ("flow run", one.flow_run_id),
            ("task run", one.task_run_id),
            ("data", shown),
        ]
    )
