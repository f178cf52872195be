"""The settings: what they are, what sets them, and profiles of them.

from prefect_nb.settings import PREFECT_TASKS_DEFAULT_RETRIES, get_current_settings, temporary_settings

with temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 3}):
    get_current_settings().tasks.default_retries  # 3
"""

from typing import Any

from prefect_nb.settings.fields import Settings, environment_names
from prefect_nb.settings.sources import get_settings

_IN_OBJECTS = frozenset(
    {
        "Setting",
        "load_current_profile",
        "load_profile",
        "load_profiles",
        "save_profiles",
        "temporary_settings",
        "update_current_profile",
        "use_profile",
    }
)
_IN_PROFILES = frozenset({"Profile", "ProfilesCollection"})

get_current_settings = get_settings

__all__ = ["Settings", "environment_names", "get_current_settings", "get_settings"]


def __getattr__(name: str) -> Any:
    if name in _IN_PROFILES:
        from prefect_nb.settings import profiles

        return getattr(profiles, name)
    if name in _IN_OBJECTS or name.startswith("PREFECT_"):
        from prefect_nb.settings import objects

        found = objects.setting_object(name) if name.startswith("PREFECT_") else getattr(objects, name)
        if found is not None:
            return found
    raise AttributeError(f"module 'prefect_nb.settings' has no attribute {name!r}")
