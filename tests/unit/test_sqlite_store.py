"""SQLite's own obligations: damage is seen, files are private, a crash leaves all or nothing, processes take turns."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import prefect_nb
from prefect_nb.exceptions import PrefectException, StorageFull, StoreDamaged, StoreUnavailable
from prefect_nb.interfaces import Entry, LogLine, RunQuery
from prefect_nb.model.events import StateRecorded, TaskRunCreated, apply
from prefect_nb.model.runs import TaskRun
from prefect_nb.model.states import StateType
from prefect_nb.store import database, writer_lock
from prefect_nb.store.files import network_file_system
from prefect_nb.store.schema import HISTORY, Schema, migrate
from prefect_nb.store.sqlite import SqliteStore

ROOT = str(Path(prefect_nb.__file__).parents[1])
NOW = 1_790_000_000_000_000
_clock = count(NOW, 1000)
posix = pytest.mark.skipif(os.name == "nt", reason="modes, signals and forks")


def task_run(flow_run_id: UUID | None = None, name: str = "task") -> list[Entry]:
    """A whole task run: created, running, completed."""
    run = TaskRun(id=uuid4(), name=name, state_id=uuid4(), flow_run_id=flow_run_id, created_us=next(_clock))
    created = TaskRunCreated(run)
    entries = [Entry(apply(None, created), created, flow_run_id)]
    for type_ in (StateType.RUNNING, StateType.COMPLETED):
        event = StateRecorded(run.id, type_, type_.value.capitalize(), next(_clock), uuid4())
        entries.append(Entry(apply(entries[-1].run, event), event, flow_run_id))
    return entries


def write_many(store: SqliteStore, runs: int) -> None:
    store.write([entry for _ in range(runs) for entry in task_run()], {})


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in another process."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": ROOT} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(home)
    yield opened
    opened.close()


@pytest.fixture
def file(home: Path) -> Path:
    """The file of a history of 200 runs that was closed in good order."""
    opened = SqliteStore.open(home)
    write_many(opened, 200)
    opened.close()
    return home / "prefect_nb.db"


# -- damage


def _half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _noise_in_the_middle(file: Path) -> None:
    with file.open("r+b") as stream:
        for page in range(3, 40):
            stream.seek(page * 4096)
            stream.write(bytes(range(256)) * 16)


def _all_noise(file: Path) -> None:
    file.write_bytes(b"\xa5" * file.stat().st_size)


def _magic(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.write(b"NotSQLite format")


def _text(file: Path) -> None:
    file.write_text("just a text\n" * 1000)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _newer(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _another_program(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA application_id = 7")
    connection.close()


def _log_without_database(file: Path) -> None:
    file.rename(file.with_name("prefect_nb.db-wal"))


def _backup_without_database(file: Path) -> None:
    (file.parent / "backups").mkdir()
    file.rename(file.parent / "backups" / "prefect_nb-2030-01-01.db")


DAMAGES = [
    (_half, "prefect-nb doctor"),
    (_noise_in_the_middle, "prefect-nb doctor"),
    (_all_noise, "not a database"),
    (_magic, "not a database"),
    (_text, "not a database"),
    (_empty, "empty"),
    (_directory, "not a file"),
    (_newer, "newer prefect_nb"),
    (_another_program, "not made by prefect_nb"),
    (_log_without_database, "prefect_nb.db-wal"),
    (_backup_without_database, "prefect_nb-2030"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_file_is_refused_by_name_and_left_as_it_is(file: Path, damage: object, says: str) -> None:
    damage(file)  # type: ignore[operator]
    before = {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()}
    with pytest.raises(StoreDamaged) as caught:
        SqliteStore.open(file.parent)
    assert str(file) in str(caught.value)
    assert says in str(caught.value)
    after = {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()}
    assert {path: data for path, data in after.items() if data and not path.name.endswith("-shm")} == {
        path: data for path, data in before.items() if data
    }


def test_a_damaged_file_with_a_log_beside_it_keeps_its_log(home: Path) -> None:
    killed = "import os, sys; from pathlib import Path; from prefect_nb.store.sqlite import SqliteStore\n"
    killed += "store = SqliteStore.open(Path(sys.argv[1])); store.flow_id('kept'); os.kill(os.getpid(), 9)"
    assert python(killed, home).returncode == -signal.SIGKILL
    wal = home / "prefect_nb.db-wal"
    log = wal.read_bytes()
    assert log
    (home / "prefect_nb.db").write_bytes(b"")
    with pytest.raises(StoreDamaged, match="empty"):
        SqliteStore.open(home)
    assert wal.read_bytes() == log


def test_damage_found_while_reading_says_so(file: Path) -> None:
    opened = SqliteStore.open(file.parent)
    with opened._history.reading():  # this connection has the pages in its cache; the next one reads the file
        _noise_in_the_middle(file)
        with pytest.raises(StoreDamaged, match="doctor"):
            opened.task_runs(RunQuery(limit=1000))
        assert opened.check()
    opened.close()


def test_a_damaged_log_file_does_not_touch_the_history(store: SqliteStore, home: Path) -> None:
    (home / "logs.db").write_text("no database")
    with pytest.raises(StoreDamaged, match=r"logs\.db"):
        store.write_logs([LogLine(NOW, 20, "a", "b")])
    write_many(store, 1)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE task_run SET events = 1",
        "DELETE FROM task_run",
        "DELETE FROM event",
    ],
)
def test_a_run_whose_row_and_events_disagree_is_named_when_written(home: Path, damage: str) -> None:
    entries, others = task_run(UUID(int=1), "odd one"), task_run(UUID(int=1))
    opened = SqliteStore.open(home)
    opened.write(entries[:2], {})
    with sqlite3.connect(home / "prefect_nb.db") as connection:
        connection.execute(damage)
    connection.close()

    with pytest.raises(StoreDamaged, match=rf"'odd one' \({entries[0].run.id}\).*doctor --mend"):
        opened.write([*others, *(entries if damage == "DELETE FROM event" else entries[2:])], {})

    assert opened.task_run(others[0].run.id) is None
    opened.close()


def test_an_unreadable_row_is_named_when_listed(file: Path) -> None:
    opened = SqliteStore.open(file.parent)
    (run,) = opened.task_runs(RunQuery(limit=1))
    for body in ("'{'", "'{}'", "CAST(x'7bff' AS TEXT)"):
        with sqlite3.connect(file) as connection:
            connection.execute(f"UPDATE task_run SET body = {body} WHERE id = ?", (run.id.bytes,))
        connection.close()
        named = "prefect_nb.db" if "CAST" in body else f"{run.id}.*doctor --mend"
        for ask in (
            lambda: opened.task_runs(RunQuery()),
            lambda: opened.task_run(run.id),
            lambda: opened.resolve_run(str(run.id)),
        ):
            with pytest.raises(StoreDamaged, match=named):
                ask()
    assert [str(run.id) in problem.where for problem in opened.check()] == [True]
    assert opened.rebuild(run.id)
    assert opened.task_run(run.id) == run
    assert opened.check() == []
    opened.close()


def test_what_is_not_all_there_is_not_rebuilt(file: Path) -> None:
    opened = SqliteStore.open(file.parent)
    gap, unreadable = opened.task_runs(RunQuery(limit=2))
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM event WHERE number = 1 AND run_id = ?", (gap.id.bytes,))
        connection.execute("UPDATE event SET body = '{' WHERE number = 1 AND run_id = ?", (unreadable.id.bytes,))
    connection.close()

    assert not opened.rebuild(gap.id)
    assert not opened.rebuild(unreadable.id)
    assert opened.task_run(gap.id) == gap
    with pytest.raises(StoreDamaged, match=str(unreadable.id)):
        opened.events(unreadable.id)
    opened.close()


def test_the_sqlite_in_use_is_told(store: SqliteStore) -> None:
    assert store.describe()["version"] == sqlite3.sqlite_version


def test_doctor_sees_rows_that_do_not_follow_from_their_events(file: Path) -> None:
    connection = sqlite3.connect(file)
    ids = [UUID(bytes=id) for (id,) in connection.execute("SELECT id FROM task_run LIMIT 4")]
    connection.execute("UPDATE task_run SET body = replace(body, 'COMPLETED', 'FAILED') WHERE id = ?", (ids[0].bytes,))
    connection.execute("UPDATE task_run SET name = 'other' WHERE id = ?", (ids[1].bytes,))
    connection.execute("DELETE FROM event WHERE run_id = ? AND number = 1", (ids[2].bytes,))
    connection.execute("DELETE FROM task_run WHERE id = ?", (ids[3].bytes,))
    connection.commit()
    connection.close()
    opened = SqliteStore.open(file.parent)
    problems = {problem.where: problem.what for problem in opened.check()}
    opened.close()
    assert len(problems) == 4
    for id, what in zip(ids, ("events say", "columns", "gaps", "no row"), strict=True):
        assert [what in problems[where] for where in problems if str(id) in where] == [True]


# -- the home directory


@posix
@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_everything_is_private_whatever_the_umask(home: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        opened = SqliteStore.open(home)
        write_many(opened, 3)
        opened.write_logs([LogLine(NOW, 20, "a", "b")])
        opened.logs()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*")}
        opened.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {"prefect_nb.db", "prefect_nb.db-wal", "prefect_nb.db-shm", "logs.db", "logs.db-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}


@posix
def test_a_home_that_was_open_to_others_is_closed(file: Path) -> None:
    file.chmod(0o644)
    file.parent.chmod(0o755)
    SqliteStore.open(file.parent).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_in_the_place_of_the_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreUnavailable, match="PREFECT_NB_HOME"):
            SqliteStore.open(home)


@posix
def test_symbolic_links_are_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.parent)
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        SqliteStore.open(tmp_path / "link")
    file.rename(tmp_path / "moved.db")
    file.symlink_to(tmp_path / "moved.db")
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        SqliteStore.open(file.parent)
    file.unlink()
    lock = file.with_name("prefect_nb.db.lock")
    lock.unlink()
    lock.symlink_to(tmp_path / "moved.db")
    with pytest.raises(StoreUnavailable, match="lock"):
        SqliteStore.open(file.parent)


@posix
def test_what_belongs_to_another_user_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(StoreUnavailable, match=f"belongs to user {me}"):
        SqliteStore.open(file.parent)


@posix
def test_a_read_only_home_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # for root every directory is writable
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    file.parent.chmod(0o500)
    # The mode is set right by ourselves where that is possible; on a read-only file system it is not.
    monkeypatch.setattr(os, "chmod", lambda *arguments, **options: None)
    with pytest.raises(StoreUnavailable, match="read-only"):
        SqliteStore.open(file.parent)


def test_a_home_removed_in_mid_run_is_noticed(store: SqliteStore, home: Path) -> None:
    write_many(store, 1)
    shutil.rmtree(home)
    with pytest.raises(StoreUnavailable, match="removed"):
        write_many(store, 1)


def test_a_full_disk_keeps_what_was_committed_and_goes_on_when_there_is_room(store: SqliteStore) -> None:
    write_many(store, 10)
    with store._history.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [entry for _ in range(500) for entry in task_run()]
    with pytest.raises(StorageFull, match="Free some space"):
        store.write(many, {})
    assert len(store.task_runs(RunQuery(limit=1000))) == 10
    assert store.check() == []
    with store._history.transaction() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    store.write(many, {})
    assert len(store.task_runs(RunQuery(limit=1000))) == 510


def test_network_file_systems_are_told_by_their_mount() -> None:
    mounts = (
        "/dev/vda / ext4 rw 0 0\nserver:/srv /srv nfs4 rw 0 0\ntmpfs /srv/me/fast tmpfs rw 0 0\n"
        "//nas/share /mnt/the\\040share cifs rw 0 0\nhost:/x /srv/me/ssh fuse.sshfs rw 0 0\n"
    )
    expected = {
        "/var/x": None,
        "/srv/me": "nfs4",
        "/srvs": None,
        "/srv/me/fast/x": None,
        "/mnt/the share/x": "cifs",
        "/srv/me/ssh": "fuse.sshfs",
    }
    assert {path: network_file_system(Path(path), mounts) for path in expected} == expected


def test_a_network_file_system_gets_a_journal_that_works_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "network_file_system", lambda path: "nfs4")
    opened = SqliteStore.open(home)
    assert "network file system (nfs4)" in caplog.text
    write_many(opened, 2)
    assert not (home / "prefect_nb.db-wal").exists()
    assert opened.check() == []
    opened.close()


# -- crashes

_SCRIPT = f"""
import sys
from pathlib import Path
from uuid import UUID
sys.path.insert(0, {str(Path(__file__).parent)!r})
from prefect_nb.model.events import FlowRunCreated
from prefect_nb.model.runs import FlowRun
from test_sqlite_store import *
store = SqliteStore.open(Path(sys.argv[1]))
flow = FlowRunCreated(FlowRun(id=UUID(int=1), name="flow", created_us=NOW, owner_id=UUID(int=2)))
store.write([Entry(apply(None, flow), flow, UUID(int=1))], {{}})
store.write(task_run(UUID(int=1))[:2], {{}})
store.claim(UUID(int=1), UUID(int=3), NOW, 0)
store.write(task_run(UUID(int=1))[:2], {{}})
store.crash([UUID(int=3)], NOW, "gone")
for _ in range(20):
    write_many(store, 200)
