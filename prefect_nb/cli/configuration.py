"""`prefect-nb config`."""

import click

from prefect_nb.cli.group import Group
from prefect_nb.cli.output import as_json, output_option, table


@click.group(cls=Group)
def config() -> None:
    """Look at the settings.

    Example:
      prefect-nb config view
    """


@config.command()
@output_option
def view(output: str) -> None:
    """Show every setting and where its value comes from.

    A setting is changed by an environment variable: PREFECT_NB_ and its name in capitals.

    Example:
      PREFECT_NB_LOGGING_LEVEL=DEBUG prefect-nb config view
    """
    from prefect_nb.service import configuration

    found = configuration.settings()
    if output == "json":
        as_json({setting.name: {"value": setting.value, "source": setting.source or "default"} for setting in found})
        return
    rows = [(setting.name, _words(setting.value), setting.source or "default") for setting in found]
    table(("Setting", "Value", "From"), rows)


def _words(value: object) -> str:
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)
