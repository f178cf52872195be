"""Options that take a length of time: `--timeout 90`, `--timeout 10m`."""

import click

from prefect_nb.model.durations import seconds_of


def duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Seconds, from `90`, `90s`, `10m` or `1.5h`: the callback of an option.

    Raises:
        click.BadParameter: it is no length of time, or none at all.
    """
    if value is None:
        return None
    try:
        seconds = seconds_of(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None
    if seconds <= 0:
        raise click.BadParameter(f"{value!r} is no time at all; write 30s, 10m or 1.5h.")
    return seconds
