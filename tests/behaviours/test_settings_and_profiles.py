"""Settings come from the environment, files of the project, and profiles; the first of these wins."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import prefect_nb.settings as module
from prefect_nb import task
from prefect_nb.exceptions import ConfigurationError
from prefect_nb.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_LOGGING_LEVEL,
    PREFECT_TASKS_DEFAULT_RETRIES,
    PREFECT_TEST_MODE,
    Profile,
    ProfilesCollection,
    get_current_settings,
    load_current_profile,
    load_profile,
    load_profiles,
    save_profiles,
    temporary_settings,
    update_current_profile,
    use_profile,
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a file of the project that is the working directory; settings are read anew."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def write(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(text)
        path.chmod(0o644)
        module.sources.refresh()
        return path

    return write


def retries() -> int:
    return get_current_settings().task_default_retries


class TestSources:
    def test_the_environment(self, monkeypatch: pytest.MonkeyPatch):
        assert retries() == 0
        monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", "2")
        assert retries() == 2
        monkeypatch.setenv("PREFECT_NB_TASK_DEFAULT_RETRIES", "3")
        assert retries() == 3
        monkeypatch.delenv("PREFECT_NB_TASK_DEFAULT_RETRIES")
        assert retries() == 2

    def test_an_older_name(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PREFECT_TASK_DEFAULT_RETRIES", "4")
        assert retries() == 4

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("prefect_nb.toml", "task_default_retries = 5"),
            ("prefect_nb.toml", "[tasks]\ndefault_retries = 5"),
            ("prefect.toml", "[tasks]\ndefault_retries = 5"),
            ("pyproject.toml", "[tool.prefect_nb]\ntask_default_retries = 5"),
            ("pyproject.toml", "[tool.prefect.tasks]\ndefault_retries = 5"),
            ("pyproject.toml", "[tool.prefect]\ntasks.default_retries = '5'"),
        ],
    )
    def test_files_of_the_project(self, project, name: str, text: str):
        project(name, text)
        assert retries() == 5

    def test_of_several_the_first_wins(self, project, monkeypatch: pytest.MonkeyPatch):
        update_current_profile({PREFECT_TASKS_DEFAULT_RETRIES: 1})
        assert retries() == 1
        project("pyproject.toml", "[tool.prefect.tasks]\ndefault_retries = 2\n")
        assert retries() == 2
        project(
            "pyproject.toml", "[tool.prefect.tasks]\ndefault_retries = 2\n[tool.prefect_nb]\ntask_default_retries=3"
        )
        assert retries() == 3
        project("prefect.toml", "[tasks]\ndefault_retries = 4")
        assert retries() == 4
        project("prefect_nb.toml", "task_default_retries = 5")
        assert retries() == 5
        monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", "6")
        assert retries() == 6

    def test_a_folder_inside_the_project(self, project, monkeypatch: pytest.MonkeyPatch):
        path = project("pyproject.toml", "[tool.prefect_nb]\ntask_default_retries = 5")
        inside = path.parent / "notebooks" / "deep"
        inside.mkdir(parents=True)
        monkeypatch.chdir(inside)
        module.sources.refresh()
        assert retries() == 5

    def test_prefects_own_unknown_settings_are_left_alone(self, project):
        project("prefect.toml", "[server]\nlogging_level = 'DEBUG'\n[api]\nurl = 'http://x'")
        get_current_settings()

    @pytest.mark.parametrize("name", ["prefect_nb.toml", "pyproject.toml"])
    def test_a_name_that_is_no_setting(self, project, name: str):
        head = "" if name == "prefect_nb.toml" else "[tool.prefect_nb]\n"
        project(name, f"{head}task_default_retry = 5")
        with pytest.warns(
            UserWarning, match="PREFECT_NB_TASK_DEFAULT_RETRY in .* Did you mean PREFECT_NB_TASK_DEFAULT"
        ):
            get_current_settings()

    def test_a_variable_that_is_no_setting(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PREFECT_NB_LOGING_LEVEL", "DEBUG")
        with pytest.warns(UserWarning, match="Did you mean PREFECT_NB_LOGGING_LEVEL"):
            get_current_settings()

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            (
                "prefect_nb.toml",
                "task_default_retries = 'many'",
                "PREFECT_NB_TASK_DEFAULT_RETRIES='many' in prefect_nb",
            ),
            ("prefect_nb.toml", "task_default_retries = ", "is no valid TOML"),
        ],
    )
    def test_what_does_not_fit_is_named(self, project, name: str, text: str, says: str):
        project(name, text)
        with pytest.raises(ConfigurationError, match=says):
            get_current_settings()

    @pytest.mark.parametrize("name", ["prefect_nb.toml", "prefect.toml", "pyproject.toml"])
    def test_a_file_that_everybody_can_write_is_ignored(self, project, name: str):
        path = project(name, "[tool.prefect_nb]\ntask_default_retries = 5\n[tasks]\ndefault_retries = 5")
        path.chmod(0o666)
        with pytest.warns(UserWarning, match=f"The settings in .*{name} are ignored: everybody can write it"):
            assert retries() == 0

    def test_one_without_settings_is_nobodys_business(self, project):
        project("pyproject.toml", "[project]\nname = 'x'").chmod(0o666)
        assert retries() == 0

    def test_profiles_that_everybody_can_write_are_ignored(self, prefect_nb_home: Path):
        update_current_profile({PREFECT_TASKS_DEFAULT_RETRIES: 3})
        (prefect_nb_home / "profiles.toml").chmod(0o602)
        module.sources.refresh()
        with pytest.warns(UserWarning, match="profiles.toml are ignored"):
            assert retries() == 0

    def test_a_dotenv_of_the_checkout_is_ignored(self, project):
        project(".env", "OTHER=1\nexport PREFECT_NB_TASK_DEFAULT_RETRIES=9\nPREFECT_NB_HOME=theirs\n")
        with pytest.warns(UserWarning, match="PREFECT_NB_HOME, PREFECT_NB_TASK_DEFAULT_RETRIES in .*.env is ignored"):
            assert retries() == 0

    def test_it_is_read_only_when_something_changed(self, monkeypatch: pytest.MonkeyPatch):
        before = get_current_settings()
        monkeypatch.setenv("SOMETHING_ELSE", "1")
        assert get_current_settings() is before
        monkeypatch.setenv("PREFECT_NB_TASK_DEFAULT_RETRIES", "1")
        assert get_current_settings() is not before


class TestTemporarySettings:
    def test_inside_and_after(self):
        with temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 3}) as settings:
            assert settings.task_default_retries == retries() == PREFECT_TASKS_DEFAULT_RETRIES.value() == 3
            with temporary_settings(updates={"PREFECT_TASKS_DEFAULT_RETRIES": 4}):
                assert retries() == 4
            assert retries() == 3
        assert retries() == 0

    def test_it_goes_before_the_environment(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PREFECT_NB_TASK_DEFAULT_RETRIES", "1")
        with temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 3}):
            assert retries() == 3
        assert retries() == 1

    def test_tasks_obey(self):
        with temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 3}):
            assert task(lambda: 1).retries == 3
        assert task(lambda: 1).retries == 0

    def test_every_kind_of_value(self, tmp_path: Path):
        updates = {
            PREFECT_HOME: tmp_path / "other",
            PREFECT_LOGGING_LEVEL: "DEBUG",
            "PREFECT_RESULTS_PERSIST_BY_DEFAULT": True,
            "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": None,
            "PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS": 0.5,
        }
        with temporary_settings(updates) as settings:
            assert settings.home == tmp_path / "other"
            assert settings.logging_level == "DEBUG"
            assert settings.results_persist_by_default is True
            assert settings.tasks_default_persist_result is None
            assert settings.task_default_retry_delay_seconds == 0.5

    def test_defaults(self, monkeypatch: pytest.MonkeyPatch):
        with temporary_settings(set_defaults={PREFECT_TASKS_DEFAULT_RETRIES: 3}):
            assert retries() == 3
        monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", "7")
        with temporary_settings(set_defaults={PREFECT_TASKS_DEFAULT_RETRIES: 3}):
            assert retries() == 7
        with temporary_settings(restore_defaults={PREFECT_TASKS_DEFAULT_RETRIES}):
            assert retries() == 0

    def test_other_threads_and_processes_have_them(self):
        seen: list[int] = []
        with temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 3}):
            thread = threading.Thread(target=lambda: seen.append(retries()))
            thread.start()
            thread.join()
            code = "from prefect_nb.settings import get_settings; print(get_settings().task_default_retries)"
            seen.append(int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))
        assert seen == [3, 3]

    def test_it_is_undone_when_something_is_raised(self):
        with pytest.raises(RuntimeError), temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 3}):
            raise RuntimeError
        assert retries() == 0
        assert "PREFECT_NB_TASK_DEFAULT_RETRIES" not in os.environ

    def test_a_value_that_does_not_fit(self):
        with pytest.raises(ConfigurationError), temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: "many"}):
            pass
        assert retries() == 0


class TestSettingObjects:
    def test_names_values_and_truth(self):
        assert PREFECT_TASKS_DEFAULT_RETRIES.name == "PREFECT_TASKS_DEFAULT_RETRIES"
        assert not PREFECT_TASKS_DEFAULT_RETRIES
        assert PREFECT_LOGGING_LEVEL.value() == PREFECT_LOGGING_LEVEL.default() == "INFO"
        assert PREFECT_HOME.value() == get_current_settings().home
        assert module.PREFECT_TASKS_DEFAULT_RETRIES == PREFECT_TASKS_DEFAULT_RETRIES
        assert len({PREFECT_HOME, module.PREFECT_HOME, PREFECT_LOGGING_LEVEL}) == 2

    def test_prefects_settings_that_mean_nothing_here_can_be_named(self):
        assert PREFECT_API_URL.value() is None
        assert PREFECT_TEST_MODE.value() is False
        with temporary_settings({PREFECT_API_URL: "http://x", PREFECT_TEST_MODE: True}):
            assert PREFECT_API_URL.value() == "http://x"
            assert PREFECT_TEST_MODE.value() is True
        assert PREFECT_API_URL.value() is None

    def test_others_do_not_exist(self):
        with pytest.raises(AttributeError):
            _ = module.PREFECT_NEVER_HEARD_OF
        with pytest.raises(ImportError):
            exec("from prefect_nb.settings import PREFECT_TASKS_DEFAULT_RETRYS")

    def test_nested_names(self):
        with temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 3}):
            settings = get_current_settings()
            assert settings.tasks.default_retries == 3
            assert settings.logging.level == "INFO"
            assert settings.tasks.runner.thread_pool_max_workers is None
            assert settings.api.url is None
            with pytest.raises(AttributeError):
                _ = settings.tasks.never_heard_of
            with pytest.raises(AttributeError):
                _ = settings.never_heard_of


class TestProfiles:
    def test_there_is_one_to_begin_with(self, prefect_nb_home: Path):
        assert load_profiles().names == {"default"}
        assert load_current_profile().name == "default"
        assert not (prefect_nb_home / "profiles.toml").exists()

    def test_the_active_one_counts(self):
        profiles = load_profiles()
        profiles.add_profile(Profile(name="busy", settings={PREFECT_TASKS_DEFAULT_RETRIES: 8}))
        save_profiles(profiles)
        assert retries() == 0
        profiles.set_active("busy")
        save_profiles(profiles)
        assert retries() == 8
        assert load_current_profile().settings == {"PREFECT_TASKS_DEFAULT_RETRIES": "8"}

    def test_one_for_a_process(self, monkeypatch: pytest.MonkeyPatch):
        save_profiles(
            ProfilesCollection(
                [Profile(name="default"), Profile(name="busy", settings={"PREFECT_NB_TASK_DEFAULT_RETRIES": 8})],
                active="default",
            )
        )
        monkeypatch.setenv("PREFECT_PROFILE", "busy")
        assert retries() == 8
        monkeypatch.setenv("PREFECT_PROFILE", "of-prefect")
        assert retries() == 0
        monkeypatch.setenv("PREFECT_NB_PROFILE", "missing")
        with pytest.raises(ConfigurationError, match="`prefect-nb profile create missing`"):
            get_current_settings()

    def test_one_for_a_block_of_code(self, monkeypatch: pytest.MonkeyPatch):
        busy = Profile(name="busy", settings={PREFECT_TASKS_DEFAULT_RETRIES: 8, PREFECT_LOGGING_LEVEL: "ERROR"})
        monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
        with use_profile(busy) as settings:
            assert (settings.task_default_retries, settings.logging_level) == (8, "DEBUG")
        with use_profile(busy, override_environment_variables=True) as settings:
            assert settings.logging_level == "ERROR"
        assert retries() == 0
        with pytest.raises(ValueError, match="'missing' not found"), use_profile("missing"):
            pass

    def test_updating_the_one_in_use(self, prefect_nb_home: Path):
        update_current_profile({PREFECT_TASKS_DEFAULT_RETRIES: 3, "PREFECT_LOGGING_LEVEL": "DEBUG"})
        assert retries() == 3
        update_current_profile({PREFECT_TASKS_DEFAULT_RETRIES: None})
        assert retries() == 0
        assert load_profile("default").settings == {"PREFECT_LOGGING_LEVEL": "DEBUG"}
        with pytest.raises(ConfigurationError, match="in profile default"):
            update_current_profile({PREFECT_TASKS_DEFAULT_RETRIES: "many"})
        assert load_profile("default").settings == {"PREFECT_LOGGING_LEVEL": "DEBUG"}

    def test_the_file_survives_odd_names_and_values(self, prefect_nb_home: Path):
        odd = 'a "b"\\ \n\t\x7f ü'
        collection = ProfilesCollection([Profile(name=odd, settings={"PREFECT_LOGGING_LEVEL": odd})], active=odd)
        module.profiles.write(prefect_nb_home / "p.toml", collection)
        assert module.profiles.read(prefect_nb_home / "p.toml") == collection

    def test_home_cannot_be_set_in_the_profile_that_lies_in_it(self, prefect_nb_home: Path):
        prefect_nb_home.mkdir()
        text = "[profiles.default]\nPREFECT_NB_HOME = '/elsewhere'\n"
        (prefect_nb_home / "profiles.toml").write_text(text)
        module.sources.refresh()
        with pytest.warns(UserWarning, match="PREFECT_NB_HOME in profile default is ignored"):
            assert get_current_settings().home == prefect_nb_home

    def test_another_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("PREFECT_NB_PROFILES_PATH", str(tmp_path / "mine.toml"))
        update_current_profile({PREFECT_TASKS_DEFAULT_RETRIES: 3})
        assert (tmp_path / "mine.toml").stat().st_mode & 0o777 == 0o600
        assert retries() == 3

    def test_collections(self):
        collection = ProfilesCollection([Profile(name="a", settings={"PREFECT_LOGGING_LEVEL": "X"})], active="a")
        assert collection.active_profile == collection["a"]
        with pytest.raises(ValueError, match="'b'"):
            collection.set_active("b")
        with pytest.raises(ValueError, match="already exists"):
            collection.add_profile(Profile(name="a"))
        collection.update_profile("a", {"PREFECT_LOGGING_LEVEL": None, PREFECT_HOME: "h"})
        assert collection.to_dict() == {"active": "a", "profiles": {"a": {"PREFECT_HOME": "h"}}}
        collection.remove_profile("a")
        assert collection.names == set()
        with pytest.raises(ValueError, match="'a'"):
            collection.remove_profile("a")
