"""Encryption with a key that lies in the home, in `secret.key`: Fernet (AES-128-CBC with HMAC-SHA256).

The key is made on first use. The history remembers which key that was: where the file is gone or another, nothing is
encrypted with a new one by accident, and what cannot be read any more says so.
"""

import hashlib
import os
import shlex
import stat
import threading
from pathlib import Path

from prefect_nb.exceptions import SecretKeyError
from prefect_nb.interfaces.blocks import BlockStore
from prefect_nb.store.files import create_private, sync_directory

KEY_FILE = "secret.key"


class KeyFileCipher:
    """A `Cipher` over the key file of one home.

    Args:
        home: the directory.
        blocks: where the key's id is remembered.
    """

    def __init__(self, home: Path, blocks: BlockStore) -> None:
        self.path = home / KEY_FILE
        self._blocks = blocks
        self._guard = threading.Lock()

    @property
    def in_use(self) -> bool:
        """Whether there is a key file."""
        return os.path.lexists(self.path)

    def encrypt(self, data: bytes) -> str:
        """The data as a text that only `decrypt` can read. Raises as `interfaces.blocks.Cipher`."""
        from cryptography.fernet import Fernet

        with self._guard:
            key = self._key() or self._make()
        return f"{key_id(key)}:{Fernet(key).encrypt(data).decode()}"

    def decrypt(self, text: str) -> bytes:
        """What was encrypted. Raises as `interfaces.blocks.Cipher`."""
        from cryptography.fernet import Fernet, InvalidToken

        used, _, token = text.partition(":")
        key = self._key()
        if key is None:
            raise self._missing()
        try:
            return Fernet(key).decrypt(token)
        except InvalidToken:
            other = key_id(key) != used
            why = "was encrypted with another key than" if other else "is damaged, though its key is"
            raise SecretKeyError(
                f"A secret {why} the one in {self.path}. Put the key it was saved with back into that file, "
                "or save the secret again."
            ) from None

    def _key(self) -> bytes | None:
        """The key; None if there is no file.

        Raises:
            SecretKeyError: the file is not what a key file has to be.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            if self.path.is_symlink():
                raise SecretKeyError(
                    f"The key file {self.path} is a symbolic link to {os.readlink(self.path)}. "
                    f"Put the file itself there: `cp --remove-destination {_quoted(os.readlink(self.path))} {_quoted(self.path)}`."
                ) from None
            raise SecretKeyError(f"The key file {self.path} cannot be read: {error.strerror}.") from None
        with os.fdopen(descriptor, "rb") as file:
            self._refuse(os.fstat(file.fileno()))
            key = file.read(1000).strip()
        if len(key) != 44:
            raise SecretKeyError(f"{self.path} holds no key. Put the key back from a backup of the file.")
        known = self._blocks.key_id()
        if known is None:
            self._blocks.set_key_id(key_id(key))
        return key

    def _refuse(self, found: os.stat_result) -> None:
        path = _quoted(self.path)
        if not stat.S_ISREG(found.st_mode):
            raise SecretKeyError(f"The key file {self.path} is no ordinary file. Put the key file itself there.")
        if not hasattr(os, "geteuid"):
            return
        if found.st_uid != os.geteuid():
            raise SecretKeyError(
                f"The key file {self.path} belongs to user {found.st_uid}, not to you ({os.geteuid()}). "
                f"If it is your key: `sudo chown {os.geteuid()} {path}`."
            )
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077:
            raise SecretKeyError(
                f"The key file {self.path} has mode {mode:04o}: others can get at it. `chmod 600 {path}` mends it; "
                "if others may have read it, change the secrets, too."
            )

    def _make(self) -> bytes:
        if self._blocks.key_id() is not None:
            raise self._missing()
        from cryptography.fernet import Fernet

        key = Fernet.generate_key()
        temporary = self.path.with_name(f".{KEY_FILE}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        with os.fdopen(create_private(temporary), "wb") as file:
            file.write(key + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link, not a rename: of two processes that make a key at once, the second takes the first one's.
            os.link(temporary, self.path)
        except FileExistsError:
            found = self._key()
            assert found is not None
            return found
        finally:
            temporary.unlink()
        sync_directory(self.path.parent)
        self._blocks.set_key_id(key_id(key))
        return key

    def _missing(self) -> SecretKeyError:
        path = _quoted(self.path)
        return SecretKeyError(
            f"The key file {self.path} is missing, but there are secrets encrypted with it. Put it back from a backup: "
            f"`install -m 600 BACKUP {path}`. To give those secrets up: `prefect-nb block reset-key`."
        )


def key_id(key: bytes) -> str:
    """A short name of a key, which says nothing of it."""
    return hashlib.sha256(b"prefect_nb key" + key).hexdigest()[:12]


def _quoted(path: object) -> str:
    return shlex.quote(str(path))
