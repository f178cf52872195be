"""Where settings come from, first wins: environment, `prefect_nb.toml`, `prefect.toml`, `pyproject.toml`, the profile.

They are read when the environment changes, or when `refresh` says so.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from prefect_nb.exceptions import ConfigurationError
from prefect_nb.settings import profiles
from prefect_nb.settings.fields import Settings, environment_names, setting_of

PROFILE_VARIABLES = ("PREFECT_NB_PROFILE", "PREFECT_PROFILE")
_NO_SETTINGS = frozenset({"PREFECT_NB_DEBUG", "PREFECT_NB_ATTACH", "PREFECT_NB_SCREENSHOTS"})
"""Variables that this project reads but that are no settings."""
_IN_DOTENV = re.compile(r"^\s*(?:export\s+)?(PREFECT_NB_\w+)\s*=", re.MULTILINE)


class Given(NamedTuple):
    """One setting as one source gives it."""

    setting: str
    value: Any
    name: str
    """As the source spells it."""
    source: str


class Resolved(NamedTuple):
    """The settings, and for those that do not have their default, what gave them their value."""

    settings: Settings
    given: dict[str, Given]
    profile: str
    profiles_path: Path
    others: dict[str, str]
    """Settings of Prefect that mean nothing here, as the sources have them."""


_environment: dict[Any, Any] | None = None
_resolved: Resolved | None = None
_variables: dict[str, str] = {}


def get_settings() -> Settings:
    """The settings as they hold now.

    Raises:
        ConfigurationError: naming the variable or file whose value does not fit.
    """
    return resolved().settings


def resolved() -> Resolved:
    """The settings as they hold now, with where they come from. Raises as `get_settings` does."""
    global _environment, _resolved, _variables
    # The mapping underneath, where there is one: comparing it takes a microsecond, reading every variable twenty.
    now = getattr(os.environ, "_data", os.environ)
    if _resolved is not None and now == _environment:
        return _resolved
    snapshot = dict(now)
    variables = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}
    if _resolved is None or variables != _variables:
        _resolved = _read(variables)
        _variables = variables
    _environment = snapshot
    return _resolved


def profiles_path() -> Path:
    """The profiles file; found also where the profile in use is missing."""
    given: dict[str, Given] = {}
    for found in (*_of_environment(dict(os.environ)), *_of_project(Path.cwd(), {})):
        given.setdefault(found.setting, found)
    return _path_of_profiles(given)


def _path_of_profiles(given: dict[str, Given]) -> Path:
    base = _made({name: given[name] for name in ("home", "profiles_path") if name in given})
    return (base.profiles_path or base.home / "profiles.toml").expanduser().absolute()


def refresh() -> None:
    """Read every source again when the settings are next asked for."""
    global _resolved
    _resolved = None


def is_secret(name: str) -> bool:
    """Whether a setting or variable of this name is not to be shown."""
    return (
        re.search(r"KEY$|TOKEN|SECRET|PASSWORD|PASSWD|AUTH_STRING|CREDENTIAL|CONNECTION_URL", name.upper()) is not None
    )


def _read(variables: dict[str, str]) -> Resolved:
    _warn_of_unknown(variables, "the environment")
    given: dict[str, Given] = {}
    others: dict[str, str] = {}
    for found in (*_of_environment(variables), *_of_project(Path.cwd(), others)):
        given.setdefault(found.setting, found)
    path = _path_of_profiles(given)
    profile = _profile(path, variables)
    for found in _of_table(profile.settings, f"profile {profile.name}", others):
        if found.setting in ("home", "profiles_path", "profile"):
            warnings.warn(f"{found.name} in {found.source} is ignored: the profile is found by it.", stacklevel=3)
        else:
            given.setdefault(found.setting, found)
    _warn_of_dotenv(Path.cwd() / ".env")
    return Resolved(_made(given), given, profile.name, path, {**others, **variables})


def _of_environment(variables: dict[str, str]) -> Iterator[Given]:
    for field in msgspec.structs.fields(Settings):
        for name in environment_names(field.name):
            if name in variables:
                yield Given(field.name, variables[name], name, "environment")


def _of_project(folder: Path, others: dict[str, str]) -> Iterator[Given]:
    for name in ("prefect_nb.toml", "prefect.toml"):
        yield from _of_table(profiles.read_toml(folder / name), name, others, ours=name == "prefect_nb.toml")
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if path.is_file():
            tool = profiles.read_toml(path, b"tool.prefect").get("tool", {})
            for name in ("prefect_nb", "prefect"):
                yield from _of_table(tool.get(name, {}), "pyproject.toml", others, ours=name == "prefect_nb")
            return


def _of_table(table: dict[str, Any], source: str, others: dict[str, str], *, ours: bool = False) -> Iterator[Given]:
    flat = dict(_flat(table))
    names = {}
    for key in flat:
        name = key.upper()
        names[key] = name if name.startswith("PREFECT_") else f"PREFECT_NB_{name}" if ours else f"PREFECT_{name}"
    _warn_of_unknown(names.values(), source)
    # Where both spellings are there, ours wins.
    for key, name in sorted(names.items(), key=lambda pair: not pair[1].startswith("PREFECT_NB_")):
        setting = setting_of(name)
        if setting is not None:
            yield Given(setting, flat[key], name, source)
        else:
            others.setdefault(name, profiles.as_text(flat[key]))


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and setting_of(prefix + key) is None:
            yield from _flat(value, f"{prefix}{key}_")
        else:
            yield prefix + key, value


def _profile(path: Path, variables: dict[str, str]) -> profiles.Profile:
    found = profiles.read(path)
    for variable in PROFILE_VARIABLES:
        name = variables.get(variable)
        if name and name in found.names:
            return found[name]
        if name and variable == PROFILE_VARIABLES[0] and name != profiles.DEFAULT:
            raise ConfigurationError(
                f"{variable}={name!r}: there is no such profile in {path}. `prefect-nb profile ls` lists them, "
                f"`prefect-nb profile create {name}` makes it."
            )
    return found.active_profile or profiles.Profile(name=profiles.DEFAULT)


def _made(given: dict[str, Given]) -> Settings:
    types = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    values = {name: _convert(found, types[name]) for name, found in given.items()}
    settings = Settings(**values)
    return msgspec.structs.replace(settings, home=settings.home.expanduser().absolute())


def _convert(found: Given, annotation: Any) -> Any:
    value = found.value
    if isinstance(value, str):
        value = value.strip()
        if not value and "None" in str(annotation):
            return None
        if "Path" in str(annotation):
            return Path(value)
        if value.startswith(("[", "{")):
            value = msgspec.json.decode(value)
    try:
        return msgspec.convert(value, annotation, strict=False)
    except msgspec.ValidationError as error:
        where = "" if found.source == "environment" else f" in {found.source}"
        raise ConfigurationError(
            f"{found.name}={found.value!r}{where}: {error}. Unset it or give it a value that fits."
        ) from None


def _warn_of_unknown(names: Any, source: str) -> None:
    for name in names:
        if name.startswith("PREFECT_NB_") and setting_of(name) is None and name not in _NO_SETTINGS:
            warnings.warn(f"{name} in {source} is no setting.{did_you_mean(name)}", stacklevel=4)


def did_you_mean(name: str) -> str:
    """A sentence that offers the settings whose names are most like this one; empty for none."""
    known = [variable for field in msgspec.structs.fields(Settings) for variable in environment_names(field.name)]
    close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.75)
    return f" Did you mean {close[0]}?" if close else ""


def _warn_of_dotenv(path: Path) -> None:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    names = sorted(set(_IN_DOTENV.findall(text)))
    if names:
        warnings.warn(
            f"{', '.join(names)} in {path} is ignored: settings are not read from .env files, which come with a "
            "checkout. Set the variable itself, or a profile with `prefect-nb config set`.",
            stacklevel=4,
        )


def check(profile: profiles.Profile) -> None:
    """Check that every value of a profile fits.

    Raises:
        ConfigurationError: naming the first that does not.
    """
    _made({found.setting: found for found in _of_table(profile.settings, f"profile {profile.name}", {})})
