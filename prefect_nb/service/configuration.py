"""The settings and where each has its value from; changing them in profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from prefect_nb.exceptions import ConfigurationError, ObjectAlreadyExists, ObjectNotFound
from prefect_nb.model.redaction import MASK
from prefect_nb.service.text import did_you_mean
from prefect_nb.settings import Settings, objects, sources
from prefect_nb.settings.fields import WITHOUT_EFFECT, environment_names, setting_of
from prefect_nb.settings.profiles import POPULATED, Profile, ProfilesCollection


class Setting(msgspec.Struct, frozen=True):
    """One setting: its value, and what gives it that value (None: it has its default).

    `source` is the environment variable, the file, or the profile.
    """

    name: str
    value: Any
    source: str | None


def settings(*, show_secrets: bool = False) -> list[Setting]:
    """Every setting as it holds now, secret values masked; first the profile in use.

    Raises:
        ConfigurationError: naming the variable or file whose value does not fit.
    """
    resolved = sources.resolved()
    found = [
        Setting("profile", resolved.profile, _source(resolved.given.get("profile")) or str(resolved.profiles_path))
    ]
    for field in msgspec.structs.fields(Settings):
        if field.name == "profile":
            continue
        value = getattr(resolved.settings, field.name)
        if sources.is_secret(field.name) and value is not None and not show_secrets:
            value = MASK
        shown = str(value) if isinstance(value, Path) else value
        found.append(Setting(field.name, shown, _source(resolved.given.get(field.name))))
    return found


def _source(given: sources.Given | None) -> str | None:
    if given is None:
        return None
    return given.name if given.source == "environment" else given.source


def set_in_profile(values: Mapping[str, str]) -> tuple[Profile, list[str]]:
    """Set settings in the profile in use; with the variables of the environment that go before it.

    Raises:
        ConfigurationError: a name is no setting, cannot be set in a profile, or its value does not fit.
    """
    names = {_variable(name): value for name, value in values.items()}
    profile = objects.update_current_profile(names)
    given = sources.resolved().given
    settings_set = [setting_of(name) or name for name in names]
    hiding = [given[name].name for name in settings_set if name in given and given[name].source == "environment"]
    return profile, hiding


def unset_in_profile(names: Sequence[str]) -> Profile:
    """Take settings out of the profile in use.

    Raises:
        ConfigurationError: a name is no setting.
        ObjectNotFound: it is not set in the profile.
    """
    found = objects.load_profiles()
    name = sources.resolved().profile
    profile = found.update_profile(name, {})
    removed: dict[str, None] = {}
    for wanted in names:
        spelled = [key for key in profile.settings if _same(key, _variable(wanted))]
        if not spelled:
            raise ObjectNotFound(f"{wanted!r} is not set in profile {name!r}.")
        removed.update(dict.fromkeys(spelled))
    profile = found.update_profile(name, removed)
    objects.save_profiles(found)
    return profile


def validate() -> None:
    """Check the values of the profile in use and of every other source.

    Raises:
        ConfigurationError: naming the first that does not fit, or is no setting.
    """
    sources.resolved()
    profile = objects.load_current_profile()
    for name in profile.settings:
        _variable(name)
    objects.validate(profile)


def profiles() -> tuple[list[str], str]:
    """The profiles' names, and the one in use."""
    return sorted(objects.load_profiles().names), sources.resolved().profile


def profile(name: str | None = None) -> Profile:
    """One profile; None: the one in use.

    Raises:
        ObjectNotFound: there is none of that name.
    """
    return objects.load_current_profile() if name is None else _found(objects.load_profiles(), name)


def shown(profile: Profile) -> dict[str, str]:
    """A profile's settings with secret values masked."""
    values = profile.to_environment_variables()
    return {name: MASK if sources.is_secret(name) else value for name, value in values.items()}


def create_profile(name: str, copied: str | None = None) -> Profile:
    """Make a profile, empty or with another's settings.

    Raises:
        ObjectAlreadyExists: there is one of that name.
        ObjectNotFound: there is none to copy.
    """
    found = objects.load_profiles()
    if name in found.names:
        raise ObjectAlreadyExists(
            f"Profile {name!r} already exists. To create a new profile, remove the existing profile first: "
            f"`prefect-nb profile delete {name}`."
        )
    made = Profile(name=name, settings=dict(_found(found, copied).settings) if copied is not None else {})
    found.add_profile(made)
    objects.save_profiles(found)
    return made


def use_profile(name: str) -> None:
    """Make a profile the active one.

    Raises:
        ObjectNotFound: there is none of that name.
    """
    found = objects.load_profiles()
    _found(found, name)
    found.set_active(name)
    objects.save_profiles(found)


def delete_profile(name: str) -> None:
    """Delete a profile.

    Raises:
        ObjectNotFound: there is none of that name.
        ConfigurationError: it is the one in use.
    """
    found = objects.load_profiles()
    _found(found, name)
    if name == sources.resolved().profile:
        raise ConfigurationError(
            f"Profile {name!r} is the active profile. You must switch profiles before it can be deleted."
        )
    found.remove_profile(name)
    objects.save_profiles(found)


def rename_profile(name: str, new_name: str) -> None:
    """Give a profile another name; where it is the active one, it stays so.

    Raises:
        ObjectNotFound: there is none of that name.
        ObjectAlreadyExists: there is one of the new name.
    """
    found = objects.load_profiles()
    before = _found(found, name)
    if new_name in found.names:
        raise ObjectAlreadyExists(f"Profile {new_name!r} already exists.")
    found.add_profile(Profile(name=new_name, settings=dict(before.settings)))
    if found.active_name == name:
        found.set_active(new_name)
    found.remove_profile(name)
    objects.save_profiles(found)


def populate_profiles() -> list[str]:
    """Add the profiles this package offers, where they are missing; gives the names of those added."""
    found = objects.load_profiles(include_defaults=False)
    saved = sources.resolved().profiles_path.exists()
    added = [name for name in POPULATED if name not in found.names or not saved]
    for name in added:
        found.update_profile(name, POPULATED[name])
    objects.save_profiles(found)
    return added


def _found(found: ProfilesCollection, name: str) -> Profile:
    if name not in found.names:
        near = did_you_mean(name, found.names, 1)
        raise ObjectNotFound(f"Profile {name!r} not found.{near} `prefect-nb profile ls` lists them.")
    return found[name]


def _variable(name: str) -> str:
    """The name under which a profile holds a setting, from any of its spellings.

    Raises:
        ConfigurationError: it is no setting, or one that profiles are found by.
    """
    setting = setting_of(name)
    if setting in ("home", "profile", "profiles_path"):
        raise ConfigurationError(f"{name!r} cannot be set in a profile: profiles are found by it. Set the variable.")
    upper = name.upper()
    if setting is None and upper not in WITHOUT_EFFECT:
        raise ConfigurationError(f"Unknown setting name {name!r}.{sources.did_you_mean(upper)}")
    if setting is None or upper in environment_names(setting):
        return upper
    return environment_names(setting)[0]


def _same(one: str, other: str) -> bool:
    return one == other or (setting_of(one) is not None and setting_of(one) == setting_of(other))