"""


@posix
@pytest.mark.parametrize(
    ("point", "states"),
    [
        ("after_migration_step:5", None),
        ("before_commit", None),
        ("after_commit", ["Pending"]),
        ("before_claim_commit", ["Pending"]),
        ("before_crash_commit", ["Pending"]),
        ("before_checkpoint", ["Crashed"]),
    ],
)
def test_a_kill_leaves_a_transaction_whole_or_not_at_all(home: Path, point: str, states: list[str] | None) -> None:
    died = python(_SCRIPT, home, PREFECT_NB_CRASH_AT=point)
    assert died.returncode == -signal.SIGKILL, died.stderr
    opened = SqliteStore.open(home)
    assert opened.check() == []
    assert [run.state_name for run in opened.flow_runs(RunQuery())] == (states or [])
    if point == "before_claim_commit":
        assert opened.count_task_states(UUID(int=1)) == {"Running": 1}
        assert opened.flow_runs(RunQuery())[0].epoch == 1
    if point == "before_crash_commit":
        assert opened.count_task_states(UUID(int=1)) == {"Running": 1, "Crashed": 1}
    write_many(opened, 1)
    opened.close()
    assert not list(home.glob("*.new*"))
    assert not list(home.glob(".*.new*"))


def test_a_failing_migration_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = ("m002_notes", ("CREATE TABLE note (id INTEGER PRIMARY KEY) STRICT", "INSERT INTO note VALUES (1)"))
    bad = ("m002_notes", (*good[1], "INSERT INTO missing VALUES (1)"))
    for step, fails in ((bad, True), (good, False)):
        newer = Schema(HISTORY.name, HISTORY.application_id, (*HISTORY.steps, step))
        monkeypatch.setattr("prefect_nb.store.sqlite.HISTORY", newer)
        if fails:
            with pytest.raises(StoreUnavailable, match="missing"):
                SqliteStore.open(file.parent)
            connection = sqlite3.connect(file)
            assert connection.execute("PRAGMA user_version").fetchone() == (HISTORY.version,)
            assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'note'").fetchone() == (0,)
            connection.close()
        else:
            opened = SqliteStore.open(file.parent)
            assert opened._rows("SELECT id FROM note") == [(1,)]
            opened.close()
    monkeypatch.setattr("prefect_nb.store.sqlite.HISTORY", HISTORY)
    with pytest.raises(StoreDamaged, match="newer"):
        SqliteStore.open(file.parent)


def test_migrating_twice_is_migrating_once() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for _ in range(2):
        migrate(connection, HISTORY)
    assert connection.execute("PRAGMA user_version").fetchone() == (HISTORY.version,)
    connection.close()


# -- together


@posix
def test_two_processes_and_their_threads_write_at_once_without_an_error(home: Path) -> None:
    code = f"""
import sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_sqlite_store import *
store = SqliteStore.open(Path(sys.argv[1]))
def work():
    for _ in range(100):
        write_many(store, 1)
        store.task_runs(RunQuery(limit=5))
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
store.close()
"""
    results: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: results.append(python(code, home))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 2
    opened = SqliteStore.open(home)
    assert opened._value("SELECT count(*) FROM task_run") == 400
    assert opened.check() == []
    assert [change.cursor for change in opened.changes(0, limit=5000)] == list(range(1, 1201))
    opened.close()


@posix
def test_a_writer_that_was_stopped_is_named(
    home: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = "import sys; from pathlib import Path; from prefect_nb.store.sqlite import SqliteStore\n"
    code += "store = SqliteStore.open(Path(sys.argv[1]))\nwith store._history.transaction(): print('in', flush=True); sys.stdin.read()"
    monkeypatch.setattr(writer_lock, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(writer_lock, "_REPORT_SECONDS", 0.01)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ROOT},
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match=f"process {process.pid}"):
            write_many(store, 1)
        assert f"held by process {process.pid}" in caplog.text
        assert store.task_runs(RunQuery()) == [], "reading waits for nobody"
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        process.wait()
    write_many(store, 1)


def test_two_stores_of_one_process_share_a_home(store: SqliteStore, home: Path) -> None:
    other = SqliteStore.open(home)
    write_many(other, 1)
    write_many(store, 1)
    other.close()
    write_many(store, 1)
    assert len(store.task_runs(RunQuery())) == 3


@posix
def test_a_forked_child_cannot_use_what_its_parent_opened(home: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from prefect_nb.exceptions import StoreUnavailable
from prefect_nb.store.sqlite import SqliteStore
home = Path(sys.argv[1])
store = SqliteStore.open(home)
store.flow_id("a")
child = os.fork()
if child == 0:
    refused = 0
    for use in (lambda: store.flow_id("b"), store.owners, store.check):
        try:
            use()
        except StoreUnavailable as error:
            refused += "spawn" in str(error)
    store.close()
    own = SqliteStore.open(home)
    own.flow_id("b")
    own.close()
    SqliteStore.open(home / "another").close()
    os._exit(refused)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
store.flow_id("c")
assert store.check() == []
store.close()
"""
    result = python(code, home)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_log_is_emptied_when_it_has_grown_and_nobody_reads(
    store: SqliteStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CHECKPOINT_BYTES", 200_000)
    store._history._checkpoint_at = 200_000
    wal = home / "prefect_nb.db-wal"
    sizes = []
    with store._history.reading() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM task_run").fetchall()
        for _ in range(20):
            write_many(store, 50)
            sizes.append(wal.stat().st_size)
    assert max(sizes) > 400_000, "a reader in mid-query keeps it from being emptied, and is not waited for"
    for _ in range(20):
        write_many(store, 50)
        sizes.append(wal.stat().st_size)
    assert 0 in sizes
    assert store.check() == []


def test_settings_of_the_connection(store: SqliteStore) -> None:
    def settings(connection: sqlite3.Connection) -> dict[str, object]:
        names = (
            "journal_mode",
            "synchronous",
            "foreign_keys",
            "trusted_schema",
            "cell_size_check",
            "wal_autocheckpoint",
        )
        return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in (*names, "busy_timeout")}

    with store._history.transaction() as connection:
        written = settings(connection)
    with store._history.reading() as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM event")
    assert written == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "wal_autocheckpoint": 0,
        "busy_timeout": 30000,
    }
    with store._log_database().transaction() as connection:
        assert settings(connection) == written | {"synchronous": 1}


