"""Is everything in the home directory as it should be? What is wrong, where, and how to mend it."""

import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from prefect_nb.bodies import parking
from prefect_nb.exceptions import PrefectException, StoreDamaged
from prefect_nb.home import Home
from prefect_nb.interfaces import Problem, RunQuery
from prefect_nb.model.runs import FlowRun, ResultReference, Run
from prefect_nb.service.text import one_line
from prefect_nb.settings import get_settings

_STALE_SECONDS = 3600
_PAGE = 500
_LISTED = 20
_SAFE_SQLITE = (3, 51, 3)
_WAL_RESET = "www.sqlite.org/wal.html#walresetbug"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Finding(msgspec.Struct, frozen=True):
    """A problem, and whether it is one still."""

    problem: Problem
    mended: bool = False
    harmless: bool = False
    """Worth knowing, but nothing is wrong yet."""


class Report(msgspec.Struct, kw_only=True):
    """What was looked at and what was found."""

    home: Path
    findings: list[Finding] = []
    flow_runs: int = 0
    task_runs: int = 0
    results: int = 0
    results_elsewhere: int = 0
    """Kept in storages that only the network reaches, and not looked at."""

    @property
    def healthy(self) -> bool:
        """Whether nothing is left to do."""
        return all(finding.mended or finding.harmless for finding in self.findings)


def examine(mend: bool = False, remote: bool = False) -> Report:
    """Look at everything in the home directory. A damaged history is a finding, not an error.

    Runs left open by dead processes are settled in any case, as by every other command.

    Args:
        mend: do what is safe: remove what interrupted writes left, make files private, rebuild rows from their events.
        remote: fetch results from other storages, too, to see whether they are whole.
    """
    path = get_settings().home
    report = Report(home=path)
    if not path.exists():
        return report
    report.findings += _permissions(path, mend)
    report.findings += _leftovers(path, mend)
    report.findings += _stray_kernels(path)
    try:
        home = Home.current()
        # First of all: whatever else is looked at reads the rows.
        report.findings += _history(home, mend)
    except PrefectException as error:
        report.findings.append(_unusable(path, error))
        return report
    try:
        report.findings += _dead_owners(home)
        report.findings += _sqlite_version(home)
        _results(home, report, remote)
    except PrefectException as error:
        report.findings.append(Finding(Problem(f"the rest was not checked: {error}", str(path), "Mend that first.")))
    return report


def _unusable(path: Path, error: PrefectException) -> Finding:
    advice = "See the message."
    if isinstance(error, StoreDamaged):
        backups = sorted(path.glob("backups/*")) + sorted(path.glob("*.bak*"))
        advice = (
            f"Put the newest backup in its place: {backups[-1]}."
            if backups
            else f"Stop what uses it and move the whole folder away (mv {path} {path}.damaged): a new history begins, "
            "and the old one is kept for whoever may read it."
        )
    return Finding(Problem(str(error), str(path), advice))


def _permissions(path: Path, mend: bool) -> Iterator[Finding]:
    if os.name == "nt":
        return
    for file in [path, *_everything_in(path)]:
        found = file.lstat()
        if stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o077:
            continue
        wanted = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
        problem = Problem(
            f"others than you may use it (mode {stat.S_IMODE(found.st_mode):04o})",
            str(file),
            f"chmod {wanted:o} {file}",
        )
        if mend:
            file.chmod(wanted)
        yield Finding(problem, mended=mend)


