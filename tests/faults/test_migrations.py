"""Steps of the schema: killed at each statement, taken by several processes at once, and seen by older code."""

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_nb.exceptions import StoreDamaged
from prefect_nb.interfaces import LogLine, RunQuery
from prefect_nb.store import crash_points, schema
from prefect_nb.store.database import Database
from prefect_nb.store.schema import HISTORY, LOGS, Schema
from prefect_nb.store.sqlite import SqliteStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that share what was imported")

STATEMENTS = sum(len(statements) for _, statements in (*HISTORY.steps[1:], *LOGS.steps[1:]))


def first_of(newest: Schema) -> Schema:
    """The tables as the first release made them."""
    return Schema(newest.name, newest.application_id, newest.steps[:1])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A home of the first release, with a run and a log line in it."""
    home = tmp_path / "old"
    home.mkdir(mode=0o700)
    for name, newest in (("prefect_nb.db", HISTORY), ("logs.db", LOGS)):
        database = Database(home / name, first_of(newest), "FULL")
        with database.transaction() as connection:
            if name == "logs.db":
                sql = "INSERT INTO log (at_us, level, name, flow_run_id, message) VALUES (1, 20, 'a', ?, 'kept')"
                connection.execute(sql, (bytes(16),))
            else:
                connection.execute("INSERT INTO flow (id, name, created_us) VALUES (?, 'kept', 1)", (bytes(16),))
        database.close()
    return home


def in_a_child(act: Callable[[], object]) -> int:
    """How a forked child ended that did this: its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def open_everything(home: Path) -> None:
    store = SqliteStore.open(home)
    store.logs()
    store.close()


def is_up_to_date(home: Path) -> bool:
    store = SqliteStore.open(home)
    try:
        assert store.check() == []
        assert store._value("SELECT name FROM flow") == "kept"
        assert [line.message for _, line in store.logs()] == ["kept"]
        store.write_logs([LogLine(1, 20, "a", "new")])
        assert store.flow_runs(RunQuery()) == []
        return store._value("PRAGMA user_version") == HISTORY.version
    finally:
        store.close()


def tables(path: Path) -> tuple[int, set[str]]:
    connection = sqlite3.connect(path)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return version, {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema") if sql}
    finally:
        connection.close()


def test_a_kill_at_any_statement_leaves_each_step_whole_or_undone(old: Path, tmp_path: Path) -> None:
    whole = {}
    for name, newest in (("prefect_nb.db", HISTORY), ("logs.db", LOGS)):
        for steps in range(1, len(newest.steps) + 1):
            path = tmp_path / f"{steps}-{name}"
            Database(path, Schema(newest.name, newest.application_id, newest.steps[:steps]), "FULL").close()
            whole[name, steps] = tables(path)[1]
    for nth in range(1, STATEMENTS + 1):
        home = tmp_path / f"killed-{nth}"
        shutil.copytree(old, home)

        def migrate(home: Path = home, nth: int = nth) -> None:
            crash_points._wanted, crash_points._passes_left = "after_migration_step", nth
            open_everything(home)

        assert in_a_child(migrate) == -signal.SIGKILL, nth
        for name in ("prefect_nb.db", "logs.db"):
            version, found = tables(home / name)
            assert {sql for sql in found if "_sqlite_migrations" not in sql} == {
                sql for sql in whole[name, version] if "_sqlite_migrations" not in sql
            }, (nth, name)
        assert is_up_to_date(home), nth
    assert in_a_child(lambda: open_everything(old)) == 0


def test_processes_that_migrate_at_once_do_it_once(old: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def migrate() -> None:
        while not go.exists():
            time.sleep(0.0005)
        open_everything(old)

    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                migrate()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    go.touch()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
    connection = sqlite3.connect(old / "prefect_nb.db")
    done = connection.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (HISTORY.name,)).fetchall()
    connection.close()
    assert sorted(name for (name,) in done) == [name for name, _ in HISTORY.steps]
    assert is_up_to_date(old)


def test_older_code_refuses_a_newer_file_and_leaves_it_alone(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_everything(old)
    before = (old / "prefect_nb.db").read_bytes()
    with monkeypatch.context() as older:
        older.setattr("prefect_nb.store.sqlite.HISTORY", first_of(HISTORY))
        with pytest.raises(StoreDamaged, match="newer prefect_nb"):
            SqliteStore.open(old)
    assert (old / "prefect_nb.db").read_bytes() == before
    assert is_up_to_date(old)


def test_steps_that_were_released_are_as_they_were() -> None:
    """A home made by any release goes through the same steps; changing one would leave two kinds of homes."""
    assert [name for name, _ in schema.HISTORY.steps][:1] == ["m001_history"]
    names = [name for name, _ in (*HISTORY.steps, *LOGS.steps)]
    assert len(set(names)) == len(names)
    for which in (HISTORY, LOGS):
        assert [name[:4] for name, _ in which.steps] == [f"m{number:03}" for number in range(1, len(which.steps) + 1)]
