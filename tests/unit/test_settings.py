"""How names find settings, and how cheap it is to ask."""

import timeit

import msgspec
import pytest

from prefect_nb.settings import Settings, environment_names, get_settings, sources
from prefect_nb.settings.fields import WITHOUT_EFFECT, setting_of


@pytest.mark.parametrize("field", [field.name for field in msgspec.structs.fields(Settings)])
def test_every_name_of_a_setting_finds_it(field: str):
    assert [setting_of(name) for name in (field, field.upper(), *environment_names(field))] == [field] * (
        2 + len(environment_names(field))
    )


def test_ours_comes_first():
    assert environment_names("task_default_retries")[:2] == [
        "PREFECT_NB_TASK_DEFAULT_RETRIES",
        "PREFECT_TASKS_DEFAULT_RETRIES",
    ]


def test_what_has_no_effect_is_no_setting_of_ours():
    assert setting_of("PREFECT_API_URL") is None
    assert "PREFECT_API_URL" in WITHOUT_EFFECT


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("PREFECT_API_KEY", True),
        ("PREFECT_API_AUTH_STRING", True),
        ("ANY_TOKEN", True),
        ("PREFECT_LOGGING_LEVEL", False),
        ("PREFECT_HOME", False),
    ],
)
def test_secret_settings_are_known_by_their_names(name: str, secret: bool):
    assert sources.is_secret(name) is secret


def test_asking_again_costs_next_to_nothing():
    get_settings()
    seconds = min(timeit.repeat(get_settings, number=1000, repeat=5)) / 1000
    assert seconds < 20e-6