def _everything_in(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        yield from (Path(folder, name) for name in (*folders, *files))


def _leftovers(path: Path, mend: bool) -> Iterator[Finding]:
    """Files that an interrupted write left. Young ones may be in use."""
    unfinished = [*path.glob("results/**/.*.tmp"), *path.glob(".*.new*")]
    for file in unfinished:
        if not _is_stale(file):
            continue
        problem = Problem("an interrupted write left it", str(file), "`prefect-nb doctor --mend` removes it.")
        if mend:
            file.unlink(missing_ok=True)
        yield Finding(problem, mended=mend)


def _is_stale(file: Path) -> bool:
    try:
        return time.time() - file.lstat().st_mtime > _STALE_SECONDS
    except OSError:
        return False


def _stray_kernels(path: Path) -> Iterator[Finding]:
    """Kept kernels that nobody sees to. They are ended; what is left of others is removed on the way."""
    for parked in parking.parked_kernels(path):
        if parking.is_stray(parked):
            parking.end(path, parked)
            problem = f"the kernel kept for {one_line(parked.run_name)} was stuck, and nobody saw to it (process {parked.kernel_pid})"
            yield Finding(Problem(problem, str(path), "Nothing: it was ended."), mended=True)


def _dead_owners(home: Home) -> Iterator[Finding]:
    before = home.store.owners()
    changed = home.reap()
    left = {owner.id for owner in home.store.owners()}
    dead = [owner for owner in before if owner.id not in left]
    for owner in dead:
        theirs = [run for run in changed if isinstance(run, FlowRun) and run.owner_id == owner.id]
        names = (
            ", ".join(f"{one_line(run.name)} is {run.state_name} now" for run in theirs) or "it had no open flow run"
        )
        yield Finding(
            Problem(f"process {owner.pid} ended without leaving in good order: {names}", str(home.path), "Nothing."),
            mended=True,
        )


def _history(home: Home, mend: bool) -> Iterator[Finding]:
    problems = home.store.check()
    while mend and sum(_rebuild(home, problem) for problem in problems):
        left = home.store.check()
        mended = [problem for problem in problems if problem not in left]
        yield from (Finding(problem, mended=True) for problem in mended)
        problems = left
        mend = bool(mended)  # once more: of many lost rows, `check` names some
    yield from map(Finding, problems)


def _rebuild(home: Home, problem: Problem) -> bool:
    """Write the row that the events say; whether there was one to write."""
    named = _UUID.search(problem.where)
    return named is not None and home.store.rebuild(UUID(named[0]))


def _results(home: Home, report: Report, remote: bool) -> None:
    """Whether every kept result is there and whole."""
    checked: dict[_Place, bool | None] = {}
    lost: list[Run] = []
    for run in _all(home.store.flow_runs):
        report.flow_runs += 1
        _check_result(home, run, checked, lost, remote)
    for run in _all(home.store.task_runs):
        report.task_runs += 1
        _check_result(home, run, checked, lost, remote)
    report.results_elsewhere = sum(is_whole is None for is_whole in checked.values())
    report.results = len(checked) - report.results_elsewhere
    for run in lost[:_LISTED]:
        kind = "flow run" if isinstance(run, FlowRun) else "task run"
        problem = Problem(
            "its kept result is missing or damaged",
            f"{kind} {run.id} ({one_line(run.name)}) in {home.path / 'results'}",
            "Run it again: a cached task whose result is gone is computed anew.",
        )
        report.findings.append(Finding(problem))
    if len(lost) > _LISTED:
        more = f"{len(lost) - _LISTED} more kept results are missing or damaged"
        report.findings.append(Finding(Problem(more, str(home.path / "results"), "As above.")))


_Place = tuple[str | None, str | None, str]


def _check_result(home: Home, run: Run, checked: dict[_Place, bool | None], lost: list[Run], remote: bool) -> None:
    reference: ResultReference | None = run.result
    if reference is None:
        return
    place = (reference.storage, reference.key, reference.sha256)
    if place not in checked:
        is_near = reference.storage is None or Path(reference.storage).is_absolute()
        checked[place] = home.results.check(reference) if is_near or remote else None
    if checked[place] is False:
        lost.append(run)


def _all(read: Any) -> Iterator[Run]:
    """Every run there is, page by page."""
    before: UUID | None = None
    while page := read(RunQuery(before=before, limit=_PAGE)):
        yield from page
        before = page[-1].id


def _sqlite_version(home: Home) -> Iterator[Finding]:
    about = home.store.describe()
    version = about.get("version", "")
    if about["store"] != "SQLite" or tuple(map(int, version.split("."))) >= _SAFE_SQLITE:
        return
    if len(home.store.owners()) > 1:
        yield Finding(
            Problem(
                f"SQLite {version} can, very rarely, damage a history that two or more processes write at once",
                f"the sqlite3 of {sys.executable}",
                f"Use a Python with SQLite 3.51.3 or newer when you can ({_WAL_RESET}).",
            ),
            harmless=True,
        )
