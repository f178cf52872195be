"""`prefect-nb block`."""

from typing import Any

import click

from prefect_nb.cli.group import Group
from prefect_nb.cli.output import as_json, facts, output_option, table
from prefect_nb.interfaces import BlockDocument


@click.group(cls=Group)
def block() -> None:
    """Look at saved blocks and delete them.

    Example:
      prefect-nb block ls
    """


@block.command()
@output_option
def ls(output: str) -> None:
    """List the saved blocks.

    Example:
      prefect-nb block ls
    """
    from prefect_nb.service import blocks

    found = blocks.documents()
    if output == "json":
        as_json([_document(one) for one in found])
    elif found:
        table(("Id", "Type", "Name", "Slug"), [(one.id, one.type_slug, one.name, blocks.slug_of(one)) for one in found])
    else:
        click.echo("No blocks.")


@block.command()
@click.argument("slug", required=False)
@click.option("--id", help="The block's id instead.")
@output_option
def inspect(slug: str | None, id: str | None, output: str) -> None:
    """Show a saved block; its secrets are masked.

    Example:
      prefect-nb block inspect secret/api-token
    """
    from prefect_nb.service import blocks

    found = blocks.find(slug, id)
    if output == "json":
        as_json(_document(found))
        return
    click.echo(blocks.slug_of(found))
    facts([("id", found.id), *((name, value) for name, value in blocks.shown(found.data).items())])


@block.command()
@click.argument("slug", required=False)
@click.option("--id", help="The block's id instead.")
def delete(slug: str | None, id: str | None) -> None:
    """Delete a saved block.

    Example:
      prefect-nb block delete secret/api-token
    """
    from prefect_nb.service import blocks

    found = blocks.find(slug, id)
    blocks.delete(found)
    click.echo(f"Deleted block '{blocks.slug_of(found)}'.")


@block.command()
@click.option("-f", "--file", metavar="PATH", help="A .py file that defines blocks.")
@click.option("-m", "--module", metavar="NAME", help="An importable module that does.")
def register(file: str | None, module: str | None) -> None:
    """Register the types of block that a file or module defines.

    Example:
      prefect-nb block register --file warehouse.py
    """
    from prefect_nb.service import blocks

    if (file is None) == (module is None):
        raise click.UsageError("Please specify either a module or a file to be registered, but not both.")
    names = blocks.register(file=file, module=module)
    click.echo(f"Successfully registered {len(names)} block{'s' if len(names) != 1 else ''}: {', '.join(names)}")


@block.command("reset-key")
@click.confirmation_option("-y", "--yes", prompt="Give up every secret that was encrypted with the lost key?")
def reset_key() -> None:
    """Give up what was encrypted with a key that is lost; the next secret makes a new one.

    Example:
      prefect-nb block reset-key --yes
    """
    from prefect_nb.service import blocks

    blocks.reset_key()
    click.echo("The next secret that is saved makes a new key.")


@block.group(cls=Group)
def type() -> None:  # noqa: A001 - the command's name
    """Look at types of block.

    Example:
      prefect-nb block type ls
    """


@type.command("ls")
@output_option
def type_ls(output: str) -> None:
    """List the types of block.

    Example:
      prefect-nb block type ls
    """
    from prefect_nb.service import blocks

    found = blocks.types()
    if output == "json":
        as_json([{"slug": one.slug, "name": one.name, "description": one.description} for one in found])
    elif found:
        table(("Slug", "Name", "Description"), [(one.slug, one.name, _first_line(one.description)) for one in found])
    else:
        click.echo("No block types.")


@type.command("inspect")
@click.argument("slug")
@output_option
def type_inspect(slug: str, output: str) -> None:
    """Show a type of block: its fields, and how to load one.

    Example:
      prefect-nb block type inspect secret
    """
    from prefect_nb.service import blocks

    found = blocks.find_type(slug)
    if output == "json":
        as_json({"slug": found.slug, "name": found.name, "description": found.description, "schema": found.schema})
        return
    fields = ", ".join(found.schema.get("properties", {}))
    facts([("slug", found.slug), ("name", found.name), ("description", found.description), ("fields", fields)])
    click.echo(found.code_example or "")


@type.command("delete")
@click.argument("slug")
def type_delete(slug: str) -> None:
    """Forget a type of block and delete its blocks.

    Example:
      prefect-nb block type delete warehouse
    """
    from prefect_nb.service import blocks

    blocks.delete_type(slug)
    click.echo(f"Deleted block type {slug!r}.")


def _document(document: BlockDocument) -> dict[str, Any]:
    from prefect_nb.service import blocks

    return {
        "id": str(document.id),
        "slug": blocks.slug_of(document),
        "type": document.type_slug,
        "name": document.name,
        "data": blocks.shown(document.data),
    }


def _first_line(text: str | None) -> str:
    return (text or "").split("\n")[0]
