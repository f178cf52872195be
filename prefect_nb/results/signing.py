"""The home's secret, with which results kept under a key are signed.

Whoever can write to a storage could put a pickle there under a key that will be asked for. So a result that is found by
its key alone counts only with the signature of a home that holds the same secret. To let two homes use each other's
results, give them the same file.
"""

import hmac
import os
import secrets
import stat
import threading
from pathlib import Path

from prefect_nb.exceptions import StoreUnavailable

_SIZE = 32


class Signer:
    """Signs and verifies with the secret in a file; the file (mode 0600) is made when it is first needed.

    Args:
        path: where the secret is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._secret: bytes | None = None
        self._lock = threading.Lock()

    def sign(self, digest: bytes) -> bytes:
        """The signature (32 bytes) of a hash.

        Raises:
            StoreUnavailable: the secret cannot be read or made, or others can read it; says what to do.
        """
        return hmac.digest(self._key(), digest, "sha256")

    def verify(self, digest: bytes, signature: bytes) -> bool:
        """Whether the signature was made with the same secret. Raises what `sign` raises."""
        return hmac.compare_digest(self.sign(digest), signature)

    def _key(self) -> bytes:
        if self._secret is None:
            with self._lock:
                if self._secret is None:
                    self._secret = self._read() or self._make()
        return self._secret

    def _read(self) -> bytes | None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"The secret that signs results, {self.path}, cannot be read: {error}.") from error
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise StoreUnavailable(
                    f"The secret that signs results, {self.path}, is another user's or can be read by others. "
                    f"Run: chown $(id -u) {self.path} && chmod 600 {self.path}"
                )
            secret = file.read(_SIZE + 1)
        if len(secret) != _SIZE:
            raise StoreUnavailable(
                f"The secret that signs results, {self.path}, is damaged. Remove it: a new one is made, and results "
                "kept under keys so far are computed again."
            )
        return secret

    def _make(self) -> bytes:
        secret = secrets.token_bytes(_SIZE)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secret)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(temporary, self.path)  # unlike a rename it fails where another process was first
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:
            return self._read() or self._make()
        except OSError as error:
            raise StoreUnavailable(f"The secret that signs results, {self.path}, cannot be made: {error}.") from error
        return secret
