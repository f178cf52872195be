"""A group of commands that names the nearest when one is misspelled."""

import click

from prefect_nb.service.text import did_you_mean


class Group(click.Group):
    """Commands, listed in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order in which one meets them, not by the alphabet."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and its arguments.

        Raises:
            click.UsageError: there is none of that name; the nearest is named.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = did_you_mean(name, self.commands, 1)
            ctx.fail(f"There is no command {name!r}.{near or ' The commands are: ' + ', '.join(self.commands) + '.'}")
        return super().resolve_command(ctx, args)
