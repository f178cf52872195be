"""Profiles: named sets of settings in one TOML file, one of them active. The file is written for its owner alone."""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from prefect_nb.exceptions import ConfigurationError

DEFAULT = "default"
POPULATED: dict[str, dict[str, str]] = {
    DEFAULT: {},
    "debug": {"PREFECT_NB_LOGGING_LEVEL": "DEBUG", "PREFECT_NB_LOGGING_LOG_PRINTS": "true"},
}
"""The profiles that `prefect-nb profile populate-defaults` writes."""


class Profile(msgspec.Struct, kw_only=True):
    """A named set of settings, by the names of their variables."""

    name: str
    settings: dict[Any, Any] = {}
    source: Path | None = None

    def __post_init__(self) -> None:
        self.settings = {_key(key): value for key, value in self.settings.items()}

    def to_environment_variables(self) -> dict[str, str]:
        """The profile's settings as environment variables have them."""
        return {name: as_text(value) for name, value in self.settings.items() if value is not None}


class ProfilesCollection:
    """Profiles by name, and which of them is active."""

    def __init__(self, profiles: Iterable[Profile] = (), active: str | None = None) -> None:
        self.profiles_by_name = {profile.name: profile for profile in profiles}
        self.active_name = active

    @property
    def names(self) -> set[str]:
        """The profiles' names."""
        return set(self.profiles_by_name)

    @property
    def active_profile(self) -> Profile | None:
        """The active profile; None if there is none."""
        return self.profiles_by_name.get(self.active_name) if self.active_name is not None else None

    def set_active(self, name: str | None, check: bool = True) -> None:
        """Make a profile the active one; None for none.

        Raises:
            ValueError: there is no such profile.
        """
        if check and name is not None and name not in self.profiles_by_name:
            raise ValueError(f"Unknown profile name {name!r}.")
        self.active_name = name

    def add_profile(self, profile: Profile) -> None:
        """Add a profile.

        Raises:
            ValueError: there is one of that name.
        """
        if profile.name in self.profiles_by_name:
            raise ValueError(f"Profile name {profile.name!r} already exists in collection.")
        self.profiles_by_name[profile.name] = profile

    def update_profile(self, name: str, settings: Mapping[Any, Any], source: Path | None = None) -> Profile:
        """Add settings to a profile, made if missing; a value of None takes a setting out."""
        before = self.profiles_by_name.get(name)
        merged = dict(before.settings) if before is not None else {}
        merged.update({_key(key): value for key, value in settings.items()})
        kept = {key: value for key, value in merged.items() if value is not None}
        profile = Profile(name=name, settings=kept, source=source or (before.source if before is not None else None))
        self.profiles_by_name[name] = profile
        return profile

    def remove_profile(self, name: str) -> None:
        """Take a profile out.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.profiles_by_name:
            raise ValueError(f"Unknown profile name {name!r}.")
        del self.profiles_by_name[name]

    def items(self) -> list[tuple[str, Profile]]:
        """Names and profiles."""
        return list(self.profiles_by_name.items())

    def to_dict(self) -> dict[str, Any]:
        """What the file says."""
        return {
            "active": self.active_name,
            "profiles": {name: profile.to_environment_variables() for name, profile in self.items()},
        }

    def __getitem__(self, name: str) -> Profile:
        return self.profiles_by_name[name]

    def __iter__(self) -> Any:
        return iter(self.profiles_by_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProfilesCollection) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


def read(path: Path) -> ProfilesCollection:
    """The profiles of a file; without a file, the one profile `default`, which says nothing.

    Raises:
        ConfigurationError: the file is no TOML, or not of this shape.
    """
    content = read_toml(path)
    tables = content.get("profiles", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigurationError(f"{path}: each profile is a table such as [profiles.{DEFAULT}].")
    profiles = [Profile(name=name, settings=table, source=path) for name, table in tables.items()]
    if not profiles:
        profiles = [Profile(name=DEFAULT, source=path)]
    active = content.get("active")
    return ProfilesCollection(profiles, str(active) if active else profiles[0].name)


def write(path: Path, profiles: ProfilesCollection) -> None:
    """Put the profiles into the file, whole, with mode 0600."""
    lines = [f"active = {_quoted(profiles.active_name)}", ""] if profiles.active_name else []
    for name, profile in profiles.items():
        lines.append(f"[profiles.{_quoted(name)}]")
        lines += [f"{key} = {_quoted(value)}" for key, value in profile.to_environment_variables().items()]
        lines.append("")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_toml(path: Path, marker: bytes = b"") -> dict[str, Any]:
    """A file of settings; {} if there is none, it lacks the marker, or others may have written it (with a warning).

    Raises:
        ConfigurationError: it is no TOML.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read()
    except OSError:
        return {}
    if marker not in data:
        return {}
    doubt = _doubt(found)
    if doubt:
        warnings.warn(
            f"The settings in {path} are ignored: {doubt}. `chmod o-w {path}` or `chown` mends it.", stacklevel=2
        )
        return {}
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no valid TOML: {error}.") from None


def _doubt(found: os.stat_result) -> str | None:
    """Why a file may hold what its reader never wrote."""
    if not hasattr(os, "geteuid"):
        return None
    if found.st_mode & stat.S_IWOTH:
        return "everybody can write it"
    if found.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {found.st_uid}"
    return None


def as_text(value: Any) -> str:
    """A setting's value as an environment variable has it."""
    if value is None:
        return ""
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | dict | set | frozenset):
        return msgspec.json.encode(value).decode()
    return str(value)


def _key(key: Any) -> str:
    return str(getattr(key, "name", key))


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
