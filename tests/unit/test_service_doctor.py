"""What doctor finds, and what it mends."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from prefect_nb import flow, task
from prefect_nb.home import Home, close_all
from prefect_nb.service.doctor import Finding, examine


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
    "UPDATE task_run SET body = '{'",
    "UPDATE task_run SET name = 'another'",
]


@pytest.mark.parametrize("statement", EDITS)
def test_a_row_edited_by_hand_is_found_and_rebuilt(home: Path, statement: str):
    edit(home, statement)

    found = examine()
    assert not found.healthy
    assert any(("flow_run" in f.problem.where or "task_run" in f.problem.where) for f in wrong(found.findings))
    mended = examine(mend=True)
    assert any(finding.mended for finding in mended.findings)
    assert wrong(examine().findings) == []


def test_a_lost_event_is_no_matter_of_rebuilding(home: Path):
    edit(home, "DELETE FROM event WHERE number = 1")

    report = examine(mend=True)

    assert not report.healthy
    assert "not numbered without gaps" in report.findings[0].problem.what


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


@pytest.mark.skipif(os.name == "nt", reason="modes of files are POSIX")
def test_files_that_others_can_read(home: Path):
    file = next(results(home))
    file.chmod(0o644)
    file.parent.chmod(0o755)

    found = {f.problem.where: f.problem.mend for f in wrong(examine().findings)}

    assert found == {str(file): f"chmod 600 {file}", str(file.parent): f"chmod 700 {file.parent}"}
    examine(mend=True)
    assert wrong(examine().findings) == []


def test_old_sqlite_is_a_note(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    (note,) = examine().findings
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))

    assert note.harmless
    assert "SQLite 3.40.1" in note.problem.what
    assert examine().findings == []
