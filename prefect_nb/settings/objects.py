"""Settings as objects (`PREFECT_TASKS_DEFAULT_RETRIES.value()`), settings for a while, and the profile in use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from prefect_nb.settings import profiles, sources
from prefect_nb.settings.fields import WITHOUT_EFFECT, Settings, environment_names, setting_of
from prefect_nb.settings.profiles import Profile, ProfilesCollection


class Setting:
    """One setting. Equal to another of the same name; true if its value is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def default(self) -> Any:
        """Its value unless something sets it."""
        setting = setting_of(self.name)
        return getattr(Settings(), setting) if setting is not None else WITHOUT_EFFECT.get(self.name)

    @property
    def is_secret(self) -> bool:
        """Whether its value is not to be shown."""
        return sources.is_secret(self.name)

    def value(self) -> Any:
        """Its value now."""
        return self.value_from(sources.get_settings())

    def value_from(self, settings: Settings) -> Any:
        """Its value in these settings."""
        setting = setting_of(self.name)
        if setting is not None:
            return getattr(settings, setting)
        text = sources.resolved().others.get(self.name)
        if text is None:
            return self.default()
        if isinstance(self.default(), bool | int | float):
            return msgspec.convert(text, type(self.default()), strict=False)
        return text or None

    def __bool__(self) -> bool:
        return bool(self.value())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and other.name == self.name

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def __str__(self) -> str:
        return str(self.value())


def setting_object(name: str) -> Setting | None:
    """The setting of that name; None if there is none."""
    return Setting(name) if setting_of(name) is not None or name in WITHOUT_EFFECT else None


@contextmanager
def temporary_settings(
    updates: Mapping[Any, Any] | None = None,
    set_defaults: Mapping[Any, Any] | None = None,
    restore_defaults: Iterable[Any] | None = None,
) -> Iterator[Settings]:
    """Inside: these settings, for every thread of this process and every process it starts.

    Args:
        updates: values by setting or name.
        set_defaults: values for those that nothing sets.
        restore_defaults: settings that have their default.
    """
    values: dict[str, str] = {}
    given = sources.resolved()
    for key, value in (set_defaults or {}).items():
        setting = setting_of(_name(key))
        if (setting not in given.given) if setting is not None else (_name(key) not in given.others):
            values[_variable(key)] = profiles.as_text(value)
    for key in restore_defaults or ():
        values[_variable(key)] = profiles.as_text(Setting(_name(key)).default())
    for key, value in (updates or {}).items():
        values[_variable(key)] = profiles.as_text(value)
    with variables_set(values):
        yield sources.get_settings()


@contextmanager
def use_profile(
    profile: Profile | str,
    *,
    override_environment_variables: bool = False,
    include_current_context: bool = True,  # noqa: ARG001 - Prefect's signature
) -> Iterator[Settings]:
    """Inside: the settings of this profile, for every thread of this process and every process it starts.

    Args:
        profile: a profile, or the name of one in the profiles file.
        override_environment_variables: whether it goes before what the environment sets.
        include_current_context: accepted for Prefect's sake.

    Raises:
        ConfigurationError: there is no profile of that name.
    """
    if isinstance(profile, str):
        profile = load_profile(profile)
    present = sources.resolved().given
    values = {}
    for name, text in profile.to_environment_variables().items():
        found = present.get(setting_of(name) or "")
        if override_environment_variables or found is None or found.source != "environment":
            values[_variable(name)] = text
    with variables_set(values):
        yield sources.get_settings()


def load_profiles(include_defaults: bool = True) -> ProfilesCollection:
    """The profiles of the profiles file."""
    found = profiles.read(sources.profiles_path())
    if include_defaults and profiles.DEFAULT not in found.names:
        found.add_profile(Profile(name=profiles.DEFAULT))
    return found


def load_profile(name: str) -> Profile:
    """One profile.

    Raises:
        ValueError: there is none of that name.
    """
    found = load_profiles()
    if name not in found.names:
        raise ValueError(f"Profile {name!r} not found.")
    return found[name]


def load_current_profile() -> Profile:
    """The profile in use."""
    name = sources.resolved().profile
    found = load_profiles()
    return found[name] if name in found.names else Profile(name=name)


def save_profiles(found: ProfilesCollection) -> None:
    """Write the profiles file, whole, for its owner alone."""
    profiles.write(sources.profiles_path(), found)
    sources.refresh()


def update_current_profile(settings: Mapping[Any, Any]) -> Profile:
    """Set settings in the profile in use, and write it; a value of None takes a setting out.

    Raises:
        ConfigurationError: a value does not fit; nothing is written.
    """
    found = load_profiles()
    current = found.update_profile(sources.resolved().profile, settings)
    validate(current)
    save_profiles(found)
    return current


def validate(profile: Profile) -> None:
    """Check that every value of a profile fits.

    Raises:
        ConfigurationError: naming the first that does not.
    """
    sources.check(profile)


def _name(key: Any) -> str:
    return str(getattr(key, "name", key))


def _variable(key: Any) -> str:
    """The variable that goes before every other source."""
    setting = setting_of(_name(key))
    return environment_names(setting)[0] if setting is not None else _name(key)


@contextmanager
def variables_set(values: Mapping[str, str]) -> Iterator[None]:
    """Inside: these environment variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