def test_log_text_that_utf_8_cannot_express_is_kept_readable(store: SqliteStore) -> None:
    store.write_logs([LogLine(NOW, 20, "a", "caf\udce9 é")])
    assert store.logs()[0][1].message == "caf\\udce9 é"


@pytest.mark.parametrize(
    "query",
    [
        RunQuery(),
        RunQuery(flow_run_id=uuid4()),
        RunQuery(flow_run_id=uuid4(), before=uuid4()),
        RunQuery(ids=(uuid4(), uuid4())),
        RunQuery(task_key="t"),
        RunQuery(parent_id=uuid4()),
        RunQuery(owner_id=uuid4()),
        RunQuery(state_types=(StateType.FAILED, StateType.RUNNING)),
        RunQuery(state_types=(StateType.RUNNING,), flow_run_id=uuid4()),
        RunQuery(flow_name="f"),
    ],
    ids=lambda query: "-".join(
        name for name in query.__struct_fields__ if getattr(query, name) != getattr(RunQuery(), name)
    ),
)
def test_listing_goes_by_an_index(store: SqliteStore, query: RunQuery) -> None:
    for list_runs, table in ((store.flow_runs, "flow_run"), (store.task_runs, "task_run")):
        statements: list[str] = []
        with store._history.reading() as connection:
            connection.set_trace_callback(statements.append)
        list_runs(query)
        with store._history.reading() as connection:
            connection.set_trace_callback(None)
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statements[-1]}")]
        scans = [step for step in plan if step.startswith("SCAN") and "USING INDEX" not in step]
        assert scans == [], f"{table}: {plan}"


def test_a_batch_is_left_out_whole_when_its_block_raises(store: SqliteStore) -> None:
    class Surprise(PrefectException):
        pass

    def surprised() -> None:
        with store._history.transaction() as connection:
            connection.execute("INSERT INTO flow VALUES (x'00', 'lost', 0)")
            raise Surprise("in mid-transaction")

    with pytest.raises(Surprise):
        surprised()
    assert store._rows("SELECT * FROM flow") == []
    write_many(store, 1)
