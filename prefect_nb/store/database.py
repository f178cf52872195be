"""One SQLite file: how it is made, opened, checked, written and read. Nothing here knows what is in it.

Laws:
1. A file under its final name is complete: it is built under another name and renamed. So an empty file, or a missing
   one beside a write-ahead log, is damage and never the beginning of a new history.
2. Everything is written in `BEGIN IMMEDIATE` under the writer lock; only its holder checkpoints.
3. Reads have connections of their own, and never wait for a writer.
4. A forked child uses nothing its parent opened: SQLite's bookkeeping of file locks does not survive a fork. So the
   parent closes its connections before it forks, and both open their own when they next need one.
"""

import logging
import os
import sqlite3
import stat
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from prefect_nb.exceptions import PrefectException, StorageFull, StoreDamaged, StoreUnavailable
from prefect_nb.store.crash_points import crash_point
from prefect_nb.store.files import create_private, network_file_system, refuse_foreign, sync_directory, unavailable
from prefect_nb.store.schema import Schema, migrate
from prefect_nb.store.writer_lock import WriterLock

logger = logging.getLogger("prefect_nb.store")

CHECKPOINT_BYTES = 4 * 1024 * 1024
_ALWAYS_CHECKED_BYTES = 1024 * 1024
_CHECKED_AFTER_CRASH_BYTES = 64 * 1024 * 1024
_IDLE_READERS = 8
_FORK_SECONDS = 2.0

_FULL = {sqlite3.SQLITE_FULL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_CALLERS_FAULT = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.NotSupportedError)

_open_databases: "weakref.WeakSet[Database]" = weakref.WeakSet()
_inherited_paths: set[str] = set()
_inherited_connections: list[sqlite3.Connection] = []


