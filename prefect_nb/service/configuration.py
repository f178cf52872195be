"""The settings, and where each has its value from."""

import os
from pathlib import Path
from typing import Any

import msgspec

from prefect_nb.settings import Settings, environment_names, get_settings


class Setting(msgspec.Struct, frozen=True):
    """One setting: its value, and the environment variable that sets it (None: it has its default)."""

    name: str
    value: Any
    source: str | None


def settings() -> list[Setting]:
    """Every setting as it holds now.

    Raises:
        ConfigurationError: naming the variable whose value does not fit.
    """
    current = get_settings()
    found = []
    for field in msgspec.structs.fields(Settings):
        value = getattr(current, field.name)
        source = next((variable for variable in environment_names(field.name) if variable in os.environ), None)
        found.append(Setting(field.name, str(value) if isinstance(value, Path) else value, source))
    return found
