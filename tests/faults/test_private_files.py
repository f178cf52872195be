"""Whatever the umask: the home is for its owner alone, and what is not what it seems is refused."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_nb.exceptions import PrefectException, StoreUnavailable
from prefect_nb.home import Home
from prefect_nb.interfaces import LogLine

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes of files are a matter of Unix")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")

# Prints the mode of everything there is while it is in use: databases with their logs, locks, results, key, profiles.
_STORY = """
import os, stat, sys
from pathlib import Path
os.umask(int(sys.argv[1], 8))
from pydantic import SecretStr
from prefect_nb import flow, task, get_run_logger
from prefect_nb.home import Home
from prefect_nb.settings import update_current_profile

update_current_profile({"PREFECT_LOGGING_LEVEL": "DEBUG"})

@task(persist_result=True, cache_key_fn=lambda *_: "key")
def keep():
    print("shown")
    return [1, 2, 3]

@flow(persist_result=True, durable=True)
def work(token: SecretStr):
    get_run_logger().info("working")
    return keep()

work("a secret token")
home = Home.current()
home.ledger.commit()
for path in [home.path, *home.path.rglob("*")]:
    print(oct(stat.S_IMODE(path.lstat().st_mode)), "dir" if path.is_dir() else "file", path.name)
"""


def use_everything() -> None:
    home = Home.current()
    assert home.owner_id
    home.store.flow_id("f")
    home.store.write_logs([LogLine(1, 20, "n", "m")])
    home.results.put([1, 2, 3])


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_every_file_is_private(umask: str, prefect_nb_home: Path):
    told = subprocess.run([sys.executable, "-c", _STORY, umask], capture_output=True, text=True, check=True)
    left = {path.name: oct(stat.S_IMODE(path.lstat().st_mode)) for path in prefect_nb_home.rglob("*") if path.is_file()}

    entries = [line.split(" ", 2) for line in told.stdout.splitlines() if line.startswith("0o")]
    names = {name for _, _, name in entries}
    assert {"prefect_nb.db", "prefect_nb.db-wal", "logs.db", "secret.key", "profiles.toml"} <= names
    assert [entry for entry in entries if entry[1] == "dir" and entry[0] != "0o700"] == []
    assert [entry for entry in entries if entry[1] == "file" and entry[0] != "0o600"] == []
    assert {name: mode for name, mode in left.items() if mode != "0o600"} == {}


def test_an_open_home_is_closed(prefect_nb_home: Path):
    prefect_nb_home.mkdir(mode=0o777)
    prefect_nb_home.chmod(0o777)

    Home.current()

    assert stat.S_IMODE(prefect_nb_home.stat().st_mode) == 0o700


def test_a_database_others_can_read_is_closed(prefect_nb_home: Path):
    Home.current().close()
    (prefect_nb_home / "prefect_nb.db").chmod(0o644)

    Home.current()

    assert stat.S_IMODE((prefect_nb_home / "prefect_nb.db").stat().st_mode) == 0o600


@as_root
def test_somebody_elses_home(prefect_nb_home: Path):
    prefect_nb_home.mkdir()
    os.chown(prefect_nb_home, 12345, 12345)

    with pytest.raises(StoreUnavailable, match="belongs to user 12345"):
        Home.current()
    assert list(prefect_nb_home.iterdir()) == []


@as_root
@pytest.mark.parametrize("name", ["prefect_nb.db", "logs.db"])
def test_somebody_elses_database(prefect_nb_home: Path, name: str):
    Home.current().close()
    os.chown(prefect_nb_home / name, 12345, 12345)

    with pytest.raises(StoreUnavailable, match="belongs to user 12345"):
        Home.current().store.logs()


def test_a_home_that_is_a_link(prefect_nb_home: Path, tmp_path: Path):
    (tmp_path / "theirs").mkdir()
    prefect_nb_home.symlink_to(tmp_path / "theirs")

    with pytest.raises(StoreUnavailable, match="is a symbolic link"):
        Home.current()
    assert list((tmp_path / "theirs").iterdir()) == []


@pytest.mark.parametrize("name", ["prefect_nb.db", "prefect_nb.db.lock", "logs.db", "logs.db.lock"])
def test_a_file_that_is_a_link(prefect_nb_home: Path, tmp_path: Path, name: str):
    Home.current().close()
    target = tmp_path / "target"
    (prefect_nb_home / name).rename(target)
    (prefect_nb_home / name).symlink_to(target)
    before = target.read_bytes()

    with pytest.raises(PrefectException):
        use_everything()
    assert target.read_bytes() == before


@pytest.mark.parametrize("name", ["owners", "results", "locks", "backups"])
def test_a_folder_that_is_a_link(prefect_nb_home: Path, tmp_path: Path, name: str):
    prefect_nb_home.mkdir(mode=0o700)
    (tmp_path / "theirs").mkdir()
    (prefect_nb_home / name).symlink_to(tmp_path / "theirs")

    with pytest.raises(PrefectException):
        use_everything()
    assert list((tmp_path / "theirs").rglob("*")) == []


@as_root
def test_another_user_was_there_first_in_a_folder_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As in /tmp: a home that somebody else has made ready for us, with a database in it."""
    everybody = tmp_path / "tmp"
    everybody.mkdir()
    everybody.chmod(0o1777)
    home = everybody / "prefect_nb"
    monkeypatch.setenv("PREFECT_NB_HOME", str(home))
    home.mkdir(mode=0o777)
    (home / "prefect_nb.db").touch()
    for path in (home, home / "prefect_nb.db"):
        os.chown(path, 12345, 12345)

    with pytest.raises(StoreUnavailable, match="belongs to user 12345"):
        Home.current()
