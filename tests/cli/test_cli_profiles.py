"""`prefect-nb profile` and `prefect-nb config`: settings kept by name."""

from pathlib import Path

import pytest

from prefect_nb.settings import get_settings


def test_a_profile_from_its_making_to_its_end(invoke, ask, prefect_nb_home: Path):
    assert ask("profile", "ls") == [{"name": "default", "active": True}]
    assert "prefect-nb profile use nightly" in invoke("profile", "create", "nightly").stdout
    assert invoke("profile", "use", "nightly").stdout == "Now using profile 'nightly'.\n"
    assert invoke("config", "set", "PREFECT_TASKS_DEFAULT_RETRIES=3", "logging_level=DEBUG").stdout.splitlines() == [
        "Set 'PREFECT_TASKS_DEFAULT_RETRIES' to '3'.",
        "Set 'logging_level' to 'DEBUG'.",
        "Updated profile 'nightly'.",
    ]
    assert (get_settings().task_default_retries, get_settings().logging_level) == (3, "DEBUG")
    assert ask("profile", "inspect") == {"PREFECT_TASKS_DEFAULT_RETRIES": "3", "PREFECT_NB_LOGGING_LEVEL": "DEBUG"}
    assert invoke("profile", "ls").stdout == "  default\n* nightly\n"

    assert invoke("profile", "create", "copy", "--from", "nightly").exit_code == 0
    assert ask("profile", "inspect", "copy") == ask("profile", "inspect", "nightly")

    assert "switch profiles" in invoke("profile", "delete", "nightly").stderr
    assert invoke("profile", "rename", "nightly", "night").exit_code == 0
    assert ask("profile", "ls")[-1] == {"name": "night", "active": True}
    invoke("profile", "use", "default")
    assert invoke("profile", "delete", "night").stdout == "Removed profile 'night'.\n"
    assert get_settings().task_default_retries == 0
    assert (prefect_nb_home / "profiles.toml").stat().st_mode & 0o777 == 0o600


def test_names_that_are_not_there_or_taken(invoke):
    invoke("profile", "create", "nightly")

    for command in (("use", "nightli"), ("delete", "nightli"), ("inspect", "nightli"), ("rename", "nightli", "x")):
        result = invoke("profile", *command)
        assert result.exit_code == 2
        assert "Did you mean 'nightly'?" in result.stderr
    assert "already exists" in invoke("profile", "create", "nightly").stderr
    assert "already exists" in invoke("profile", "rename", "default", "nightly").stderr
    assert invoke("profile", "create", "x", "--from", "y").exit_code == 2


def test_a_profile_for_one_command(invoke, ask):
    invoke("profile", "create", "loud")
    invoke("--profile", "loud", "config", "set", "PREFECT_NB_LOGGING_LEVEL=DEBUG")

    assert get_settings().logging_level == "INFO"
    shown = invoke("-p", "loud", "config", "view", "--output", "json")
    assert '"DEBUG"' in shown.stdout
    missing = invoke("--profile", "nope", "config", "view")
    assert missing.exit_code == 2
    assert "prefect-nb profile create nope" in missing.stderr
    assert invoke("--profile", "nope", "profile", "create", "nope").exit_code == 0


def test_setting_and_unsetting(invoke, ask, monkeypatch: pytest.MonkeyPatch):
    wrong = invoke("config", "set", "PREFECT_TASKS_DEFAULT_RETRYS=3")
    assert wrong.exit_code == 2
    assert "Did you mean PREFECT_TASKS_DEFAULT_RETRIES?" in wrong.stderr
    assert invoke("config", "set", "PREFECT_TASKS_DEFAULT_RETRIES").exit_code == 2
    assert invoke("config", "set", "PREFECT_TASKS_DEFAULT_RETRIES=many").exit_code == 2
    assert invoke("config", "set", "PREFECT_NB_HOME=/x").exit_code == 2
    assert ask("profile", "inspect") == {}

    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", "9")
    hidden = invoke("config", "set", "PREFECT_NB_TASK_DEFAULT_RETRIES=3").stdout
    assert "Run `unset PREFECT_TASKS_DEFAULT_RETRIES` to clear it." in hidden

    assert invoke("config", "unset", "PREFECT_TASKS_DEFAULT_RETRIES", "--yes").exit_code == 0
    assert ask("profile", "inspect") == {}
    assert "is not set in profile 'default'" in invoke("config", "unset", "PREFECT_TASKS_DEFAULT_RETRIES").stderr


def test_what_is_shown(invoke, ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.prefect_nb]\nrecovery_limit = 4\n")
    invoke("config", "set", "PREFECT_LOGGING_LEVEL=DEBUG")

    shown = ask("config", "view")

    assert shown["profile"]["value"] == "default"
    assert shown["logging_level"] == {"value": "DEBUG", "source": "profile default"}
    assert shown["recovery_limit"] == {"value": 4, "source": "pyproject.toml"}
    assert "commit_interval_ms" not in shown
    assert ask("config", "view", "--show-defaults")["commit_interval_ms"] == {"value": 5.0, "source": "default"}
    assert "pyproject.toml" not in invoke("config", "view", "--hide-sources").stdout


def test_secrets_are_masked(invoke, ask):
    assert "hunter22" not in invoke("config", "set", "PREFECT_API_KEY=hunter22").stdout
    assert ask("profile", "inspect") == {"PREFECT_API_KEY": "********"}


def test_validating(invoke, prefect_nb_home: Path):
    assert invoke("config", "validate").stdout == "Configuration valid!\n"
    prefect_nb_home.mkdir()
    (prefect_nb_home / "profiles.toml").write_text("[profiles.default]\nPREFECT_TASKS_DEFAULT_RETRIES = 'many'\n")
    from prefect_nb.settings import sources

    sources.refresh()
    assert invoke("config", "validate").exit_code == 2


def test_populating(invoke, ask):
    invoke("config", "set", "PREFECT_LOGGING_LEVEL=ERROR")

    assert "Added 'debug'." in invoke("profile", "populate-defaults").stdout

    assert {one["name"] for one in ask("profile", "ls")} == {"default", "debug"}
    assert ask("profile", "inspect", "default") == {"PREFECT_LOGGING_LEVEL": "ERROR"}
    assert "No changes" in invoke("profile", "populate-defaults").stdout


def test_blocks(invoke, ask, tmp_path: Path):
    (tmp_path / "warehouse.py").write_text(
        "from pydantic import SecretStr\nfrom prefect_nb.blocks.core import Block\n"
        'class Store(Block):\n    """A place.\n\n    Attributes:\n        url: x\n    """\n    url: str\n    key: SecretStr\n'
        "Store(url='u', key='hunter22').save('main')\n"
    )

    assert "registered 1 block: Store" in invoke("block", "register", "-f", str(tmp_path / "warehouse.py")).stdout
    assert invoke("block", "register").exit_code == 2
    assert [one["slug"] for one in ask("block", "type", "ls")] == ["store"]
    assert "url, key" in invoke("block", "type", "inspect", "store").stdout
    (listed,) = ask("block", "ls")
    assert listed["slug"] == "store/main"
    assert ask("block", "inspect", "store/main")["data"] == {"url": "u", "key": "********"}
    assert ask("block", "inspect", "--id", listed["id"]) == listed
    assert "Did you mean 'store/main'?" in invoke("block", "inspect", "store/mian").stderr
    assert invoke("block", "delete", "store/main").exit_code == 0
    assert invoke("block", "ls").stdout == "No blocks.\n"
    assert invoke("block", "type", "delete", "store").exit_code == 0
    assert invoke("block", "type", "ls").stdout == "No block types.\n"
