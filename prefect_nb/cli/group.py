"""Commands and groups of commands: how their help looks, and what a misspelled one is told."""

import inspect
import re
from typing import Any

import click

from prefect_nb.service.text import did_you_mean

# A paragraph whose second line is indented: an example under its title.
_AS_IT_IS = re.compile(r"\n\n(?=[^\n]+\n {2})")


class Command(click.Command):
    """A command whose help keeps the lines of indented examples apart."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.help = _with_examples(self.help)


class Group(click.Group):
    """Commands, listed in the order in which they were added."""

    command_class = Command

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.help = _with_examples(self.help)

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


def _with_examples(text: str | None) -> str | None:
    """The help with click's mark for text that is not to be filled, where it is wanted."""
    return None if text is None else _AS_IT_IS.sub("\n\n\b\n", inspect.cleandoc(text))
