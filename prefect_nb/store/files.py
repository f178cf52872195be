"""The home directory and the files in it: made for their owner alone, and refused where they are not what they seem."""

import errno
import os
import stat
from pathlib import Path

from prefect_nb.exceptions import StorageFull, StoreUnavailable

_NETWORK_TYPES = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "beegfs",
        "gpfs",
    }
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.juicefs", "pvfs2"}
)


_FOLDERS = ("backups", "locks", "owners", "results")


def prepare_home(home: Path) -> None:
    """Make the home directory, or see that it is a directory of this user's; its mode becomes 0700.

    Raises:
        StoreUnavailable: it cannot be made or written, is no directory, is a symbolic link, or belongs to somebody
            else, or a folder in it does.
        StorageFull: no room to make it.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(home)
        if stat.S_ISLNK(found.st_mode):
            raise StoreUnavailable(
                f"The home directory {home} is a symbolic link to {os.readlink(home)}. "
                "Set PREFECT_NB_HOME to the directory itself."
            )
        refuse_foreign(home, found)
        if hasattr(os, "geteuid") and stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(home, 0o700)
    except (FileExistsError, NotADirectoryError):
        raise StoreUnavailable(
            f"The home directory {home} cannot be made: there is a file in its place. Move it, or set PREFECT_NB_HOME."
        ) from None
    except OSError as error:
        raise unavailable(home, error) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise StoreUnavailable(
            f"The home directory {home} is read-only. Make it writable, or set PREFECT_NB_HOME to another directory."
        )
    for name in _FOLDERS:
        _refuse_strange_folder(home / name)


def _refuse_strange_folder(path: Path) -> None:
    """What lies in one of the home's folders is trusted, and written: it must be there itself, and this user's."""
    try:
        found = os.lstat(path)
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise StoreUnavailable(f"{path} is a symbolic link to {os.readlink(path)}. Put the folder itself there.")
    refuse_foreign(path, found)


def refuse_foreign(path: Path, found: os.stat_result) -> None:
    """Refuse what belongs to another user.

    Raises:
        StoreUnavailable: naming the file and both users.
    """
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise StoreUnavailable(
            f"{path} belongs to user {found.st_uid}, not to you ({os.geteuid()}). Set PREFECT_NB_HOME to a directory of yours."
        )


def unavailable(path: Path, error: OSError) -> StorageFull | StoreUnavailable:
    """The exception that an operating-system error on a file of the history means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"No room left for {path}. Free some space; nothing was written.")
    return StoreUnavailable(f"{path} cannot be used: {error.strerror or error}.")


def create_private(path: Path) -> int:
    """Open a new file for reading and writing with mode 0600, whatever the umask; never through a symbolic link.

    Raises:
        OSError: it exists, or cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    _make_private(descriptor)
    return descriptor


def open_private(path: Path) -> int:
    """Open a file, made with mode 0600 where it is missing; never through a symbolic link.

    Raises:
        OSError: it cannot be opened or is a symbolic link.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    if hasattr(os, "geteuid") and stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
        _make_private(descriptor)
    return descriptor


def _make_private(descriptor: int) -> None:
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, 0o600)


def sync_directory(path: Path) -> None:
    """Make the directory's entries durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system that holds the path; None for a local one, or where it cannot be told.

    Args:
        path: an existing file or directory.
        mounts: the text of `/proc/mounts`; read from there when not given.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(errors="replace")
        except OSError:
            return None
    where = os.path.realpath(path)
    best, best_type = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        # A later line of the same length was mounted over the earlier one.
        if inside and len(point) >= len(best):
            best, best_type = point, fields[2]
    return best_type if best_type in _NETWORK_TYPES else None
