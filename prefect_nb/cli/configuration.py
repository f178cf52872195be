"""`prefect-nb config`."""

import sys

import click

from prefect_nb.cli.group import Group
from prefect_nb.cli.output import as_json, output_option, table


@click.group(cls=Group)
def config() -> None:
    """Look at the settings, and set them in the active profile.

    Example:
      prefect-nb config view
    """


@config.command()
@click.option(
    "--show-defaults/--hide-defaults", default=False, show_default=True, help="Also those that have their default."
)
@click.option("--show-sources/--hide-sources", default=True, show_default=True, help="Where each value comes from.")
@click.option("--show-secrets/--hide-secrets", default=False, show_default=True, help="Secret values in clear.")
@output_option
def view(show_defaults: bool, show_sources: bool, show_secrets: bool, output: str) -> None:
    """Show the settings that were set, and what set them.

    First of these wins: an environment variable (PREFECT_NB_ and the setting's name in capitals), prefect_nb.toml,
    prefect.toml, pyproject.toml ([tool.prefect_nb], [tool.prefect]), the active profile.

    Example:
      PREFECT_NB_LOGGING_LEVEL=DEBUG prefect-nb config view
    """
    from prefect_nb.service import configuration

    found = [one for one in configuration.settings(show_secrets=show_secrets) if one.source or show_defaults]
    if output == "json":
        as_json({setting.name: {"value": setting.value, "source": setting.source or "default"} for setting in found})
        return
    columns = ("Setting", "Value", "From")[: 3 if show_sources else 2]
    table(columns, [(one.name, _words(one.value), one.source or "default")[: len(columns)] for one in found])
    if not show_defaults:
        click.echo("The others have their defaults; --show-defaults lists them.")


@config.command("set")
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE...")
def set_(settings: tuple[str, ...]) -> None:
    """Set settings in the active profile.

    Example:
      prefect-nb config set PREFECT_NB_LOGGING_LEVEL=DEBUG
    """
    from prefect_nb.service import configuration

    values = {}
    for pair in settings:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"Failed to parse argument {pair!r}. Use the format 'VAR=VAL'.")
        values[name] = value
    profile, hiding = configuration.set_in_profile(values)
    shown = {
        name: value for name, value in configuration.shown(profile).items() if name.upper() in map(str.upper, values)
    }
    for name, value in values.items():
        click.echo(f"Set {name!r} to {shown.get(name.upper(), value)!r}.")
    for variable in hiding:
        click.echo(
            f"{variable} is also set by an environment variable which will override your config value. "
            f"Run `unset {variable}` to clear it."
        )
    click.echo(f"Updated profile {profile.name!r}.")


@config.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def unset(names: tuple[str, ...], yes: bool) -> None:
    """Take settings out of the active profile.

    Example:
      prefect-nb config unset PREFECT_NB_LOGGING_LEVEL
    """
    from prefect_nb.service import configuration

    if not yes and sys.stdin.isatty():
        click.confirm(f"Unset {', '.join(names)}?", abort=True)
    profile = configuration.unset_in_profile(names)
    for name in names:
        click.echo(f"Unset {name!r}.")
    click.echo(f"Updated profile {profile.name!r}.")


@config.command()
def validate() -> None:
    """Check every setting's value.

    Example:
      prefect-nb config validate
    """
    from prefect_nb.service import configuration

    configuration.validate()
    click.echo("Configuration valid!")


def _words(value: object) -> str:
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)
