"""`prefect-nb profile`."""

import click

from prefect_nb.cli.group import Group
from prefect_nb.cli.output import as_json, facts, output_option


@click.group(cls=Group)
def profile() -> None:
    """Keep several sets of settings, and choose between them.

    Example:
      prefect-nb profile ls
    """


@profile.command()
@output_option
def ls(output: str) -> None:
    """List the profiles; the active one has a star.

    Example:
      prefect-nb profile ls
    """
    from prefect_nb.service import configuration

    names, active = configuration.profiles()
    if output == "json":
        as_json([{"name": name, "active": name == active} for name in names])
        return
    for name in names:
        click.echo(f"{'*' if name == active else ' '} {name}")


@profile.command()
@click.argument("name")
@click.option("--from", "copied", metavar="NAME", help="Copy this profile's settings.")
def create(name: str, copied: str | None) -> None:
    """Make a profile.

    Example:
      prefect-nb profile create nightly --from default
    """
    from prefect_nb.service import configuration

    configuration.create_profile(name, copied)
    click.echo(f"Created profile with properties:\n    name - {name!r}\n    from name - {copied or None}")
    click.echo(f"Use it from now on:        prefect-nb profile use {name}")
    click.echo(f"Use it for one command:    prefect-nb --profile {name} config view")


@profile.command()
@click.argument("name")
def use(name: str) -> None:
    """Make a profile the active one.

    Example:
      prefect-nb profile use nightly
    """
    from prefect_nb.service import configuration

    configuration.use_profile(name)
    click.echo(f"Now using profile {name!r}.")


@profile.command()
@click.argument("name", required=False)
@output_option
def inspect(name: str | None, output: str) -> None:
    """Show a profile's settings; without NAME, the active one's.

    Example:
      prefect-nb profile inspect nightly
    """
    from prefect_nb.service import configuration

    found = configuration.profile(name)
    values = configuration.shown(found)
    if output == "json":
        as_json(values)
        return
    if name is None:
        click.echo(f"No name provided, defaulting to {found.name!r}")
    if values:
        facts(values.items())
    else:
        click.echo(f"Profile {found.name!r} is empty.")


@profile.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete a profile that is not in use.

    Example:
      prefect-nb profile delete nightly
    """
    from prefect_nb.service import configuration

    configuration.delete_profile(name)
    click.echo(f"Removed profile {name!r}.")


@profile.command()
@click.argument("name")
@click.argument("new_name")
def rename(name: str, new_name: str) -> None:
    """Give a profile another name.

    Example:
      prefect-nb profile rename nightly night
    """
    from prefect_nb.service import configuration

    configuration.rename_profile(name, new_name)
    click.echo(f"Renamed profile {name!r} to {new_name!r}.")


@profile.command("populate-defaults")
def populate_defaults() -> None:
    """Add the profiles that prefect_nb offers: default, and debug (logs everything).

    Example:
      prefect-nb profile populate-defaults
    """
    from prefect_nb.service import configuration

    added = configuration.populate_profiles()
    click.echo("".join(f"Added {name!r}.\n" for name in added) or "No changes: they are all there.", nl=not added)