class Database:
    """An open SQLite file.

    Args:
        path: the file, in a directory that is there.
        schema: its tables.
        synchronous: "FULL" survives a power cut, "NORMAL" may lose the last transactions to one.

    Raises:
        StoreDamaged: it is damaged, is something else, or was written by a newer version.
        StoreUnavailable: it cannot be opened or written.
        StorageFull: no room to make it.
    """

    def __init__(self, path: Path, schema: Schema, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self.path = path
        self._schema = schema
        self._synchronous = synchronous
        self._wal = Path(f"{path}-wal")
        self._lock = WriterLock.share(path.with_name(f"{path.name}.lock"))
        self._readers: deque[sqlite3.Connection] = deque()
        self._reading = 0
        self._readers_guard = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._closed = False
        self._inherited = False
        self._checkpoint_at = CHECKPOINT_BYTES
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        _open_databases.add(self)

    # -- opening

    def _open(self) -> None:
        if os.path.realpath(self.path) in _inherited_paths:
            raise self._forked()
        network = network_file_system(self.path.parent)
        if network:
            logger.warning(
                "%s is on a network file system (%s): slower, and unsafe with several machines at once. "
                "Set PREFECT_NB_HOME to a local disk.",
                self.path.parent,
                network,
            )
        self._journal = "DELETE" if network else "WAL"
        if not os.path.lexists(self.path):
            with self._lock:
                if not os.path.lexists(self.path):
                    self._create()
        unclean = self._inspect()
        with self._translated():
            # Looked at through a connection that cannot write: closing it leaves a damaged file and its log as they are.
            reader = self._connect(self._read_mode())
            try:
                version = self._verify(reader, unclean)
            except BaseException:
                reader.close()
                raise
            self._readers.append(reader)
            self._writer = connection = self._connect_writer()
            if version < self._schema.version:
                with self._lock:
                    migrate(connection, self._schema)
            mode = connection.execute(f"PRAGMA journal_mode = {self._journal}").fetchone()[0]
            if mode != self._journal.lower():
                logger.warning("%s: this file system cannot hold a write-ahead log; using a slower journal.", self.path)
                self._journal = str(mode).upper()
        self._inode = os.stat(self.path).st_ino

    def _create(self) -> None:
        """Build the file beside its place and move it there. The caller holds the writer lock."""
        self._refuse_leftovers()
        for remnant in self.path.parent.glob(f".{self.path.name}.*.new*"):
            remnant.unlink(missing_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.new")
        try:
            os.close(create_private(unfinished))
            with self._translated():
                connection = _configured(sqlite3.connect(unfinished, isolation_level=None))
                try:
                    migrate(connection, self._schema)
                    connection.execute(f"PRAGMA journal_mode = {self._journal}")
                finally:
                    connection.close()
            descriptor = os.open(unfinished, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(unfinished, self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            raise unavailable(self.path, error) from error
        finally:
            unfinished.unlink(missing_ok=True)

    def _inspect(self) -> bool:
        """Look at the file from outside; whether the last one who had it open may have died."""
        try:
            found = os.lstat(self.path)
        except OSError as error:
            raise unavailable(self.path, error) from error
        if stat.S_ISLNK(found.st_mode):
            raise StoreUnavailable(f"{self.path} is a symbolic link. Put the file itself there.")
        if not stat.S_ISREG(found.st_mode):
            raise self._damaged("it is not a file")
        refuse_foreign(self.path, found)
        if found.st_size == 0:
            raise self._damaged("it is empty, so its history is gone")
        if os.name != "nt" and stat.S_IMODE(found.st_mode) & 0o077:
            os.chmod(self.path, 0o600)
        return _size(self._wal) > 0

    def _refuse_leftovers(self) -> None:
        if _size(self._wal) > 0:
            raise self._damaged(f"it is missing, but {self._wal.name} beside it holds a part of it")
        backups = self.path.parent / "backups"
        backup = next(backups.glob(f"{self.path.stem}*"), None) or next(
            self.path.parent.glob(f"{self.path.name}.bak*"), None
        )
        if backup is not None:
            raise self._damaged(f"it is missing, but there is a backup of it, {backup}")

    def _verify(self, connection: sqlite3.Connection, unclean: bool) -> int:
        """Look at the file from inside; its schema's version."""
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        if application_id != self._schema.application_id:
            raise self._damaged("it was not made by prefect_nb")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > self._schema.version:
            raise self._damaged(
                f"it was written by a newer prefect_nb (schema {version}, this one knows {self._schema.version}); "
                "upgrade prefect_nb"
            )
        limit = _CHECKED_AFTER_CRASH_BYTES if unclean else _ALWAYS_CHECKED_BYTES
        if _size(self.path) <= limit:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise self._damaged(verdict)
        return int(version)

    def _read_mode(self) -> Literal["ro", "rw"]:
        # A rollback journal left by a crash has to be rolled back by whoever reads first.
        return "ro" if self._journal == "WAL" and not Path(f"{self.path}-journal").exists() else "rw"

    def _connect_writer(self) -> sqlite3.Connection:
        connection = self._connect("rw")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def _connect(self, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
        return _configured(
            sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        )

    # -- using

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write: everything in the block is committed together when it ends, or nothing when it raises.

        Raises:
            StorageFull, StoreUnavailable, StoreDamaged: nothing was written.
        """
        self._usable()
        with self._lock:
            if self._closed:
                raise self._gone()
            with self._translated():
                self._still_there()
                connection = self._writer
                if connection is None:
                    connection = self._writer = self._connect_writer()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    crash_point("before_commit")
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            crash_point("after_commit")
            self._checkpoint_when_due(connection)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with. Keep it for one short query, or one page of a long one.

        Raises:
            StoreUnavailable, StoreDamaged: it cannot be read.
        """
        self._usable()
        with self._readers_guard:
            self._reading += 1
        try:
            with self._translated():
                try:
                    connection = self._readers.pop()
                except IndexError:
                    connection = self._connect(self._read_mode())
                try:
                    yield connection
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    if self._closed or len(self._readers) >= _IDLE_READERS:
                        connection.close()
                    else:
                        self._readers.append(connection)
        finally:
            with self._readers_guard:
                self._reading -= 1

    def problems(self) -> list[str]:
        """What SQLite's own integrity check finds."""
        try:
            with self.reading() as connection:
                found = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
        except StoreDamaged as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close the connections; idempotent."""
        if self._closed:
            return
        self._closed = True
        _open_databases.discard(self)
        if self._inherited:
            return
        while self._readers:
            self._readers.pop().close()
        if self._writer is not None:
            try:
                with self._lock:
                    writer, self._writer = self._writer, None
                    if _size(self._wal) > 0:
                        self._checkpoint(writer)
                    writer.close()
            except (PrefectException, sqlite3.Error) as error:
                logger.warning("%s could not be closed in good order: %s", self.path, error)
        self._lock.close()

    # -- forks

    def rest(self, seconds: float) -> bool:
        """Close every connection and open none until `go_on`. False if one is in use for longer than `seconds`."""
        deadline = time.monotonic() + seconds
        if self._lock not in _paused:
            if not self._lock.pause(seconds):
                return False
            _paused.append(self._lock)
        self._readers_guard.acquire()
        while self._reading:
            self._readers_guard.release()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
            self._readers_guard.acquire()
        while self._readers:
            self._readers.pop().close()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        return True

    def go_on(self) -> None:
        """Work again; connections are opened when they are needed."""
        self._readers_guard.release()

    # -- the write-ahead log

    def _checkpoint_when_due(self, connection: sqlite3.Connection) -> None:
        if self._journal != "WAL" or _size(self._wal) < self._checkpoint_at:
            return
        crash_point("before_checkpoint")
        try:
            self._checkpoint(connection)
        except sqlite3.Error as error:
            # What was committed is committed; the log grows until a later checkpoint succeeds.
            logger.warning("%s: the write-ahead log could not be emptied yet: %s", self.path, error)
        # A reader in mid-query keeps the log from being emptied: try again when it has grown as much again.
        self._checkpoint_at = _size(self._wal) + CHECKPOINT_BYTES

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.execute("PRAGMA busy_timeout = 30000")

    # -- what can go wrong

    def _usable(self) -> None:
        if self._inherited:
            raise self._forked()
        if self._closed:
            raise StoreUnavailable(f"{self.path} has been closed.")

    def _still_there(self) -> None:
        try:
            here = os.stat(self.path).st_ino == self._inode
        except OSError:
            here = False
        if not here:
            raise self._gone()

    def _gone(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.path} was removed, replaced or closed while it was in use; nothing was written."
        )

    def _forked(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.path} was open when this process was forked, and SQLite cannot be used across a fork. "
            "Start child processes with the 'spawn' method."
        )

    def _damaged(self, what: str) -> StoreDamaged:
        return StoreDamaged(f"{self.path} cannot be used: {what}. Nothing was changed. Run `prefect-nb doctor`.")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as ours, except those that are a mistake of the caller's."""
        try:
            yield
        except _CALLERS_FAULT:
            raise
        except sqlite3.Error as error:
            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
            if code in _FULL or (code == sqlite3.SQLITE_IOERR and _room(self.path.parent) < 1024 * 1024):
                raise StorageFull(f"No room left for {self.path}. Free some space; nothing was written.") from error
            # Of text that is no UTF-8, only the message tells.
            if code in _DAMAGED or str(error).startswith("Could not decode to UTF-8"):
                raise self._damaged(str(error)) from error
            raise StoreUnavailable(f"{self.path} cannot be used: {error}.") from error


def _configured(connection: sqlite3.Connection) -> sqlite3.Connection:
    for pragma in ("busy_timeout = 30000", "foreign_keys = ON", "trusted_schema = OFF", "cell_size_check = ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("PRAGMA mmap_size = 0")
    return connection


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _room(directory: Path) -> int:
    import shutil

    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return CHECKPOINT_BYTES


_resting: list[Database] = []
_paused: list[WriterLock] = []


def _rest_before_fork() -> None:
    _resting.extend(database for database in list(_open_databases) if database.rest(_FORK_SECONDS))


def _go_on_in_parent() -> None:
    while _resting:
        _resting.pop().go_on()
    while _paused:
        _paused.pop().go_on()


def _forget_in_child() -> None:
    for database in list(_open_databases):
        database._inherited = True
        if database in _resting:
            continue
        # It was in use for too long to be closed in time.
        _inherited_paths.add(os.path.realpath(database.path))
        # Kept from the garbage collector, which would close them.
        _inherited_connections.extend(database._readers)
        if database._writer is not None:
            _inherited_connections.append(database._writer)
    _resting.clear()
    _paused.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_rest_before_fork, after_in_parent=_go_on_in_parent, after_in_child=_forget_in_child)
