"""What doctor finds, and what it mends."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from prefect_nb import flow, task
from prefect_nb.exceptions import StoreDamaged
from prefect_nb.home import Home, close_all
from prefect_nb.interfaces import Owner
from prefect_nb.results.remote import RemoteResultStore
from prefect_nb.service import history
from prefect_nb.service.doctor import Finding, _sqlite_version, examine


@task(persist_result=True)
def kept(x: int) -> int:
    return x


@flow
def work() -> list[int]:
    return [kept(1), kept(2)]


@pytest.fixture
def home(prefect_nb_home: Path) -> Path:
    """A home with one run in it, closed."""
    work()
    close_all()
    return prefect_nb_home


def wrong(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if not finding.harmless]


def edit(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "prefect_nb.db")) as connection, connection:
        assert connection.execute(statement).rowcount > 0


def age(file: Path) -> None:
    os.utime(file, (1_000_000_000, 1_000_000_000))


def test_no_home_is_made(prefect_nb_home: Path):
    assert examine().healthy
    assert not prefect_nb_home.exists()


def test_a_healthy_home(home: Path):
    report = examine()

    assert wrong(report.findings) == []
    assert (report.flow_runs, report.task_runs, report.results) == (1, 2, 2)


EDITS = [
    "UPDATE flow_run SET body = replace(body, 'COMPLETED', 'FAILED')",
    "UPDATE flow_run SET state_name = 'Failed'",
    "UPDATE flow_run SET body = '{'",
    "UPDATE task_run SET body = '{'",
    "UPDATE task_run SET body = CAST(x'7bff' AS TEXT)",
    "UPDATE task_run SET name = 'another', events = 99, start_us = NULL",
    "DELETE FROM flow_run",
    "DELETE FROM task_run",
]


@pytest.mark.parametrize("statement", EDITS)
def test_a_row_edited_by_hand_is_found_and_rebuilt(home: Path, statement: str):
    before = rows(home)
    edit(home, statement)

    found = examine()
    assert not found.healthy
    assert all("doctor --mend" in f.problem.mend for f in wrong(found.findings) if "run " in f.problem.where)
    mended = examine(mend=True)
    assert mended.healthy
    assert any(finding.mended for finding in mended.findings)
    assert wrong(examine().findings) == []
    close_all()
    assert rows(home) == before  # the log of events is as it was, too


def rows(home: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(home / "prefect_nb.db")) as connection:
        return [
            sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)
            for table in ("flow_run", "task_run", "event")
        ]


def test_many_lost_rows_are_rebuilt_at_once(home: Path):
    @flow
    def much() -> None:
        for x in range(50):
            kept(x)

    much()
    close_all()
    edit(home, "DELETE FROM task_run")

    report = examine(mend=True)

    assert report.healthy
    assert report.task_runs == 52


def test_a_run_left_open_by_a_dead_process_with_an_unreadable_row(home: Path):
    with closing(sqlite3.connect(home / "prefect_nb.db")) as connection, connection:
        connection.execute("INSERT INTO owner VALUES (zeroblob(16), 'engine', 'elsewhere', 'boot', 1, '/none', 1)")
        connection.execute("UPDATE flow_run SET body = '{', state_type = 'RUNNING', owner_id = zeroblob(16)")

    with pytest.raises(StoreDamaged, match="doctor --mend"):
        history.flow_runs()
    close_all()

    assert examine(mend=True).healthy


def test_a_lost_event_is_no_matter_of_rebuilding(home: Path):
    edit(home, "DELETE FROM event WHERE number = 1")

    report = examine(mend=True)

    assert not report.healthy
    assert "not numbered without gaps" in report.findings[0].problem.what
    assert "backup" in report.findings[0].problem.mend


def truncated(home: Path) -> None:
    data = (home / "prefect_nb.db").read_bytes()
    (home / "prefect_nb.db").write_bytes(data[: len(data) // 2])


def emptied(home: Path) -> None:
    (home / "prefect_nb.db").write_bytes(b"")


def replaced(home: Path) -> None:
    (home / "prefect_nb.db").write_text("something else")


def logs_truncated(home: Path) -> None:
    Home.current().store.logs()
    close_all()
    (home / "logs.db").write_bytes((home / "logs.db").read_bytes()[:5000])


@pytest.mark.parametrize("damage", [truncated, emptied, replaced, logs_truncated])
def test_a_damaged_file_is_named(home: Path, damage):
    damage(home)

    report = examine()

    assert not report.healthy
    (finding,) = wrong(report.findings)
    assert ".db" in finding.problem.what + finding.problem.where
    assert finding.problem.mend


def test_a_backup_is_what_to_put_in_place(home: Path):
    (home / "prefect_nb.db.bak-1").write_bytes(b"")
    (home / "prefect_nb.db.bak-1").chmod(0o600)
    emptied(home)

    (finding,) = wrong(examine().findings)

    assert "prefect_nb.db.bak-1" in finding.problem.mend


def results(home: Path) -> Iterator[Path]:
    return (file for file in home.glob("results/*/*") if file.parent.name != "quarantine")


def test_a_result_that_is_gone(home: Path):
    next(results(home)).unlink()

    (finding,) = wrong(examine().findings)

    assert "missing or damaged" in finding.problem.what
    assert "task run" in finding.problem.where


def test_a_result_that_is_damaged(home: Path):
    file = next(results(home))
    file.write_bytes(file.read_bytes()[:-1] + b"?")

    assert not examine().healthy


def test_leftovers_are_removed_when_old(home: Path):
    folder = next(results(home)).parent
    old, young = folder / ".aa.1.bb.tmp", folder / ".cc.1.dd.tmp"
    for file in (old, young):
        file.touch(0o600)
    age(old)

    assert [finding.problem.where for finding in wrong(examine().findings)] == [str(old)]
    assert examine(mend=True).healthy
    assert (old.exists(), young.exists()) == (False, True)
    assert wrong(examine().findings) == []


def test_leftovers_of_results_under_a_key_are_found_at_any_depth(home: Path):
    folder = home / "results" / "keyed" / "by" / "month"
    folder.mkdir(0o700, parents=True)
    for above in (folder.parent, folder.parent.parent):
        above.chmod(0o700)
    leftover = folder / ".march.1.ee.tmp"
    leftover.touch(0o600)
    age(leftover)

    assert [finding.problem.where for finding in wrong(examine().findings)] == [str(leftover)]
    assert examine(mend=True).healthy
    assert not leftover.exists()


def test_results_elsewhere_are_fetched_only_when_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch):
    work.with_options(name="remote", result_storage="memory://bucket/results", persist_result=True)()
    fetched: list[str] = []
    whole = RemoteResultStore.check
    monkeypatch.setattr(
        RemoteResultStore,
        "check",
        lambda store, reference: (fetched.append(reference.sha256), whole(store, reference))[1],
    )

    report = examine()

    assert wrong(report.findings) == []
    assert fetched == []
    assert (report.results, report.results_elsewhere) == (2, 3)
    report = examine(remote=True)
    assert len(fetched) == 3
    assert (report.results, report.results_elsewhere) == (5, 0)


@pytest.mark.skipif(os.name == "nt", reason="modes of files are POSIX")
def test_files_that_others_can_read(home: Path):
    file = next(results(home))
    file.chmod(0o644)
    file.parent.chmod(0o755)

    found = {f.problem.where: f.problem.mend for f in wrong(examine().findings)}

    assert found == {str(file): f"chmod 600 {file}", str(file.parent): f"chmod 700 {file.parent}"}
    examine(mend=True)
    assert wrong(examine().findings) == []


def test_both_files_damaged_are_both_told(home: Path):
    logs_truncated(home)
    edit(home, "UPDATE flow_run SET state_name = 'Failed'")

    whats = [finding.problem.where for finding in wrong(examine().findings)]

    assert len(whats) == 2
    assert "flow_run" in whats[0]
    assert whats[1].endswith("logs.db")


def test_old_sqlite_is_a_note_where_several_write(home: Path, monkeypatch: pytest.MonkeyPatch):
    def noted() -> list[Finding]:
        return list(_sqlite_version(Home.current()))

    monkeypatch.setattr(sqlite3, "sqlite_version", "3.40.1")
    store = Home.current().store
    store.add_owner(Owner(uuid4(), "host", "boot", 1, "/none", 1))
    assert noted() == []
    store.add_owner(Owner(uuid4(), "host", "boot", 2, "/none", 2))

    (note,) = noted()
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.51.3")

    assert note.harmless
    assert "SQLite 3.40.1" in note.problem.what
    assert noted() == []
